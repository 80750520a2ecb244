//! The parse of Meta's updates.
//!
//! Text messages and the five states of the life cycle are typed; everything else becomes an `unsupported` event with
//! its whole JSON. Reading is tolerant: what is absent or has another type than documented counts as absent, numbers may
//! be text, people may keep their phone number to themselves. Only what has two readings (a key that comes twice) or
//! none (malformed) is refused.
//!
//! Source: Meta, "webhooks reference: messages" and "business-scoped user ids".

use common::Timestamp;
use common::message::Party;
use common::update::UpdateKind;

use crate::json::{Scanner, Value};
use crate::parse::{OTHER_BODY, ParseError, Parsed, ParsedContent, Source, raw, to_json};
use crate::peek::Peek;

mod message;
mod person;
mod status;

/// Parses the `index`th update of `peek`, which must be the peek of `body`.
///
/// Refuses malformed updates and those that repeat a key read here. Text with lone surrogates has U+FFFD for each.
pub fn parse(body: &[u8], peek: &Peek<'_>, index: usize, received_at: Timestamp) -> Result<Parsed, ParseError> {
    let source = Source::of(body, peek, index, received_at)?;
    let json = piece(body, &source.update.range).ok_or(OTHER_BODY)?;
    let source = Source { json, ..source };
    match source.update.kind {
        UpdateKind::Malformed => Err(ParseError { reason: "the update has not the documented shape" }),
        UpdateKind::Message => message::parse(source),
        UpdateKind::Status => status::parse(source),
        UpdateKind::Echo => {
            let party = person::recipient_of_echo(&source)?;
            source.unsupported(party, None, None)
        }
        _ => source.unsupported(Party::default(), None, None),
    }
}

fn piece<'a>(body: &'a [u8], range: &std::ops::Range<usize>) -> Option<&'a str> {
    std::str::from_utf8(body.get(range.clone())?).ok()
}

/// The named members of an object; all [`Value::Null`] if it is none.
fn members<'a, const N: usize>(json: &'a str, names: &[&str; N]) -> Result<[Value<'a>; N], ParseError> {
    match Scanner::new(json).members(names)? {
        Some(members) if members.repeated() => Err(ParseError { reason: "a key of the update comes twice" }),
        Some(members) => Ok(members.values),
        None => Ok([Value::Null; N]),
    }
}

/// The named members of a value that should be an object.
fn members_of<'a, const N: usize>(value: Value<'a>, names: &[&str; N]) -> Result<Option<[Value<'a>; N]>, ParseError> {
    if let Value::Object(json) = value { members(json, names).map(Some) } else { Ok(None) }
}

/// The elements of a value that should be a list.
fn elements(value: Value<'_>) -> Result<Vec<Value<'_>>, ParseError> {
    let Value::Array(json) = value else { return Ok(Vec::new()) };
    let mut scanner = Scanner::new(json);
    let (mut elements, mut first) = (Vec::new(), true);
    scanner.enter(b'[');
    while scanner.element(&mut first)? {
        elements.push(scanner.value()?);
    }
    Ok(elements)
}

fn owned(value: Value<'_>) -> Option<String> {
    value.lossy().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests;
