//! Admission in memory.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use common::{EventKey, Fingerprint, TenantId};
use ports::Unavailable;
use ports::admission::{Admission, Candidate, Remembered, SenderLimit, Verdict};

use super::{MemoryBackend, Operation};

/// What a sender sent in its window.
struct Window {
    since: Duration,
    /// Keys within the limit.
    inside: HashSet<EventKey>,
    count: u32,
}

#[derive(Default)]
pub(super) struct Memory {
    known: HashMap<(TenantId, EventKey), Fingerprint>,
    windows: HashMap<(TenantId, EventKey), Window>,
}

impl Memory {
    fn admit(&mut self, candidate: &Candidate, limit: SenderLimit, now: Duration) -> Verdict {
        let Candidate { tenant, key, fingerprint, sender } = candidate;
        if key.is_some_and(|key| self.known.get(&(tenant.clone(), key)) == Some(fingerprint)) {
            return Verdict { known: true, over_limit: false };
        }
        let Some(sender) = sender else { return Verdict::default() };
        let fresh = || Window { since: now, inside: HashSet::new(), count: 0 };
        let window = self.windows.entry((tenant.clone(), *sender)).or_insert_with(fresh);
        if now.saturating_sub(window.since) >= limit.window {
            *window = fresh();
        }
        if key.is_some_and(|key| window.inside.contains(&key)) {
            return Verdict::default();
        }
        if window.count >= limit.max {
            return Verdict { known: false, over_limit: true };
        }
        window.count += 1;
        window.inside.extend(key);
        Verdict::default()
    }
}

#[async_trait]
impl Admission for MemoryBackend {
    async fn admit(&self, candidates: &[Candidate], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable> {
        let work = || {
            let (mut memory, now) = (self.shared.admission.lock().unwrap(), self.monotonic());
            candidates.iter().map(|candidate| memory.admit(candidate, limit, now)).collect()
        };
        self.faults().run(Operation::Admit, work).await
    }

    async fn remember(&self, keys: &[Remembered]) -> Result<(), Unavailable> {
        let work = || {
            let each = |key: &Remembered| ((key.tenant.clone(), key.key), key.fingerprint);
            self.shared.admission.lock().unwrap().known.extend(keys.iter().map(each));
        };
        self.faults().run(Operation::Remember, work).await
    }
}
