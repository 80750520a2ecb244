//! The raw archive: sealed envelopes as they were delivered, one object for each large batch, and for what gathers in the
//! database from small ones.
//!
//! It must never hold up normalising. A put that fails or takes too long sends the bytes into the database instead, and
//! then no put is tried for a while: a frozen blob store would otherwise cost every batch its time-out. Nothing is
//! encrypted here (the envelopes are sealed).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::{Clock, EnvelopeId, Timestamp};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use ports::event_store::RawObject;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::outage::chain;

/// The folder of the archive in the blob store.
pub const RAW_FOLDER: &str = "raw";

pub(crate) struct Archive {
    blobs: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    rest: Duration,
    /// While the blob store is down: when to try again, by the monotonic clock.
    down_until: Mutex<Option<Duration>>,
}

impl Archive {
    pub(crate) fn new(blobs: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, timeout: Duration, rest: Duration) -> Self {
        Self { blobs, clock, timeout, rest, down_until: Mutex::default() }
    }

    /// Writes all of it as one object and says where each piece lies; `None` if the blob store does not work now.
    pub(crate) async fn put(&self, pieces: &[(EnvelopeId, Bytes)]) -> Option<Vec<RawObject>> {
        let now = self.clock.monotonic();
        if self.down_until().is_some_and(|until| now < until) {
            return None;
        }
        let object = object_path(self.clock.now());
        let payload: PutPayload = pieces.iter().map(|(_, bytes)| bytes.clone()).collect();
        let path = Path::from(object.as_str());
        let failure = match tokio::time::timeout(self.timeout, self.blobs.put(&path, payload)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some("it did not answer in time".to_owned()),
        };
        let mut down_until = self.down_until();
        if let Some(error) = failure {
            if down_until.is_none() {
                tracing::warn!(%error, "the blob store is down; raw envelopes are kept in the database until it is back");
            }
            *down_until = Some(self.clock.monotonic() + self.rest);
            return None;
        }
        if down_until.take().is_some() {
            tracing::info!("the blob store is back");
        }
        let mut offset = 0;
        let located = pieces.iter().map(|(envelope, bytes)| {
            let length = bytes.len() as u64;
            offset += length;
            RawObject { envelope: *envelope, object: object.clone(), offset: offset - length, length }
        });
        Some(located.collect())
    }

    /// Deletes the objects whose path is lower than this one; returns how many. Folders are walked, not the whole archive.
    pub(crate) async fn delete_below(&self, below: &str) -> Result<u64, object_store::Error> {
        let mut deleted = 0;
        let mut folders = vec![Path::from(RAW_FOLDER)];
        while let Some(folder) = folders.pop() {
            let listed = self.blobs.list_with_delimiter(Some(&folder)).await?;
            folders.extend(listed.common_prefixes.into_iter().filter(|folder| {
                let path = format!("{folder}/");
                path.as_str() < below || below.starts_with(&path)
            }));
            for object in listed.objects {
                if object.location.as_ref() < below {
                    self.blobs.delete(&object.location).await?;
                    deleted += 1;
                }
            }
        }
        Ok(deleted)
    }

    fn down_until(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        self.down_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `raw/<yyyy>/<mm>/<dd>/<hh>/<uuidv7>.bin`, UTC.
fn object_path(at: Timestamp) -> String {
    format!("{}{}.bin", hour_path(at), Uuid::now_v7())
}

/// The folder of an hour. Those of earlier hours are lower.
pub(crate) fn hour_path(at: Timestamp) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at.as_secs()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day, hour) = (at.year(), u8::from(at.month()), at.day(), at.hour());
    format!("{RAW_FOLDER}/{year:04}/{month:02}/{day:02}/{hour:02}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lie_in_a_folder_for_each_hour_of_utc() {
        let path = object_path("2026-03-04T05:59:59Z".parse().unwrap());
        assert!(path.starts_with("raw/2026/03/04/05/"), "{path}");
        assert!(std::path::Path::new(&path).extension().is_some_and(|extension| extension == "bin"), "{path}");
    }
}
