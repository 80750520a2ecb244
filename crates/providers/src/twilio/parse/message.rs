//! Inbound messages: text is typed, every other type is kept whole and still counts as a message.

use common::event::EventType;
use common::message::{Content, Message, Party, Text};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Parameters, ParseError, Parsed, ParsedContent, Source, party_at, unsupported};
use crate::parse::to_json;
use crate::twilio::peek::{address, is_user_id};

/// What a message answers or where it was forwarded from, under Meta's names.
#[derive(Serialize)]
struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forwarded: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    frequently_forwarded: bool,
}

/// The advertisement, Twilio's name beside Meta's.
const REFERRAL: [(&str, &str); 9] = [
    ("ReferralSourceUrl", "source_url"),
    ("ReferralSourceId", "source_id"),
    ("ReferralSourceType", "source_type"),
    ("ReferralHeadline", "headline"),
    ("ReferralBody", "body"),
    ("ReferralCtwaClid", "ctwa_clid"),
    ("ReferralMediaId", "media_id"),
    ("ReferralMediaContentType", "media_content_type"),
    ("ReferralMediaUrl", "media_url"),
];

pub(super) fn parse(source: Source<'_>, parameters: &Parameters<'_>) -> Result<Parsed, ParseError> {
    let party = party(&source, parameters);
    let Some(id) = source.update.id.as_deref().map(str::to_owned) else {
        return unsupported(source, parameters, party, None);
    };
    let by_content = type_by_content(parameters);
    let named = source.update.r#type.as_deref().filter(|named| !(*named == "text" && by_content.is_some()));
    let body = parameters.get("Body").text();
    let r#type = match (named, by_content) {
        (Some(named), _) => named,
        (None, Some(found)) => found,
        (None, None) if body.as_deref().is_some_and(|body| !body.is_empty()) => "text",
        (None, None) => "unknown",
    }
    .to_owned();
    let Some(body) = body.filter(|_| r#type == "text") else {
        let content = ParsedContent::Message { id, r#type, text: None };
        return unsupported(source, parameters, party, Some(content));
    };
    let (context, referral) = (context(parameters)?, referral(parameters)?);
    let message = Message {
        message_id: &id,
        number: &source.number,
        sender: &party,
        group_id: None,
        timestamp: source.occurred_at,
        received_at: source.received_at,
        content: Content::Text { text: Text { body } },
        context: context.as_deref(),
        referral: referral.as_deref(),
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
        content: ParsedContent::Message { id, r#type, text: Some(text.body) },
    })
}

/// The sender: `From`, completed by the other parameters that name the person.
fn party(source: &Source<'_>, parameters: &Parameters<'_>) -> Party {
    let mut party = party_at(source.update.sender.as_deref());
    if party.user_id.is_none() {
        party.user_id = address(parameters, "ExternalUserId").filter(|id| is_user_id(id)).map(Into::into);
    }
    if party.phone.is_none() {
        party.phone = address(parameters, "WaId").filter(|id| !is_user_id(id)).map(Into::into);
    }
    party.name = parameters.get("ProfileName").filled();
    party
}

/// The type of a message that is more than text; `None` if nothing but text can be in it.
fn type_by_content(parameters: &Parameters<'_>) -> Option<&'static str> {
    let has = |name: &str| parameters.get(name).filled().is_some();
    let media = parameters.get("NumMedia").filled().is_some_and(|count| count.trim() != "0");
    if media || has("MediaUrl0") || has("MediaContentType0") {
        let content_type = parameters.get("MediaContentType0").filled().unwrap_or_default();
        return Some(match content_type.split('/').next() {
            Some("image") => "image",
            Some("audio") => "audio",
            Some("video") => "video",
            Some("") | None => "unknown",
            Some(_) => "document",
        });
    }
    if has("Latitude") || has("Longitude") {
        return Some("location");
    }
    if has("ListId") || has("ListTitle") || has("InteractiveData") {
        return Some("interactive");
    }
    (has("ButtonText") || has("ButtonPayload")).then_some("button")
}

fn context(parameters: &Parameters<'_>) -> Result<Option<Box<RawValue>>, ParseError> {
    let is_set = |name: &str| parameters.get(name).context().is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let context = Context {
        from: address(parameters, "OriginalRepliedMessageSender").map(Into::into),
        id: parameters.get("OriginalRepliedMessageSid").filled(),
        forwarded: is_set("Forwarded"),
        frequently_forwarded: is_set("FrequentlyForwarded"),
    };
    let says = context.from.is_some() || context.id.is_some() || context.forwarded || context.frequently_forwarded;
    says.then(|| to_json(&context)).transpose()
}

fn referral(parameters: &Parameters<'_>) -> Result<Option<Box<RawValue>>, ParseError> {
    let members = REFERRAL.iter().filter_map(|(name, key)| {
        let value = parameters.get(name).filled()?;
        Some(((*key).to_owned(), serde_json::Value::String(value)))
    });
    let referral: serde_json::Map<_, _> = members.collect();
    (!referral.is_empty()).then(|| to_json(&referral)).transpose()
}
