//! JSON written straight into a buffer, escaped the way Meta does: non-ASCII as `\u` and four lower-case
//! digits, `/` as `\/`. It trusts its callers to write well-formed JSON and builds no tree.

use std::io::Write as _;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(super) struct Json(Vec<u8>);

impl Json {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Appends what is JSON already.
    pub(super) fn raw(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// Appends the inside of a string, escaped; the caller writes the quotes.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '"' | '\\' | '/' => self.0.extend_from_slice(&[b'\\', character as u8]),
                '\n' => self.0.extend_from_slice(b"\\n"),
                '\r' => self.0.extend_from_slice(b"\\r"),
                '\t' => self.0.extend_from_slice(b"\\t"),
                '\u{8}' => self.0.extend_from_slice(b"\\b"),
                '\u{c}' => self.0.extend_from_slice(b"\\f"),
                ' '..='\u{7f}' => self.0.push(character as u8),
                _ => {
                    for &mut unit in character.encode_utf16(&mut [0; 2]) {
                        self.unit(unit);
                    }
                }
            }
        }
        self
    }

    /// Appends a number, without quotes.
    pub(super) fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        // Writing to a vector cannot fail.
        let _ = write!(self.0, "{}", number.into());
        self
    }

    fn unit(&mut self, unit: u16) {
        self.0.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            self.0.push(DIGITS[usize::from(unit >> shift & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    fn escaped(text: &str) -> String {
        let mut json = Json::with_capacity(0);
        json.text(text);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn escapes_like_meta() {
        assert_eq!(escaped("äö 😀 a/b"), r"\u00e4\u00f6 \ud83d\ude00 a\/b");
        assert_eq!(escaped("\"\\\n\r\t\u{8}\u{c}\0\u{1f}"), r#"\"\\\n\r\t\b\f\u0000\u001f"#);
        assert_eq!(escaped("<%@> +="), "<%@> +=");
    }

    #[test]
    fn what_is_escaped_reads_back() {
        let text: String = (0..0x2_0000).filter_map(char::from_u32).collect();
        let read: String = serde_json::from_str(&format!("\"{}\"", escaped(&text))).unwrap();
        assert_eq!(read, text);
    }

    #[test]
    fn writes_numbers() {
        let mut json = Json::with_capacity(0);
        json.number(0).raw(",").number(-17_i64).raw(",").number(u64::MAX);
        assert_eq!(json.into_bytes(), b"0,-17,18446744073709551615");
    }
}
