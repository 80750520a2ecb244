//! Logs and metrics of a process.
//!
//! Logs are structured: JSON lines, or text on a terminal. They carry request ids and fixed words, never payloads,
//! secrets, phone numbers or wamids.

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::Tasks;
use crate::names;

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
    /// Text on a terminal, JSON otherwise.
    Auto,
}

/// Whether a text is a level, or a filter of levels by module: `info`, `warn,ingress=debug`.
pub fn is_log_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |level: &str| LEVELS.contains(&level.to_ascii_lowercase().as_str());
    text.split(',').all(|part| match part.split_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part),
    })
}

/// Starts logging to standard error. `level` is a level or a filter such as `info,ingress=debug`. A second call changes
/// nothing.
pub fn start_logs(level: &str, format: LogFormat) {
    // What libraries say in detail may hold payloads; the NATS client's connector says the URL with its password.
    let filter = EnvFilter::builder().parse_lossy(format!(
        "{level},sqlx=warn,actix_server=warn,actix_http=off,hyper=warn,reqwest=warn,redis=warn,async_nats=warn,\
         async_nats::connector=off"
    ));
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match format {
        LogFormat::Json => false,
        LogFormat::Text => true,
        LogFormat::Auto => is_terminal,
    };
    let _ = if is_text {
        text(filter, std::io::stderr, is_terminal).try_init()
    } else {
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let builder = builder.with_span_events(FmtSpan::NONE).json().flatten_event(true);
        builder.with_current_span(true).with_span_list(false).finish().try_init()
    };
}

/// Logs as text. In colours on a terminal only, and there only if NO_COLOR is not set, which the library looks at.
fn text<W>(filter: EnvFilter, writer: W, is_terminal: bool) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let builder = builder.with_span_events(FmtSpan::NONE).with_target(false);
    if is_terminal { builder.finish() } else { builder.with_ansi(false).finish() }
}

/// Seconds; fine around the bars that matter (50 ms, 200 ms, 250 ms, 1 s, 1.8 s).
const ANSWER_BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 1.8];
const COUNT_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0];

/// Renders the metrics of the process.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder of the process and describes all metrics.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &ANSWER_BUCKETS)?
            .set_buckets(&COUNT_BUCKETS)?
            .install_recorder()?;
        names::describe();
        Ok(Self(handle))
    }

    /// Keeps histograms from piling up between scrapes.
    pub fn keep_up(&self, tasks: &Tasks) {
        let (handle, stopping) = (self.0.clone(), tasks.clone());
        tasks.spawn("metrics", async move {
            loop {
                tokio::select! {
                    () = stopping.stopping() => return,
                    () = tokio::time::sleep(Duration::from_secs(5)) => handle.run_upkeep(),
                }
            }
        });
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn text_that_is_not_for_a_terminal_has_no_colours() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = text(EnvFilter::new("info"), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || tracing::warn!(number = 7, "a warning"));
        let logged = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(logged.contains("WARN a warning number=7"), "{logged:?}");
        assert!(!logged.contains('\x1b'), "{logged:?}");
    }
}
