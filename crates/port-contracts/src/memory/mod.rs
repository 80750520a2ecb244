//! Every port in memory: small, law-abiding, and made to fail on demand.
//!
//! For the tests of jobs. [`MemoryBackend`] is a handle: clones are the same backend, so a test keeps one to look inside
//! while a job holds the ports. What goes wrong is arranged with [`Faults`]; [`MemoryBackend::crash`] is a `kill -9`.

mod access;
mod admission;
mod database;
mod directory;
mod event_bus;
mod event_store;
mod faults;
mod identity;
mod logs;
mod outbox;
mod parking;
mod statistics;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::record::{RecordBatch, RequestRecord};
use common::{Clock, EnvelopeId, Timestamp};
use ports::access::Access;
use ports::admission::Admission;
use ports::directory::DirectoryStore;
use ports::event_bus::{EventBus, Stream};
use ports::event_store::{DeadLetter, EventStore, NewUpdate, Parked, RawObject};
use ports::feed::Feed;
use ports::message_log::MessageLog;
use ports::outbox::Outbox;
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::request_log::RequestLog;
use ports::statistics::Statistics;

pub use faults::{Faults, Operation};

use crate::clock::ManualClock;
use crate::harness::Harness;

/// Decides which updates the database refuses, and why.
type Refusal = Box<dyn Fn(&NewUpdate) -> Option<String> + Send + Sync>;

/// A message on the bus, as tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its position.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
    /// Its dedup id.
    pub dedup_id: Option<String>,
    /// When it was published.
    pub published_at: Timestamp,
}

/// All ports over one state in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<ManualClock>,
    faults: Faults,
    bus: event_bus::Bus,
    admission: Mutex<admission::Memory>,
    directory: tokio::sync::watch::Sender<common::directory::Directory>,
    database: Mutex<database::Database>,
    refusal: Mutex<Option<Refusal>>,
    access: Mutex<access::Kept>,
}

impl MemoryBackend {
    /// An empty backend on this clock.
    pub fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                faults: Faults::default(),
                bus: event_bus::Bus::default(),
                admission: Mutex::default(),
                directory: tokio::sync::watch::Sender::default(),
                database: Mutex::default(),
                refusal: Mutex::default(),
                access: Mutex::default(),
            }),
        }
    }

    /// The event bus.
    pub fn bus(&self) -> Arc<dyn EventBus> {
        Arc::new(self.clone())
    }

    /// Admission.
    pub fn admission(&self) -> Arc<dyn Admission> {
        Arc::new(self.clone())
    }

    /// The directory.
    pub fn directory(&self) -> Arc<dyn DirectoryStore> {
        Arc::new(self.clone())
    }

    /// The event store.
    pub fn store(&self) -> Arc<dyn EventStore> {
        Arc::new(self.clone())
    }

    /// The outbox.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(self.clone())
    }

    /// The feed.
    pub fn feed(&self) -> Arc<dyn Feed> {
        Arc::new(self.clone())
    }

    /// The message log.
    pub fn message_log(&self) -> Arc<dyn MessageLog> {
        Arc::new(self.clone())
    }

    /// The request log.
    pub fn request_log(&self) -> Arc<dyn RequestLog> {
        Arc::new(self.clone())
    }

    /// The statistics.
    pub fn statistics(&self) -> Arc<dyn Statistics> {
        Arc::new(self.clone())
    }

    /// Parking.
    pub fn parking(&self) -> Arc<dyn Parking> {
        Arc::new(self.clone())
    }

    /// Raw envelopes.
    pub fn raw(&self) -> Arc<dyn RawIndex> {
        Arc::new(self.clone())
    }

    /// Access.
    pub fn access(&self) -> Arc<dyn Access> {
        Arc::new(self.clone())
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// The clock it runs on.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.shared.clock
    }

    /// Makes [`EventStore::commit`] refuse the updates for which `refusal` gives a reason.
    pub fn refuse_when(&self, refusal: impl Fn(&NewUpdate) -> Option<String> + Send + Sync + 'static) {
        *self.shared.refusal.lock().unwrap() = Some(Box::new(refusal));
    }

    /// What a `kill -9` of every process does: leases and what was only remembered are gone, what was written stays.
    pub fn crash(&self) {
        self.shared.bus.forget_leases();
        *self.shared.admission.lock().unwrap() = admission::Memory::default();
        self.database().forget_leases();
    }

    /// Every message that was ever stored on a stream, acknowledged or not, in order.
    pub fn published(&self, stream: Stream) -> Vec<StoredMessage> {
        self.shared.bus.published(stream)
    }

    /// The updates that were stored as new, in the order of their commits.
    pub fn committed(&self) -> Vec<NewUpdate> {
        self.database().updates.clone()
    }

    /// How often updates were committed as duplicates in an envelope that was not the first to bring them.
    pub fn duplicates(&self) -> u64 {
        self.database().duplicates
    }

    /// The parked envelopes, by id.
    pub fn parked(&self) -> Vec<Parked> {
        self.database().parked.values().cloned().collect()
    }

    /// The dead letters, by tenant and key.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.database().dead_letters.values().cloned().collect()
    }

    /// Where archived envelopes lie, by id.
    pub fn raw_objects(&self) -> Vec<RawObject> {
        self.database().raw_objects.values().cloned().collect()
    }

    /// How many attempts at an envelope have begun and not been taken back or finished.
    pub fn attempts(&self, envelope: EnvelopeId) -> u32 {
        self.database().attempts.get(&envelope).copied().unwrap_or(0)
    }

    /// The recorded batches, each once, in order of arrival.
    pub fn record_batches(&self) -> Vec<RecordBatch> {
        self.database().record_batches.clone()
    }

    /// The recorded requests, in order of arrival.
    pub fn records(&self) -> Vec<RequestRecord> {
        self.database().record_batches.iter().flat_map(|batch| batch.records.clone()).collect()
    }

    fn database(&self) -> MutexGuard<'_, database::Database> {
        self.shared.database.lock().unwrap()
    }

    fn access_rows(&self) -> MutexGuard<'_, access::Kept> {
        self.shared.access.lock().unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.shared.clock.monotonic()
    }
}

/// The memory backend under the laws. A restart is [`MemoryBackend::crash`].
pub struct MemoryHarness(MemoryBackend);

#[async_trait]
impl Harness for MemoryHarness {
    async fn open(clock: Arc<ManualClock>) -> Self {
        Self(MemoryBackend::new(clock))
    }

    async fn restart(self) -> Self {
        self.0.crash();
        self
    }

    fn bus(&self) -> Arc<dyn EventBus> {
        self.0.bus()
    }

    fn admission(&self) -> Arc<dyn Admission> {
        self.0.admission()
    }

    fn directory(&self) -> Arc<dyn DirectoryStore> {
        self.0.directory()
    }

    fn store(&self) -> Arc<dyn EventStore> {
        self.0.store()
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.0.outbox()
    }

    fn feed(&self) -> Arc<dyn Feed> {
        self.0.feed()
    }

    fn message_log(&self) -> Arc<dyn MessageLog> {
        self.0.message_log()
    }

    fn request_log(&self) -> Arc<dyn RequestLog> {
        self.0.request_log()
    }

    fn statistics(&self) -> Arc<dyn Statistics> {
        self.0.statistics()
    }

    fn access(&self) -> Arc<dyn Access> {
        self.0.access()
    }

    fn parking(&self) -> Arc<dyn Parking> {
        self.0.parking()
    }

    fn raw(&self) -> Arc<dyn RawIndex> {
        self.0.raw()
    }
}
