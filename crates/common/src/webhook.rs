//! A received webhook, as others are told of it: which one it is, when it came, and where its bytes are kept.
//!
//! Made of an envelope's id and time alone, so everything that knows its envelope can name its webhook. A request that was
//! cut into several envelopes is several of these.

use serde::Serialize;

use crate::clock::{Timestamp, rfc3339};
use crate::ids::EnvelopeId;

/// Where webhooks come from, whichever provider sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// WhatsApp.
    #[default]
    Whatsapp,
}

/// See the module's documentation. Its JSON Schema is in `docs/api.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// The envelope's id.
    pub event_id: EnvelopeId,
    /// Where it came from.
    pub channel: Channel,
    /// Under which its bytes are found, as long as they are kept.
    pub raw_payload_ref: String,
    /// When the last byte of the request arrived.
    #[serde(serialize_with = "rfc3339::serialize")]
    pub received_at: Timestamp,
}

impl WebhookEvent {
    /// That of an envelope.
    pub fn new(envelope: EnvelopeId, received_at: Timestamp) -> Self {
        Self {
            event_id: envelope,
            channel: Channel::Whatsapp,
            raw_payload_ref: envelope.raw_payload_ref(),
            received_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn example() -> Value {
        let envelope = "019a9c2e-7a80-7c1d-8f3e-5b6a7c8d9e0f".parse().unwrap();
        serde_json::to_value(WebhookEvent::new(envelope, Timestamp::from_millis(1_795_000_000_123))).unwrap()
    }

    #[test]
    fn has_the_documented_names() {
        assert_eq!(
            example(),
            json!({
                "eventId": "019a9c2e-7a80-7c1d-8f3e-5b6a7c8d9e0f",
                "channel": "whatsapp",
                "rawPayloadRef": "wharf:raw/019a9c2e-7a80-7c1d-8f3e-5b6a7c8d9e0f",
                "receivedAt": "2026-11-18T11:06:40.123Z",
            })
        );
    }

    #[test]
    fn the_schema_in_the_documentation_is_of_this_type() {
        let page = include_str!("../../../docs/api.md");
        let schema = page.split("```json\n").find(|part| part.contains("\"title\": \"WebhookEvent\"")).unwrap();
        let schema: Value = serde_json::from_str(schema.split("```").next().unwrap()).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&schema["properties"]), names(&example()));
        let required: BTreeSet<_> =
            schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(required, names(&example()));
        assert_eq!(schema["properties"]["channel"]["const"], example()["channel"]);
    }
}
