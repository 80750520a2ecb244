//! The data folder and its lock: one process at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A locked data folder. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// A data folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("{0} is in use by another wharf process; talk to it through its API, or choose another --data-dir")]
    InUse(PathBuf),
    /// It cannot be created or written.
    #[error("cannot use {path} as data folder: {source}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DataFolder {
    /// Creates the folder if it does not exist (for its owner only) and locks it.
    pub fn lock(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        create_private(path).map_err(unusable)?;
        let lock = File::create(path.join("wharf.lock")).map_err(unusable)?;
        sync(path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the folder's own entry durable: files synced in a folder that a power cut takes away would be gone with it.
#[cfg(unix)]
fn sync(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    for folder in path.ancestors().take(3) {
        File::open(folder).and_then(|folder| folder.sync_all()).or_else(|error| match error.kind() {
            // A folder above that is somebody else's existed before.
            io::ErrorKind::PermissionDenied => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn sync(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}
