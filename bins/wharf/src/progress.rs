//! Progress of a load run: one line on a terminal, a line every few seconds elsewhere.

use std::collections::BTreeSet;
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
    let mut hints = Hints::default();
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
        for hint in hints.of(&now) {
            let _ = if terminal { writeln!(out, "\r\x1b[2K{hint}") } else { writeln!(out, "{hint}") };
        }
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

/// What a person would otherwise have to guess from the figures, each thing once.
#[derive(Debug, Default)]
struct Hints {
    limits: bool,
    no_answer: BTreeSet<&'static str>,
}

impl Hints {
    fn of(&mut self, now: &Progress) -> Vec<String> {
        let mut new = Vec::new();
        if now.limited > 0 && !self.limits {
            self.limits = true;
            new.push(
                "429: Wharf takes so many requests a second from one address (ingress.per_ip_limit_per_second, 50 unless \
                 set) and so many in all (ingress.global_limit_per_second). What it refuses is sent again later. A lower \
                 --rate, several --from or a higher limit avoid it"
                    .to_owned(),
            );
        }
        if let Some(why) = now.no_answer
            && self.no_answer.insert(why)
        {
            new.push(format!("no answer: {why}"));
        }
        new
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
        let _ = write!(text, "\ntransport errors {}", report.transport_errors);
        for (cause, count) in &report.transport_causes {
            let _ = write!(text, "\n  {count} × {cause}");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_given_once() {
        let mut hints = Hints::default();
        assert!(hints.of(&Progress::default()).is_empty());
        let limited = Progress { limited: 3, ..Progress::default() };
        assert!(hints.of(&limited)[0].contains("ingress.per_ip_limit_per_second"));
        assert!(hints.of(&Progress { limited: 9, ..limited }).is_empty());
        let dead = Progress { no_answer: Some("none in time"), ..limited };
        assert_eq!(hints.of(&dead), ["no answer: none in time"]);
        assert!(hints.of(&dead).is_empty());
        assert_eq!(hints.of(&Progress { no_answer: Some("the connection broke off"), ..dead }).len(), 1);
    }

    #[test]
    fn a_report_says_why_there_was_no_answer() {
        let mut failed = Report { transport_errors: 3, ..Report::default() };
        failed.transport_causes.insert("connection refused".to_owned(), 2);
        failed.transport_causes.insert("timed out".to_owned(), 1);
        let text = report(&failed);
        assert!(text.contains("2 × connection refused") && text.contains("1 × timed out"), "{text}");
    }
}
