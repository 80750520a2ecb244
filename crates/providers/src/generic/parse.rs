//! The parse of a generic message: a text, or a message without one.

use common::Timestamp;
use common::event::EventType;
use common::message::{Content, Message, Party, Text};

use super::message::validate;
use crate::parse::{OTHER_BODY, ParseError, Parsed, ParsedContent, Source, to_json};
use crate::peek::Peek;

/// Parses the update of `peek`, which must be the peek of `body`.
///
/// A message without `text` is an `unsupported` event with its whole JSON; it still counts as a message, of type
/// `unknown`.
pub fn parse(body: &[u8], peek: &Peek<'_>, index: usize, received_at: Timestamp) -> Result<Parsed, ParseError> {
    let source = Source::of(body, peek, index, received_at)?;
    let message = validate(body).map_err(|_| OTHER_BODY)?;
    let party = Party { phone: Some(message.from.into_owned()), ..Party::default() };
    let id = message.message_id.into_owned();
    let Some(text) = message.text else {
        let json = std::str::from_utf8(body).map_err(|_| OTHER_BODY)?;
        let content = ParsedContent::Message { id, r#type: "unknown".to_owned(), text: None };
        return Source { json, ..source }.unsupported(party, None, Some(content));
    };
    let message = Message {
        message_id: &id,
        number: &source.number,
        sender: &party,
        group_id: None,
        timestamp: source.occurred_at,
        received_at,
        content: Content::Text { text: Text { body: text.into_owned() } },
        context: None,
        referral: None,
    };
    let data = to_json(&message)?;
    let Content::Text { text } = message.content;
    Ok(Parsed {
        event_type: EventType::MessageReceived,
        occurred_at: source.occurred_at,
        number: source.number,
        party,
        group_id: None,
        data,
        content: ParsedContent::Message { id, r#type: "text".to_owned(), text: Some(text.body) },
    })
}
