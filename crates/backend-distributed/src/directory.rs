//! The directory as `api` writes it: the database decides, the stream tells everybody.
//!
//! A write is committed to the database and then published. Whoever publishes holds a lock and publishes what the
//! database has and the stream lacks, so two writers, a crash between the two steps, a bus that was away and an empty
//! stream are one case. The stream is read whole wherever it is not as this process left it: somebody may have written over
//! it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use tokio::sync::Mutex;

use crate::nats::{Contents, HEAD, Head, Nats, Position, StreamDirectory, subject};
use crate::postgres::{Changes, Postgres, PostgresDirectory};

/// See the module's documentation.
#[derive(Debug)]
pub struct PublishedDirectory {
    database: Arc<PostgresDirectory>,
    stream: Arc<StreamDirectory>,
    /// Where the stream was when it had all that the head says. Of the writers in this process one at a time asks for the
    /// lock: each that waits for it keeps a connection.
    publishing: Mutex<Option<(Position, Head)>>,
}

impl PublishedDirectory {
    /// Over connections of a process that has both.
    pub fn new(postgres: &Postgres, nats: &Nats) -> Arc<Self> {
        Arc::new(Self { database: postgres.directory(), stream: nats.directory(), publishing: Mutex::default() })
    }

    /// Publishes what the stream lacks of the database: after a crash between the two, into a new stream, over what
    /// somebody else has written there. Returns how many entries. To be called at the start and every few seconds.
    pub async fn publish_missing(&self) -> Result<usize, Unavailable> {
        let mut left = self.publishing.lock().await;
        let _turn = self.database.publishing_lock().await?;
        let position = self.stream.position().await?;
        // Until this has come to its end, nothing is known.
        let known = left.take().filter(|(was, _)| *was == position);
        let (missing, is_whole) = match known {
            Some((_, head)) => self.missing_since(head).await?,
            None => self.missing().await?,
        };
        let (count, head) = (missing.entries.len(), missing.head());
        if is_whole {
            *left = Some((position, head));
            return Ok(0);
        }
        let head_at = self.stream.publish(missing.entries, head).await?;
        *left = position.after(count, head, head_at).map(|position| (position, head));
        Ok(count)
    }

    /// What a stream lacks that has all that this head says, and whether that is nothing.
    async fn missing_since(&self, head: Head) -> Result<(Changes, bool), Unavailable> {
        let missing = self.database.entries_since(head.revision).await?;
        if missing.head() == head {
            Ok((missing, true))
        } else if missing.head > head.revision {
            Ok((missing, false))
        } else {
            self.missing().await
        }
    }

    /// What the stream lacks, of which everything is read, and whether nothing is amiss with it. Where it has what the
    /// database has not, it is emptied.
    async fn missing(&self) -> Result<(Changes, bool), Unavailable> {
        let there = self.stream.contents().await?;
        let mut wanted = self.database.entries_since(0).await?;
        if is_of_another_history(&there, &wanted) {
            tracing::warn!("the directory on the bus is not that of this database (restored?): it is published anew");
            // A revision that no reader has seen, or they would not look.
            self.database.advance(there.revision()).await?;
            self.stream.clear().await?;
            return Ok((self.database.entries_since(0).await?, false));
        }
        if !there.unreadable.is_empty() {
            let messages = there.unreadable.len();
            tracing::warn!(messages, "somebody has written to the directory's subjects on the bus; it is mended");
            if has_strays(&there, &wanted) {
                // One request, however many there are.
                self.stream.clear().await?;
                return Ok((wanted, false));
            }
        }
        wanted.entries.retain(|(key, entry, revision)| {
            there.entries.get(key).is_none_or(|(published, at)| (published, at) != (entry, revision))
        });
        let is_whole = wanted.entries.is_empty() && there.head == Some(wanted.head());
        Ok((wanted, is_whole))
    }
}

impl Changes {
    /// The head that covers them.
    fn head(&self) -> Head {
        Head { revision: self.head, entries: self.count }
    }
}

/// Whether there is anything that this database did not say, or that it said otherwise.
fn is_of_another_history(there: &Contents, database: &Changes) -> bool {
    let covered = there.head.map_or(0, |head| head.revision);
    let wanted: BTreeMap<_, _> =
        database.entries.iter().map(|(key, entry, revision)| (key, (entry, *revision))).collect();
    let is_ours = |(key, (entry, revision)): (&String, &(Entry, u64))| {
        wanted.get(key).is_some_and(|(ours, at)| match revision.cmp(at) {
            Ordering::Equal => entry == *ours,
            // Still to be replaced, unless the head says that it was.
            Ordering::Less => covered < *at,
            Ordering::Greater => false,
        })
    };
    covered > database.head
        || there.head.is_some_and(|head| head.revision == database.head && head.entries != database.count)
        || !there.entries.iter().all(is_ours)
}

/// Whether anything is under a subject where the directory has nothing.
fn has_strays(there: &Contents, database: &Changes) -> bool {
    let ours: BTreeSet<String> = database.entries.iter().map(|(key, ..)| subject(key)).collect();
    there.unreadable.keys().any(|subject| subject != HEAD && !ours.contains(subject))
}

#[async_trait]
impl DirectoryStore for PublishedDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        self.database.snapshot().await
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        self.database.revision().await
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        self.database.changed(revision).await
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        let revision = self.database.write(entries, read_at).await?;
        // It is written: to say otherwise would have the caller do it again.
        if let Err(error) = self.publish_missing().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                revision,
                "the directory is written, but not published yet; that is tried again every few seconds"
            );
        }
        Ok(revision)
    }
}
