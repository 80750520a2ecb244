//! The directory in a process: watched by every job, rewrapped by the one that writes it.

use std::sync::Arc;

use common::directory::OpenDirectory;
use ports::directory::{DirectoryStore, Updated, update};
use service::Tasks;
use service::directory::DirectoryWatch;
use service::health::Readiness;
use service::keys::KeyFile;

/// Gives the newest directory; `None` until there is a first complete one.
pub(crate) type Current = Arc<dyn Fn() -> Option<Arc<OpenDirectory>> + Send + Sync>;

/// Watches key file and directory. `secrets` says whether readiness needs a provider's secret.
pub(crate) fn watch(
    store: &Arc<dyn DirectoryStore>,
    keys: &Arc<KeyFile>,
    secrets: bool,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Arc<DirectoryWatch> {
    let accepting = store.clone();
    keys.watch(tasks, move |ring| {
        let store = accepting.clone();
        async move {
            OpenDirectory::open(&store.snapshot().await?, &ring)?;
            Ok(())
        }
    });
    readiness.report("directory", true, false);
    if secrets {
        readiness.report("secrets", true, false);
    }
    let readiness = readiness.clone();
    DirectoryWatch::start(store.clone(), keys.clone(), tasks, move |directory| {
        readiness.report("directory", true, is_written(directory));
        if secrets {
            readiness.report("secrets", true, directory.has_any_secrets());
        }
    })
}

/// The directory as the jobs get it.
pub(crate) fn current(watch: &Arc<DirectoryWatch>) -> Current {
    let watch = watch.clone();
    Arc::new(move || watch.current().filter(|directory| is_written(directory)))
}

/// Whether anybody has ever written it. One that nobody has is not empty but still to come, such as a stream before the
/// first start of `api`: to treat its webhooks as forged or unknown would be wrong.
fn is_written(directory: &OpenDirectory) -> bool {
    directory.revision > 0
}

/// Brings everything under a new active master key as soon as the key file names one.
pub(crate) fn rewrap_on_change(store: &Arc<dyn DirectoryStore>, keys: &Arc<KeyFile>, tasks: &Tasks) {
    let (store, mut changes, stopping) = (store.clone(), keys.subscribe(), tasks.clone());
    tasks.spawn("rewrap", async move {
        loop {
            tokio::select! {
                () = stopping.stopping() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            let ring = changes.borrow_and_update().clone();
            match update(&*store, |current| Ok::<_, anyhow::Error>(current.rewrap(&ring)?)).await {
                Ok(Updated { changed: 0, .. }) => {}
                Ok(Updated { changed, .. }) => {
                    tracing::info!(entries = changed, "the directory is under the new master key");
                }
                Err(error) => tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "cannot bring the directory under the new master key; the old one must stay"
                ),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use common::TenantId;
    use common::directory::{Entry, Tenant};
    use common::keys::KeyRing;
    use port_contracts::memory::MemoryBackend;

    use super::*;

    #[tokio::test]
    async fn a_directory_that_nobody_has_written_is_still_to_come() {
        let ring = KeyRing::parse(&KeyRing::generate_file("m1")).unwrap();
        let store = MemoryBackend::new(port_contracts::ManualClock::new()).directory();
        let open = async || OpenDirectory::open(&store.snapshot().await.unwrap(), &ring).unwrap();
        assert!(!is_written(&open().await));
        store.write(vec![Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring))], 0).await.unwrap();
        assert!(is_written(&open().await));
    }
}
