//! PostgreSQL: the data.

use std::sync::Arc;

use common::Clock;
use ports::directory::DirectoryStore;
use ports::event_store::EventStore;
use ports::feed::Feed;
use ports::message_log::MessageLog;
use ports::outbox::Outbox;
use ports::request_log::RequestLog;
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::OpenError;

/// How to reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:5432/database`.
    pub url: SecretString,
    /// Connections of this process at most.
    pub max_connections: u32,
}

/// A pool of connections.
#[derive(Clone, Debug)]
pub struct Postgres {}

impl Postgres {
    /// Connects once, to see that it works.
    pub async fn connect(_config: PostgresConfig) -> Result<Self, OpenError> {
        Err(OpenError::Unsuitable("not written yet".to_owned()))
    }

    /// Makes the tables, or brings them up to date. Returns what was done, a line each.
    pub async fn migrate(&self) -> Result<Vec<String>, OpenError> {
        Err(OpenError::Unsuitable("not written yet".to_owned()))
    }

    /// Checks the server's version and that the tables are those of this program.
    pub async fn verify(&self) -> Result<(), OpenError> {
        Err(OpenError::Unsuitable("not written yet".to_owned()))
    }

    /// Whether it answers.
    pub async fn ping(&self) -> bool {
        false
    }

    /// Makes the time partitions that will be needed soon. To be called at the start and every hour.
    pub async fn make_partitions(&self) -> Result<usize, ports::Unavailable> {
        Err(ports::Unavailable::new("PostgreSQL", "not written yet"))
    }

    /// Rings whenever any process has committed events. Runs until it is dropped; reconnects by itself.
    pub async fn ring_on_commit(&self, _bell: Arc<Notify>) {}

    /// The event store.
    pub fn event_store(&self, _clock: Arc<dyn Clock>) -> Arc<dyn EventStore> {
        unreachable!("not written yet")
    }

    /// The outbox.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        unreachable!("not written yet")
    }

    /// The feed.
    pub fn feed(&self) -> Arc<dyn Feed> {
        unreachable!("not written yet")
    }

    /// The message log.
    pub fn message_log(&self) -> Arc<dyn MessageLog> {
        unreachable!("not written yet")
    }

    /// The request log.
    pub fn request_log(&self, _clock: Arc<dyn Clock>) -> Arc<dyn RequestLog> {
        unreachable!("not written yet")
    }

    /// The directory's table.
    pub fn directory(&self) -> Arc<PostgresDirectory> {
        unreachable!("not written yet")
    }

    /// Closes all connections.
    pub async fn close(&self) {}
}

/// Stub.
#[derive(Debug)]
pub struct PostgresDirectory {}
/// Stub.
pub struct Missing {
    pub entries: Vec<(String, common::directory::Entry, u64)>,
    pub head: u64,
    pub count: u64,
}
impl PostgresDirectory {
    pub(crate) async fn publishing_lock(&self) -> Result<(), ports::Unavailable> {
        unreachable!()
    }
    pub(crate) async fn entries_since(&self, _: u64) -> Result<Missing, ports::Unavailable> {
        unreachable!()
    }
    pub(crate) async fn snapshot(&self) -> Result<common::directory::Directory, ports::Unavailable> {
        unreachable!()
    }
    pub(crate) async fn changed(&self, _: u64) -> Result<u64, ports::Unavailable> {
        unreachable!()
    }
    pub(crate) async fn write(&self, _: Vec<common::directory::Entry>) -> Result<u64, ports::Unavailable> {
        unreachable!()
    }
}
