//! Waiting for a condition, with a bound. Nothing here waits for a time to pass.

use std::time::Duration;

use tokio::time::Instant;

/// The longest that anything may take. Far more than it does: a bound is for what is broken. What a killed process had
/// taken from the bus is delivered again after 30 s.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until there is an answer; panics with `what` if there is none in time.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// The same with another bound.
pub(crate) fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
