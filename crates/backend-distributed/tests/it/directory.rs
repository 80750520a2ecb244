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

    async fn revision(&self) -> Result<u64, Unavailable> {
        self.nats.directory().revision().await
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
    // It has happened, so it is no error: whoever tried again would be told that it is there.
    let revision = harness.directory.write(switch(true), 0).await.unwrap();
    assert_eq!(harness.directory.published.snapshot().await.unwrap().revision, revision);
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

/// Writes over the stream as somebody can who has an answer of the server sent there.
async fn overwrite(harness: &PublishedHarness, subject: &str) {
    let answer = r#"{"stream":"inbound_live","seq":1}"#;
    let context = harness.directory.nats.context();
    context.publish(subject.to_owned(), answer.into()).await.unwrap().await.unwrap();
}

/// The subject of the one entry that is written in these tests.
fn entry_subject() -> String {
    format!("directory.entry.{}", hex::encode(switch(true)[0].key()))
}

fn cause(error: &Unavailable) -> String {
    format!("{error}: {}", std::error::Error::source(error).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_or_an_entry_that_somebody_wrote_over_is_told_and_mended() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    for (subject, what) in [("directory.head".to_owned(), "its head"), (entry_subject(), "an entry")] {
        let before = harness.directory.snapshot().await.unwrap();
        overwrite(&harness, &subject).await;
        let told = cause(&harness.directory.snapshot().await.unwrap_err());
        assert!(told.contains("the directory on the bus") && told.contains(what), "{told}");
        assert!(told.contains("`api` publishes") && !told.contains("NATS"), "{told}");
        harness.directory.published.publish_missing().await.unwrap();
        assert_eq!(harness.directory.snapshot().await.unwrap(), before);
        assert_eq!(harness.directory.published.publish_missing().await.unwrap(), 0, "there is nothing left to do");
        // One that has just started has not seen what the stream was like before.
        overwrite(&harness, &subject).await;
        let restarted = connect(&harness.nats_server, &harness.postgres_server).await;
        assert_eq!(restarted.snapshot().await.unwrap(), before);
        // And a write goes on over it.
        overwrite(&harness, &subject).await;
        write(&harness.directory, false).await;
        assert_eq!(
            harness.directory.snapshot().await.unwrap().entries.into_values().collect::<Vec<_>>(),
            switch(false)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_all_revisions_is_mended() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    let before = harness.directory.snapshot().await.unwrap();
    let head = serde_json::json!({"revision": u64::MAX, "entries": 1}).to_string();
    harness.directory.nats.context().publish("directory.head", head.into()).await.unwrap().await.unwrap();
    harness.directory.published.publish_missing().await.unwrap();
    assert_eq!(harness.directory.snapshot().await.unwrap(), before);
    write(&harness.directory, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_entry_of_the_directory_is_in_nobodys_way_and_taken_out() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    let before = harness.directory.snapshot().await.unwrap();
    for subject in ["directory.entry.ff", "directory.entry.00", "directory.any.other"] {
        overwrite(&harness, subject).await;
    }
    // A message of ours under the subject of another key.
    let context = harness.directory.nats.context();
    let entry = Entry::SingleTenant(false);
    let copied = serde_json::json!({"key": entry.key(), "revision": 1, "entry": entry}).to_string();
    context.publish("directory.entry.01", copied.into()).await.unwrap().await.unwrap();
    assert_eq!(harness.directory.snapshot().await.unwrap(), before);
    harness.directory.published.publish_missing().await.unwrap();
    assert_eq!(harness.directory.snapshot().await.unwrap(), before);
    let stream = context.get_stream("directory").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2, "the entry and the head");
}

/// A database that was put back and written to may be at the revision that the bus has.
#[tokio::test(flavor = "multi_thread")]
async fn another_value_at_the_same_revision_is_replaced_and_noticed() {
    let harness = PublishedHarness::open(ManualClock::new()).await;
    write(&harness.directory, true).await;
    let seen = harness.directory.snapshot().await.unwrap().revision;
    let entry = Entry::SingleTenant(false);
    let other = serde_json::json!({"key": entry.key(), "revision": seen, "entry": entry}).to_string();
    let context = harness.directory.nats.context();
    context.publish(entry_subject(), other.into()).await.unwrap().await.unwrap();
    harness.directory.published.publish_missing().await.unwrap();
    let after = harness.directory.snapshot().await.unwrap();
    assert_eq!(after.entries.into_values().collect::<Vec<_>>(), switch(true));
    assert_eq!(harness.directory.changed(seen).await.unwrap(), after.revision, "running readers notice");
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
