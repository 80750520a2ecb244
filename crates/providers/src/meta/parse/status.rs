//! Statuses of outbound messages: the five states of the life cycle with price, billing conversation and errors.
//!
//! Payment and call statuses stand in the same list under the same ids; they are kept whole, so that none of their words
//! (`failed`!) can move a message.

use common::event::EventType;
use common::message::{BillingConversation, MessageStatus, Pricing, ProviderError};
use common::status::DeliveryState;

use super::{ParseError, Parsed, ParsedContent, Source, Value, elements, members, members_of, owned, person, to_json};

pub(super) fn parse(source: Source<'_>) -> Result<Parsed, ParseError> {
    let [recipient_id, recipient_user_id, parent_a, parent_b, parent_c, recipient_type, group_id, callback_data] =
        members(
            source.json,
            &[
                "recipient_id",
                "recipient_user_id",
                // Meta's pages spell the parent's id in three ways.
                "parent_recipient_user_id",
                "recipient_parent_user_id",
                "parent_user_id",
                "recipient_type",
                "group_id",
                "biz_opaque_callback_data",
            ],
        )?;
    let [conversation, pricing, errors] = members(source.json, &["conversation", "pricing", "errors"])?;
    let parent = [parent_a, parent_b, parent_c].into_iter().find(|id| !matches!(id, Value::Null));
    let participant = source.update.participant.as_deref().map(str::to_owned);
    let to_group = participant.is_some() || recipient_type.lossy().as_deref() == Some("group");
    let group_id = if to_group { owned(recipient_id).or_else(|| owned(group_id)) } else { owned(group_id) };
    let party = if to_group {
        person::party_at(&source, participant.as_deref(), recipient_user_id, parent.unwrap_or(Value::Null))?
    } else {
        person::party(&source, recipient_id, recipient_user_id, parent.unwrap_or(Value::Null))?
    };
    let about_message = matches!(source.update.r#type.as_deref(), None | Some("message"));
    let state = source.update.status.as_deref().and_then(DeliveryState::from_meta).filter(|_| about_message);
    let (Some(state), Some(id)) = (state, source.update.id.as_deref()) else {
        return source.unsupported(party, group_id, None);
    };
    let id = id.to_owned();
    let conversation = billing_conversation(conversation)?;
    let pricing = price(pricing)?;
    let errors = elements(errors)?.into_iter().map(error).collect::<Result<Vec<_>, _>>()?;
    let biz_opaque_callback_data = owned(callback_data);
    let data = to_json(&MessageStatus {
        message_id: &id,
        number: &source.number,
        recipient: &party,
        group_id: group_id.as_deref(),
        participant: participant.as_deref(),
        status: state,
        timestamp: source.occurred_at,
        received_at: source.received_at,
        conversation: conversation.clone(),
        pricing: pricing.clone(),
        errors: errors.clone(),
        biz_opaque_callback_data: biz_opaque_callback_data.as_deref(),
    })?;
    Ok(Parsed {
        event_type: EventType::MessageStatus,
        occurred_at: source.occurred_at,
        number: source.number,
        party,
        group_id,
        data,
        content: ParsedContent::Status {
            id,
            state,
            participant,
            conversation,
            pricing,
            errors,
            biz_opaque_callback_data,
        },
    })
}

fn billing_conversation(value: Value<'_>) -> Result<Option<BillingConversation>, ParseError> {
    let Some([id, origin, expires_at]) = members_of(value, &["id", "origin", "expiration_timestamp"])? else {
        return Ok(None);
    };
    let origin = members_of(origin, &["type"])?.and_then(|[origin]| owned(origin));
    Ok(Some(BillingConversation { id: owned(id), origin, expires_at: expires_at.integer() }))
}

fn price(value: Value<'_>) -> Result<Option<Pricing>, ParseError> {
    let Some([billable, model, r#type, category]) =
        members_of(value, &["billable", "pricing_model", "type", "category"])?
    else {
        return Ok(None);
    };
    let billable = match billable {
        Value::Bool(billable) => Some(billable),
        other => other.lossy().and_then(|word| word.parse().ok()),
    };
    Ok(Some(Pricing { billable, model: owned(model), r#type: owned(r#type), category: owned(category) }))
}

fn error(value: Value<'_>) -> Result<ProviderError, ParseError> {
    let Some([code, title, message, data]) = members_of(value, &["code", "title", "message", "error_data"])? else {
        return Ok(ProviderError { title: owned(value), ..ProviderError::default() });
    };
    let details = match members_of(data, &["details"])? {
        Some([details]) => owned(details),
        None => owned(data),
    };
    let (title, message) = (owned(title), owned(message));
    let details = details.or_else(|| message.clone().filter(|_| title.is_some() && message != title));
    Ok(ProviderError { code: code.integer().unwrap_or(0), title: title.or(message), details })
}
