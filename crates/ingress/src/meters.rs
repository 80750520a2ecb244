//! The metrics that every webhook moves, looked up once: by name and labels each costs as much as a digest.

use std::fmt;
use std::time::Duration;

use common::record::SignatureStatus;
use common::update::Provider;
use metrics::{Counter, Histogram, counter, histogram};
use service::names;

pub(crate) struct Meters {
    /// By provider, in the order of `Provider::ALL`.
    accepted: [Counter; Provider::ALL.len()],
    took: Histogram,
    pub(crate) delivered: Counter,
    pub(crate) new: Counter,
    pub(crate) known: Counter,
    pub(crate) throttled: Counter,
}

impl Meters {
    /// The recorder must be there already.
    pub(crate) fn new() -> Self {
        Self {
            accepted: Provider::ALL.map(|provider| requests(provider, "200", SignatureStatus::Valid)),
            took: histogram!(names::ANSWER_SECONDS),
            delivered: counter!(names::ENVELOPES, "disposition" => "deliver"),
            new: counter!(names::UPDATES, "admission" => "new"),
            known: counter!(names::UPDATES, "admission" => "known"),
            throttled: counter!(names::UPDATES, "admission" => "throttled"),
        }
    }

    /// Counts a request by its answer.
    pub(crate) fn answered(&self, provider: Provider, status: u16, signature: SignatureStatus, took: Duration) {
        self.took.record(took.as_secs_f64());
        let status = match status {
            200 if signature == SignatureStatus::Valid => {
                if let Some((_, accepted)) =
                    Provider::ALL.iter().zip(&self.accepted).find(|(each, _)| **each == provider)
                {
                    accepted.increment(1);
                }
                return;
            }
            200 => "200",
            400 => "400",
            403 => "403",
            404 => "404",
            408 => "408",
            413 => "413",
            415 => "415",
            422 => "422",
            429 => "429",
            503 => "503",
            _ => "other",
        };
        requests(provider, status, signature).increment(1);
    }
}

fn requests(provider: Provider, status: &'static str, signature: SignatureStatus) -> Counter {
    counter!(names::REQUESTS, "provider" => provider.as_str(), "status" => status, "signature" => signature.as_str())
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}
