//! The directory as `api` writes it: the database decides, the stream tells everybody.
//!
//! A write is committed to the database and then published. Whoever publishes holds a lock and publishes what the
//! database has and the stream lacks, so two writers, a crash between the two steps, and an empty stream are one case.

use std::sync::Arc;

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use tokio::sync::Mutex;

use crate::nats::{Head, Nats, StreamDirectory};
use crate::postgres::{Postgres, PostgresDirectory};

/// See the module's documentation.
#[derive(Debug)]
pub struct PublishedDirectory {
    database: Arc<PostgresDirectory>,
    stream: Arc<StreamDirectory>,
    /// Of the writers in this process one at a time asks for the lock: each that waits for it keeps a connection.
    publishing: Mutex<()>,
}

impl PublishedDirectory {
    /// Over connections of a process that has both.
    pub fn new(postgres: &Postgres, nats: &Nats) -> Arc<Self> {
        Arc::new(Self { database: postgres.directory(), stream: nats.directory(), publishing: Mutex::default() })
    }

    /// Publishes what the stream lacks of the database: after a crash between the two, or into a new stream. Returns
    /// how many entries. To be called at the start and every few seconds.
    pub async fn publish_missing(&self) -> Result<usize, Unavailable> {
        let _turn_here = self.publishing.lock().await;
        let _turn = self.database.publishing_lock().await?;
        let published = self.stream.head().await?;
        let mut missing = self.database.entries_since(published.map_or(0, |head| head.revision)).await?;
        if published.is_some_and(|head| {
            head.revision > missing.head || (head.revision == missing.head && head.entries != missing.count)
        }) {
            tracing::warn!("the directory on the bus is not that of this database (restored?): it is published anew");
            // A revision that no reader has seen, or they would not look.
            self.database.advance(published.map_or(0, |head| head.revision)).await?;
            self.stream.clear().await?;
            missing = self.database.entries_since(0).await?;
        } else if published.is_some_and(|head| head.revision == missing.head) {
            return Ok(0);
        }
        let count = missing.entries.len();
        self.stream.publish(missing.entries, Head { revision: missing.head, entries: missing.count }).await?;
        Ok(count)
    }
}

#[async_trait]
impl DirectoryStore for PublishedDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        self.database.snapshot().await
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        self.database.changed(revision).await
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        let revision = self.database.write(entries, read_at).await?;
        self.publish_missing().await?;
        Ok(revision)
    }
}
