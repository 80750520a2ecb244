//! Progress of a load run: one line on a terminal, a line every few seconds elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use simulator::{Progress, Report};
use tokio::sync::watch;

/// Shows progress until the sender is dropped.
pub(crate) async fn show(mut progress: watch::Receiver<Progress>, count: u64) {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
    let started = tokio::time::Instant::now();
    loop {
        let ended = tokio::select! {
            () = tokio::time::sleep(every) => false,
            () = ended(progress.clone()) => true,
        };
        let now = *progress.borrow_and_update();
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = now.acknowledged as f64 / seconds;
        let line = format!(
            "{}/{count} sent, {} acknowledged ({rate:.0}/s), {} forged refused, {} retries, {} waiting",
            now.sent, now.acknowledged, now.refused_forged, now.retries, now.waiting
        );
        let mut out = std::io::stderr().lock();
        let _ = if terminal { write!(out, "\r\x1b[2K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
        if ended {
            if terminal {
                let _ = writeln!(out);
            }
            return;
        }
    }
}

/// Resolves when the sender is dropped.
async fn ended(mut progress: watch::Receiver<Progress>) {
    while progress.changed().await.is_ok() {}
}

/// A report for people.
pub(crate) fn report(report: &Report) -> String {
    let seconds = report.elapsed.as_secs_f64().max(0.001);
    let milliseconds = |micros: u64| {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let value = micros as f64 / 1000.0;
        value
    };
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = report.acknowledged_updates as f64 / seconds;
    let mut text = format!(
        "posts {}  acknowledged {} ({} updates, {rate:.0}/s)  forged {} refused {}  retries {}  gave up {}  in {seconds:.1} s\n\
         latency ms  p50 {:.2}  p90 {:.2}  p99 {:.2}  max {:.2}\nanswers    ",
        report.posts,
        report.acknowledged_posts,
        report.acknowledged_updates,
        report.forged_sent,
        report.forged_refused,
        report.retries,
        report.gave_up,
        milliseconds(report.latency.p50),
        milliseconds(report.latency.p90),
        milliseconds(report.latency.p99),
        milliseconds(report.latency.max),
    );
    for (status, count) in &report.statuses {
        let _ = write!(text, " {status}: {count}");
    }
    if report.transport_errors > 0 {
        let last = report.last_transport_error.as_deref().unwrap_or("unknown");
        let _ = write!(text, "\ntransport errors {} (last: {last})", report.transport_errors);
    }
    text
}

/// Whether a run went as it should: everything genuine acknowledged, everything forged refused.
pub(crate) fn succeeded(report: &Report) -> bool {
    report.gave_up == 0
        && report.unsettled == 0
        && report.unexpected.is_empty()
        && report.forged_sent == report.forged_refused
        && report.acknowledged_posts + report.forged_sent == report.posts
}
