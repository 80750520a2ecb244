//! The outbox: stored events on their way to the feed and the bus.
//!
//! Events get one global feed position each, in an order that never changes, from one sequencer at a time. Readers see
//! only events that have a position, so nobody who reads on from a position misses an event that committed late.
//! Publishing follows that order within each partition and may repeat; it never skips.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::Unavailable;
use crate::feed::{FeedEvent, Position};

/// Proof of being the sequencer. A newer one makes an older one worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// A sequencing step that was not done.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// Another process holds a newer lease: stop and acquire again.
    #[error("another process has become the sequencer")]
    Fenced,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// See the module's documentation.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes or renews the sequencer's lease for `ttl`; `None` while another owner's lease runs. Renewing keeps the
    /// fence.
    async fn acquire_sequencer(&self, owner: Uuid, ttl: Duration) -> Result<Option<Fence>, Unavailable>;

    /// Gives at most `max` new events their positions, in the order of their commits; returns how many.
    async fn sequence(&self, fence: Fence, max: usize) -> Result<usize, SequenceError>;

    /// Takes at most `max` sequenced events that are not marked, in order of position, for `lease`. While an owner has
    /// unmarked events of a partition, no other owner gets events of it.
    async fn claim(&self, owner: Uuid, max: usize, lease: Duration) -> Result<Vec<FeedEvent>, Unavailable>;

    /// Marks events as published. Idempotent by position.
    async fn mark(&self, owner: Uuid, positions: &[Position]) -> Result<(), Unavailable>;

    /// [`Outbox::mark`] and then [`Outbox::sequence`], for one who does both, in one step where there is one. Whoever is
    /// fenced off has marked.
    async fn mark_and_sequence(
        &self,
        owner: Uuid,
        positions: &[Position],
        fence: Fence,
        max: usize,
    ) -> Result<usize, SequenceError> {
        if !positions.is_empty() {
            self.mark(owner, positions).await?;
        }
        self.sequence(fence, max).await
    }

    /// How many events are not marked.
    async fn unpublished(&self) -> Result<u64, Unavailable>;
}
