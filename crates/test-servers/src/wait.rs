//! Waiting for a condition, with a bound. Nothing here waits for a time to pass.

use std::time::{Duration, Instant};

/// The longest that anything may take. Far more than it does: a bound is for what is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A bound that began when it was made.
pub(crate) struct Bound {
    begun: Instant,
    limit: Duration,
}

impl Bound {
    #[expect(clippy::disallowed_methods, reason = "tests wait for real processes, in real time")]
    pub(crate) fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.limit
    }

    /// A breath before the condition is looked at again.
    pub(crate) fn pause(&self) {
        std::thread::sleep(Duration::from_millis(if self.begun.elapsed().as_millis() < 500 { 2 } else { 20 }));
    }
}

/// Whether the condition holds before the limit is over.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let bound = Bound::new(limit);
    loop {
        if condition() {
            return true;
        }
        if bound.is_over() {
            return false;
        }
        bound.pause();
    }
}
