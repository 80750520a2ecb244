//! The handshake by which Meta verifies a callback address: a GET that asks for its challenge to be repeated.
//!
//! This reads the query string and nothing else. Whether the token is the right one is decided where the secrets are
//! (in constant time); the challenge is text of a stranger and must be answered as `text/plain`, unchanged.

use std::fmt;

/// The longest challenge that is repeated, in bytes. Meta's have about ten digits.
const MAX_CHALLENGE: usize = 4096;

/// A complete verification request.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The token the sender knows (`hub.verify_token`), never empty. A secret: compare it in constant time.
    pub verify_token: String,
    /// What must be answered, exactly (`hub.challenge`), 1 to 4096 bytes. Opaque.
    pub challenge: String,
}

/// Shows no token.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").field("verify_token", &"REDACTED").field("challenge", &self.challenge).finish()
    }
}

/// Reads the raw query string (without `?`) of a verification request.
///
/// `hub.mode` (which must be `subscribe`), `hub.verify_token` and `hub.challenge` must each be there exactly once, be
/// percent-encoded UTF-8 and not be empty; `+` is a space. Other parameters are ignored. `None` otherwise.
pub fn parse_query(query: &str) -> Option<Challenge> {
    let (mut mode, mut token, mut challenge) = (None, None, None);
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let slot = match decode(name).as_deref() {
            Some("hub.mode") => &mut mode,
            Some("hub.verify_token") => &mut token,
            Some("hub.challenge") => &mut challenge,
            _ => continue,
        };
        let value = decode(value).filter(|value| !value.is_empty())?;
        if slot.replace(value).is_some() {
            return None;
        }
    }
    let (mode, verify_token, challenge) = (mode?, token?, challenge?);
    (mode == "subscribe" && challenge.len() <= MAX_CHALLENGE).then_some(Challenge { verify_token, challenge })
}

/// Decodes form encoding; `None` for a broken escape or bytes that are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut decoded = [0];
                hex::decode_to_slice([bytes.next()?, bytes.next()?], &mut decoded).ok()?;
                out.push(decoded[0]);
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_parameters_in_any_order() {
        for (query, token, challenge) in [
            ("hub.mode=subscribe&hub.verify_token=secret&hub.challenge=1158201444", "secret", "1158201444"),
            ("hub.challenge=abc&other=%zz&hub.verify_token=s&hub.mode=subscribe&&x", "s", "abc"),
            ("hub%2Emode=subscribe&hub.verify%5Ftoken=a%2Bb+c%26d&hub.challenge=%3Cb%3E%0A", "a+b c&d", "<b>\n"),
            ("hub.mode=subscribe&hub.verify_token=%C3%A4%F0%9F%98%80&hub.challenge=007=7", "ä😀", "007=7"),
        ] {
            let expected = Challenge { verify_token: token.into(), challenge: challenge.into() };
            assert_eq!(parse_query(query), Some(expected), "{query}");
        }
    }

    #[test]
    fn refuses_what_is_incomplete_repeated_or_broken() {
        for query in [
            "",
            "hub.mode=subscribe",
            "hub.verify_token=s&hub.challenge=1",
            "hub.mode=subscribe&hub.challenge=1",
            "hub.mode=subscribe&hub.verify_token=s",
            "hub.mode=unsubscribe&hub.verify_token=s&hub.challenge=1",
            "hub.mode=Subscribe&hub.verify_token=s&hub.challenge=1",
            "hub_mode=subscribe&hub_verify_token=s&hub_challenge=1",
            "hub.mode=subscribe&hub.verify_token=s&hub.challenge=1&hub.challenge=1",
            "hub.mode=subscribe&hub.mode=subscribe&hub.verify_token=s&hub.challenge=1",
            "hub.mode=subscribe&hub.verify_token=&hub.challenge=1",
            "hub.mode=subscribe&hub.verify_token=s&hub.challenge=",
            "hub.mode=subscribe&hub.verify_token=s&hub.challenge",
            "hub.mode=subscribe&hub.verify_token=%ff&hub.challenge=1",
            "hub.mode=subscribe&hub.verify_token=s&hub.challenge=%2",
            "hub.mode=subscribe&hub.verify_token=s&hub.challenge=%+1",
        ] {
            assert_eq!(parse_query(query), None, "{query}");
        }
    }

    #[test]
    fn repeats_at_most_4096_bytes() {
        let of = |length| {
            parse_query(&format!("hub.mode=subscribe&hub.verify_token=s&hub.challenge={}", "x".repeat(length)))
        };
        assert!(of(4096).is_some());
        assert_eq!(of(4097), None);
    }

    #[test]
    fn does_not_print_the_token() {
        let challenge = parse_query("hub.mode=subscribe&hub.verify_token=hidden&hub.challenge=1").unwrap();
        assert!(!format!("{challenge:?}").contains("hidden"));
    }
}
