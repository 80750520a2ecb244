//! Webhooks that wait for their next try, earliest first. Bounded in number and bytes: the bound is not
//! enforced here, since what is under way must come back; whoever starts new webhooks asks first.

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::Instant;

use super::Job;

const WEBHOOKS: usize = 16_384;
const BYTES: usize = 64 << 20;

#[derive(Default)]
pub(super) struct Retries {
    heap: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    pushed: u64,
}

struct Waiting {
    due: Instant,
    /// Equal moments come out in the order in which they went in.
    order: u64,
    job: Job,
}

impl Retries {
    pub(super) fn push(&mut self, due: Instant, job: Job) {
        self.bytes += job.body.len();
        self.pushed += 1;
        self.heap.push(Reverse(Waiting { due, order: self.pushed, job }));
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Job> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(waiting) = self.heap.pop()?;
        self.bytes -= waiting.job.body.len();
        Some(waiting.job)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(waiting)| waiting.due)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Whether nothing new should be started.
    pub(super) fn is_full(&self) -> bool {
        self.heap.len() >= WEBHOOKS || self.bytes >= BYTES
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use reqwest::header::HeaderValue;

    use super::*;

    fn job(body: &'static [u8], now: Instant) -> Job {
        Job {
            body: Bytes::from_static(body),
            signature: HeaderValue::from_static(""),
            updates: Vec::new(),
            forged: false,
            since: now,
            retries: 0,
        }
    }

    #[test]
    fn come_out_when_due_and_in_order() {
        let now = Instant::now();
        let mut retries = Retries::default();
        retries.push(now + Duration::from_secs(2), job(b"later", now));
        retries.push(now + Duration::from_secs(1), job(b"first", now));
        retries.push(now + Duration::from_secs(1), job(b"second", now));
        assert!(retries.pop_due(now).is_none());
        let at = now + Duration::from_secs(1);
        assert_eq!(retries.pop_due(at).unwrap().body, "first");
        assert_eq!(retries.pop_due(at).unwrap().body, "second");
        assert!(retries.pop_due(at).is_none());
        assert_eq!(retries.next_due(), Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn are_full_by_number() {
        let now = Instant::now();
        let mut retries = Retries::default();
        for _ in 0..WEBHOOKS {
            assert!(!retries.is_full());
            retries.push(now, job(b"", now));
        }
        assert!(retries.is_full());
    }
}
