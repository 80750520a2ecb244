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

/// A connection of the test's own to the data.
async fn look(harness: &EmbeddedHarness) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(harness.folder.path().join("messages.db"));
    sqlx::ConnectOptions::connect(&options).await.unwrap()
}

/// All but the one that asks for the last hour: SQLite has neither `NOW()` nor `INTERVAL`.
#[tokio::test(flavor = "multi_thread")]
async fn the_statements_that_people_run_give_the_right_figures() {
    use common::{Clock as _, SystemClock};
    use port_contracts::queries;
    use sqlx::{Column as _, Row as _};

    // One of the views asks the machine for the time.
    let (clock, now) = (ManualClock::new(), SystemClock.now());
    let harness = EmbeddedHarness::open(clock).await;
    queries::load(&*harness.store(), &*harness.request_log(), now).await;
    let run = async |statement: &'static str| {
        let rows = sqlx::query(statement).fetch_all(&mut look(&harness).await).await.unwrap();
        // SQLite makes text of any value.
        let cell = |row: &sqlx::sqlite::SqliteRow, at| row.get_unchecked::<Option<String>, _>(at).unwrap_or_default();
        let columns = |row: &sqlx::sqlite::SqliteRow| {
            row.columns().iter().map(|column| (column.name().to_owned(), cell(row, column.ordinal()))).collect()
        };
        rows.iter().map(columns).collect()
    };
    queries::check(now, false, run).await;
}

#[tokio::test]
async fn buckets_have_the_bounds_of_the_program() {
    let harness = EmbeddedHarness::open(ManualClock::new()).await;
    let upper: Vec<Option<f64>> = sqlx::query_scalar("SELECT upper_ms FROM webhook_histogram_bounds ORDER BY bucket")
        .fetch_all(&mut look(&harness).await)
        .await
        .unwrap();
    let bounds = ports::statistics::rollup::Histogram::bounds();
    assert_eq!(upper, bounds.iter().copied().map(Some).chain([None]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_says_whose_webhook_it_came_in() {
    use common::update::Provider;
    use port_contracts::samples::message;
    use ports::event_store::{Batch, DeadLetter, NewUpdate};

    let harness = EmbeddedHarness::open(ManualClock::new()).await;
    let updates = (1..).zip(Provider::ALL).map(|(n, provider)| NewUpdate { provider, ..message(n) });
    let dead_letters = (11..).zip(Provider::ALL).map(|(n, provider)| DeadLetter {
        tenant: message(n).tenant,
        provider,
        key: message(n).key,
        envelope: message(n).envelope,
        received_at: message(n).received_at,
        reason: "broken".to_owned(),
        sealed: b"sealed".as_slice().into(),
        message: Some((format!("wamid.{n}"), None)),
    });
    let batch = Batch { updates: updates.collect(), dead_letters: dead_letters.collect(), ..Batch::default() };
    harness.store().commit(batch).await.unwrap();
    let sources: Vec<String> = sqlx::query_scalar(
        "SELECT webhook_source FROM webhook_messages ORDER BY status, length(message_id), message_id",
    )
    .fetch_all(&mut look(&harness).await)
    .await
    .unwrap();
    assert_eq!(sources, ["whatsapp", "twilio", "generic", "whatsapp", "twilio", "generic"]);
}
