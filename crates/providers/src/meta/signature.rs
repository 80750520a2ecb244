//! The signature of a webhook: HMAC-SHA256 of the raw body under the app's secret.
//!
//! Verification sees the bytes exactly as they arrived: parsed and written again they would carry another signature,
//! because Meta signs the escaped form it sends. The legacy SHA-1 header is not read. A signature covers neither time nor
//! address, so it does not stop a replay; repeated updates are recognised by their ids.

use ring::hmac;

/// The header that carries the signature, in lower case.
pub const HEADER: &str = "x-hub-signature-256";

const PREFIX: &[u8] = b"sha256=";

/// The header has not the shape `sha256=` and 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature must be \"sha256=\" and 64 hex digits")]
pub struct Malformed;

/// Reads the header's value: the lower-case prefix and 64 hex digits of either case, 71 bytes in all.
///
/// Anything else is [`Malformed`], also the bare digits without prefix and surrounding white space.
pub fn parse(header: &[u8]) -> Result<[u8; 32], Malformed> {
    let digits = header.strip_prefix(PREFIX).ok_or(Malformed)?;
    let mut tag = [0; 32];
    hex::decode_to_slice(digits, &mut tag).map_err(|_| Malformed)?;
    Ok(tag)
}

/// The first of the keys that signed the body, if one did.
///
/// Each comparison takes the same time whatever the tag. Keys are tried in the order given, so put the likely one
/// first; the number of keys tried is not a secret.
pub fn signed_by<'a, T>(tag: &[u8; 32], body: &[u8], keys: impl IntoIterator<Item = (T, &'a hmac::Key)>) -> Option<T> {
    keys.into_iter().find_map(|(app, key)| hmac::verify(key, body, tag).is_ok().then_some(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
    }

    /// Secret, body, header.
    const VECTORS: [(&str, &str, &str); 5] = [
        (
            "test_app_secret",
            r#"{"object":"whatsapp_business_account","entry":[]}"#,
            "sha256=dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756",
        ),
        (
            "test_app_secret",
            r#"{"object": "whatsapp_business_account", "entry": []}"#,
            "sha256=56cbbaf4961c6cfdae48b7f116c047e5eb513d2c931baae63a2bc1afd26f803a",
        ),
        (
            "otro_secreto",
            r#"{"object":"whatsapp_business_account","entry":[]}"#,
            "sha256=769b03d8c2ae6498f2d1e1f7299c0ba55448c69d741e7b0bb243d852d8a8d8c7",
        ),
        (
            "test_app_secret",
            r#"{"t":"\u00e4\u00f6 \ud83d\ude00 a\/b"}"#,
            "sha256=e33fd4ee64772de9a467f8316e5eb38cb316225964e9836c12e7055024fc94e6",
        ),
        (
            "test_app_secret",
            r#"{"t":"äö 😀 a/b"}"#,
            "sha256=c87c89466f7c5bb30782c76ea76cac8d9a1226dec463fe6d6cdff45671013c24",
        ),
    ];

    #[test]
    fn the_published_vectors_verify() {
        for (secret, body, header) in VECTORS {
            let tag = parse(header.as_bytes()).unwrap();
            assert_eq!(signed_by(&tag, body.as_bytes(), [((), &key(secret))]), Some(()), "{body}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_own_bytes_only() {
        for (secret, signed, header) in VECTORS {
            let tag = parse(header.as_bytes()).unwrap();
            for (_, body, _) in VECTORS {
                let verified = signed_by(&tag, body.as_bytes(), [((), &key(secret))]).is_some();
                assert_eq!(verified, body == signed, "{signed} {body}");
            }
        }
    }

    #[test]
    fn tells_which_key_signed() {
        let (secret, body, header) = VECTORS[2];
        let tag = parse(header.as_bytes()).unwrap();
        let (old, new) = (key("test_app_secret"), key(secret));
        assert_eq!(signed_by(&tag, body.as_bytes(), [("old", &old), ("new", &new)]), Some("new"));
        assert_eq!(signed_by(&tag, body.as_bytes(), [("old", &old)]), None);
        assert_eq!(signed_by::<()>(&tag, body.as_bytes(), []), None);
    }

    #[test]
    fn refuses_headers_of_another_shape() {
        let digits = "ab".repeat(32);
        assert_eq!(parse(format!("sha256={digits}").as_bytes()), Ok([0xab; 32]));
        assert_eq!(parse(format!("sha256={}", digits.to_uppercase()).as_bytes()), Ok([0xab; 32]));
        for bad in [
            String::new(),
            digits.clone(),
            "sha256=".into(),
            format!("SHA256={digits}"),
            format!("sha1={digits}"),
            format!(" sha256={digits}"),
            format!("sha256= {digits}"),
            format!("sha256={digits} "),
            format!("sha256={digits}ab"),
            format!("sha256={}", &digits[1..]),
            format!("sha256={}zz", &digits[2..]),
            format!("sha256={}é", &digits[2..]),
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }
}
