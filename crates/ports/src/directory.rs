//! The directory of tenants, apps and numbers: read whole, watched, written by whoever has read it last.

use async_trait::async_trait;
use common::directory::{Directory, Entry};

use crate::Unavailable;

/// A write that was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else has written since: read again, and decide again.
    #[error("the directory has changed since it was read")]
    Outdated,
    /// See [`Unavailable`].
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// See the module's documentation.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// The whole directory as of now. It is complete or an error, never a part.
    async fn snapshot(&self) -> Result<Directory, Unavailable>;

    /// The revision that a snapshot would have now, for those who still have one. Costs little.
    async fn revision(&self) -> Result<u64, Unavailable>;

    /// Waits until the directory is newer than `revision` and returns its revision.
    async fn changed(&self, revision: u64) -> Result<u64, Unavailable>;

    /// Writes entries, each replacing the last value of its key, all or none, if the directory is still at the revision
    /// `read_at`. Durable when it returns the new revision; readers in other processes may see it later.
    ///
    /// The condition is what keeps two writers apart: each would make keys of its own for a new tenant, and what was
    /// sealed under the keys that lose could never be opened. Writing nothing always succeeds.
    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError>;
}

/// What [`update`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated {
    /// Entries written.
    pub changed: usize,
    /// The directory's revision.
    pub revision: u64,
}

/// Reads the directory, has `plan` decide what to write, and writes it; again from the start if somebody else wrote
/// meanwhile.
pub async fn update<E: From<Unavailable>>(
    store: &dyn DirectoryStore,
    mut plan: impl FnMut(&Directory) -> Result<Vec<Entry>, E> + Send,
) -> Result<Updated, E> {
    loop {
        let current = store.snapshot().await?;
        let entries = plan(&current)?;
        let changed = entries.len();
        if changed == 0 {
            return Ok(Updated { changed, revision: current.revision });
        }
        match store.write(entries, current.revision).await {
            Ok(revision) => return Ok(Updated { changed, revision }),
            Err(WriteError::Outdated) => {}
            Err(WriteError::Unavailable(error)) => return Err(error.into()),
        }
    }
}
