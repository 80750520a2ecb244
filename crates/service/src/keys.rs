//! The master keys of a process, from a file that may change while it runs.
//!
//! A file that cannot be read or parsed after a change is reported and the keys in use stay: a typing error during a
//! rotation must not stop anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::keys::KeyRing;
use tokio::sync::watch;

use crate::Tasks;

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("cannot use the key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a key file.
    #[error("the key file {path} is not usable")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: common::keys::KeyRingError,
    },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    ring: watch::Sender<Arc<KeyRing>>,
}

impl KeyFile {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        Ok(Self { path: path.to_owned(), ring: watch::Sender::new(Arc::new(read(path)?)) })
    }

    /// Reads the file, after making one with a new key (mode 0600) if there is none. True if it was made.
    pub fn open_or_create(path: &Path) -> Result<(Self, bool), KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let created =
            write_private(path, &KeyRing::generate_file(&format!("m-{:08x}", rand::random::<u32>()))).map_err(io)?;
        Ok((Self::open(path)?, created))
    }

    /// The keys in use.
    pub fn ring(&self) -> Arc<KeyRing> {
        self.ring.borrow().clone()
    }

    /// Tells of changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<KeyRing>> {
        self.ring.subscribe()
    }

    /// Watches the file. Changed keys are taken only if `accepts` says that everything opens under them: a wrong file
    /// would otherwise wrap new secrets that the right one does not open.
    pub fn watch<F>(self: &Arc<Self>, tasks: &Tasks, accepts: impl Fn(Arc<KeyRing>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send,
    {
        let (own, stopping) = (self.clone(), tasks.clone());
        tasks.spawn("key-file", async move {
            let mut seen = std::fs::read_to_string(&own.path).unwrap_or_default();
            loop {
                tokio::select! {
                    () = stopping.stopping() => return,
                    () = tokio::time::sleep(POLL) => {}
                }
                let text = tokio::fs::read_to_string(&own.path).await.unwrap_or_default();
                if text == seen {
                    continue;
                }
                seen = text;
                match read(&own.path) {
                    Ok(ring) => {
                        let ring = Arc::new(ring);
                        match accepts(ring.clone()).await {
                            Ok(()) => {
                                tracing::info!(keys = ?ring, "the key file has changed");
                                own.ring.send_replace(ring);
                            }
                            Err(error) => {
                                tracing::error!(
                                    error = &*error,
                                    "the changed key file does not open the directory; the keys in use stay"
                                );
                            }
                        }
                    }
                    Err(error) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "the changed key file is not usable; the keys in use stay"
                        );
                    }
                }
            }
        });
    }
}

fn read(path: &Path) -> Result<KeyRing, KeyFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    KeyRing::parse(&text).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// Writes a file that only its owner can read, durably and never by half, unless there is one. True if it was written.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<bool> {
    use std::io::Write as _;
    if path.exists() {
        return Ok(false);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A link, not a rename: it fails if somebody else was first.
    let linked = std::fs::hard_link(&new, path);
    std::fs::remove_file(&new)?;
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(true)
}
