//! Request limits in the process: per address (every request counts), global and per tenant (verified ones count).
//!
//! [`service::windows`] says how they are counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::TenantId;
use ports::admission::Others;
use service::windows::{Addresses, Window};

/// Warnings about refused signatures per second; a flood of them is counted, not logged.
const WARNINGS_PER_SECOND: u32 = 5;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Limits {
    addresses: Addresses,
    verified: Mutex<Window>,
    per_second: u32,
    /// Of `per_second`, what the other gateways leave to this one.
    left: AtomicU32,
    /// Verified requests that were let through; wraps around.
    taken: AtomicU32,
    /// No more than the directory has tenants.
    tenants: Mutex<HashMap<TenantId, Window>>,
    refused: Mutex<Window>,
    warnings: Mutex<Window>,
    suppressed: AtomicUsize,
    buffered: AtomicUsize,
    max_buffered: usize,
}

/// Seconds after which another try may succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) u64);

fn passes(is_admitted: bool) -> Result<(), RetryAfter> {
    is_admitted.then_some(()).ok_or(RetryAfter(1))
}

fn admit(window: &Mutex<Window>, max: u32, now: Duration) -> Result<(), RetryAfter> {
    passes(window.lock().unwrap_or_else(PoisonError::into_inner).admit(max, now))
}

impl Limits {
    pub(crate) fn new(per_address: u32, per_second: u32, max_buffered: usize) -> Self {
        Self {
            addresses: Addresses::new(per_address),
            verified: Mutex::default(),
            per_second,
            left: AtomicU32::new(per_second),
            taken: AtomicU32::new(0),
            tenants: Mutex::default(),
            refused: Mutex::default(),
            warnings: Mutex::default(),
            suppressed: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            max_buffered,
        }
    }

    /// Counts a request of an address. IPv6 counts by /64, the least that one party has.
    pub(crate) fn admit_ip(&self, ip: IpAddr, now: Duration) -> Result<(), RetryAfter> {
        passes(self.addresses.admit(ip, now))
    }

    /// Counts a verified request.
    pub(crate) fn admit_verified(&self, now: Duration) -> Result<(), RetryAfter> {
        admit(&self.verified, self.left.load(Ordering::Relaxed), now)?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Verified requests that were let through since the start; wraps around.
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// What other gateways take of the limit of all is not left to this one. Its equal share always is: whoever came first
    /// would have everything otherwise.
    pub(crate) fn leave_to(&self, others: Others) {
        let share = (self.per_second / others.gateways.saturating_add(1)).max(1);
        self.left.store(self.per_second.saturating_sub(others.taken).max(share), Ordering::Relaxed);
    }

    /// Counts a verified request of a tenant.
    pub(crate) fn admit_tenant(&self, tenant: &TenantId, max: u32, now: Duration) -> Result<(), RetryAfter> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get_mut(tenant) {
            Some(window) => passes(window.admit(max, now)),
            None => passes(tenants.entry(tenant.clone()).or_default().admit(max, now)),
        }
    }

    /// Whether one more webhook of this minute with a wrong signature may be kept.
    pub(crate) fn may_keep_refused(&self, max: u32, now: Duration) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        max > 0 && refused.admit_in(Duration::from_mins(1), max, now)
    }

    /// Whether a warning may be logged now; then how many were not since the last one.
    pub(crate) fn may_warn(&self, now: Duration) -> Option<usize> {
        if admit(&self.warnings, WARNINGS_PER_SECOND, now).is_ok() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
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

impl Buffered<'_> {
    /// Takes more of the budget, up to so many bytes in all; false if it is used up.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let before = self.limits.buffered.fetch_add(more, Ordering::AcqRel);
        self.bytes += more;
        before + more <= self.limits.max_buffered
    }
}

impl Drop for Buffered<'_> {
    fn drop(&mut self) {
        self.limits.buffered.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use service::windows::SECOND;

    use super::*;

    const SLOWLY: Duration = Duration::from_millis(19);

    #[test]
    fn what_other_gateways_take_is_not_left_but_an_equal_share_is() {
        let limits = Limits::new(1, 90, 10);
        let mut windows = 0;
        let mut pass = |gateways, taken| {
            windows += 1;
            limits.leave_to(Others { gateways, taken });
            (0..200).filter(|_| limits.admit_verified(SECOND * windows).is_ok()).count()
        };
        assert_eq!((pass(0, 0), pass(1, 20), pass(1, 45), pass(2, 80), pass(2, 1000)), (90, 70, 45, 30, 30));
        assert_eq!((pass(1000, 1000), pass(0, 0)), (1, 90));
        assert_eq!(limits.taken(), 356);
    }

    #[test]
    fn a_tenant_has_its_own_second_and_what_is_refused_its_own_minute() {
        let limits = Limits::new(1, 1, 10);
        let (one, other) = (TenantId::new("one").unwrap(), TenantId::new("other").unwrap());
        assert!(limits.admit_tenant(&one, 1, Duration::ZERO).is_ok());
        assert_eq!(limits.admit_tenant(&one, 1, SLOWLY), Err(RetryAfter(1)));
        assert!(limits.admit_tenant(&other, 1, SLOWLY).is_ok());
        assert!(limits.admit_tenant(&one, 1, SECOND).is_ok());
        let kept = (0..120).filter(|second| limits.may_keep_refused(2, SECOND * *second)).count();
        assert_eq!((kept, limits.may_keep_refused(0, SECOND * 200)), (4, false));
    }

    #[test]
    fn the_budget_for_bodies_is_given_back() {
        let limits = Limits::new(1, 1, 10);
        let first = limits.buffer(8);
        assert!(first.is_some());
        assert!(limits.buffer(8).is_none());
        drop(first);
        let mut growing = limits.buffer(0).unwrap();
        assert!(growing.grow_to(10) && growing.grow_to(3));
        assert!(!growing.grow_to(11));
        drop(growing);
        assert!(limits.buffer(10).is_some());
    }
}
