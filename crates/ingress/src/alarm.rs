//! Alarms: what a person should look at, in the log and as a metric.
//!
//! The one about signatures ([`Alarm`]: somebody tries, or a secret is wrong) goes by minutes: more than ten failures in one,
//! or more than one in a hundred requests. It rings once in five minutes, so that a flood does not fill the log.
//!
//! The others ([`Watch`]) look back at five minutes when they are over: slow answers, errors, duplicates, limits reached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
/// Failures in a minute from which on it rings, whatever else there was.
const MANY: u64 = 10;
/// One in so many requests.
const SHARE: u64 = 100;
/// Of so few requests a share says nothing.
const FEW: u64 = 100;
const QUIET: Duration = Duration::from_mins(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    began: Duration,
    requests: u64,
    failures: u64,
    quiet_until: Duration,
}

/// What a minute was like that it rings for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ringing {
    pub(crate) failures: u64,
    pub(crate) requests: u64,
}

impl Alarm {
    /// Counts a request; it may be the one that makes it ring.
    pub(crate) fn count(&self, failed: bool, now: Duration) -> Option<Ringing> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= state.began + MINUTE {
            *state = State { began: now, quiet_until: state.quiet_until, ..State::default() };
        }
        state.requests += 1;
        if !failed {
            return None;
        }
        state.failures += 1;
        let (failures, requests) = (state.failures, state.requests);
        let is_much = failures > MANY || (requests >= FEW && failures * SHARE > requests);
        if !is_much || now < state.quiet_until {
            return None;
        }
        state.quiet_until = now + QUIET;
        Some(Ringing { failures, requests })
    }
}

/// How far the other alarms look back.
const SPAN: Duration = Duration::from_mins(5);
/// An answer that took longer is slow.
const SLOW: Duration = Duration::from_millis(1500);
/// One in so many answers may be slow: their 95th percentile.
const SLOW_SHARE: u64 = 20;
/// One in so many requests may fail.
const ERROR_SHARE: u64 = 20;
/// One in so many updates may be a duplicate.
const DUPLICATE_SHARE: u64 = 10;
/// Of so few in five minutes a share says nothing.
const TOO_FEW: u64 = 20;

/// Counts of the five minutes that are under way. See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    began: Mutex<Duration>,
    answers: AtomicU64,
    slow: AtomicU64,
    errors: AtomicU64,
    limited: AtomicU64,
    updates: AtomicU64,
    duplicates: AtomicU64,
}

/// What five minutes were like that somebody should know of: so many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    /// As in the metric.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) count: u64,
    pub(crate) of: u64,
}

impl Watch {
    /// Counts a request by its answer. What anybody may send, and is refused, is no part of any share: a flood of it would
    /// hide what happens to the rest.
    pub(crate) fn answered(&self, is_verified: bool, status: u16, took: Duration) {
        let count = |counter: &AtomicU64, is: bool| {
            if is {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        count(&self.limited, status == 429);
        if !is_verified && status < 500 {
            return;
        }
        count(&self.answers, true);
        count(&self.slow, took > SLOW);
        count(&self.errors, status >= 500);
    }

    /// Counts updates by what admission said.
    pub(crate) fn admitted(&self, updates: u64, duplicates: u64, throttled: u64) {
        self.updates.fetch_add(updates, Ordering::Relaxed);
        self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        self.limited.fetch_add(throttled, Ordering::Relaxed);
    }

    /// When five minutes are over: what is to be said of them. To be asked about once a second.
    pub(crate) fn look(&self, now: Duration) -> Vec<Alert> {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if now < *began + SPAN {
            return Vec::new();
        }
        *began = now;
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let (answers, updates) = (take(&self.answers), take(&self.updates));
        let alert = |name, text, count, of| Alert { name, text, count, of };
        let shares = [
            (
                alert("slow-answers", "webhooks were answered after more than 1.5 s", take(&self.slow), answers),
                SLOW_SHARE,
            ),
            (alert("errors", "webhooks were answered 503", take(&self.errors), answers), ERROR_SHARE),
            (alert("duplicates", "updates had come before", take(&self.duplicates), updates), DUPLICATE_SHARE),
        ];
        let is_much = |(alert, share): &(Alert, u64)| alert.of >= TOO_FEW && alert.count * share > alert.of;
        let mut alerts: Vec<_> = shares.into_iter().filter(is_much).map(|(alert, _)| alert).collect();
        let limited = take(&self.limited);
        if limited > 0 {
            alerts.push(alert("limits", "webhooks or senders were over a limit", limited, answers));
        }
        alerts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ten_failures_in_a_minute_are_borne_and_the_next_rings_once() {
        let alarm = Alarm::default();
        for _ in 0..10 {
            assert_eq!(alarm.count(true, at(1)), None);
        }
        assert_eq!(alarm.count(true, at(2)), Some(Ringing { failures: 11, requests: 11 }));
        for second in 3..302 {
            assert_eq!(alarm.count(true, at(second)), None, "{second}");
        }
        assert!((302..400).any(|second| alarm.count(true, at(second)).is_some()), "it goes on");
    }

    #[test]
    fn a_share_of_many_requests_rings_too() {
        let alarm = Alarm::default();
        for _ in 0..200 {
            assert_eq!(alarm.count(false, at(1)), None);
        }
        assert_eq!(alarm.count(true, at(1)), None);
        assert_eq!(alarm.count(true, at(1)), None);
        assert_eq!(alarm.count(true, at(1)), Some(Ringing { failures: 3, requests: 203 }));
    }

    #[test]
    fn failures_far_apart_do_not_ring() {
        let alarm = Alarm::default();
        for minute in 0..50 {
            assert_eq!(alarm.count(true, MINUTE * minute), None);
        }
    }

    /// Names of the alerts after five minutes of this.
    fn after(happens: impl Fn(&Watch)) -> Vec<&'static str> {
        let watch = Watch::default();
        happens(&watch);
        assert_eq!(watch.look(at(299)), [], "they are not over");
        let names = watch.look(SPAN).iter().map(|alert| alert.name).collect();
        assert_eq!(watch.look(SPAN * 2), [], "it begins anew");
        names
    }

    #[test]
    fn five_minutes_are_looked_back_at_when_they_are_over() {
        let answers = |count: u64, status: u16, took: Duration| {
            move |watch: &Watch| (0..count).for_each(|_| watch.answered(true, status, took))
        };
        let quick = Duration::from_millis(5);
        assert!(after(answers(1000, 200, quick)).is_empty());
        assert!(after(answers(19, 503, quick)).is_empty(), "of so few a share says nothing");
        assert_eq!(after(answers(1, 429, quick)), ["limits"]);
        let mixed = |status, took, count| {
            move |watch: &Watch| {
                answers(100 - count, 200, quick)(watch);
                answers(count, status, took)(watch);
            }
        };
        assert!(after(mixed(200, at(2), 5)).is_empty());
        assert_eq!(after(mixed(200, at(2), 6)), ["slow-answers"]);
        assert!(after(mixed(503, quick, 5)).is_empty());
        assert_eq!(after(mixed(503, at(2), 6)), ["slow-answers", "errors"]);
        let beside_a_flood = |watch: &Watch| {
            (0..100_000).for_each(|_| watch.answered(false, 403, Duration::ZERO));
            answers(100, 503, quick)(watch);
        };
        assert_eq!(after(beside_a_flood), ["errors"], "forged ones hide nothing");
        assert!(after(|watch| watch.admitted(100, 10, 0)).is_empty());
        assert_eq!(after(|watch| watch.admitted(100, 11, 1)), ["duplicates", "limits"]);
    }
}
