//! Logs and metrics of a process.
//!
//! Logs are structured: JSON lines, or text on a terminal. They carry request ids and fixed words, never payloads,
//! secrets, phone numbers or wamids.

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

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
    let text = match format {
        LogFormat::Json => false,
        LogFormat::Text => true,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_span_events(FmtSpan::NONE);
    let _ = if text {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
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
