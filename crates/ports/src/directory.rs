//! The directory of tenants, apps and numbers: read whole, watched, written by one job.

use async_trait::async_trait;
use common::directory::{Directory, Entry};

use crate::Unavailable;

/// See the module's documentation.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// The whole directory as of now. It is complete or an error, never a part.
    async fn snapshot(&self) -> Result<Directory, Unavailable>;

    /// Waits until the directory is newer than `revision` and returns its revision.
    async fn changed(&self, revision: u64) -> Result<u64, Unavailable>;

    /// Writes entries, each replacing the last value of its key, all or none. Durable when it returns the new
    /// revision. Idempotent by key.
    async fn write(&self, entries: Vec<Entry>) -> Result<u64, Unavailable>;
}
