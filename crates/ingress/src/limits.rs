//! Request limits in the process: per address (every request counts) and global (verified ones count).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Addresses remembered before the idle ones are let go.
const TIDY_EVERY: usize = 50_000;
/// Warnings about refused signatures per second; a flood of them is counted, not logged.
const WARNINGS_PER_SECOND: u32 = 5;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Limits {
    per_ip: DefaultKeyedRateLimiter<IpAddr>,
    global: DefaultDirectRateLimiter,
    clock: DefaultClock,
    since_tidy: AtomicUsize,
    warnings: DefaultDirectRateLimiter,
    suppressed: AtomicUsize,
    buffered: AtomicUsize,
    max_buffered: usize,
}

/// Seconds after which another try may succeed.
pub(crate) struct RetryAfter(pub(crate) u64);

impl Limits {
    pub(crate) fn new(per_ip: u32, global: u32, max_buffered: usize) -> Self {
        let quota = |per_second: u32| Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN));
        Self {
            per_ip: RateLimiter::keyed(quota(per_ip)),
            global: RateLimiter::direct(quota(global)),
            clock: DefaultClock::default(),
            since_tidy: AtomicUsize::new(0),
            warnings: RateLimiter::direct(quota(WARNINGS_PER_SECOND)),
            suppressed: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            max_buffered,
        }
    }

    /// Counts a request of an address. IPv6 counts by /64, the least that one party has.
    pub(crate) fn admit_ip(&self, ip: IpAddr) -> Result<(), RetryAfter> {
        if self.since_tidy.fetch_add(1, Ordering::Relaxed) == TIDY_EVERY {
            self.since_tidy.store(0, Ordering::Relaxed);
            self.per_ip.retain_recent();
        }
        let key = match ip {
            IpAddr::V6(six) => {
                let segments = six.segments();
                IpAddr::V6([segments[0], segments[1], segments[2], segments[3], 0, 0, 0, 0].into())
            }
            four @ IpAddr::V4(_) => four,
        };
        self.per_ip.check_key(&key).map_err(|until| self.retry_after(&until))
    }

    /// Counts a verified request.
    pub(crate) fn admit_verified(&self) -> Result<(), RetryAfter> {
        self.global.check().map_err(|until| self.retry_after(&until))
    }

    /// Whether a warning may be logged now; then how many were not since the last one.
    pub(crate) fn may_warn(&self) -> Option<usize> {
        if self.warnings.check().is_ok() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn retry_after(&self, until: &governor::NotUntil<<DefaultClock as governor::clock::Clock>::Instant>) -> RetryAfter {
        let wait = until.wait_time_from(self.clock.now());
        RetryAfter(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// Takes bytes of the budget for bodies; `None` if it is used up.
    pub(crate) fn buffer(&self, bytes: usize) -> Option<Buffered<'_>> {
        let before = self.buffered.fetch_add(bytes, Ordering::AcqRel);
        let taken = Buffered { limits: self, bytes };
        (before + bytes <= self.max_buffered).then_some(taken)
    }
}

/// A share of the budget for bodies; given back when dropped.
pub(crate) struct Buffered<'a> {
    limits: &'a Limits,
    bytes: usize,
}

impl Drop for Buffered<'_> {
    fn drop(&mut self) {
        self.limits.buffered.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_51st_request_of_a_second_is_refused_and_told_when_to_come_back() {
        let limits = Limits::new(50, 500, 10);
        let ip = "192.0.2.1".parse().unwrap();
        for _ in 0..50 {
            assert!(limits.admit_ip(ip).is_ok());
        }
        assert_eq!(limits.admit_ip(ip).err().map(|after| after.0), Some(1));
        assert!(limits.admit_ip("192.0.2.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let limits = Limits::new(1, 1, 10);
        assert!(limits.admit_ip("2001:db8::1".parse().unwrap()).is_ok());
        assert!(limits.admit_ip("2001:db8::2".parse().unwrap()).is_err());
        assert!(limits.admit_ip("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_budget_for_bodies_is_given_back() {
        let limits = Limits::new(1, 1, 10);
        let first = limits.buffer(8);
        assert!(first.is_some());
        assert!(limits.buffer(8).is_none());
        drop(first);
        assert!(limits.buffer(8).is_some());
    }
}
