//! The directory in a table. Its changes are announced by a notification, and looked for every second.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use sqlx::postgres::{PgConnection, PgListener, PgPool};
use sqlx::{Acquire as _, Postgres, Row as _, Transaction};
use tokio::sync::{Mutex, Notify};

use super::bell;
use super::database::{Database, bounded, locks, settle, unavailable};
use super::values::{column, signed};

/// Said inside every write.
const CHANGES: &str = "wharf_directory";
/// A change that was not heard of is found after this time.
const POLL: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresDirectory {
    database: Arc<Database>,
    listening: PgPool,
    /// One of those who wait listens for all.
    listener: Mutex<Option<PgListener>>,
    heard: Notify,
}

/// The right to publish the directory, held by one process at a time.
///
/// It ends with this value, with the process, and 30 seconds after a process has frozen. It takes a connection of the
/// pool, beside those that its holder uses meanwhile.
#[derive(Debug)]
pub(crate) struct PublishingLock {
    _transaction: Transaction<'static, Postgres>,
}

/// Entries with their revisions, as of one moment.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Key, entry and revision, oldest change first.
    pub(crate) entries: Vec<(String, Entry, u64)>,
    /// The revision of the last write.
    pub(crate) head: u64,
    /// How many entries the whole directory has.
    pub(crate) count: u64,
}

impl PostgresDirectory {
    pub(super) fn new(database: Arc<Database>) -> Self {
        let listening = database.listening();
        Self { database, listening, listener: Mutex::new(None), heard: Notify::new() }
    }

    /// The entries that were written after `revision`.
    pub(crate) async fn entries_since(&self, revision: u64) -> Result<Changes, Unavailable> {
        let mut connection = self.database.acquire().await?;
        // One statement sees one moment.
        let query = sqlx::query(
            "SELECT head.revision, (SELECT count(*) FROM directory), d.key, d.entry, d.revision \
             FROM directory_head AS head LEFT JOIN directory AS d ON d.revision > $1 ORDER BY d.revision, d.key",
        );
        let rows = bounded(query.bind(signed(revision)).fetch_all(&mut *connection)).await;
        let rows = settle(connection, rows)?;
        let mut changes = Changes { entries: Vec::with_capacity(rows.len()), head: 0, count: 0 };
        for row in rows {
            changes.head = row.get::<i64, _>(0).unsigned_abs();
            changes.count = row.get::<i64, _>(1).unsigned_abs();
            let Some(key) = row.get::<Option<String>, _>(2) else { continue };
            let entry = serde_json::from_str(row.get(3))
                .map_err(|error| Unavailable::new("an entry of the directory (written by newer software?)", error))?;
            changes.entries.push((key, entry, row.get::<i64, _>(4).unsigned_abs()));
        }
        Ok(changes)
    }

    /// Moves the revision beyond the given one and its own, without a write.
    pub(crate) async fn advance(&self, beyond: u64) -> Result<(), Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query("UPDATE directory_head SET revision = greatest(revision, $1) + 1").bind(signed(beyond));
        let advanced = bounded(query.execute(&mut *connection)).await;
        settle(connection, advanced).map(|_| ())
    }

    /// Waits (some seconds at most) until nobody else publishes, and keeps others from it.
    pub(crate) async fn publishing_lock(&self) -> Result<PublishingLock, Unavailable> {
        let lock = async {
            let mut transaction = self.database.pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(locks::PUBLISHING).execute(&mut *transaction).await?;
            Ok(PublishingLock { _transaction: transaction })
        };
        bounded(lock).await.map_err(unavailable)
    }

    /// Waits for a notification; without a listener, for ever.
    async fn listen(&self) {
        let mut listener = self.listener.lock().await;
        if listener.is_none() {
            *listener = bell::start(&self.listening, CHANGES).await.ok();
        }
        match listener.as_mut() {
            Some(listening) => match listening.try_recv().await {
                Ok(_) => self.heard.notify_waiters(),
                Err(_) => *listener = None,
            },
            None => pending().await,
        }
    }
}

#[async_trait]
impl DirectoryStore for PostgresDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        let changes = self.entries_since(0).await?;
        let entries = changes.entries.into_iter().map(|(key, entry, _)| (key, entry)).collect();
        Ok(Directory { revision: changes.head, entries })
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query_scalar::<_, i64>("SELECT revision FROM directory_head");
        let revision = bounded(query.fetch_one(&mut *connection)).await;
        settle(connection, revision).map(i64::unsigned_abs)
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        loop {
            let heard = self.heard.notified();
            let current = self.revision().await?;
            if current > revision {
                return Ok(current);
            }
            tokio::select! {
                () = heard => {}
                () = self.listen() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        let mut last = BTreeMap::new();
        for entry in &entries {
            let json = serde_json::to_string(entry).map_err(|error| Unavailable::new("the directory", error))?;
            last.insert(entry.key(), json);
        }
        let rows: Vec<(String, String)> = last.into_iter().collect();
        let mut connection = self.database.acquire().await?;
        let revision = bounded(write(&mut connection, &rows, signed(read_at))).await;
        settle(connection, revision)?.map(i64::unsigned_abs).ok_or(WriteError::Outdated)
    }
}

/// `None` if the directory is at another revision than `read_at`.
async fn write(
    connection: &mut PgConnection,
    rows: &[(String, String)],
    read_at: i64,
) -> Result<Option<i64>, sqlx::Error> {
    if rows.is_empty() {
        return sqlx::query_scalar("SELECT revision FROM directory_head").fetch_one(connection).await.map(Some);
    }
    let mut transaction = connection.begin().await?;
    // Whoever comes next waits here until this one has committed.
    let revision: Option<i64> =
        sqlx::query_scalar("UPDATE directory_head SET revision = revision + 1 WHERE revision = $1 RETURNING revision")
            .bind(read_at)
            .fetch_optional(&mut *transaction)
            .await?;
    let Some(revision) = revision else { return Ok(None) };
    sqlx::query(
        "INSERT INTO directory (key, entry, revision) SELECT key, entry, $3 \
         FROM UNNEST($1::text[], $2::text[]) AS written (key, entry) \
         ON CONFLICT (key) DO UPDATE SET entry = excluded.entry, revision = excluded.revision",
    )
    .bind(column(rows, |row| row.0.as_str()))
    .bind(column(rows, |row| row.1.as_str()))
    .bind(revision)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANGES).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Some(revision))
}
