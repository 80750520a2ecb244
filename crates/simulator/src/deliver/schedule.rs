//! When a failed webhook is tried again. Meta documents "at once, then with decreasing frequency for up to
//! 7 days" and no figures; those of [`RetrySchedule::meta`] are chosen, not known. No jitter: two equal
//! runs retry alike.

use std::time::Duration;

/// Pauses between the tries of one webhook. The first retry follows at once, the second after
/// `first_pause`, and each further pause is `factor` times the one before, up to `max_pause`.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySchedule {
    /// Pause before the second retry.
    pub first_pause: Duration,
    /// Growth of the pauses; below 1 counts as 1.
    pub factor: f64,
    /// Longest pause.
    pub max_pause: Duration,
    /// A retry due this long after the first try, or later, is not made. Zero means no retries.
    pub give_up_after: Duration,
}

impl RetrySchedule {
    /// In real time: 5 s, doubling up to an hour, for 7 days.
    pub fn meta() -> Self {
        Self {
            first_pause: Duration::from_secs(5),
            factor: 2.0,
            max_pause: Duration::from_hours(1),
            give_up_after: Duration::from_hours(7 * 24),
        }
    }

    /// The same with all times multiplied by `time_scale`: 1.0 is real time, 0.001 turns an hour into
    /// 3.6 s. Values that make no duration count as 1.0.
    #[must_use]
    pub fn scaled(self, time_scale: f64) -> Self {
        let scale = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() * time_scale).unwrap_or(time);
        Self {
            first_pause: scale(self.first_pause),
            factor: self.factor,
            max_pause: scale(self.max_pause),
            give_up_after: scale(self.give_up_after),
        }
    }

    /// No retries: what fails has failed.
    pub fn none() -> Self {
        Self { give_up_after: Duration::ZERO, ..Self::meta() }
    }

    /// The pause before the given retry, counted from 1.
    pub(super) fn pause_before(&self, retry: u32) -> Duration {
        let Some(growths) = retry.checked_sub(2) else { return Duration::ZERO };
        let growths = i32::try_from(growths).unwrap_or(i32::MAX);
        let pause = self.first_pause.as_secs_f64() * self.factor.max(1.0).powi(growths);
        Duration::try_from_secs_f64(pause).map_or(self.max_pause, |pause| pause.min(self.max_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_at_once_and_then_ever_less_often() {
        let schedule = RetrySchedule::meta();
        let pauses: Vec<_> = (1..=4).map(|retry| schedule.pause_before(retry).as_secs()).collect();
        assert_eq!(pauses, [0, 5, 10, 20]);
        assert_eq!(schedule.pause_before(50), schedule.max_pause);
        assert_eq!(schedule.pause_before(u32::MAX), schedule.max_pause);
    }

    #[test]
    fn shrinks_all_times() {
        let schedule = RetrySchedule::meta().scaled(0.001);
        assert_eq!(schedule.pause_before(2), Duration::from_millis(5));
        assert_eq!(schedule.max_pause, Duration::from_millis(3600));
        assert_eq!(schedule.give_up_after, Duration::from_millis(604_800));
        assert_eq!(RetrySchedule::meta().scaled(f64::NAN), RetrySchedule::meta());
    }
}
