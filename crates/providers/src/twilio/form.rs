//! Forms (`application/x-www-form-urlencoded`) as bytes.
//!
//! What is signed are the decoded bytes, so nothing may be replaced on the way, not even what is not UTF-8. Otherwise
//! decoding is as tolerant as a browser's: a broken escape stands for itself.

use std::borrow::Cow;

/// Parameters of one form at most. Twilio sends about 30; each costs a name, a value and a step of sorting.
pub(super) const MAX_PARAMETERS: usize = 1000;

/// A name and a value, decoded.
pub(super) type Parameter<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The form has more than [`MAX_PARAMETERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// The parameters in their order. Empty pieces between `&` are none; what has no `=` has an empty value.
pub(super) fn parse(form: &[u8]) -> Result<Vec<Parameter<'_>>, TooMany> {
    let mut parameters = Vec::new();
    for piece in form.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
        if parameters.len() == MAX_PARAMETERS {
            return Err(TooMany);
        }
        let end = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
        let (name, value) = (piece.get(..end).unwrap_or_default(), piece.get(end + 1..).unwrap_or_default());
        parameters.push((decode(name), decode(value)));
    }
    Ok(parameters)
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        out.push(match byte {
            b'+' => b' ',
            b'%' => match escaped(after) {
                Some(decoded) => {
                    rest = after.get(2..).unwrap_or_default();
                    decoded
                }
                None => b'%',
            },
            _ => *byte,
        });
    }
    Cow::Owned(out)
}

/// The byte that two hex digits stand for.
fn escaped(after: &[u8]) -> Option<u8> {
    let mut decoded = [0];
    hex::decode_to_slice(after.get(..2)?, &mut decoded).ok()?;
    Some(decoded[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(form: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        parse(form).unwrap().into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    #[test]
    fn decodes_as_tolerantly_as_a_browser() {
        for (form, name, value) in [
            ("a=b", "a", "b"),
            ("a", "a", ""),
            ("=", "", ""),
            ("=b", "", "b"),
            ("a=b=c", "a", "b=c"),
            ("a+b=c%2Bd+e%20f", "a b", "c+d e f"),
            ("%C3%A4=%f0%9F%98%80", "ä", "😀"),
            ("a=100%", "a", "100%"),
            ("a=%2", "a", "%2"),
            ("a=%zz%+1%%41", "a", "%zz% 1%A"),
            ("a=ä", "a", "ä"),
            ("a=b;c=d", "a", "b;c=d"),
        ] {
            assert_eq!(told(form.as_bytes()), [(name.into(), value.into())], "{form}");
        }
        assert_eq!(told(b"a=%ff\xfe"), [(b"a".to_vec(), vec![0xff, 0xfe])]);
        assert_eq!(told(b"&&a=1&&b=2&"), [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())]);
        assert!(told(b"").is_empty());
    }

    #[test]
    fn reads_a_thousand_parameters_and_no_more() {
        assert_eq!(parse("a&".repeat(1000).as_bytes()).map(|all| all.len()), Ok(1000));
        assert_eq!(parse("a&".repeat(1001).as_bytes()), Err(TooMany));
    }
}
