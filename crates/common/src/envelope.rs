//! The envelope: what the gateway puts on the bus for the normalizer, version 1.
//!
//! ```text
//! "WHRF" | version (1 byte) | header length (4 bytes, big-endian) | header (JSON) | nonce (12 bytes) | ciphertext + tag
//! ```
//!
//! Everything before the nonce is authenticated with the payload ([`crate::sealing`]). The header holds no phone number
//! and no wamid: a wamid contains a phone number. Readers refuse a version they do not know with
//! [`EnvelopeError::UnknownVersion`], which means "wait for newer software", never "drop".

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AppId, EnvelopeId, NumberId, RequestId, TenantId};
use crate::trace::TraceContext;
use crate::update::Provider;

/// The version this software writes.
pub const VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"WHRF";
const PREFIX: usize = MAGIC.len() + 1 + 4;

/// Why an envelope is kept but not delivered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParkReason {
    /// No tenant owns the number or WABA it names.
    UnknownTenant,
    /// The number belongs to another app than the one that signed.
    ForeignApp,
    /// The sender is over the per-phone limit.
    Throttled,
    /// The event is older than the configured age.
    TooOld,
    /// Correctly signed, but not readable as a webhook, or without anything in it that is an update.
    Unreadable,
    /// The tenant is suspended.
    Suspended,
    /// The tenant is paused.
    Paused,
}

impl ParkReason {
    /// The stable name in rows, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTenant => "unknown-tenant",
            Self::ForeignApp => "foreign-app",
            Self::Throttled => "throttled",
            Self::TooOld => "too-old",
            Self::Unreadable => "unreadable",
            Self::Suspended => "suspended",
            Self::Paused => "paused",
        }
    }

    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::UnknownTenant,
        Self::ForeignApp,
        Self::Throttled,
        Self::TooOld,
        Self::Unreadable,
        Self::Suspended,
        Self::Paused,
    ];

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }
}

/// What is to become of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Normalise it and hand it out.
    Deliver,
    /// Keep it and hand it out only when released.
    Parked(ParkReason),
    /// Its signature was not accepted. It can be looked at as long as raw webhooks are kept, and nothing else.
    Refused,
}

/// Which queue an envelope waits in, so that bulk history never delays live traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Ordinary traffic.
    #[default]
    Live,
    /// Bulk history.
    Bulk,
}

impl Lane {
    /// The token of the lane in subjects.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Bulk => "bulk",
        }
    }
}

/// How the payload was packed before it was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// As it is.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// The header of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Fresh for each envelope.
    pub id: EnvelopeId,
    /// The request it came with.
    pub request: RequestId,
    /// Who sent it.
    pub provider: Provider,
    /// The app whose secret signed it.
    pub app: AppId,
    /// The tenant, as far as the gateway knew.
    pub tenant: TenantId,
    /// The business number, if the updates name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<NumberId>,
    /// When the last byte of the request arrived.
    pub received_at: Timestamp,
    /// What is to become of it.
    pub disposition: Disposition,
    /// Its queue.
    pub lane: Lane,
    /// The client's address.
    pub source_ip: IpAddr,
    /// SHA-256 of the whole body of the request, in hex.
    pub body_sha256: String,
    /// The id of the tenant's data key it is sealed under.
    pub key: String,
    /// How the payload is packed.
    pub packing: Packing,
    /// Size of the unpacked payload in bytes.
    pub size: u32,
    /// How many updates are inside.
    pub updates: u32,
    /// Where the request stands in its trace.
    pub trace: TraceContext,
    /// The provider's name for the delivery, the same on each retry: Twilio's `I-Twilio-Idempotency-Token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

/// An envelope that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Written by newer software: keep it and wait.
    #[error("envelope version {0} is newer than this software (it reads version {VERSION}); update this process")]
    UnknownVersion(u8),
    /// The bytes are not an envelope.
    #[error("not an envelope: {0}")]
    Corrupt(&'static str),
}

/// An envelope taken apart, its payload still sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The header.
    pub header: Header,
    /// The bytes that are authenticated with the payload.
    pub associated: &'a [u8],
    /// Nonce, ciphertext and tag.
    pub sealed: &'a [u8],
}

/// Writes everything before the nonce. `capacity` more bytes are reserved for what follows.
pub(crate) fn encode_prefix(header: &Header, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + 640 + capacity);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
    let written = serde_json::to_writer(&mut out, header);
    debug_assert!(written.is_ok(), "a header always serialises");
    let length = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX);
    out[MAGIC.len() + 1..PREFIX].copy_from_slice(&length.to_be_bytes());
    out
}

/// Takes an envelope apart without opening its payload.
pub fn decode(bytes: &[u8]) -> Result<Parts<'_>, EnvelopeError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(EnvelopeError::Corrupt("wrong magic")) };
    let Some((&version, rest)) = rest.split_first() else { return Err(EnvelopeError::Corrupt("no version")) };
    if version != VERSION {
        return Err(EnvelopeError::UnknownVersion(version));
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Err(EnvelopeError::Corrupt("no header length"));
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > rest.len() {
        return Err(EnvelopeError::Corrupt("header longer than the envelope"));
    }
    let header = serde_json::from_slice(&rest[..length]).map_err(|_| EnvelopeError::Corrupt("unreadable header"))?;
    let (associated, sealed) = bytes.split_at(PREFIX + length);
    Ok(Parts { header, associated, sealed })
}
