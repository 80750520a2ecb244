//! The event bus: durable queues between the jobs.
//!
//! At least once, in no promised order between consumers. What is published is on disk before the call returns; what
//! nobody has acknowledged is never dropped from a work queue: a full queue refuses.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::Timestamp;
use common::envelope::Lane;

use crate::Unavailable;

/// The queues there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Sealed envelopes on their way to the normalizer. A work queue with a quota per tenant.
    Inbound(Lane),
    /// Request records on their way to the recorder. A work queue.
    Audit,
    /// Normalised events for consumers. Kept by age and size, whether read or not.
    Events,
    /// Hints that there is work in a table. A work queue; losing one only costs time.
    Wakeups,
}

/// What happens to a message that was acknowledged, and to one that never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Kept until acknowledged; one consumer. Refuses when full.
    WorkQueue {
        /// Messages waiting per subject before the next is refused: the quota of a tenant.
        max_per_subject: u64,
    },
    /// Kept for every consumer until it is too old or too much; the oldest goes first.
    Limits {
        /// Messages kept.
        max_messages: u64,
        /// Age after which a message goes.
        max_age: Duration,
    },
}

impl Stream {
    /// Every stream.
    pub const ALL: [Self; 5] =
        [Self::Inbound(Lane::Live), Self::Inbound(Lane::Bulk), Self::Audit, Self::Events, Self::Wakeups];

    /// The largest message that any stream takes: an envelope of a body of 4 MiB that did not compress, with room.
    pub const MAX_MESSAGE_BYTES: usize = 5 << 20;

    /// How long a dedup id is remembered.
    pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

    /// The stable name in tables, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound(Lane::Live) => "inbound_live",
            Self::Inbound(Lane::Bulk) => "inbound_bulk",
            Self::Audit => "audit",
            Self::Events => "events",
            Self::Wakeups => "wakeups",
        }
    }

    /// What is kept, and how long.
    pub const fn retention(self) -> Retention {
        match self {
            Self::Inbound(_) => Retention::WorkQueue { max_per_subject: 1_000_000 },
            Self::Audit => Retention::WorkQueue { max_per_subject: 200_000 },
            Self::Wakeups => Retention::WorkQueue { max_per_subject: 10_000 },
            Self::Events => Retention::Limits { max_messages: 100_000, max_age: Duration::from_hours(24) },
        }
    }
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub stream: Stream,
    /// Its subject: dot-separated tokens; consumers outside filter by it.
    pub subject: String,
    /// The bytes, at most [`Stream::MAX_MESSAGE_BYTES`].
    pub payload: Bytes,
    /// A second message with the same id within [`Stream::DUPLICATE_WINDOW`] is not stored.
    pub dedup_id: Option<String>,
}

/// The acknowledgement of a publish: the message is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its position in the stream.
    pub sequence: u64,
    /// The dedup id was known: nothing was stored, the sequence is that of the first.
    pub duplicate: bool,
}

/// A message that was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The subject's quota is used up. Trying again helps once the consumer has caught up.
    #[error("stream {stream} is full for this subject; its consumer is behind")]
    Full {
        /// The stream.
        stream: &'static str,
    },
    /// Larger than [`Stream::MAX_MESSAGE_BYTES`]. Trying again never helps.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The bus is down. Whether the message was stored is unknown.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A durable reader of a stream. All processes that use one name share its messages.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name, unique over all streams.
    pub name: &'static str,
    /// What it reads.
    pub stream: Stream,
    /// A message not acknowledged or extended for this long is delivered again.
    pub ack_wait: Duration,
}

/// Names one delivered message towards the bus. Opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AckToken(pub String);

/// A message in a consumer's hands.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
    /// Its position in the stream.
    pub sequence: u64,
    /// How often it was delivered, this time included. A hint: it may start again at 1 after a restart of the bus.
    pub delivered: u32,
    /// When it was published.
    pub published_at: Timestamp,
    /// What acknowledges it.
    pub token: AckToken,
}

/// How far a consumer is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages not acknowledged, delivered or not.
    pub depth: u64,
    /// Age of the oldest of them.
    pub oldest_age: Duration,
}

/// See the module's documentation.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes many; the answers are in the order of the messages, and one failure does not undo another's success.
    /// An `Ok` means the message is on disk.
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>>;

    /// Stores all of the messages, in their order, or none of them. `false`: none is stored, since the bus has no such
    /// batches, or not of these; [`EventBus::publish`] is for them. After an error it is unknown.
    async fn publish_whole(&self, _messages: &[Outgoing]) -> Result<bool, Unavailable> {
        Ok(false)
    }

    /// Takes at most `max` messages, waiting at most `wait` for the first. An empty answer means there was nothing.
    /// Messages of one subject come in the order of publishing, unless one is delivered again.
    async fn pull(&self, consumer: &Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>, Unavailable>;

    /// Ends the messages for this consumer. A crash of the bus may bring back what was acknowledged just before, and a
    /// quota may count it for a moment longer. A late or repeated acknowledgement is fine.
    async fn ack(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable>;

    /// Hands the messages back; they are delivered again after `delay`.
    async fn retry_after(&self, consumer: &Consumer, tokens: &[AckToken], delay: Duration) -> Result<(), Unavailable>;

    /// Keeps the messages for another `ack_wait`.
    async fn extend(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable>;

    /// How far the consumer is behind.
    async fn backlog(&self, consumer: &Consumer) -> Result<Backlog, Unavailable>;

    /// Whether a publish to the stream would be durable now: tries what a publish needs, without leaving a message.
    async fn probe(&self, stream: Stream) -> Result<(), Unavailable>;

    /// Whether a publish has a chance now. Cheap and immediate: asked before every request.
    fn is_connected(&self) -> bool;
}
