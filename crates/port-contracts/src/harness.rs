//! What a backend provides to be put to the laws.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::access::Access;
use ports::admission::Admission;
use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use ports::event_store::EventStore;
use ports::feed::Feed;
use ports::message_log::MessageLog;
use ports::outbox::Outbox;
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::request_log::RequestLog;
use ports::statistics::Statistics;

use crate::clock::ManualClock;

/// A backend under test. Differences that the laws allow are its constants.
///
/// Laws never keep a port over [`Harness::restart`], so that a backend may own files that only one process opens.
#[async_trait]
pub trait Harness: Sized + Send + Sync {
    /// Whether a dedup id is known within its window even though its message was acknowledged and the backend was
    /// started again since.
    const REMEMBERS_DEDUP_OF_ACKED_OVER_RESTART: bool = true;

    /// Whether an acknowledgement counts even though the bus itself crashed right after it.
    const REMEMBERS_ACKS_OVER_RESTART: bool = true;

    /// A fresh, empty backend on this clock.
    async fn open(clock: Arc<ManualClock>) -> Self;

    /// The same data after the process was killed and started again; nothing is flushed on purpose.
    async fn restart(self) -> Self;

    /// Lets time pass for the backend. The only way in which laws move time: a backend on servers with clocks of their
    /// own overrides it.
    async fn pass(&self, clock: &ManualClock, time: Duration) {
        clock.advance(time);
    }

    /// The event bus.
    fn bus(&self) -> Arc<dyn EventBus>;
    /// Admission.
    fn admission(&self) -> Arc<dyn Admission>;
    /// The directory.
    fn directory(&self) -> Arc<dyn DirectoryStore>;
    /// The event store.
    fn store(&self) -> Arc<dyn EventStore>;
    /// The outbox of the same database as [`Harness::store`].
    fn outbox(&self) -> Arc<dyn Outbox>;
    /// The feed of the same database.
    fn feed(&self) -> Arc<dyn Feed>;
    /// The message log of the same database.
    fn message_log(&self) -> Arc<dyn MessageLog>;
    /// The request log of the same database.
    fn request_log(&self) -> Arc<dyn RequestLog>;
    /// The statistics of the same database.
    fn statistics(&self) -> Arc<dyn Statistics>;
    /// Parking, in the same database as [`Harness::store`].
    fn parking(&self) -> Arc<dyn Parking>;
    /// Raw envelopes, in the same database.
    fn raw(&self) -> Arc<dyn RawIndex>;
    /// Access, in the same database.
    fn access(&self) -> Arc<dyn Access>;
}
