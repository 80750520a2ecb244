//! The parse: one update of a webhook as an event's data and as what the tables of the normalizer hold.
//!
//! Text messages and the five states of the life cycle are typed; everything else becomes an `unsupported` event with
//! its whole JSON, because nothing signed is ever dropped. The identity of an update (id, status, participant) is what the
//! peek found and is not read a second time. Reading is tolerant: what is absent or has another type than documented
//! counts as absent, numbers may be text, people may keep their phone number to themselves. Only what has two readings
//! (a key that comes twice) or none (malformed) is refused. Nothing here decides about duplicates, conversations or
//! identities, and nothing is looked up.
//!
//! Source: Meta, "webhooks reference: messages" and "business-scoped user ids".

use std::ops::Range;

use common::event::EventType;
use common::message::{BillingConversation, BusinessNumber, Party, Pricing, ProviderError, Unsupported};
use common::status::DeliveryState;
use common::update::UpdateKind;
use common::{NumberId, Timestamp};
use serde_json::value::{RawValue, to_raw_value};

use super::peek::{Change, Peek, Update};
use super::scan::{NotJson, Scanner, Value};

mod message;
mod person;
mod status;

/// One update, parsed.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The type of the event.
    pub event_type: EventType,
    /// The update's own time, else when it was received.
    pub occurred_at: Timestamp,
    /// The business number it is addressed to, as far as the body names it.
    pub number: BusinessNumber,
    /// The person on the other side; in a group the participant. Anonymous for kinds that are not about one person.
    pub party: Party,
    /// The group it happened in.
    pub group_id: Option<String>,
    /// The event's data: JSON of [`Message`](common::message::Message),
    /// [`MessageStatus`](common::message::MessageStatus) or [`Unsupported`].
    pub data: Box<RawValue>,
    /// What the tables hold.
    pub content: ParsedContent,
}

/// What the tables hold of an update, by what it is. Text may contain U+0000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedContent {
    /// An inbound message with an id, of any type: also one without a typed event counts as a message.
    Message {
        /// The wamid.
        id: String,
        /// Its type; by its content if it has none, else `unknown`.
        r#type: String,
        /// The text of a text message.
        text: Option<String>,
    },
    /// A state of an outbound message.
    Status {
        /// The outbound message's wamid.
        id: String,
        /// What happened.
        state: DeliveryState,
        /// The group participant it is about.
        participant: Option<String>,
        /// The billing conversation.
        conversation: Option<BillingConversation>,
        /// The price category.
        pricing: Option<Pricing>,
        /// Why it failed.
        errors: Vec<ProviderError>,
        /// What the sender of the message asked to have echoed.
        biz_opaque_callback_data: Option<String>,
    },
    /// Everything else.
    Other {
        /// The webhook field.
        field: Option<String>,
        /// Where in the body it stood.
        kind: UpdateKind,
        /// Its own type.
        r#type: Option<String>,
        /// The provider's id.
        id: Option<String>,
    },
}

/// The update cannot be parsed, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ParseError {
    /// Why, in fixed words that never repeat the update.
    pub reason: &'static str,
}

impl From<NotJson> for ParseError {
    fn from(_: NotJson) -> Self {
        Self { reason: "the update is not JSON" }
    }
}

/// Parses the `index`th update of `peek`, which must be the peek of `body`.
///
/// Refuses malformed updates and those that repeat a key read here. Text with lone surrogates has U+FFFD for each.
pub fn parse(body: &[u8], peek: &Peek<'_>, index: usize, received_at: Timestamp) -> Result<Parsed, ParseError> {
    const OTHER_BODY: ParseError = ParseError { reason: "the peek is of another body" };
    let update = peek.updates.get(index).ok_or(OTHER_BODY)?;
    let change = peek.changes.get(update.change).ok_or(OTHER_BODY)?;
    let source = Source {
        body,
        change,
        update,
        json: piece(body, &update.range).ok_or(OTHER_BODY)?,
        number: number(change),
        occurred_at: update.timestamp.unwrap_or(received_at),
        received_at,
    };
    match update.kind {
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

/// An update with all that its parsers need.
struct Source<'a> {
    body: &'a [u8],
    change: &'a Change<'a>,
    update: &'a Update<'a>,
    json: &'a str,
    number: BusinessNumber,
    occurred_at: Timestamp,
    received_at: Timestamp,
}

impl Source<'_> {
    /// The event that keeps the whole JSON; `content` is `Other` unless given.
    fn unsupported(
        self,
        party: Party,
        group_id: Option<String>,
        content: Option<ParsedContent>,
    ) -> Result<Parsed, ParseError> {
        let update = self.update;
        let incoming = update.kind == UpdateKind::Message && party != Party::default();
        let data = to_json(&Unsupported {
            number: &self.number,
            field: self.change.field.as_deref(),
            kind: update.kind.as_str(),
            r#type: update.r#type.as_deref(),
            id: update.id.as_deref(),
            sender: incoming.then_some(&party),
            received_at: self.received_at,
            raw: raw(self.json)?,
        })?;
        let content = content.unwrap_or_else(|| ParsedContent::Other {
            field: self.change.field.as_deref().map(str::to_owned),
            kind: update.kind,
            r#type: update.r#type.as_deref().map(str::to_owned),
            id: update.id.as_deref().map(str::to_owned),
        });
        let (event_type, occurred_at, number) = (EventType::Unsupported, self.occurred_at, self.number);
        Ok(Parsed { event_type, occurred_at, number, party, group_id, data, content })
    }
}

fn number(change: &Change<'_>) -> BusinessNumber {
    BusinessNumber {
        phone_number_id: change.phone_number_id.as_deref().and_then(|id| NumberId::new(id).ok()),
        display_phone_number: change.display_phone_number.as_deref().map(str::to_owned),
        waba_id: change.waba_id.as_deref().map(str::to_owned),
    }
}

fn piece<'a>(body: &'a [u8], range: &Range<usize>) -> Option<&'a str> {
    std::str::from_utf8(body.get(range.clone())?).ok()
}

/// The named members of an object; all [`Value::Null`] if it is none.
fn members<'a, const N: usize>(json: &'a str, names: &[&str; N]) -> Result<[Value<'a>; N], ParseError> {
    match Scanner::new(json).members(names)? {
        Some(members) if members.repeated => Err(ParseError { reason: "a key of the update comes twice" }),
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

/// Embeds JSON as it is, whatever its depth.
fn raw(json: &str) -> Result<&RawValue, ParseError> {
    serde_json::from_str(json).map_err(|_| NotJson.into())
}

fn to_json(data: &impl serde::Serialize) -> Result<Box<RawValue>, ParseError> {
    to_raw_value(data).map_err(|_| ParseError { reason: "the event cannot be written as JSON" })
}

#[cfg(test)]
mod tests;
