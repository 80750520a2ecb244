//! What can be tuned, and the names of the consumers.
//!
//! The defaults are meant to be left alone; each says what it trades. This is not the configuration file: the binary
//! maps its sections here.

use std::time::Duration;

use common::envelope::Lane;
use ports::admission::{SenderLimit, SenderLimits};
use ports::event_bus::{Consumer, Stream};

/// See the fields. [`Default`] is right for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Envelopes per pull: more drain a backlog faster, and are redelivered together after a crash. 256.
    pub batch: usize,
    /// Sealed bytes per transaction: large envelopes are committed in several, so that memory stays bounded. 4 MiB.
    pub batch_bytes: usize,
    /// How long a pull waits for a first message. 1 s.
    pub pull_wait: Duration,
    /// After how long without a word the bus delivers again; held messages are extended at a third of it. 30 s.
    pub ack_wait: Duration,
    /// Deliveries of an envelope after which it is handled alone, its attempts counted durably. 3.
    pub max_deliveries: u32,
    /// Attempts at an envelope that did not end before it becomes a dead letter, unopened. 3.
    pub max_unfinished_attempts: u32,
    /// When an envelope that waits for a key or for newer software is looked at again. 30 s.
    pub waiting_delay: Duration,
    /// Envelopes of a batch from which on it is archived at once, as an object of its own. Fewer wait in the database for
    /// the next sweep: an object for each would cost two syncs, and fill the blob store with small objects. 64.
    pub archive_at_once: usize,
    /// How long archiving a batch may take before its bytes go into the database instead. 2 s.
    pub blob_timeout: Duration,
    /// How often bytes in the database are moved to the blob store; after a failed put, no other is tried for as long.
    /// 10 s.
    pub raw_sweep: Duration,
    /// Events that the publisher takes at once. 512.
    pub publish_batch: usize,
    /// How long another publisher keeps off what this one has taken. 30 s.
    pub publish_lease: Duration,
    /// The sequencer's lease; renewed at a third of it. 10 s.
    pub sequencer_ttl: Duration,
    /// How often the publisher looks for events when nobody rings. 500 ms.
    pub outbox_poll: Duration,
    /// How often the backlog is measured. 5 s.
    pub gauges: Duration,
    /// An older unacknowledged envelope raises an alert in the log. 5 minutes.
    pub oldest_alert: Duration,
    /// At which pace throttled messages of one sender are let go: that of the limits themselves.
    pub throttle: SenderLimits,
    /// How long raw envelopes are kept. 7 days, and not more.
    pub keep_raw: Duration,
    /// How long parked envelopes are kept. 30 days.
    pub keep_parked: Duration,
    /// How long a batch in hand may take to finish when a stop is asked for; then it is left to redelivery. 3 s.
    pub stop_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch: 256,
            batch_bytes: 4 << 20,
            pull_wait: Duration::from_secs(1),
            ack_wait: Duration::from_secs(30),
            max_deliveries: 3,
            max_unfinished_attempts: 3,
            waiting_delay: Duration::from_secs(30),
            archive_at_once: 64,
            blob_timeout: Duration::from_secs(2),
            raw_sweep: Duration::from_secs(10),
            publish_batch: 512,
            publish_lease: Duration::from_secs(30),
            sequencer_ttl: Duration::from_secs(10),
            outbox_poll: Duration::from_millis(500),
            gauges: Duration::from_secs(5),
            oldest_alert: Duration::from_mins(5),
            throttle: SenderLimits::all(SenderLimit { max: 100, window: Duration::from_hours(1) }),
            keep_raw: Duration::from_hours(7 * 24),
            keep_parked: Duration::from_hours(30 * 24),
            stop_grace: Duration::from_secs(3),
        }
    }
}

/// The consumer of ordinary traffic.
pub const fn consumer_live(config: &Config) -> Consumer {
    Consumer { name: "normalizer-live", stream: Stream::Inbound(Lane::Live), ack_wait: config.ack_wait }
}

/// The consumer of bulk history.
pub const fn consumer_bulk(config: &Config) -> Consumer {
    Consumer { name: "normalizer-bulk", stream: Stream::Inbound(Lane::Bulk), ack_wait: config.ack_wait }
}

/// The consumer of request records.
pub const fn consumer_recorder(config: &Config) -> Consumer {
    Consumer { name: "recorder", stream: Stream::Audit, ack_wait: config.ack_wait }
}
