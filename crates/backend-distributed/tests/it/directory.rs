//! The directory as `api` writes it and the gateway reads it: PostgreSQL and the stream, under the laws and beyond.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backend_distributed::directory::PublishedDirectory;
use backend_distributed::nats::Nats;
use common::directory::{Directory, Entry};
use port_contracts::memory::MemoryHarness;
use port_contracts::{Harness, ManualClock};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError, update};

use crate::{event_bus, install_tls, other_ports_in_memory, others, postgres};

struct PublishedHarness {
    nats_server: test_servers::Nats,
    postgres_server: test_servers::Postgres,
    directory: Arc<WrittenHereReadThere>,
    others: MemoryHarness,
}

/// Writes as `api` does, reads as the gateway does.
struct WrittenHereReadThere {
    published: Arc<PublishedDirectory>,
    nats: Nats,
}

async fn connect(nats: &test_servers::Nats, postgres: &test_servers::Postgres) -> Arc<WrittenHereReadThere> {
    let nats = Nats::connect(event_bus::config(nats)).await.unwrap();
    nats.migrate().await.unwrap();
    let published = PublishedDirectory::new(&postgres::connect(&postgres.url()).await, &nats);
    published.publish_missing().await.unwrap();
    Arc::new(WrittenHereReadThere { published, nats })
}

#[async_trait]
impl DirectoryStore for WrittenHereReadThere {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        self.nats.directory().snapshot().await
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        self.nats.directory().changed(revision).await
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        self.published.write(entries, read_at).await
    }
}

#[async_trait]
impl Harness for PublishedHarness {
    async fn open(clock: Arc<ManualClock>) -> Self {
        install_tls();
        let (nats_server, postgres_server) = (test_servers::Nats::start(), postgres::server());
        let directory = connect(&nats_server, &postgres_server).await;
        Self { nats_server, postgres_server, directory, others: others(clock).await }
    }

    async fn restart(mut self) -> Self {
        self.nats_server.kill();
        self.postgres_server.kill();
        self.nats_server.start_again();
        self.postgres_server.start_again();
        Self { directory: connect(&self.nats_server, &self.postgres_server).await, ..self }
    }

    fn directory(&self) -> Arc<dyn DirectoryStore> {
        self.directory.clone()
    }

    other_ports_in_memory! {
        bus -> ports::event_bus::EventBus,
        admission -> ports::admission::Admission,
        store -> ports::event_store::EventStore,
        outbox -> ports::outbox::Outbox,
        feed -> ports::feed::Feed,
        message_log -> ports::message_log::MessageLog,
        request_log -> ports::request_log::RequestLog,
        statistics -> ports::statistics::Statistics,
        parking -> ports::parking::Parking,
        raw -> ports::raw::RawIndex,
        access -> ports::access::Access,
    }
}

port_contracts::directory_contract!(PublishedHarness);

fn switch(on: bool) -> Vec<Entry> {
    vec![Entry::SingleTenant(on)]
}

async fn write(directory: &WrittenHereReadThere, on: bool) {
    update(&*directory.published, |_| Ok::<_, Unavailable>(switch(on))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_nobody_published_is_an_error_and_not_empty() {
    install_tls();
    let server = test_servers::Nats::start();
    let nats = Nats::connect(event_bus::config(&server)).await.unwrap();
    nats.migrate().await.unwrap();
    let error = nats.directory().snapshot().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("is `api` running?"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_the_bus_was_away_is_published_later() {
    let mut harness = PublishedHarness::open(ManualClock::new()).await;
    harness.nats_server.kill();
    assert!(harness.directory.write(switch(true), 0).await.is_err());
    harness.nats_server.start_again();
    let published = async { while !matches!(harness.directory.published.publish_missing().await, Ok(1)) {} };
    tokio::time::timeout(Duration::from_secs(30), published).await.unwrap();
    let seen = harness.directory.snapshot().await.unwrap();
    assert_eq!(seen.entries.into_values().collect::<Vec<_>>(), switch(true));
    assert_eq!(harness.directory.published.publish_missing().await.unwrap(), 0, "there is nothing left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_bus_gets_the_whole_directory() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    let other = test_servers::Nats::start();
    let moved = connect(&other, &harness.postgres_server).await;
    assert_eq!(moved.snapshot().await.unwrap(), harness.directory.snapshot().await.unwrap());
}

/// A restored backup knows less than the bus. What the database does not have must not stay in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_restored_replaces_what_the_bus_has() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    write(&harness.directory, false).await;
    let restored = postgres::server();
    let seen = harness.directory.snapshot().await.unwrap().revision;
    let after = connect(&harness.nats_server, &restored).await;
    let snapshot = after.snapshot().await.unwrap();
    assert!(snapshot.entries.is_empty());
    assert_eq!(harness.directory.changed(seen).await.unwrap(), snapshot.revision, "running readers notice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_never_taken_for_the_whole() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    // An entry that a writer published before it died.
    let context = harness.directory.nats.context();
    let entry = serde_json::json!({"key": "x", "revision": 7, "entry": Entry::SingleTenant(false)});
    context.publish("directory.entry.78", entry.to_string().into()).await.unwrap().await.unwrap();
    assert!(harness.directory.snapshot().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_side_by_side_leave_the_bus_as_the_database_is() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    let other = connect(&harness.nats_server, &harness.postgres_server).await;
    let rounds = async |who: Arc<WrittenHereReadThere>| {
        for round in 0..10 {
            write(&who, round % 2 == 0).await;
        }
    };
    tokio::join!(rounds(harness.directory.clone()), rounds(other.clone()));
    let (bus, database) = tokio::join!(other.snapshot(), other.published.snapshot());
    assert_eq!(bus.unwrap(), database.unwrap());
}
