//! Identifiers. Each kind of id is a type of its own, so that one can never stand in for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name that is not allowed, with the rule it breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what} must be {rule}")]
pub struct IdError {
    what: &'static str,
    rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and makes it an id.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(IdError { what: $what, rule: $rule }) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

fn is_name(text: &str) -> bool {
    (1..=48).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_provider_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-_.:".contains(&b))
}

text_id!(
    /// A customer whose numbers and data are kept apart from all others.
    ///
    /// `[a-z0-9-]{1,48}` for every tenant that can be registered; the reserved [`TenantId::unassigned`] is spelled with
    /// an underscore so that it can never collide.
    TenantId, "a tenant id", "1 to 48 of the characters a-z, 0-9 and -", |text| is_name(text) || text == "_unassigned"
);
text_id!(
    /// A Meta app (or a provider account) whose secret signs webhooks. Chosen by the operator.
    AppId, "an app id", "1 to 48 of the characters a-z, 0-9 and -", is_name
);
text_id!(
    /// Meta's `phone_number_id`: the business number a webhook is addressed to. At most 64 characters.
    NumberId, "a phone number id", "1 to 64 letters, digits or +-_.:", is_provider_id
);
text_id!(
    /// Meta's WhatsApp business account id (`entry[].id`). At most 64 characters.
    WabaId, "a WABA id", "1 to 64 letters, digits or +-_.:", is_provider_id
);

impl TenantId {
    /// The reserved tenant of everything that could not be assigned to one. It cannot be registered.
    pub fn unassigned() -> Self {
        Self(Arc::from("_unassigned"))
    }

    /// Whether this is the reserved tenant.
    pub fn is_unassigned(&self) -> bool {
        &*self.0 == "_unassigned"
    }

    /// The tenant of single-tenant operation.
    #[expect(clippy::should_implement_trait, reason = "`default` is this tenant's name")]
    pub fn default() -> Self {
        Self(Arc::from("default"))
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// One envelope on the bus (UUIDv7: sorts by time of creation).
    EnvelopeId
);
uuid_id!(
    /// One HTTP request (UUIDv7). Travels in logs, in the envelope and in the request record.
    RequestId
);
uuid_id!(
    /// One normalised event (UUIDv8 made of its [`EventKey`]): the same event has the same id however often it arrives.
    EventId
);

impl EnvelopeId {
    /// A fresh id. Never made from anything a sender controls: the sealing key depends on it.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The reference under which the archived raw payload is found, valid before it is written.
    pub fn raw_payload_ref(self) -> String {
        format!("wharf:raw/{self}")
    }
}

impl RequestId {
    /// A fresh id.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

/// The keyed hash that makes an event unique within its tenant: the first 16 bytes of an HMAC-SHA256 under the
/// tenant's event hash key.
///
/// Provider ids of messages contain phone numbers, so they appear only in this form outside sealed payloads and rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "&str", into = "String")]
pub struct EventKey(pub [u8; 16]);

/// The first 16 bytes of the SHA-256 of an update's bytes: tells a repetition from another content under the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl EventKey {
    /// The id of the event with this key.
    pub fn event_id(self) -> EventId {
        EventId(Uuid::new_v8(self.0))
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventKey({self})")
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", hex::encode(self.0))
    }
}

impl From<EventKey> for String {
    fn from(key: EventKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<&str> for EventKey {
    type Error = hex::FromHexError;
    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_ids_follow_the_rule() {
        assert!(TenantId::new("acme-2").is_ok());
        for bad in ["", "Acme", "a_b", "a.b", "*", ">", &"a".repeat(49)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TenantId::unassigned().is_unassigned());
        assert_eq!(TenantId::new("_unassigned").unwrap(), TenantId::unassigned());
    }

    #[test]
    fn the_event_id_is_a_version_8_uuid_of_the_key() {
        let id = EventKey([0xff; 16]).event_id();
        assert_eq!(id.0.get_version_num(), 8);
        assert_eq!(id, EventKey([0xff; 16]).event_id());
    }
}
