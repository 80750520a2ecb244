//! Query strings, read strictly: every wrong parameter is reported at once, and none is ignored.
//!
//! A mistyped filter that is silently dropped returns everything, which looks like an answer. So unknown and repeated
//! parameters are errors, like bytes that are not UTF-8 and U+0000, which the database would refuse. The decoding is
//! that of HTML forms, done here because the usual decoders replace what they cannot read.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use common::clock::TimestampError;
use common::{TenantId, Timestamp};

use crate::problem::{FieldError, Problem};

/// Errors reported of one query string; more would only make a large answer.
const MAX_ERRORS: usize = 20;

/// A query string being read.
pub(crate) struct Query {
    values: BTreeMap<&'static str, String>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Decodes a query string that may have these parameters.
    pub(crate) fn parse(raw: &str, known: &[&'static str]) -> Self {
        let mut query = Self { values: BTreeMap::new(), errors: Vec::new() };
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok();
            let Some(name) = known.iter().copied().find(|each| Some(*each) == name.as_deref()) else {
                query.error("query", format!("has an unknown parameter; known are: {}", known.join(", ")));
                continue;
            };
            match decode(value) {
                Err(message) => query.error(name, message),
                Ok(value) => {
                    if query.values.insert(name, value).is_some() {
                        query.error(name, "is given more than once");
                    }
                }
            }
        }
        query
    }

    /// Lets these parameters be empty, which is the same as not given.
    pub(crate) fn forget_empty(&mut self, names: &[&'static str]) {
        self.values.retain(|name, value| !(value.is_empty() && names.contains(name)));
    }

    /// Notes an error. The same is noted once.
    pub(crate) fn error(&mut self, field: &'static str, message: impl Into<String>) {
        let error = FieldError::new(field, message);
        if self.errors.len() < MAX_ERRORS && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Whether the parameter is given.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.values.contains_key(name)
    }

    /// Reads a parameter, if it is given, with `read`, which says what is wrong with it.
    pub(crate) fn read<T, E: Into<String>>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.values.get(name)?;
        match read(value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(name, message);
                None
            }
        }
    }

    /// Reads a whole number in a range.
    pub(crate) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        self.read(name, |text| {
            let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_digits.then(|| text.parse::<T>().ok()).flatten().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// Reads a moment.
    pub(crate) fn moment(&mut self, name: &'static str) -> Option<Timestamp> {
        self.read(name, |text| parse_moment(text).map_err(|error| format!("is {error}")))
    }

    /// Reads the parameter `tenant`.
    pub(crate) fn tenant(&mut self) -> Option<TenantId> {
        self.read("tenant", |text| TenantId::new(text).map_err(|error| format!("is wrong: {error}")))
    }

    /// Ends the reading: all errors, or none.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// The `+` of an offset that nobody encoded has become a space.
fn parse_moment(text: &str) -> Result<Timestamp, TimestampError> {
    match text.len().checked_sub("+00:00".len()) {
        Some(at) if text.as_bytes()[at] == b' ' => format!("{}+{}", &text[..at], &text[at + 1..]).parse(),
        _ => text.parse(),
    }
}

/// Decodes a name or value: `+` is a space, `%XX` a byte.
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>().ok_or("is not percent-encoded correctly")?;
                rest = after;
                hex_value(*digits).ok_or("is not percent-encoded correctly")?
            }
            byte => *byte,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err("must not hold U+0000"),
        Ok(text) => Ok(text),
        Err(_) => Err("is not UTF-8"),
    }
}

fn hex_value(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()));
    Some(high? << 4 | low?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_forms_and_refuses_the_rest() {
        assert_eq!(decode("a+b%2B%c3%A9=%26").unwrap(), "a b+é=&");
        for bad in ["%", "%2", "%zz", "%+1", "%ff", "%c3", "%00", "%ED%A0%80"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_offset_may_have_lost_its_plus() {
        let at = "2026-01-31T12:00:00Z".parse().unwrap();
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T14:00:00+02:00", "2026-01-31T14:00:00 02:00"] {
            assert_eq!(parse_moment(text).unwrap(), at, "{text}");
        }
        for bad in ["", " ", "       ", "é00000", "1234 é00", "2026-01-31", "2026-13-01T00:00:00Z"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_error_is_reported_once() {
        let mut query = Query::parse("x&x=1&y&limit=1&limit=2&after=-1&q=%00", &["limit", "after", "q"]);
        assert_eq!(query.number("after", 0..=i64::MAX), None);
        let errors: Vec<String> = query.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "query: has an unknown parameter; known are: limit, after, q",
                "limit: is given more than once",
                "q: must not hold U+0000",
                "after: must be a whole number from 0 to 9223372036854775807",
            ]
        );
    }

    #[test]
    fn numbers_are_digits_in_range() {
        let number = |raw: &str| Query::parse(raw, &["n"]).number("n", 1u32..=100);
        assert_eq!(number("n=100"), Some(100));
        for bad in
            ["n=", "n", "n=0", "n=101", "n=%2B5", "n=+5", "n=-1", "n=1e1", "n=1.0", "n=99999999999999999999", "n=٣"]
        {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
