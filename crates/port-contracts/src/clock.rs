//! A clock that stands still until a test turns it.

use std::sync::Arc;
use std::time::Duration;

use common::{Clock, Timestamp};
use tokio::sync::watch;

/// The moment every [`ManualClock`] starts at: 2026-11-18T11:06:40Z.
pub const START: Timestamp = Timestamp::from_secs(1_795_000_000);

/// The monotonic clock's zero means nothing, so it does not start there.
const MONOTONIC_START: Duration = Duration::from_secs(5_000);

/// A clock that moves only by [`ManualClock::advance`]; wall and monotonic time move together.
#[derive(Debug)]
pub struct ManualClock {
    elapsed: watch::Sender<Duration>,
}

impl ManualClock {
    /// A clock at [`START`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self { elapsed: watch::Sender::new(Duration::ZERO) })
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.elapsed.send_modify(|elapsed| *elapsed += time);
    }

    /// Tells whenever the clock was turned, for fakes that wait.
    pub(crate) fn turns(&self) -> watch::Receiver<Duration> {
        self.elapsed.subscribe()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        START.plus(*self.elapsed.borrow())
    }

    fn monotonic(&self) -> Duration {
        MONOTONIC_START + *self.elapsed.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_and_monotonic_time_move_together_and_only_by_hand() {
        let clock = ManualClock::new();
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        assert_eq!((wall, monotonic), (START, clock.monotonic()));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().since(wall), Duration::from_millis(1500));
        assert_eq!(clock.monotonic().checked_sub(monotonic), Some(Duration::from_millis(1500)));
    }
}
