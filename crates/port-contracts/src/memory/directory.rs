//! The directory in memory.

use async_trait::async_trait;
use common::directory::{Directory, Entry};
use ports::Unavailable;
use ports::directory::DirectoryStore;

use super::{MemoryBackend, Operation};

#[async_trait]
impl DirectoryStore for MemoryBackend {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        self.faults().run(Operation::Snapshot, || self.shared.directory.borrow().clone()).await
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        self.faults().pass(Operation::Changed).await?;
        let mut changes = self.shared.directory.subscribe();
        let newer = changes.wait_for(|directory| directory.revision > revision).await;
        Ok(newer.expect("the directory is here").revision)
    }

    async fn write(&self, entries: Vec<Entry>) -> Result<u64, Unavailable> {
        let work = || {
            let mut revision = 0;
            self.shared.directory.send_modify(|directory| {
                directory.entries.extend(entries.into_iter().map(|entry| (entry.key(), entry)));
                directory.revision += 1;
                revision = directory.revision;
            });
            revision
        };
        self.faults().run(Operation::WriteDirectory, work).await
    }
}
