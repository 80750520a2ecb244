//! A scanner over JSON text that knows where each piece stands.
//!
//! Splitting a webhook needs the byte range of every entry, change and update, found in one pass; content that nobody
//! reads must not be built, and however deep it nests it must not reach the stack. A data model as serde's has no
//! positions, and reading each level as raw JSON would scan the body once per level. The scanner checks the whole
//! grammar of RFC 8259 (tests hold it to serde_json's verdict) and hands out borrowed values. It is not a general
//! parser: it builds no tree, leaves numbers as text and reads text that is known to be UTF-8.

use std::borrow::Cow;

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJson;

/// A JSON string as it stands between its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

/// A JSON value; containers are the raw JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Text<'a>),
    Object(&'a str),
    Array(&'a str),
}

/// Chosen members of an object, in the order of the names asked for; [`Value::Null`] for those that are absent.
#[derive(Debug)]
pub(crate) struct Members<'a, const N: usize> {
    pub(crate) values: [Value<'a>; N],
    /// Which of the names came twice: then no reading is the right one.
    pub(crate) twice: [bool; N],
}

impl<const N: usize> Members<'_, N> {
    /// Whether one of the names came twice.
    pub(crate) fn repeated(&self) -> bool {
        self.twice.contains(&true)
    }
}

/// A position in JSON text.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The closing brackets that [`Scanner::skip`] waits for; kept to use its memory again.
    open: Vec<u8>,
}

impl<'a> Text<'a> {
    /// The string, unless it has lone surrogates.
    pub(crate) fn strict(self) -> Option<Cow<'a, str>> {
        if self.escaped { unescape(self.raw, false).map(Cow::Owned) } else { Some(Cow::Borrowed(self.raw)) }
    }

    /// The string, with U+FFFD for each lone surrogate.
    pub(crate) fn lossy(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw, true).unwrap_or_default()) } else { Cow::Borrowed(self.raw) }
    }
}

impl<'a> Value<'a> {
    /// A string without lone surrogates, or a number as written.
    pub(crate) fn strict(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => text.strict(),
            Self::Number(number) => Some(Cow::Borrowed(number)),
            _ => None,
        }
    }

    /// A string, with U+FFFD for each lone surrogate, or a number as written; `None` if it is empty.
    pub(crate) fn lossy(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text.lossy()),
            Self::Number(number) => Some(Cow::Borrowed(number)),
            _ => None,
        }
        .filter(|text| !text.is_empty())
    }

    /// A whole number, written as a number or as a string of its digits.
    pub(crate) fn integer(self) -> Option<i64> {
        self.strict()?.parse().ok()
    }
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, open: Vec::new() }
    }

    /// The offset of the next byte to be read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Passes white space and tells the byte that follows, which stays unread.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Enters a container if `bracket` opens one here.
    #[inline]
    pub(crate) fn enter(&mut self, bracket: u8) -> bool {
        let opens = self.next() == Some(bracket);
        self.at += usize::from(opens);
        opens
    }

    /// The next key of the object that was entered, or its end. `first` must be true for the first call.
    #[inline]
    pub(crate) fn key(&mut self, first: &mut bool) -> Result<Option<Text<'a>>, NotJson> {
        match self.next() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !*first => self.at += 1,
            _ if *first => *first = false,
            _ => return Err(NotJson),
        }
        self.member_key().map(Some)
    }

    /// Whether the list that was entered has another element, which then follows. `first` must be true for the first
    /// call.
    #[inline]
    pub(crate) fn element(&mut self, first: &mut bool) -> Result<bool, NotJson> {
        match self.next() {
            Some(b']') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            _ if *first => *first = false,
            _ => return Err(NotJson),
        }
        Ok(true)
    }

    /// Reads one value.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, NotJson> {
        let first = self.next().ok_or(NotJson)?;
        if first == b'"' {
            return self.string().map(Value::Text);
        }
        let start = self.at;
        self.skip()?;
        let raw = self.text.get(start..self.at).ok_or(NotJson)?;
        Ok(match first {
            b'{' => Value::Object(raw),
            b'[' => Value::Array(raw),
            b'n' => Value::Null,
            b't' => Value::Bool(true),
            b'f' => Value::Bool(false),
            _ => Value::Number(raw),
        })
    }

    /// Reads the value that follows; of an object the named members, `None` for anything else.
    pub(crate) fn members<const N: usize>(&mut self, names: &[&str; N]) -> Result<Option<Members<'a, N>>, NotJson> {
        if !self.enter(b'{') {
            self.skip()?;
            return Ok(None);
        }
        let mut members = Members { values: [Value::Null; N], twice: [false; N] };
        let mut seen = [false; N];
        let mut first = true;
        while let Some(key) = self.key(&mut first)? {
            let key = key.lossy();
            let Some(index) = names.iter().position(|name| *name == key) else {
                self.skip()?;
                continue;
            };
            members.twice[index] |= seen[index];
            seen[index] = true;
            members.values[index] = self.value()?;
        }
        Ok(Some(members))
    }

    /// Passes one value of any kind and depth.
    pub(crate) fn skip(&mut self) -> Result<(), NotJson> {
        self.open.clear();
        loop {
            match self.next().ok_or(NotJson)? {
                b'{' => {
                    self.at += 1;
                    if self.next() != Some(b'}') {
                        self.member_key()?;
                        self.open.push(b'}');
                        continue;
                    }
                    self.at += 1;
                }
                b'[' => {
                    self.at += 1;
                    if self.next() != Some(b']') {
                        self.open.push(b']');
                        continue;
                    }
                    self.at += 1;
                }
                b'"' => drop(self.string()?),
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => self.number()?,
            }
            loop {
                let Some(&close) = self.open.last() else { return Ok(()) };
                match self.next() {
                    Some(b',') => {
                        self.at += 1;
                        if close == b'}' {
                            self.member_key()?;
                        }
                        break;
                    }
                    Some(byte) if byte == close => {
                        self.at += 1;
                        self.open.pop();
                    }
                    _ => return Err(NotJson),
                }
            }
        }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn member_key(&mut self) -> Result<Text<'a>, NotJson> {
        if self.next() != Some(b'"') {
            return Err(NotJson);
        }
        let key = self.string()?;
        if self.next() != Some(b':') {
            return Err(NotJson);
        }
        self.at += 1;
        Ok(key)
    }

    fn literal(&mut self, word: &str) -> Result<(), NotJson> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += word.len();
        if rest.starts_with(word.as_bytes()) { Ok(()) } else { Err(NotJson) }
    }

    fn number(&mut self) -> Result<(), NotJson> {
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(NotJson) }
    }

    /// Reads a string; its opening quote comes next.
    #[inline]
    fn string(&mut self) -> Result<Text<'a>, NotJson> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain(self.text.as_bytes().get(self.at..).unwrap_or_default());
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(NotJson),
            }
        }
        let raw = self.text.get(start..self.at).ok_or(NotJson)?;
        self.at += 1;
        Ok(Text { raw, escaped })
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        let escape = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
        self.at += match escape {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
            _ => return Err(NotJson),
        };
        Ok(())
    }
}

/// The number of bytes before the first quote, backslash or control character: eight at a time, as most of a webhook is
/// inside strings.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero_bytes(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_bytes(word ^ (ONES * u64::from(b'\\')));
        // Only flags above the first true one can be false: a borrow runs upwards.
        let special = (control | quote | backslash) & (ONES * 0x80);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').unwrap_or(rest.len())
}

/// Resolves the escapes of a checked string. A surrogate without its partner is U+FFFD if `lossy`, else `None`.
fn unescape(raw: &str, lossy: bool) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        let code = escape.bytes().next()?;
        rest = escape.get(1..)?;
        out.push(match code {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = hex_unit(&mut rest)?;
                let mut after = rest;
                let low = after.strip_prefix("\\u").and_then(|digits| {
                    after = digits;
                    hex_unit(&mut after)
                });
                match char::decode_utf16([high].into_iter().chain(low)).next()? {
                    Ok(char) => {
                        if char.len_utf16() == 2 {
                            rest = after;
                        }
                        char
                    }
                    Err(_) if lossy => char::REPLACEMENT_CHARACTER,
                    Err(_) => return None,
                }
            }
            other => char::from(other),
        });
    }
    out.push_str(rest);
    Some(out)
}

/// Takes four hex digits.
fn hex_unit(rest: &mut &str) -> Option<u16> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
