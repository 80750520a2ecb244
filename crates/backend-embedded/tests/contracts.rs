//! The embedded backend under the laws of every port.
//!
//! A restart is what a killed process leaves: the files are copied as they are while the old process still has them
//! open, and a new one opens the copy.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::sync::Arc;

use async_trait::async_trait;
use backend_embedded::{DataFolder, Embedded};
use port_contracts::{Harness, ManualClock};
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
use tempfile::TempDir;

struct EmbeddedHarness {
    backend: Embedded,
    clock: Arc<ManualClock>,
    locked: DataFolder,
    // Deleted last.
    folder: TempDir,
}

impl EmbeddedHarness {
    async fn in_folder(folder: TempDir, clock: Arc<ManualClock>) -> Self {
        let locked = DataFolder::lock(folder.path()).unwrap();
        let backend = Embedded::open(&locked, &folder.path().join("messages.db"), clock.clone()).await.unwrap();
        Self { backend, clock, locked, folder }
    }
}

#[async_trait]
impl Harness for EmbeddedHarness {
    async fn open(clock: Arc<ManualClock>) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), clock).await
    }

    async fn restart(self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.folder.path()).unwrap() {
            let file = file.unwrap();
            if !file.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
        }
        self.backend.close().await;
        drop(self.locked);
        Self::in_folder(copy, self.clock).await
    }

    fn bus(&self) -> Arc<dyn EventBus> {
        self.backend.bus.clone()
    }

    fn admission(&self) -> Arc<dyn Admission> {
        self.backend.admission.clone()
    }

    fn directory(&self) -> Arc<dyn DirectoryStore> {
        self.backend.directory.clone()
    }

    fn store(&self) -> Arc<dyn EventStore> {
        self.backend.store.clone()
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.backend.outbox.clone()
    }

    fn feed(&self) -> Arc<dyn Feed> {
        self.backend.feed.clone()
    }

    fn message_log(&self) -> Arc<dyn MessageLog> {
        self.backend.message_log.clone()
    }

    fn request_log(&self) -> Arc<dyn RequestLog> {
        self.backend.request_log.clone()
    }

    fn statistics(&self) -> Arc<dyn Statistics> {
        self.backend.statistics.clone()
    }

    fn parking(&self) -> Arc<dyn Parking> {
        self.backend.parking.clone()
    }

    fn raw(&self) -> Arc<dyn RawIndex> {
        self.backend.parking.clone()
    }

    fn access(&self) -> Arc<dyn Access> {
        self.backend.access.clone()
    }
}

port_contracts::contracts!(EmbeddedHarness);

#[tokio::test]
async fn a_folder_in_use_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let _first = DataFolder::lock(folder.path()).unwrap();
    let second = DataFolder::lock(folder.path()).unwrap_err();
    assert!(second.to_string().contains("in use by another wharf process"), "{second}");
}

#[tokio::test]
async fn a_message_that_outlives_crashes_counts_them_and_an_orderly_end_does_not() {
    use common::envelope::Lane;
    use ports::event_bus::{Consumer, Outgoing, Stream};
    use std::time::Duration;

    let clock = ManualClock::new();
    let consumer = Consumer { name: "reader", stream: Stream::Inbound(Lane::Live), ack_wait: Duration::from_secs(30) };
    let mut harness = EmbeddedHarness::open(clock.clone()).await;
    let message = Outgoing {
        stream: consumer.stream,
        subject: "inbound.live.acme".into(),
        payload: b"poison".as_slice().into(),
        dedup_id: None,
    };
    assert!(harness.bus().publish(vec![message]).await[0].is_ok());
    for deliveries in 1..=4 {
        let pulled = harness.bus().pull(&consumer, 10, Duration::ZERO).await.unwrap();
        assert_eq!(pulled[0].delivered, deliveries);
        harness = harness.restart().await;
    }
    // The same folder, closed as a stop does.
    harness.backend.close().await;
    let backend = Embedded::open(&harness.locked, &harness.folder.path().join("messages.db"), clock).await.unwrap();
    let pulled = backend.bus.pull(&consumer, 10, Duration::ZERO).await.unwrap();
    assert_eq!(pulled[0].delivered, 5, "as after the last crash");
    backend.close().await;
}
