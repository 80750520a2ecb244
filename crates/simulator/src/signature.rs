//! Meta's signature: HMAC-SHA256 of the raw body under the app secret, as `X-Hub-Signature-256` carries
//! it; and those of other senders. It only makes signatures. It does not check them, and the legacy SHA-1
//! header is not sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The header's prefix before the 64 hex digits.
const PREFIX: &str = "sha256=";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The value of `X-Hub-Signature-256` for `body`: `sha256=` and 64 lower-case hex digits, 71 bytes.
pub fn sign(app_secret: &str, body: &[u8]) -> String {
    Signer::new(app_secret).sign(body)
}

/// The value of `X-Signature` of a generic sender: the hex HMAC-SHA256 of the body.
pub fn sign_generic(secret: &str, body: &[u8]) -> String {
    sign(secret, body).split_off(PREFIX.len())
}

/// The value of `X-Twilio-Signature` of a form: base64 of an HMAC-SHA1 over the address and, sorted by name, each
/// name with its value.
pub fn sign_twilio(auth_token: &str, url: &str, parameters: &[(&str, &str)]) -> String {
    let mut sorted = parameters.to_vec();
    sorted.sort_unstable();
    let mut context =
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth_token.as_bytes()));
    context.update(url.as_bytes());
    for (name, value) in sorted {
        context.update(name.as_bytes());
        context.update(value.as_bytes());
    }
    STANDARD.encode(context.sign())
}

/// A secret whose key schedule is computed once for many bodies.
pub(crate) struct Signer(hmac::Key);

impl Signer {
    pub(crate) fn new(app_secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, app_secret.as_bytes()))
    }

    pub(crate) fn sign(&self, body: &[u8]) -> String {
        let tag = hmac::sign(&self.0, body);
        let mut value = String::with_capacity(PREFIX.len() + 64);
        value.push_str(PREFIX);
        for byte in tag.as_ref() {
            value.push(char::from(DIGITS[usize::from(byte >> 4)]));
            value.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::{sign, sign_generic, sign_twilio};

    #[test]
    fn other_senders_sign_as_their_vectors_say() {
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let parameters = [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ];
        assert_eq!(sign_twilio("12345", url, &parameters), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        let body = br#"{"object":"whatsapp_business_account","entry":[]}"#;
        assert_eq!(
            sign_generic("test_app_secret", body),
            "dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"
        );
    }

    #[test]
    fn agrees_with_the_published_vectors() {
        let vectors: [(&str, &[u8], &str); 5] = [
            (
                "test_app_secret",
                br#"{"object":"whatsapp_business_account","entry":[]}"#,
                "sha256=dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756",
            ),
            (
                "test_app_secret",
                br#"{"object": "whatsapp_business_account", "entry": []}"#,
                "sha256=56cbbaf4961c6cfdae48b7f116c047e5eb513d2c931baae63a2bc1afd26f803a",
            ),
            (
                "otro_secreto",
                br#"{"object":"whatsapp_business_account","entry":[]}"#,
                "sha256=769b03d8c2ae6498f2d1e1f7299c0ba55448c69d741e7b0bb243d852d8a8d8c7",
            ),
            (
                "test_app_secret",
                br#"{"t":"\u00e4\u00f6 \ud83d\ude00 a\/b"}"#,
                "sha256=e33fd4ee64772de9a467f8316e5eb38cb316225964e9836c12e7055024fc94e6",
            ),
            (
                "test_app_secret",
                r#"{"t":"äö 😀 a/b"}"#.as_bytes(),
                "sha256=c87c89466f7c5bb30782c76ea76cac8d9a1226dec463fe6d6cdff45671013c24",
            ),
        ];
        for (secret, body, expected) in vectors {
            assert_eq!(sign(secret, body), expected);
        }
    }
}
