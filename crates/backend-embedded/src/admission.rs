//! Admission in process: bounded caches that forget the least used first.
//!
//! After a restart everything is new again; the database folds what the sender repeats.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use common::{Clock, EventKey, Fingerprint, TenantId, Timestamp};
use moka::sync::Cache;
use ports::Unavailable;
use ports::admission::{Admission, Candidate, Remembered, SenderLimit, Verdict};

/// Bounds of the memory.
#[derive(Clone, Copy, Debug)]
pub struct InProcessAdmissionConfig {
    /// Keys remembered at most.
    pub max_keys: u64,
    /// Senders counted at most.
    pub max_senders: u64,
    /// How long a key is remembered.
    pub remember_for: Duration,
}

impl Default for InProcessAdmissionConfig {
    fn default() -> Self {
        Self { max_keys: 1_000_000, max_senders: 500_000, remember_for: Duration::from_hours(24) }
    }
}

type Key = (TenantId, EventKey);

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
struct Seen {
    fingerprint: Fingerprint,
    at: Timestamp,
    /// Whether it is remembered, or only counted against the sender's limit so far.
    stored: bool,
}

#[derive(Debug)]
struct Window {
    started: Timestamp,
    count: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct InProcessAdmission {
    keys: Cache<Key, Seen>,
    senders: Cache<Key, Arc<Mutex<Window>>>,
    remember_for: Duration,
    clock: Arc<dyn Clock>,
}

impl InProcessAdmission {
    /// Empty.
    pub fn new(config: InProcessAdmissionConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            keys: Cache::new(config.max_keys),
            senders: Cache::new(config.max_senders),
            remember_for: config.remember_for,
            clock,
        }
    }

    fn seen(&self, key: &Key, now: Timestamp) -> Option<Seen> {
        self.keys.get(key).filter(|seen| now.since(seen.at) < self.remember_for)
    }

    fn over_limit(&self, sender: Key, limit: SenderLimit, now: Timestamp) -> bool {
        let window = self.senders.get_with(sender, || Arc::new(Mutex::new(Window { started: now, count: 0 })));
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(window.started) >= limit.window {
            *window = Window { started: now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        window.count > limit.max
    }
}

#[async_trait]
impl Admission for InProcessAdmission {
    async fn admit(&self, candidates: &[Candidate], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable> {
        let now = self.clock.now();
        let verdicts = candidates.iter().map(|candidate| {
            let key = candidate.key.map(|key| (candidate.tenant.clone(), key));
            let seen = key.as_ref().and_then(|key| self.seen(key, now));
            let same = seen.is_some_and(|seen| seen.fingerprint == candidate.fingerprint);
            if same && seen.is_some_and(|seen| seen.stored) {
                return Verdict { known: true, over_limit: false };
            }
            // The sender's retry of what could not be stored is not counted again.
            let counted = same;
            let over_limit = !counted
                && candidate
                    .sender
                    .is_some_and(|sender| self.over_limit((candidate.tenant.clone(), sender), limit, now));
            if let Some(key) = key
                && candidate.sender.is_some()
                && !over_limit
                && seen.is_none()
            {
                self.keys.insert(key, Seen { fingerprint: candidate.fingerprint, at: now, stored: false });
            }
            Verdict { known: false, over_limit }
        });
        Ok(verdicts.collect())
    }

    async fn remember(&self, keys: &[Remembered]) -> Result<(), Unavailable> {
        let now = self.clock.now();
        for each in keys {
            let seen = Seen { fingerprint: each.fingerprint, at: now, stored: true };
            self.keys.insert((each.tenant.clone(), each.key), seen);
        }
        Ok(())
    }
}
