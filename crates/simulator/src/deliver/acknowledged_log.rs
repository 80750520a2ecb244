//! The file of acknowledged updates. Lines are gathered in memory and handed to the operating system when
//! flushed; a killed process loses at most what came since, so that the file never claims too much. It is
//! not synced to disk: it outlives the process, not a power cut.
//!
//! Writes block. They go to the page cache, some kilobytes at a time, which costs less than handing them
//! to another thread.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::UpdateRef;

use super::DeliverError;

pub(super) struct AcknowledgedLog {
    path: PathBuf,
    file: File,
    lines: Vec<u8>,
}

impl AcknowledgedLog {
    /// Appends to the file, which is made if missing.
    pub(super) fn open(path: &Path) -> Result<Self, DeliverError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| DeliverError::Log { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, lines: Vec::new() })
    }

    pub(super) fn append(&mut self, updates: &[UpdateRef]) -> Result<(), DeliverError> {
        for update in updates {
            writeln!(self.lines, "{update}").map_err(|source| self.error(source))?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), DeliverError> {
        self.file.write_all(&self.lines).map_err(|source| self.error(source))?;
        self.lines.clear();
        Ok(())
    }

    fn error(&self, source: std::io::Error) -> DeliverError {
        DeliverError::Log { path: self.path.clone(), source }
    }
}
