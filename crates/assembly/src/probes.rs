//! Questions that readiness asks once a second.

use std::time::Duration;

use futures_util::future::BoxFuture;
use service::Tasks;
use service::health::Readiness;

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// A question to something that the process depends on.
pub(crate) struct Probe {
    name: &'static str,
    required: bool,
    at_first: bool,
    limit: Duration,
    ask: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

impl Probe {
    /// `at_first` holds until the first answer; an answer that takes longer than `limit` is a no.
    pub(crate) fn new<F>(
        name: &'static str,
        required: bool,
        at_first: bool,
        limit: Duration,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        Self { name, required, at_first, limit, ask: Box::new(move || Box::pin(ask())) }
    }

    /// Goes on asking until the process stops.
    pub(crate) fn watch(self, readiness: &Readiness, tasks: &Tasks) {
        readiness.report(self.name, self.required, self.at_first);
        let (readiness, stopping) = (readiness.clone(), tasks.clone());
        tasks.spawn("readiness", async move {
            loop {
                let answer = tokio::select! {
                    () = stopping.stopping() => return,
                    answer = tokio::time::timeout(self.limit, (self.ask)()) => answer,
                };
                readiness.report(self.name, self.required, answer == Ok(true));
                tokio::select! {
                    () = stopping.stopping() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }
}
