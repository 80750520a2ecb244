//! The directory as a process uses it: loaded whole, unwrapped, replaced whenever it or the key ring changes.
//!
//! There is none until the first complete load; from then on there always is one, the newest that could be opened.

use std::sync::Arc;

use common::directory::OpenDirectory;
use ports::directory::DirectoryStore;
use tokio::sync::watch;

use crate::Tasks;
use crate::keys::KeyFile;
use crate::retry::RetryPolicy;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct DirectoryWatch {
    current: watch::Sender<Option<Arc<OpenDirectory>>>,
}

impl DirectoryWatch {
    /// Starts loading and watching. `loaded` is called after each load, with the directory.
    pub fn start(
        store: Arc<dyn DirectoryStore>,
        keys: Arc<KeyFile>,
        tasks: &Tasks,
        loaded: impl Fn(&OpenDirectory) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let (own, stopping) = (watch.clone(), tasks.clone());
        tasks.spawn("directory", async move {
            tokio::select! {
                () = stopping.stopping() => {}
                () = own.follow(&*store, &keys, loaded) => {}
            }
        });
        watch
    }

    /// The newest directory; `None` before the first complete load.
    pub fn current(&self) -> Option<Arc<OpenDirectory>> {
        self.current.borrow().clone()
    }

    /// The newest directory, once there is one.
    pub async fn loaded(&self) -> Arc<OpenDirectory> {
        let mut watched = self.current.subscribe();
        let loaded = watched.wait_for(Option::is_some).await.ok().and_then(|there| there.clone());
        // The sender is `self`, so there is no end to wait for.
        loaded.unwrap_or_default()
    }

    async fn follow(&self, store: &dyn DirectoryStore, keys: &KeyFile, loaded: impl Fn(&OpenDirectory)) {
        let mut waits = RetryPolicy::OUTAGE.waits();
        let mut ring = keys.subscribe();
        loop {
            ring.mark_unchanged();
            match Self::load(store, keys).await {
                Ok(directory) => {
                    let revision = directory.revision;
                    loaded(&directory);
                    self.current.send_replace(Some(Arc::new(directory)));
                    waits = RetryPolicy::OUTAGE.waits();
                    tokio::select! {
                        changed = store.changed(revision) => {
                            if let Err(error) = changed {
                                tracing::warn!(error = &error as &dyn std::error::Error, "cannot watch the directory");
                            } else {
                                continue;
                            }
                        }
                        _ = ring.changed() => continue,
                    }
                }
                Err(error) => {
                    tracing::error!(error = &*error, "{}", self.complaint());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(waits.next().unwrap_or_default()) => {}
                _ = ring.changed() => {}
            }
        }
    }

    /// Of a load that failed. Without any directory nothing is taken, and nobody should think that there is one.
    fn complaint(&self) -> &'static str {
        if self.current.borrow().is_some() {
            "cannot load the directory; the last one stays in use"
        } else {
            "cannot load the directory; there is none yet, so this process is not ready"
        }
    }

    async fn load(
        store: &dyn DirectoryStore,
        keys: &KeyFile,
    ) -> Result<OpenDirectory, Box<dyn std::error::Error + Send + Sync>> {
        let directory = store.snapshot().await?;
        Ok(OpenDirectory::open(&directory, &keys.ring())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_load_says_whether_there_is_a_directory() {
        let watch = DirectoryWatch::default();
        assert!(watch.complaint().contains("there is none yet"));
        watch.current.send_replace(Some(Arc::default()));
        assert!(watch.complaint().contains("the last one stays"));
    }
}
