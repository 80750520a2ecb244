//! Inbound messages: text is typed, every other type is kept whole and still counts as a message.

use common::event::EventType;
use common::message::{Content, Message, Text};

use super::{ParseError, Parsed, ParsedContent, Source, Value, members, members_of, owned, person, raw, to_json};

/// The types whose content stands under a key of the same name, for messages that come without `type`.
const TYPES: [&str; 18] = [
    "image",
    "video",
    "audio",
    "voice",
    "document",
    "sticker",
    "location",
    "contacts",
    "interactive",
    "button",
    "order",
    "reaction",
    "system",
    "edit",
    "revoke",
    "unsupported",
    "media_placeholder",
    "request_welcome",
];

pub(super) fn parse(source: Source<'_>) -> Result<Parsed, ParseError> {
    let [from, from_user_id, from_parent_user_id, group_id, text, context, referral] = members(
        source.json,
        &["from", "from_user_id", "from_parent_user_id", "group_id", "text", "context", "referral"],
    )?;
    let party = person::party(&source, from, from_user_id, from_parent_user_id)?;
    let group_id = owned(group_id);
    let body = match members_of(text, &["body"])? {
        // An empty text is a text.
        Some([Value::Text(body)]) => Some(body.lossy().into_owned()),
        _ => None,
    };
    let Some(id) = source.update.id.as_deref() else { return source.unsupported(party, group_id, None) };
    let r#type = match source.update.r#type.as_deref() {
        Some(named) => named,
        None if body.is_some() => "text",
        None => type_by_content(source.json)?,
    };
    let (id, r#type) = (id.to_owned(), r#type.to_owned());
    let Some(body) = body.filter(|_| r#type == "text") else {
        return source.unsupported(party, group_id, Some(ParsedContent::Message { id, r#type, text: None }));
    };
    let message = Message {
        message_id: &id,
        number: &source.number,
        sender: &party,
        group_id: group_id.as_deref(),
        timestamp: source.occurred_at,
        received_at: source.received_at,
        content: Content::Text { text: Text { body } },
        context: object(context)?,
        referral: object(referral)?,
    };
    let data = to_json(&message)?;
    let Content::Text { text } = message.content;
    Ok(Parsed {
        event_type: EventType::MessageReceived,
        occurred_at: source.occurred_at,
        number: source.number,
        party,
        group_id,
        data,
        content: ParsedContent::Message { id, r#type, text: Some(text.body) },
    })
}

fn type_by_content(json: &str) -> Result<&'static str, ParseError> {
    let contents = members(json, &TYPES)?;
    let found = TYPES.iter().zip(contents).find(|(_, content)| !matches!(content, Value::Null));
    Ok(found.map_or("unknown", |(name, _)| name))
}

fn object(value: Value<'_>) -> Result<Option<&serde_json::value::RawValue>, ParseError> {
    if let Value::Object(json) = value { raw(json).map(Some) } else { Ok(None) }
}
