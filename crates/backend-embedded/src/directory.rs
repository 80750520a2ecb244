//! The directory in a table, with its changes announced in process.

use std::sync::Arc;

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use sqlx::Row as _;
use tokio::sync::watch;

use crate::sqlite::{Database, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteDirectory {
    database: Arc<Database>,
    revision: watch::Sender<u64>,
}

impl SqliteDirectory {
    pub(crate) async fn open(database: Arc<Database>) -> Result<Self, Unavailable> {
        let revision: i64 = sqlx::query_scalar("SELECT coalesce(max(revision), 0) FROM directory")
            .fetch_one(&database.readers)
            .await
            .map_err(unavailable)?;
        Ok(Self { database, revision: watch::Sender::new(revision.unsigned_abs()) })
    }
}

#[async_trait]
impl DirectoryStore for SqliteDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        let rows = sqlx::query("SELECT key, entry, revision FROM directory")
            .fetch_all(&self.database.readers)
            .await
            .map_err(unavailable)?;
        let mut directory = Directory::default();
        for row in rows {
            let entry: Entry = serde_json::from_str(row.get(1))
                .map_err(|error| Unavailable::new("an entry of the directory (written by newer software?)", error))?;
            directory.revision = directory.revision.max(row.get::<i64, _>(2).unsigned_abs());
            directory.entries.insert(row.get(0), entry);
        }
        Ok(directory)
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        // Whoever writes is in this process.
        Ok(*self.revision.borrow())
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        let mut watched = self.revision.subscribe();
        let newer = watched.wait_for(|current| *current > revision).await;
        newer.map(|current| *current).map_err(|error| Unavailable::new("the directory", error))
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(revision), 0) FROM directory")
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
        if entries.is_empty() {
            return Ok(last.unsigned_abs());
        }
        if last.unsigned_abs() != read_at {
            return Err(WriteError::Outdated);
        }
        let revision = last + 1;
        for entry in &entries {
            let json = serde_json::to_string(entry).map_err(|error| Unavailable::new("the directory", error))?;
            sqlx::query(
                "INSERT INTO directory (key, entry, revision) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (key) DO UPDATE SET entry = ?2, revision = ?3",
            )
            .bind(entry.key())
            .bind(json)
            .bind(revision)
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        }
        transaction.commit().await.map_err(unavailable)?;
        let revision = revision.unsigned_abs();
        self.revision.send_replace(revision);
        Ok(revision)
    }
}
