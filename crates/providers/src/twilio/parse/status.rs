//! Statuses of outbound messages: Twilio's words as states of the life cycle, with the error of those that failed.

use common::event::EventType;
use common::message::{MessageStatus, ProviderError};
use common::status::DeliveryState;

use super::{Parameters, ParseError, Parsed, ParsedContent, Source, party_at, unsupported};
use crate::parse::to_json;
use crate::twilio::peek::address;

pub(super) fn parse(source: Source<'_>, parameters: &Parameters<'_>) -> Result<Parsed, ParseError> {
    let party = party_at(address(parameters, "To").as_deref());
    let state = source.update.status.as_deref().and_then(state);
    let (Some(state), Some(id)) = (state, source.update.id.as_deref().map(str::to_owned)) else {
        return unsupported(source, parameters, party, None);
    };
    let errors: Vec<_> = error(parameters).into_iter().collect();
    let data = to_json(&MessageStatus {
        message_id: &id,
        number: &source.number,
        recipient: &party,
        group_id: None,
        participant: None,
        status: state,
        timestamp: source.occurred_at,
        received_at: source.received_at,
        conversation: None,
        pricing: None,
        errors: errors.clone(),
        biz_opaque_callback_data: None,
    })?;
    Ok(Parsed {
        event_type: EventType::MessageStatus,
        occurred_at: source.occurred_at,
        number: source.number,
        party,
        group_id: None,
        data,
        content: ParsedContent::Status {
            id,
            state,
            participant: None,
            conversation: None,
            pricing: None,
            errors,
            biz_opaque_callback_data: None,
        },
    })
}

/// The state that a word stands for; `None` for one that is not part of the life cycle.
///
/// All that Twilio says before it handed the message over is [`DeliveryState::Accepted`]: it has it.
fn state(word: &str) -> Option<DeliveryState> {
    Some(match word {
        "accepted" | "scheduled" | "queued" | "sending" => DeliveryState::Accepted,
        "sent" => DeliveryState::Sent,
        "delivered" => DeliveryState::Delivered,
        "read" => DeliveryState::Read,
        "undelivered" | "failed" | "canceled" => DeliveryState::Failed,
        _ => return None,
    })
}

fn error(parameters: &Parameters<'_>) -> Option<ProviderError> {
    let code = parameters.get("ErrorCode").filled().and_then(|code| code.trim().parse().ok()).unwrap_or(0);
    let (message, channel) = (parameters.get("ErrorMessage").filled(), parameters.get("ChannelStatusMessage").filled());
    let (title, details) = match message {
        Some(message) => (Some(message), channel),
        None => (channel, None),
    };
    let says = code != 0 || title.is_some();
    says.then_some(ProviderError { code, title, details })
}
