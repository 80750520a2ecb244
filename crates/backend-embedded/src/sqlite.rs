//! One SQLite database: a single writing connection, a few reading ones, and our own checkpoints.
//!
//! WAL with `synchronous=FULL`: a commit returns after its one sync. SQLite's automatic checkpoints are off, since they
//! run inside somebody's commit; a task of our own copies the log back while writing goes on, and only the last few
//! pages with the writer held, so that the log can start over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ports::Unavailable;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, Transaction};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio_util::task::TaskTracker;

/// Bytes written to the log before it is copied back.
const CHECKPOINT_AFTER: u64 = 8 << 20;
const READERS: u32 = 4;
/// The log is cut back to this size once it starts over, in bytes.
const JOURNAL_SIZE_LIMIT: u64 = 64 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Database {
    options: SqliteConnectOptions,
    path: PathBuf,
    writer: Mutex<Option<SqliteConnection>>,
    /// For short reads; none is held across an await on anything else.
    pub(crate) readers: SqlitePool,
    written: AtomicU64,
    checkpoint: Notify,
    closed: AtomicBool,
}

/// The right to write, one holder at a time.
pub(crate) struct Writer<'a> {
    database: &'a Database,
    guard: MutexGuard<'a, Option<SqliteConnection>>,
}

impl Database {
    pub(crate) async fn open(
        path: &Path,
        migrations: &Migrator,
        tasks: &TaskTracker,
    ) -> Result<Arc<Self>, Unavailable> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(200)
            .pragma("wal_autocheckpoint", "0")
            .pragma("cache_size", "-16000")
            .pragma("temp_store", "memory")
            .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT.to_string());
        create_private(path).map_err(|error| Unavailable::new("the database's file", error))?;
        let mut writer = options.connect().await.map_err(unavailable)?;
        migrations
            .run_direct(None, &mut writer, false)
            .await
            .map_err(|error| Unavailable::new("the database's schema", error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options.clone().read_only(true).pragma("query_only", "1").pragma("cache_size", "-2000"));
        let database = Arc::new(Self {
            options,
            path: path.to_owned(),
            writer: Mutex::new(Some(writer)),
            readers,
            written: AtomicU64::new(0),
            checkpoint: Notify::new(),
            closed: AtomicBool::new(false),
        });
        tasks.spawn(checkpoints(database.clone()));
        Ok(database)
    }

    /// Waits for the right to write. Opens the database again if an I/O error closed it.
    pub(crate) async fn writer(&self) -> Result<Writer<'_>, Unavailable> {
        let mut guard = self.writer.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(Unavailable::new("the database", "it is closed"));
        }
        if guard.is_none() {
            *guard = Some(self.options.connect().await.map_err(unavailable)?);
        }
        Ok(Writer { database: self, guard })
    }

    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.checkpoint.notify_one();
        self.readers.close().await;
        if let Some(connection) = self.writer.lock().await.take() {
            let _ = connection.close().await;
        }
    }
}

impl Writer<'_> {
    /// Begins a transaction that writes.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_, Sqlite>, Unavailable> {
        let Some(connection) = self.guard.as_mut() else {
            return Err(Unavailable::new("the database", "it is closed"));
        };
        connection.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)
    }

    /// To be called after a commit with roughly how much it wrote.
    pub(crate) fn wrote(&self, bytes: usize) {
        let before = self.database.written.fetch_add(bytes as u64, Ordering::Relaxed);
        if before < CHECKPOINT_AFTER && before + bytes as u64 >= CHECKPOINT_AFTER {
            self.database.checkpoint.notify_one();
        }
    }

    /// To be called after an error: a connection that may be in any state is closed, the next writer opens it again.
    pub(crate) async fn discard(mut self) {
        if let Some(connection) = self.guard.take() {
            let _ = connection.close_hard().await;
        }
    }
}

/// Creates the file for its owner only; SQLite gives its log the same rights.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

/// Whether the database refuses the data itself, so that trying again cannot help.
pub(crate) fn is_data_error(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_check_violation()
            || error.is_unique_violation()
            || error.is_foreign_key_violation()
            // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH with their extended forms.
            || error.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| matches!(code & 0xff, 18..=20))
    })
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable::new("the database", error)
}

async fn checkpoints(database: Arc<Database>) {
    loop {
        database.checkpoint.notified().await;
        if database.closed.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = checkpoint(&database).await {
            tracing::warn!(file = %database.path.display(), error = chain(&error), "checkpoint failed; the write-ahead log grows until one succeeds");
        }
        database.written.store(0, Ordering::Relaxed);
    }
}

/// Copies the log back twice: first beside the writer, however long it takes; then what came in meanwhile, with the
/// writer held, so that nothing is left and the log starts over.
async fn checkpoint(database: &Database) -> Result<(), sqlx::Error> {
    let mut own = database.options.connect().await?;
    sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut own).await?;
    let mut guard = database.writer.lock().await;
    if let Some(connection) = guard.as_mut() {
        sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await?;
    }
    drop(guard);
    own.close().await
}
