//! The directory as `api` writes it: the database decides, the stream tells everybody.

use std::sync::Arc;

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::DirectoryStore;

use crate::nats::Nats;
use crate::postgres::Postgres;

/// The directory in PostgreSQL, with every change published to the stream `directory`.
#[derive(Debug)]
pub struct PublishedDirectory {}

impl PublishedDirectory {
    /// Over connections of a process that has both.
    pub fn new(_postgres: &Postgres, _nats: &Nats) -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Publishes what the stream lacks of the database: after a crash between the two, or into a new stream. Returns
    /// how many entries. To be called at the start and every few seconds.
    pub async fn publish_missing(&self) -> Result<usize, Unavailable> {
        Err(Unavailable::new("the directory", "not written yet"))
    }
}

#[async_trait]
impl DirectoryStore for PublishedDirectory {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        Err(Unavailable::new("the directory", "not written yet"))
    }
    async fn changed(&self, _revision: u64) -> Result<u64, Unavailable> {
        Err(Unavailable::new("the directory", "not written yet"))
    }
    async fn write(&self, _entries: Vec<Entry>) -> Result<u64, Unavailable> {
        Err(Unavailable::new("the directory", "not written yet"))
    }
}
