//! The breaker towards the bus: after the first time-outs, requests are refused at once instead of waiting for the
//! deadline one after another. One time-out is enough if the bus was silent all the while.
//!
//! While it is open one request at a time is let through to try.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::names;

/// Failures in a row that open it.
const THRESHOLD: u32 = 3;
/// Between two tries while it is open.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    next_probe: Duration,
    answered_at: Option<Duration>,
}

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may try the bus now.
    pub(crate) fn lets_through(&self, now: Duration) -> bool {
        let mut state = self.lock();
        if state.failures < THRESHOLD {
            return true;
        }
        if now < state.next_probe {
            return false;
        }
        state.next_probe = now + PROBE_EVERY;
        true
    }

    /// Whether requests are being refused.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().failures >= THRESHOLD
    }

    /// The bus answered.
    pub(crate) fn succeeded(&self, now: Duration) {
        let mut state = self.lock();
        state.answered_at = Some(now);
        if state.failures >= THRESHOLD {
            tracing::info!("the bus answers again");
            metrics::gauge!(names::BREAKER_OPEN).set(0.0);
        }
        state.failures = 0;
    }

    /// The bus failed.
    pub(crate) fn failed(&self, now: Duration) {
        self.count(now, 1);
    }

    /// A request that began then has waited for the bus in vain.
    pub(crate) fn timed_out(&self, now: Duration, began: Duration) {
        let was_silent = self.lock().answered_at.is_none_or(|answered_at| answered_at < began);
        self.count(now, if was_silent { THRESHOLD } else { 1 });
    }

    fn count(&self, now: Duration, failures: u32) {
        let mut state = self.lock();
        let was_closed = state.failures < THRESHOLD;
        state.failures = state.failures.saturating_add(failures);
        if was_closed && state.failures >= THRESHOLD {
            tracing::error!("the bus does not answer; refusing webhooks at once until it does");
            metrics::gauge!(names::BREAKER_OPEN).set(1.0);
            state.next_probe = now + PROBE_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_probes_and_closes_again() {
        let breaker = Breaker::default();
        let at = Duration::from_secs;
        for _ in 0..THRESHOLD {
            assert!(breaker.lets_through(at(1)));
            breaker.failed(at(1));
        }
        assert!(!breaker.lets_through(at(1)));
        assert!(breaker.lets_through(at(2)), "one probe");
        assert!(!breaker.lets_through(at(2)), "only one");
        breaker.succeeded(at(2));
        assert!(breaker.lets_through(at(2)));
    }

    #[test]
    fn one_time_out_opens_it_if_nothing_was_answered_meanwhile() {
        let at = Duration::from_secs;
        let breaker = Breaker::default();
        breaker.succeeded(at(2));
        breaker.timed_out(at(3), at(1));
        assert!(!breaker.is_open(), "others were answered");
        breaker.timed_out(at(5), at(3));
        assert!(breaker.is_open());
    }

    #[test]
    fn scattered_failures_do_not_open_it() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(Duration::ZERO);
            breaker.succeeded(Duration::ZERO);
        }
        assert!(breaker.lets_through(Duration::ZERO));
    }
}
