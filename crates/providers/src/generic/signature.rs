//! The signature of a generic webhook: the hex HMAC-SHA256 of the raw body under the shared secret.
//!
//! The body is signed exactly as it is sent. A signature covers neither time nor address, so it does not stop a replay;
//! repeated messages are recognised by their ids.

use ring::hmac;

/// The header that carries the signature, in lower case.
pub const HEADER: &str = "x-signature";

/// The header has not the shape of 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature must be 64 hex digits")]
pub struct Malformed;

/// Reads the header's value: 64 hex digits of either case and nothing else, also no prefix and no white space.
pub fn parse(header: &[u8]) -> Result<[u8; 32], Malformed> {
    let mut tag = [0; 32];
    hex::decode_to_slice(header, &mut tag).map_err(|_| Malformed)?;
    Ok(tag)
}

/// The first of the keys (HMAC-SHA256) that signed the body, if one did.
///
/// Each comparison takes the same time whatever the tag. Keys are tried in the order given, so put the likely one
/// first; the number of keys tried is not a secret.
pub fn signed_by<'a, T>(tag: &[u8; 32], body: &[u8], keys: impl IntoIterator<Item = (T, &'a hmac::Key)>) -> Option<T> {
    keys.into_iter().find_map(|(app, key)| hmac::verify(key, body, tag).is_ok().then_some(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell's `openssl dgst -sha256 -hmac your-webhook-secret` makes of it.
    const BODY: &str =
        r#"{"message_id":"m1","from":"+919876543210","to":"+14155550100","ts":"2025-01-15T10:00:00Z","text":"Hello"}"#;
    const SIGNATURE: &str = "ab075f607e066b73b2ee75bf21e13dd8f14586b96fc43fc7c46b9eb63300fc0a";

    fn key(secret: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
    }

    #[test]
    fn the_known_vector_verifies_in_either_case() {
        for header in [SIGNATURE.to_owned(), SIGNATURE.to_uppercase()] {
            let tag = parse(header.as_bytes()).unwrap();
            assert_eq!(signed_by(&tag, BODY.as_bytes(), [((), &key("your-webhook-secret"))]), Some(()));
        }
    }

    #[test]
    fn tells_which_key_signed_and_holds_for_its_own_bytes_only() {
        let tag = parse(SIGNATURE.as_bytes()).unwrap();
        let (old, new) = (key("another-secret"), key("your-webhook-secret"));
        assert_eq!(signed_by(&tag, BODY.as_bytes(), [("old", &old), ("new", &new)]), Some("new"));
        assert_eq!(signed_by(&tag, BODY.as_bytes(), [("old", &old)]), None);
        assert_eq!(signed_by(&tag, BODY.replace(':', ": ").as_bytes(), [("new", &new)]), None);
        assert_eq!(signed_by::<()>(&tag, BODY.as_bytes(), []), None);
    }

    #[test]
    fn refuses_headers_of_another_shape() {
        for bad in [
            String::new(),
            format!("sha256={SIGNATURE}"),
            format!(" {SIGNATURE}"),
            format!("{SIGNATURE} "),
            format!("{SIGNATURE}00"),
            SIGNATURE[2..].to_owned(),
            format!("{}zz", &SIGNATURE[2..]),
            format!("{}é", &SIGNATURE[2..]),
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }
}
