//! What is counted while delivering and what is told at the end. Counting only; it decides nothing.

use std::{collections::BTreeMap, error::Error as _, fmt::Write as _, io::ErrorKind, time::Duration};

use hdrhistogram::Histogram;

use crate::UpdateRef;

use super::post::Answer;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Webhooks sent at least once.
    pub sent: u64,
    /// Webhooks answered with 200 and `OK`.
    pub acknowledged: u64,
    /// Updates in those.
    pub acknowledged_updates: u64,
    /// Forged webhooks answered with 403.
    pub refused_forged: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Webhooks that wait for their next try.
    pub waiting: u64,
    /// Webhooks settled otherwise: given up, 200 with another body, forged and not refused.
    pub failed: u64,
    /// Answers with 429: the receiver has limits.
    pub limited: u64,
    /// Why the last try without a complete answer had none.
    pub no_answer: Option<&'static str>,
}

/// Times of the answers that acknowledged, each from just before its request to the end of its answer
/// (earlier tries do not count), in microseconds with three significant digits, at most an hour. All zero
/// if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// Nine in ten took no longer.
    pub p90: u64,
    /// 99 in a hundred took no longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// How a delivery went. `posts` = acknowledged + forged refused + failed (`unexpected` and those given up
/// without an answer) + unsettled.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Webhooks sent at least once, forged ones included.
    pub posts: u64,
    /// Webhooks answered with 200 and `OK`.
    pub acknowledged_posts: u64,
    /// Updates in those; repeats count each time.
    pub acknowledged_updates: u64,
    /// Forged webhooks sent.
    pub forged_sent: u64,
    /// Forged webhooks answered with 403.
    pub forged_refused: u64,
    /// Webhooks by the status that settled them where it was not the expected one: the last of those
    /// given up, 200 with a body other than `OK`, anything but 403 for forged ones.
    pub unexpected: BTreeMap<u16, u64>,
    /// All answers by status, those to retries included.
    pub statuses: BTreeMap<u16, u64>,
    /// Tries without a complete answer.
    pub transport_errors: u64,
    /// Those errors with their causes, and how often each occurred; the first eight kinds.
    pub transport_causes: BTreeMap<String, u64>,
    /// Tries beyond the first.
    pub retries: u64,
    /// Genuine webhooks whose retries were used up.
    pub gave_up: u64,
    /// Webhooks under way or waiting when the delivery was stopped.
    pub unsettled: u64,
    /// From the start to the last answer, or to the stop.
    pub elapsed: Duration,
    /// Times of the answers.
    pub latency: Latency,
    /// What was acknowledged, in the order of the answers, if it was to be kept; else empty.
    pub acknowledged: Vec<UpdateRef>,
}

/// Longer answers count as an hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;

/// Kinds of errors that are told apart. The rest is only in the sum.
const CAUSES: usize = 8;
const TOO_MANY: u16 = 429;

/// A report in the making.
pub(super) struct Tally {
    report: Report,
    failed: u64,
    no_answer: Option<&'static str>,
    latency: Histogram<u64>,
    keep: bool,
}

impl Tally {
    /// Keeps what was acknowledged if `keep`.
    pub(super) fn new(keep: bool) -> Self {
        let latency = Histogram::new_with_max(LONGEST, 3).expect("these limits make a histogram");
        Self { report: Report::default(), failed: 0, no_answer: None, latency, keep }
    }

    pub(super) fn sent(&mut self, forged: bool) {
        self.report.posts += 1;
        self.report.forged_sent += u64::from(forged);
    }

    pub(super) fn retried(&mut self) {
        self.report.retries += 1;
    }

    /// Counts an answer, whatever it means.
    pub(super) fn answered(&mut self, answer: &Answer) {
        match answer {
            Answer::Status { code, .. } => *self.report.statuses.entry(*code).or_default() += 1,
            Answer::Transport(error) => {
                self.report.transport_errors += 1;
                self.no_answer = Some(in_words(error));
                let causes = &mut self.report.transport_causes;
                let cause = with_causes(error);
                if causes.len() < CAUSES || causes.contains_key(&cause) {
                    *causes.entry(cause).or_default() += 1;
                }
            }
        }
    }

    pub(super) fn acknowledged(&mut self, updates: Vec<UpdateRef>, took: Duration) {
        self.report.acknowledged_posts += 1;
        self.report.acknowledged_updates += updates.len() as u64;
        self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if self.keep {
            self.report.acknowledged.extend(updates);
        }
    }

    pub(super) fn refused_forged(&mut self) {
        self.report.forged_refused += 1;
    }

    /// Settled, but not as expected.
    pub(super) fn failed(&mut self, status: Option<u16>) {
        self.failed += 1;
        if let Some(status) = status {
            *self.report.unexpected.entry(status).or_default() += 1;
        }
    }

    pub(super) fn gave_up(&mut self, status: Option<u16>) {
        self.report.gave_up += 1;
        self.failed(status);
    }

    /// Where it stands; nothing is known here of what waits.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            sent: self.report.posts,
            acknowledged: self.report.acknowledged_posts,
            acknowledged_updates: self.report.acknowledged_updates,
            refused_forged: self.report.forged_refused,
            retries: self.report.retries,
            waiting: 0,
            failed: self.failed,
            limited: self.report.statuses.get(&TOO_MANY).copied().unwrap_or_default(),
            no_answer: self.no_answer,
        }
    }

    pub(super) fn report(self, elapsed: Duration, unsettled: usize) -> Report {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        let latency = Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.latency.max() };
        Report { elapsed, unsettled: unsettled as u64, latency, ..self.report }
    }
}

fn in_words(error: &reqwest::Error) -> &'static str {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    if error.is_timeout() {
        "none in time"
    } else if causes.into_iter().any(refused) {
        "nobody listens at that address (connection refused)"
    } else if error.is_connect() {
        "no connection to that address"
    } else {
        "the connection broke off"
    }
}

fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_quantiles_of_short_and_long_answers() {
        let mut tally = Tally::new(false);
        for milliseconds in 1..=100 {
            tally.acknowledged(Vec::new(), Duration::from_millis(milliseconds * 100));
        }
        let latency = tally.report(Duration::ZERO, 0).latency;
        let about = |value: u64, wanted: u64| value.abs_diff(wanted) <= wanted / 500;
        assert!(about(latency.p50, 5_000_000), "{latency:?}");
        assert!(about(latency.p90, 9_000_000), "{latency:?}");
        assert!(about(latency.p99, 9_900_000), "{latency:?}");
        assert!(about(latency.max, 10_000_000), "{latency:?}");
    }
}
