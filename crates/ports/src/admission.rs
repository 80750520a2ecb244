//! Admission: what the gateway remembers of what it stored, and how much each sender sent.
//!
//! Gateways also tell each other here how much they take, for the limit of all together.
//!
//! All of it only saves work. An answer that never comes, a memory that was flushed, or one that forgot early costs a
//! duplicate that the database folds, never a message: a key counts as known only after [`Admission::remember`], which
//! is called after the publish was acknowledged.

use std::time::Duration;

use async_trait::async_trait;
use common::update::Provider;
use common::{EventKey, Fingerprint, TenantId};

use crate::Unavailable;

/// How much one sender may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderLimit {
    /// Messages per window.
    pub max: u32,
    /// The window; it starts with a sender's first message.
    pub window: Duration,
}

/// What one sender may send, by provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderLimits {
    /// Of Meta's senders.
    pub meta: SenderLimit,
    /// Of Twilio's.
    pub twilio: SenderLimit,
    /// Of the generic provider's.
    pub generic: SenderLimit,
}

impl SenderLimits {
    /// The same for all.
    pub const fn all(limit: SenderLimit) -> Self {
        Self { meta: limit, twilio: limit, generic: limit }
    }

    /// Of one provider's.
    pub const fn of(&self, provider: Provider) -> SenderLimit {
        match provider {
            Provider::Meta => self.meta,
            Provider::Twilio => self.twilio,
            Provider::Generic => self.generic,
        }
    }
}

/// One update asking to be let in.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its key; an update without one is always new.
    pub key: Option<EventKey>,
    /// The fingerprint of its bytes.
    pub fingerprint: Fingerprint,
    /// The sender's keyed hash, if it counts against a limit.
    pub sender: Option<EventKey>,
}

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It was remembered with the same fingerprint.
    pub known: bool,
    /// It is new and its sender is over the limit.
    pub over_limit: bool,
}

/// A key to remember.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Whose it is.
    pub tenant: TenantId,
    /// The key.
    pub key: EventKey,
    /// The fingerprint of the bytes that were stored.
    pub fingerprint: Fingerprint,
}

/// The other gateways, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// How many there are.
    pub gateways: u32,
    /// Verified webhooks that they let through in the last second, together.
    pub taken: u32,
}

/// See the module's documentation.
#[async_trait]
pub trait Admission: Send + Sync {
    /// One verdict for each candidate, in order. Only new candidates count against the limit, and one that is asked
    /// about again before it was remembered (the sender's retry) counts once.
    async fn admit(&self, candidates: &[Candidate], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable>;

    /// Remembers keys for at least 24 hours, or until memory is short. Idempotent by key.
    async fn remember(&self, keys: &[Remembered]) -> Result<(), Unavailable>;

    /// Says how many verified webhooks this gateway let through in the last second, and hears the same of the others. To be
    /// called a few times in a second; who was not heard of for two seconds is gone. Where a memory is one gateway's own,
    /// there are no others.
    async fn compare(&self, _taken: u32) -> Result<Others, Unavailable> {
        Ok(Others::default())
    }
}
