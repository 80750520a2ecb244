//! The tables behind store, outbox, feed and logs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use common::record::RecordBatch;
use common::update::Provider;
use common::{EnvelopeId, EventKey, TenantId, Timestamp};
use ports::event_store::{DeadLetter, NewUpdate, Parked, RawObject, RawPending};
use ports::feed::FeedEvent;
use ports::message_log::LoggedMessage;
use ports::outbox::Fence;
use uuid::Uuid;

use super::identity::Identities;

/// A lease that ends by itself.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    pub(super) owner: Uuid,
    pub(super) until: Duration,
}

/// An event on its way out.
pub(super) struct OutboxRow {
    /// Its position is 0 until it is sequenced.
    pub(super) event: FeedEvent,
    pub(super) lease: Option<Lease>,
    pub(super) published: bool,
}

/// An inbound message as statistics count it.
pub(super) struct Tracked {
    pub(super) provider: Provider,
    pub(super) failed: bool,
    pub(super) created_at: Timestamp,
    pub(super) received_at: Timestamp,
    /// Envelopes that brought it, the first one first; each counts once.
    pub(super) envelopes: Vec<EnvelopeId>,
    /// Envelopes in which it became a dead letter.
    pub(super) failures: Vec<EnvelopeId>,
}

/// Messages of one minute that were not handed out as they came: throttled, late.
#[derive(Default)]
pub(super) struct Held {
    pub(super) throttled: u64,
    pub(super) late: u64,
}

#[derive(Default)]
pub(super) struct Database {
    /// The envelope that brought each update first.
    pub(super) keys: HashMap<(TenantId, EventKey), EnvelopeId>,
    pub(super) updates: Vec<NewUpdate>,
    pub(super) duplicates: u64,
    pub(super) identities: Identities,
    /// In the order of commits; the sequenced ones come first.
    pub(super) outbox: Vec<OutboxRow>,
    pub(super) sequenced: usize,
    pub(super) sequencer: Option<Lease>,
    pub(super) fence: Option<Fence>,
    pub(super) messages: Vec<LoggedMessage>,
    pub(super) tracked: BTreeMap<(TenantId, EventKey), Tracked>,
    pub(super) held: BTreeMap<Timestamp, Held>,
    pub(super) parked: BTreeMap<EnvelopeId, Parked>,
    pub(super) held_aside: super::parking::Held,
    pub(super) dead_letters: BTreeMap<(TenantId, EventKey), DeadLetter>,
    pub(super) raw_objects: BTreeMap<EnvelopeId, RawObject>,
    pub(super) raw_pending: Vec<RawPending>,
    pub(super) attempts: HashMap<EnvelopeId, u32>,
    pub(super) record_batches: Vec<RecordBatch>,
}

impl Database {
    pub(super) fn forget_leases(&mut self) {
        self.sequencer = None;
        self.held_aside.forget_leases();
        self.outbox.iter_mut().for_each(|row| row.lease = None);
    }
}
