//! PostgreSQL: the data.
//!
//! A batch is one transaction of set-based statements. Uniqueness is decided by `event_keys`; events, messages,
//! statuses and requests lie in weekly partitions. Positions in the feed are in the order of commits, because they are
//! reserved as the last step of a transaction under a lock that is released after the commit is visible. Leases run by
//! the database's clock, never by a process's.

mod access;
mod bell;
mod database;
mod directory;
mod event_store;
mod feed;
mod message_log;
mod options;
mod outbox;
mod parking;
mod partitions;
mod receipts;
mod request_log;
mod rollups;
mod schema;
mod statistics;
mod values;

use std::sync::Arc;
use std::time::Duration;

use common::{Clock, Timestamp};
use ports::Unavailable;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::Connection as _;
use tokio::sync::Notify;

pub use access::PostgresAccess;
pub(crate) use directory::Changes;
pub use directory::PostgresDirectory;
pub use event_store::PostgresEventStore;
pub use feed::PostgresFeed;
pub use message_log::PostgresMessageLog;
pub use outbox::PostgresOutbox;
pub use parking::PostgresParking;
pub use request_log::PostgresRequestLog;
pub use statistics::PostgresStatistics;

use crate::OpenError;
use database::Database;

/// How long a server may take to say that it is there.
const PING: Duration = Duration::from_millis(900);

/// How to reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database`, with `?schema=` for a schema other than `public`.
    pub url: SecretString,
    /// Connections of this process at most. Those that wait for notifications come on top.
    pub max_connections: u32,
}

/// A pool of connections.
#[derive(Clone, Debug)]
pub struct Postgres {
    database: Arc<Database>,
    directory: Arc<PostgresDirectory>,
}

impl Postgres {
    /// Connects once, to see that it works.
    pub async fn connect(config: PostgresConfig) -> Result<Self, OpenError> {
        let options = options::parse(config.url.expose_secret())?;
        let first = schema::connect(&options).await?;
        let _ = first.close().await;
        let database = Arc::new(Database::new(options, config.max_connections));
        Ok(Self { directory: Arc::new(PostgresDirectory::new(database.clone())), database })
    }

    /// Makes the tables, or brings them up to date. Returns what was done, a line each.
    pub async fn migrate(&self) -> Result<Vec<String>, OpenError> {
        let mut lines = schema::migrate(&self.database.options).await?;
        let made = self.make_partitions().await?;
        if made > 0 {
            lines.push(format!("made {made} time partitions"));
        }
        Ok(lines)
    }

    /// Checks the server's version and that the tables are those of this program.
    pub async fn verify(&self) -> Result<(), OpenError> {
        let mut connection = self.database.acquire().await?;
        schema::verify(&mut connection).await
    }

    /// Whether it answers.
    pub async fn ping(&self) -> bool {
        let ping = async {
            let mut connection = self.database.acquire().await?;
            schema::ping(&mut connection).await
        };
        tokio::time::timeout(PING, ping).await.is_ok_and(|answer| answer.is_ok())
    }

    /// The server's clock.
    pub async fn clock(&self) -> Option<Timestamp> {
        let clock = async {
            let mut connection = self.database.acquire().await?;
            schema::clock(&mut connection).await
        };
        let millis = tokio::time::timeout(PING, clock).await.ok()?.ok()?;
        Some(Timestamp::from_millis(millis))
    }

    /// Makes the time partitions that will be needed soon. To be called at the start and every hour.
    pub async fn make_partitions(&self) -> Result<usize, Unavailable> {
        partitions::make(&self.database).await
    }

    /// Rings whenever any process has committed events. Runs until it is dropped; reconnects by itself.
    pub async fn ring_on_commit(&self, bell: Arc<Notify>) {
        bell::ring_on_commit(&self.database.listening(), &bell).await;
    }

    /// The event store.
    pub fn event_store(&self, clock: Arc<dyn Clock>) -> Arc<PostgresEventStore> {
        Arc::new(PostgresEventStore::new(self.database.clone(), clock))
    }

    /// The outbox.
    pub fn outbox(&self) -> Arc<PostgresOutbox> {
        Arc::new(PostgresOutbox::new(self.database.clone()))
    }

    /// The feed.
    pub fn feed(&self) -> Arc<PostgresFeed> {
        Arc::new(PostgresFeed::new(self.database.clone()))
    }

    /// The message log.
    pub fn message_log(&self) -> Arc<PostgresMessageLog> {
        Arc::new(PostgresMessageLog::new(self.database.clone()))
    }

    /// The request log.
    pub fn request_log(&self, clock: Arc<dyn Clock>) -> Arc<PostgresRequestLog> {
        Arc::new(PostgresRequestLog::new(self.database.clone(), clock))
    }

    /// What requests and messages come to.
    pub fn statistics(&self) -> Arc<PostgresStatistics> {
        Arc::new(PostgresStatistics::new(self.database.clone()))
    }

    /// Parked envelopes, and where raw bytes are.
    pub fn parking(&self) -> Arc<PostgresParking> {
        Arc::new(PostgresParking::new(self.database.clone()))
    }

    /// Tokens and actions.
    pub fn access(&self) -> Arc<PostgresAccess> {
        Arc::new(PostgresAccess::new(self.database.clone()))
    }

    /// The directory's table.
    pub fn directory(&self) -> Arc<PostgresDirectory> {
        self.directory.clone()
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.database.pool.close().await;
    }
}
