//! Events as they leave Wharf: CloudEvents 1.0 in JSON, and the partition each belongs to.

use std::fmt;

use ring::digest;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::{Timestamp, rfc3339};
use crate::ids::{EventId, TenantId};

/// The number of partitions of the event stream. Fixed: it is part of the subject of every event.
pub const PARTITIONS: u16 = 64;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    /// An inbound message.
    MessageReceived,
    /// A status of an outbound message.
    MessageStatus,
    /// Something this version has no type for, kept whole.
    Unsupported,
}

impl EventType {
    /// Every type, for documentation and filters.
    pub const ALL: [Self; 3] = [Self::MessageReceived, Self::MessageStatus, Self::Unsupported];

    /// The CloudEvents `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageReceived => "wharf.message.received",
            Self::MessageStatus => "wharf.message.status",
            Self::Unsupported => "wharf.unsupported",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }

    /// The CloudEvents `dataschema`, with its version.
    pub fn data_schema(self) -> String {
        format!("wharf:schema/{}/v1", self.as_str().trim_start_matches("wharf."))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What decides an event's partition, and with it its order.
#[derive(Clone, Copy, Debug)]
pub enum PartitionKey<'a> {
    /// The internal conversation; survives merges of identities.
    Conversation(Uuid),
    /// Without a conversation: the number's id, else the WABA's, else the tenant's.
    Text(&'a str),
}

impl PartitionKey<'_> {
    /// The partition, below [`PARTITIONS`]: the first eight bytes of the key's SHA-256, big-endian, modulo 64.
    pub fn partition(&self) -> u16 {
        let hash = match self {
            Self::Conversation(id) => digest::digest(&digest::SHA256, id.as_bytes()),
            Self::Text(text) => digest::digest(&digest::SHA256, text.as_bytes()),
        };
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_ref()[..8]);
        u16::try_from(u64::from_be_bytes(first) % u64::from(PARTITIONS)).unwrap_or(0)
    }
}

/// The subject of an event on the bus: `wharf.events.<tenant>.<partition>.<type without "wharf.">`.
pub fn event_subject(tenant: &TenantId, partition: u16, event_type: &str) -> String {
    format!("wharf.events.{tenant}.{partition}.{}", event_type.trim_start_matches("wharf."))
}

/// An event in CloudEvents' JSON form. Attribute order is fixed, so equal events have equal bytes.
#[derive(Clone, Debug, Serialize)]
pub struct CloudEvent<'a> {
    /// Always `1.0`.
    pub specversion: &'static str,
    /// Unique per event; the same again when an event is replayed with a higher `revision`.
    pub id: EventId,
    /// `//wharf/tenants/<tenant>`, with `/numbers/<number id>` when there is one.
    pub source: String,
    /// See [`EventType`].
    pub r#type: &'a str,
    /// When it happened, by the provider's clock.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: &'static str,
    /// The schema of `data`.
    pub dataschema: String,
    /// Extension: the tenant.
    pub tenant: &'a str,
    /// Extension: the internal conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Uuid>,
    /// Extension: the partition, 0 to 63.
    pub partition: u16,
    /// Extension: 1 for the first emission, higher after a replay.
    pub revision: u32,
    /// The event itself.
    pub data: &'a RawValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: consumers rely on a conversation staying in its partition.
    #[test]
    fn partitions_never_change() {
        let of = |n: u128| PartitionKey::Conversation(Uuid::from_u128(n)).partition();
        assert_eq!([of(0), of(1), of(u128::MAX)], [21, 59, 9]);
        let text = |text| PartitionKey::Text(text).partition();
        assert_eq!([text("777000111222333"), text("acme"), text("")], [30, 32, 20]);
    }

    #[test]
    fn the_subject_has_the_type_as_tokens() {
        let tenant = TenantId::new("acme").unwrap();
        assert_eq!(event_subject(&tenant, 7, "wharf.message.received"), "wharf.events.acme.7.message.received");
    }
}
