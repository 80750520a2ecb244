//! Every port on SQLite and in process: the whole of Wharf without anything installed.
//!
//! A product mode, not a test double: what is acknowledged is on disk, a restart or a power cut loses nothing, and the
//! same contract tests hold as for the distributed backend. One process owns a data folder (a lock file sees to it); the
//! command line talks to a running process through its API.
//!
//! Three databases: `inbound.db` holds the queue that webhooks' answers wait for, `bus.db` the other queues,
//! `messages.db` the data. All run in WAL mode with `synchronous=FULL`.

mod access;
mod admission;
mod directory;
mod event_bus;
mod event_store;
mod feed;
mod folder;
mod insert;
mod message_log;
mod outbox;
mod parking;
mod request_log;
mod rollups;
mod sqlite;
mod statistics;

use std::path::Path;
use std::sync::Arc;

use common::Clock;
use ports::Unavailable;
use sqlx::migrate::Migrator;
use tokio_util::task::TaskTracker;

pub use access::SqliteAccess;
pub use admission::{InProcessAdmission, InProcessAdmissionConfig};
pub use directory::SqliteDirectory;
pub use event_bus::SqliteEventBus;
pub use event_store::SqliteEventStore;
pub use feed::SqliteFeed;
pub use folder::{DataFolder, FolderError};
pub use message_log::SqliteMessageLog;
pub use outbox::SqliteOutbox;
pub use parking::SqliteParking;
pub use request_log::SqliteRequestLog;
pub use statistics::SqliteStatistics;

use sqlite::Database;

static BUS_MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite/bus");
static DATA_MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite/data");

/// The opened backend.
#[derive(Clone)]
pub struct Embedded {
    /// The queues.
    pub bus: Arc<SqliteEventBus>,
    /// What the gateway remembers.
    pub admission: Arc<InProcessAdmission>,
    /// The directory.
    pub directory: Arc<SqliteDirectory>,
    /// The data.
    pub store: Arc<SqliteEventStore>,
    /// Events on their way out.
    pub outbox: Arc<SqliteOutbox>,
    /// Events in order.
    pub feed: Arc<SqliteFeed>,
    /// Messages for people.
    pub message_log: Arc<SqliteMessageLog>,
    /// Requests for audit.
    pub request_log: Arc<SqliteRequestLog>,
    /// What requests and messages come to.
    pub statistics: Arc<SqliteStatistics>,
    /// Parked envelopes, and where raw bytes are.
    pub parking: Arc<SqliteParking>,
    /// Tokens and actions.
    pub access: Arc<SqliteAccess>,
    databases: [Arc<Database>; 3],
    tasks: TaskTracker,
}

impl Embedded {
    /// Opens (and if need be creates and migrates) the databases in a folder that the caller has locked. `data_file` is
    /// the file of the data, usually `messages.db` in the same folder.
    pub async fn open(folder: &DataFolder, data_file: &Path, clock: Arc<dyn Clock>) -> Result<Self, Unavailable> {
        let tasks = TaskTracker::new();
        let inbound = Database::open(&folder.path().join("inbound.db"), &BUS_MIGRATIONS, &tasks).await?;
        let rest = Database::open(&folder.path().join("bus.db"), &BUS_MIGRATIONS, &tasks).await?;
        let data = Database::open(data_file, &DATA_MIGRATIONS, &tasks).await?;
        Ok(Self {
            bus: Arc::new(SqliteEventBus::open(inbound.clone(), rest.clone(), clock.clone(), &tasks).await?),
            admission: Arc::new(InProcessAdmission::new(InProcessAdmissionConfig::default(), clock.clone())),
            directory: Arc::new(SqliteDirectory::open(data.clone()).await?),
            store: Arc::new(SqliteEventStore::new(data.clone(), clock.clone())),
            outbox: Arc::new(SqliteOutbox::open(data.clone(), clock.clone()).await?),
            feed: Arc::new(SqliteFeed::new(data.clone())),
            message_log: Arc::new(SqliteMessageLog::new(data.clone())),
            request_log: Arc::new(SqliteRequestLog::new(data.clone(), clock.clone())),
            statistics: Arc::new(SqliteStatistics::new(data.clone())),
            parking: Arc::new(SqliteParking::new(data.clone(), clock.clone())),
            access: Arc::new(SqliteAccess::new(data.clone())),
            databases: [inbound, rest, data],
            tasks,
        })
    }

    /// Creates or migrates the databases and closes them again.
    pub async fn migrate(folder: &DataFolder, data_file: &Path) -> Result<(), Unavailable> {
        let tasks = TaskTracker::new();
        let files = [
            (folder.path().join("inbound.db"), &BUS_MIGRATIONS),
            (folder.path().join("bus.db"), &BUS_MIGRATIONS),
            (data_file.to_owned(), &DATA_MIGRATIONS),
        ];
        for (path, migrations) in files {
            Database::open(&path, migrations, &tasks).await?.close().await;
        }
        Ok(())
    }

    /// Ends the writer and the checkpoints and closes the databases. What was acknowledged is on disk with or without it.
    pub async fn close(self) {
        self.bus.stop().await;
        for database in &self.databases {
            database.close().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Text as both backends store it: PostgreSQL refuses U+0000, so it is U+FFFD everywhere.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
