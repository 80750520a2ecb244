//! The alarm about signatures: somebody tries, or a secret is wrong.
//!
//! It goes by minutes: more than ten failures in one, or more than one in a hundred requests. It rings once in five minutes,
//! so that a flood does not fill the log.

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
}
