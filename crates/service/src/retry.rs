//! The retry policy: exponential backoff with jitter, under the names operators know.
//!
//! `backon` does the counting (ADR 1); this type is what configuration and callers see.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// How often and how long apart something is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The first wait.
    pub initial_interval: Duration,
    /// What each further wait is multiplied with.
    pub multiplier: f32,
    /// The longest wait, before jitter adds up to as much again.
    pub max_interval: Duration,
    /// Tries after the first; `None` = without end.
    pub max_retries: Option<usize>,
}

impl RetryPolicy {
    /// For infrastructure that is down: quickly at first, then every few seconds, without end.
    pub const OUTAGE: Self = Self {
        initial_interval: Duration::from_millis(50),
        multiplier: 2.0,
        max_interval: Duration::from_secs(5),
        max_retries: None,
    };

    /// The waits, one after another.
    pub fn waits(&self) -> ExponentialBackoff {
        let builder = ExponentialBuilder::default()
            .with_min_delay(self.initial_interval)
            .with_factor(self.multiplier)
            .with_max_delay(self.max_interval)
            .with_jitter();
        match self.max_retries {
            Some(times) => builder.with_max_times(times).build(),
            None => builder.without_max_times().build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_never_end() {
        let waits: Vec<Duration> = RetryPolicy::OUTAGE.waits().take(200).collect();
        assert_eq!(waits.len(), 200);
        assert!(waits[0] >= Duration::from_millis(50) && waits[0] <= Duration::from_millis(100));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(10)));
        assert!(waits[150] >= Duration::from_secs(5));
    }

    #[test]
    fn a_bounded_policy_ends() {
        let policy = RetryPolicy { max_retries: Some(4), ..RetryPolicy::OUTAGE };
        assert_eq!(policy.waits().count(), 4);
    }
}
