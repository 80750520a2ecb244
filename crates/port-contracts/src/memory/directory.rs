//! The directory in memory.

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};

use super::{MemoryBackend, Operation};

#[async_trait]
impl DirectoryStore for MemoryBackend {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        self.faults().run(Operation::Snapshot, || self.shared.directory.borrow().clone()).await
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        self.faults().run(Operation::Snapshot, || self.shared.directory.borrow().revision).await
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        self.faults().pass(Operation::Changed).await?;
        let mut changes = self.shared.directory.subscribe();
        let newer = changes.wait_for(|directory| directory.revision > revision).await;
        Ok(newer.expect("the directory is here").revision)
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        let work = || {
            let mut written = Err(WriteError::Outdated);
            self.shared.directory.send_if_modified(|directory| {
                if entries.is_empty() {
                    written = Ok(directory.revision);
                } else if directory.revision == read_at {
                    directory.entries.extend(entries.into_iter().map(|entry| (entry.key(), entry)));
                    directory.revision += 1;
                    written = Ok(directory.revision);
                    return true;
                }
                false
            });
            written
        };
        self.faults().run(Operation::WriteDirectory, work).await?
    }
}
