//! Parking: envelopes that are kept until released, looked through and let go.
//!
//! What is parked is written by [`EventStore::commit`](crate::event_store::EventStore::commit), and taken out by it too,
//! in the transaction that stores what was inside. Here it is listed, and due ones are handed to whoever looks whether
//! they can go now.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::envelope::ParkReason;
use common::{EnvelopeId, NumberId, TenantId, Timestamp};

use crate::Unavailable;

/// Which parked envelopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedFilter {
    /// Only this one.
    pub envelope: Option<EnvelopeId>,
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only those parked for this reason.
    pub reason: Option<ParkReason>,
    /// Only those that name this number.
    pub number: Option<NumberId>,
}

/// A parked envelope, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRow {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Why.
    pub reason: ParkReason,
    /// The number, if it names one.
    pub number: Option<NumberId>,
    /// When it was received.
    pub received_at: Timestamp,
    /// How many updates are inside.
    pub updates: u32,
    /// When it is looked at next; `None` is when the directory changes, or somebody asks for it.
    pub due_at: Option<Timestamp>,
}

/// A parked envelope to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What is known of it.
    pub row: ParkedRow,
    /// An operator wants it out, whatever it was parked for.
    pub is_forced: bool,
    /// Its bytes, sealed.
    pub sealed: Bytes,
}

/// Envelopes parked alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedGroup {
    /// Whose they are.
    pub tenant: TenantId,
    /// Why.
    pub reason: ParkReason,
    /// The number that they name.
    pub number: Option<NumberId>,
    /// How many envelopes.
    pub envelopes: u64,
    /// How many updates are inside.
    pub updates: u64,
    /// When the oldest was received.
    pub oldest: Timestamp,
}

/// See the module's documentation.
#[async_trait]
pub trait Parking: Send + Sync {
    /// Parked envelopes in the order of their receipt and their ids, from behind `after`.
    async fn list(
        &self,
        filter: &ParkedFilter,
        after: Option<(Timestamp, EnvelopeId)>,
        limit: u32,
    ) -> Result<Vec<ParkedRow>, Unavailable>;

    /// All of them, summed up; in the order of tenant, reason and number.
    async fn groups(&self) -> Result<Vec<ParkedGroup>, Unavailable>;

    /// Makes all that match due at a moment (or earlier, if they were), and forced if that is wanted; what is forced is
    /// taken from whoever looks at it now. By portions: after an error some are. Returns how many there are.
    async fn make_due(&self, filter: &ParkedFilter, at: Timestamp, forced: bool) -> Result<u64, Unavailable>;

    /// Takes up to `max` that are due at this moment, the longest due first, and keeps them from others for `lease`, by
    /// the store's own clock.
    async fn take_due(&self, now: Timestamp, max: usize, lease: Duration) -> Result<Vec<Due>, Unavailable>;

    /// Puts back what cannot go now, unless it was forced meanwhile. It is not forced any more.
    async fn put_back(&self, envelopes: &[EnvelopeId], due_at: Option<Timestamp>) -> Result<(), Unavailable>;

    /// Deletes up to `max` that were received before a moment; returns what they were.
    async fn expire(&self, received_before: Timestamp, max: usize) -> Result<Vec<ParkedRow>, Unavailable>;
}
