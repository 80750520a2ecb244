//! A backend with its clock, as a law sees it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::{Clock as _, NumberId, TenantId, Timestamp};
use ports::access::Access;
use ports::admission::Admission;
use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use ports::event_store::{Batch, CommitOutcome, EventStore, NewUpdate};
use ports::feed::{Feed, FeedEvent, FeedFilter, Position};
use ports::message_log::MessageLog;
use ports::outbox::{Fence, Outbox};
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::request_log::RequestLog;
use ports::statistics::Statistics;
use uuid::Uuid;

use crate::clock::ManualClock;
use crate::harness::Harness;

/// Longer than anything that must happen takes, on a busy machine too.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// The owner of the sequencer's lease where a law is not about it.
const SEQUENCER: Uuid = Uuid::from_u128(0x5e9);

pub(crate) struct Scene<H> {
    harness: H,
    clock: Arc<ManualClock>,
}

impl<H: Harness> Scene<H> {
    pub(crate) async fn open() -> Self {
        let clock = ManualClock::new();
        Self { harness: H::open(Arc::clone(&clock)).await, clock }
    }

    pub(crate) async fn restart(self) -> Self {
        Self { harness: self.harness.restart().await, clock: self.clock }
    }

    pub(crate) async fn pass(&self, time: Duration) {
        self.harness.pass(&self.clock, time).await;
    }

    pub(crate) fn bus(&self) -> Arc<dyn EventBus> {
        self.harness.bus()
    }

    pub(crate) fn admission(&self) -> Arc<dyn Admission> {
        self.harness.admission()
    }

    pub(crate) fn directory(&self) -> Arc<dyn DirectoryStore> {
        self.harness.directory()
    }

    pub(crate) fn store(&self) -> Arc<dyn EventStore> {
        self.harness.store()
    }

    pub(crate) fn outbox(&self) -> Arc<dyn Outbox> {
        self.harness.outbox()
    }

    pub(crate) fn feed(&self) -> Arc<dyn Feed> {
        self.harness.feed()
    }

    pub(crate) fn message_log(&self) -> Arc<dyn MessageLog> {
        self.harness.message_log()
    }

    pub(crate) fn request_log(&self) -> Arc<dyn RequestLog> {
        self.harness.request_log()
    }

    pub(crate) fn statistics(&self) -> Arc<dyn Statistics> {
        self.harness.statistics()
    }

    pub(crate) fn access(&self) -> Arc<dyn Access> {
        self.harness.access()
    }

    pub(crate) fn parking(&self) -> Arc<dyn Parking> {
        self.harness.parking()
    }

    pub(crate) fn raw(&self) -> Arc<dyn RawIndex> {
        self.harness.raw()
    }

    /// The time, as a process sees it.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Commits updates in one batch.
    pub(crate) async fn commit(&self, updates: Vec<NewUpdate>) -> Vec<CommitOutcome> {
        let count = updates.len();
        let committed = self.store().commit(Batch { updates, ..Batch::default() }).await.unwrap();
        assert_eq!(committed.outcomes.len(), count, "one outcome for each update");
        committed.outcomes
    }

    /// Commits updates that must all be new.
    pub(crate) async fn commit_new(&self, updates: Vec<NewUpdate>) {
        let outcomes = self.commit(updates).await;
        assert!(outcomes.iter().all(|each| *each == CommitOutcome::New), "{outcomes:?}");
    }

    /// The sequencer's lease of this scene, taken or renewed.
    pub(crate) async fn fence(&self) -> Fence {
        let lease = self.outbox().acquire_sequencer(SEQUENCER, Duration::from_mins(1)).await.unwrap();
        lease.expect("no other owner holds the sequencer's lease")
    }

    /// Gives every committed event its position; returns how many got one.
    pub(crate) async fn sequence_all(&self) -> usize {
        let fence = self.fence().await;
        let mut total = 0;
        loop {
            let count = self.outbox().sequence(fence, 100).await.unwrap();
            total += count;
            if count == 0 {
                return total;
            }
        }
    }

    /// Commits new updates, sequences them, and returns their events in the order of the feed.
    pub(crate) async fn emit(&self, updates: Vec<NewUpdate>) -> Vec<FeedEvent> {
        let before = self.read_all(0, &FeedFilter::default()).await.last().map_or(0, |event| event.position);
        self.commit_new(updates).await;
        self.sequence_all().await;
        self.read_all(before, &FeedFilter::default()).await
    }

    /// The whole feed.
    pub(crate) async fn all_events(&self) -> Vec<FeedEvent> {
        self.read_all(0, &FeedFilter::default()).await
    }

    /// Reads on until the feed ends, in small pages.
    pub(crate) async fn read_all(&self, mut after: Position, filter: &FeedFilter) -> Vec<FeedEvent> {
        let mut events = Vec::new();
        loop {
            let page = self.feed().read(after, 3, filter).await.unwrap();
            assert!(page.events.len() <= 3, "the limit holds");
            assert!(page.next >= after, "reading goes forward");
            for event in &page.events {
                assert!(event.position > after && event.position <= page.next, "events of a page lie within it");
            }
            events.extend(page.events);
            if page.next == after {
                assert!(events.is_sorted_by(|a, b| a.position < b.position), "positions grow");
                return events;
            }
            after = page.next;
        }
    }
}

/// Fails instead of hanging.
pub(crate) async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

/// Polls `work` for a moment; fails if it ends. Afterwards it is (as far as can be told) waiting.
pub(crate) async fn is_waiting<T>(work: &mut (impl Future<Output = T> + Unpin)) {
    let moment = tokio::time::timeout(Duration::from_millis(50), work).await;
    assert!(moment.is_err(), "it does not end before there is a reason");
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn number(id: &str) -> NumberId {
    NumberId::new(id).unwrap()
}
