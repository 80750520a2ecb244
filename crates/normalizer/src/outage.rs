//! A pause while something is down: waits that grow, one line in the log when it begins and one when it ends.
//!
//! It counts nothing against what is being handled, and it is not a circuit breaker: whoever pauses holds its work and
//! tries the same thing again.

use std::error::Error;

use backon::ExponentialBackoff;
use service::retry::RetryPolicy;
use service::{Tasks, names};

/// The state of one loop towards one system.
#[derive(Debug)]
pub(crate) struct Outage {
    job: &'static str,
    what: &'static str,
    waits: Option<ExponentialBackoff>,
}

impl Outage {
    /// `job` pauses when `what` is down. Both are fixed words.
    pub(crate) const fn new(job: &'static str, what: &'static str) -> Self {
        Self { job, what, waits: None }
    }

    /// Waits before the next try; false if a stop was asked for.
    pub(crate) async fn wait(&mut self, error: &(dyn Error + Sync), tasks: &Tasks) -> bool {
        if tasks.is_stopping() {
            return false;
        }
        let (job, what) = (self.job, self.what);
        let waits = self.waits.get_or_insert_with(|| {
            metrics::counter!(names::PAUSES, "what" => what).increment(1);
            tracing::warn!(job, what, error = %chain(error), "pausing until it is back; nothing is lost");
            RetryPolicy::OUTAGE.waits()
        });
        let wait = waits.next().unwrap_or(RetryPolicy::OUTAGE.max_interval);
        tokio::select! {
            () = tasks.stopping() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// It works.
    pub(crate) fn over(&mut self) {
        if self.waits.take().is_some() {
            tracing::info!(job = self.job, what = self.what, "back; going on");
        }
    }
}

/// The error with everything that caused it; causes that an error shows itself are not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
