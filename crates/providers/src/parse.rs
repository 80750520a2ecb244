//! The parse: one update of a webhook as an event's data and as what the tables of the normalizer hold.
//!
//! The result is the same for every provider; how updates are read is in each provider's folder. What is not typed
//! becomes an `unsupported` event with its whole JSON, because nothing signed is ever dropped. The identity of an update
//! (id, status, participant) is what the peek found and is not read a second time. Nothing here decides about
//! duplicates, conversations or identities, and nothing is looked up.

use common::event::EventType;
use common::message::{BillingConversation, BusinessNumber, Party, Pricing, ProviderError, Unsupported};
use common::status::DeliveryState;
use common::update::{Provider, UpdateKind};
use common::{NumberId, Timestamp};
use serde_json::value::{RawValue, to_raw_value};

use crate::json::NotJson;
use crate::peek::{Change, Peek, Update};
use crate::{generic, meta, twilio};

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
        /// The provider's id: a wamid, Twilio's `MessageSid`.
        id: String,
        /// Its type; by its content if it has none, else `unknown`.
        r#type: String,
        /// The text of a text message.
        text: Option<String>,
    },
    /// A state of an outbound message.
    Status {
        /// The outbound message's id at the provider.
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
        /// Meta's webhook field.
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

/// Parses the `index`th update of `peek`, which must be the peek of `body`, as its provider's parser does.
///
/// Time comes from the update; where it has none, from `received_at`.
pub fn parse(body: &[u8], peek: &Peek<'_>, index: usize, received_at: Timestamp) -> Result<Parsed, ParseError> {
    match peek.provider {
        Provider::Meta => meta::parse::parse(body, peek, index, received_at),
        Provider::Twilio => twilio::parse::parse(body, peek, index, received_at),
        Provider::Generic => generic::parse::parse(body, peek, index, received_at),
    }
}

/// The answer to a peek that cannot be of this body.
pub(crate) const OTHER_BODY: ParseError = ParseError { reason: "the peek is of another body" };

impl From<NotJson> for ParseError {
    fn from(_: NotJson) -> Self {
        Self { reason: "the update is not JSON" }
    }
}

/// An update with all that its parsers need.
pub(crate) struct Source<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) change: &'a Change<'a>,
    pub(crate) update: &'a Update<'a>,
    /// The update as JSON; empty until a parser sets it.
    pub(crate) json: &'a str,
    pub(crate) number: BusinessNumber,
    pub(crate) occurred_at: Timestamp,
    pub(crate) received_at: Timestamp,
}

impl<'a> Source<'a> {
    /// The `index`th update of a body with its surroundings.
    pub(crate) fn of(
        body: &'a [u8],
        peek: &'a Peek<'a>,
        index: usize,
        received_at: Timestamp,
    ) -> Result<Self, ParseError> {
        let update = peek.updates.get(index).ok_or(OTHER_BODY)?;
        let change = peek.changes.get(update.change).ok_or(OTHER_BODY)?;
        let occurred_at = update.timestamp.unwrap_or(received_at);
        Ok(Self { body, change, update, json: "", number: number(change), occurred_at, received_at })
    }

    /// The event that keeps the whole JSON; `content` is `Other` unless given.
    pub(crate) fn unsupported(
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

/// Embeds JSON as it is, whatever its depth.
pub(crate) fn raw(json: &str) -> Result<&RawValue, ParseError> {
    serde_json::from_str(json).map_err(|_| NotJson.into())
}

pub(crate) fn to_json(data: &impl serde::Serialize) -> Result<Box<RawValue>, ParseError> {
    to_raw_value(data).map_err(|_| ParseError { reason: "the event cannot be written as JSON" })
}
