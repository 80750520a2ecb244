//! Request records: what the gateway says of each request it answered, for audit and statistics.
//!
//! Records hold no content, no phone number and no provider id, only keyed hashes. They travel in batches; a batch has
//! an id, so that a batch delivered twice is counted once.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::ids::{AppId, EventKey, RequestId, TenantId};
use crate::update::Provider;

/// The reason of requests that were refused because their address is not on the list of those that may send.
pub const REASON_ADDRESS_LIST: &str = "address-list";

/// What the check of the signature said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureStatus {
    /// It matches one of the secrets.
    Valid,
    /// It matches none.
    Invalid,
    /// There is none.
    Missing,
    /// It has not the right form.
    Malformed,
    /// The request was refused before the check, or the check is switched off.
    Skipped,
}

impl SignatureStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Valid, Self::Invalid, Self::Missing, Self::Malformed, Self::Skipped];

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }

    /// The name in rows and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Skipped => "skipped",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Stored and answered 200.
    Accepted,
    /// Everything in it was known: answered 200 without storing.
    Duplicate,
    /// Refused (4xx).
    Refused,
    /// Could not be stored in time (503): the sender tries again.
    Unavailable,
}

impl Outcome {
    /// The name in rows and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The messages of one tenant in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMessages {
    /// Whose they are.
    pub tenant: TenantId,
    /// Inbound messages that were stored.
    pub stored: Vec<EventKey>,
    /// Inbound messages that were known and stopped at the gateway.
    pub duplicates: Vec<EventKey>,
}

/// One request, or several alike (`weight`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request.
    pub request: RequestId,
    /// When its last byte arrived.
    pub received_at: Timestamp,
    /// The client's address.
    pub source_ip: IpAddr,
    /// Whose webhook it claims to be.
    pub provider: Provider,
    /// The path, without prefix.
    pub endpoint: String,
    /// The app whose secret signed it.
    pub app: Option<AppId>,
    /// The tenant of the first update.
    pub tenant: Option<TenantId>,
    /// The first update's key.
    pub event: Option<EventKey>,
    /// The first update's kind.
    pub event_type: Option<String>,
    /// Updates inside.
    pub event_count: u32,
    /// The signature check.
    pub signature: SignatureStatus,
    /// The answer.
    pub http_status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where there is something to say; a fixed word, never input.
    pub reason: Option<String>,
    /// Whether it looks like an attempt at something.
    pub suspicious: bool,
    /// From the last byte of the request to the answer, in milliseconds.
    pub processing_ms: f64,
    /// How many requests this record stands for.
    pub weight: u32,
    /// The inbound messages in it.
    pub messages: Vec<RecordedMessages>,
}

/// What travels on the bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordBatch {
    /// Fresh for each batch.
    pub id: Uuid,
    /// The records, oldest first.
    pub records: Vec<RequestRecord>,
}
