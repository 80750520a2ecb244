//! What is made from files that may change while the process runs.
//!
//! The files are looked at every two seconds, by content and all together. What can be made from changed files is taken
//! by whoever asks next; if it cannot, that is reported once and what was there stays.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::Tasks;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);
/// How long changed files must stay as they are before they are taken: somebody may still be writing them.
const SETTLE: Duration = Duration::from_millis(300);

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

type Make<T, E> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync>;

/// See the module's documentation.
pub(crate) struct Reloaded<T, E> {
    paths: Arc<[PathBuf]>,
    make: Make<T, E>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Option<Fingerprint>>,
    /// A hash is kept, not the content: there may be a private key in it.
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint(u64);

impl<T, E> Reloaded<T, E>
where
    T: Send + Sync + 'static,
    E: From<Unreadable> + std::error::Error + Send + 'static,
{
    /// Reads the files and makes the first one. `make` is given their contents in the order of `paths`.
    pub(crate) fn open(
        paths: &[&Path],
        make: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let paths: Arc<[PathBuf]> = paths.iter().map(|&path| path.to_owned()).collect();
        let contents = read(&paths)?;
        let hasher = RandomState::new();
        Ok(Self {
            current: RwLock::new(Arc::new(make(&contents)?)),
            seen: Mutex::new(Some(Fingerprint(hasher.hash_one(&contents)))),
            paths,
            make: Box::new(make),
            hasher,
        })
    }

    /// The newest.
    pub(crate) fn current(&self) -> Arc<T> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files now. True if they had changed and were taken; an error is told once for each change.
    pub(crate) async fn look(&self) -> Result<bool, E> {
        self.take(self.read().await)
    }

    /// Looks at the files from now on, until the process stops. `what` says in the log what they are.
    pub(crate) fn watch(self: &Arc<Self>, what: &'static str, tasks: &Tasks) {
        self.watch_every(POLL, SETTLE, what, tasks);
    }

    fn watch_every(self: &Arc<Self>, poll: Duration, settle: Duration, what: &'static str, tasks: &Tasks) {
        let (own, stopping) = (self.clone(), tasks.clone());
        tasks.spawn(what, async move {
            tokio::select! {
                () = stopping.stopping() => {}
                () = own.follow(poll, settle, what) => {}
            }
        });
    }

    async fn follow(&self, poll: Duration, settle: Duration, what: &'static str) {
        loop {
            tokio::time::sleep(poll).await;
            let found = self.fingerprint(&self.read().await);
            if found == self.seen() {
                continue;
            }
            tokio::time::sleep(settle).await;
            let contents = self.read().await;
            if self.fingerprint(&contents) != found {
                continue;
            }
            match self.take(contents) {
                Ok(true) => tracing::info!(what, "changed files are in use"),
                Ok(false) => {}
                Err(error) => tracing::error!(
                    what,
                    error = &error as &dyn std::error::Error,
                    "the changed files are not usable; what was read before stays in use"
                ),
            }
        }
    }

    fn take(&self, contents: Result<Vec<Vec<u8>>, Unreadable>) -> Result<bool, E> {
        let found = self.fingerprint(&contents);
        if std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), found) == found {
            return Ok(false);
        }
        let made = Arc::new((self.make)(&contents?)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(true)
    }

    fn seen(&self) -> Option<Fingerprint> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` for files that cannot be read.
    fn fingerprint(&self, contents: &Result<Vec<Vec<u8>>, Unreadable>) -> Option<Fingerprint> {
        contents.as_ref().ok().map(|contents| Fingerprint(self.hasher.hash_one(contents)))
    }

    async fn read(&self) -> Result<Vec<Vec<u8>>, Unreadable> {
        let paths = self.paths.clone();
        tokio::task::spawn_blocking(move || read(&paths)).await.unwrap_or_else(|error| {
            let path = self.paths.first().cloned().unwrap_or_default();
            Err(Unreadable { path, source: std::io::Error::other(error) })
        })
    }
}

impl<T, E> fmt::Debug for Reloaded<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Unreadable> {
    paths.iter().map(|path| std::fs::read(path).map_err(|source| Unreadable { path: path.clone(), source })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum NumberError {
        #[error(transparent)]
        Unreadable(#[from] Unreadable),
        #[error("not a number")]
        Content,
    }

    fn number(contents: &[Vec<u8>]) -> Result<u32, NumberError> {
        let text = std::str::from_utf8(&contents[0]).map_err(|_| NumberError::Content)?;
        text.parse().map_err(|_| NumberError::Content)
    }

    #[tokio::test]
    async fn takes_what_is_good_and_reports_what_is_not_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let reloaded = Reloaded::open(&[&path], number).unwrap();
        assert_eq!(*reloaded.current(), 1);
        assert!(!reloaded.look().await.unwrap());

        std::fs::write(&path, "x").unwrap();
        assert!(matches!(reloaded.look().await, Err(NumberError::Content)));
        assert!(!reloaded.look().await.unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(reloaded.look().await, Err(NumberError::Unreadable(_))));
        assert!(!reloaded.look().await.unwrap());
        assert_eq!(*reloaded.current(), 1);

        std::fs::write(&path, "2").unwrap();
        assert!(reloaded.look().await.unwrap());
        assert_eq!(*reloaded.current(), 2);
    }

    #[tokio::test]
    async fn watches_until_the_process_stops() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let reloaded = Arc::new(Reloaded::open(&[&path], number).unwrap());
        let tasks = Tasks::new();
        reloaded.watch_every(Duration::from_millis(1), Duration::from_millis(1), "number", &tasks);
        std::fs::write(&path, "2").unwrap();
        tokio::time::timeout(Duration::from_mins(1), async {
            while *reloaded.current() != 2 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        tasks.stop();
        assert!(tasks.wait(Duration::from_secs(5)).await);
    }
}
