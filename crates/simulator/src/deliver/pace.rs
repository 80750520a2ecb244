//! An even rate of requests: each has its moment, and after a delay at most 50 ms worth of moments are
//! made up for. It waits for nothing itself; it says when.

use std::time::Duration;

use tokio::time::Instant;

use super::DeliverError;

const CATCH_UP: Duration = Duration::from_millis(50);

pub(super) struct Pace {
    /// Time between two requests; none for no limit.
    gap: Option<Duration>,
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>, start: Instant) -> Result<Self, DeliverError> {
        let gap = match rate {
            None => None,
            Some(rate) if rate > 0.0 => {
                Some(Duration::try_from_secs_f64(1.0 / rate).map_err(|_| DeliverError::Rate(rate))?)
            }
            Some(rate) => return Err(DeliverError::Rate(rate)),
        };
        Ok(Self { gap, next: start })
    }

    /// When the next request may start; `now` or earlier if at once.
    pub(super) fn ready_at(&mut self, now: Instant) -> Instant {
        if self.gap.is_none() {
            return now;
        }
        if let Some(earliest) = now.checked_sub(CATCH_UP) {
            self.next = self.next.max(earliest);
        }
        self.next
    }

    /// A request was started.
    pub(super) fn started(&mut self) {
        if let Some(gap) = self.gap {
            self.next += gap;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts_until(pace: &mut Pace, now: Instant) -> usize {
        let mut starts = 0;
        while pace.ready_at(now) <= now {
            pace.started();
            starts += 1;
        }
        starts
    }

    #[test]
    fn keeps_the_rate_whatever_the_timer_does() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(10_000.0), start).unwrap();
        let starts: usize = (0..1000).map(|tick| starts_until(&mut pace, start + Duration::from_millis(tick))).sum();
        assert_eq!(starts, 9_991);
    }

    #[test]
    fn makes_up_for_no_more_than_50_ms() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(1000.0), start).unwrap();
        assert_eq!(starts_until(&mut pace, start + Duration::from_secs(5)), 51);
        assert_eq!(starts_until(&mut pace, start + Duration::from_millis(5001)), 1);
    }

    #[test]
    fn refuses_what_is_no_rate() {
        for rate in [0.0, -1.0, f64::NAN, 1e-300] {
            assert!(Pace::new(Some(rate), Instant::now()).is_err(), "{rate}");
        }
    }
}
