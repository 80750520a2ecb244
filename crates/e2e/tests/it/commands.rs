//! `wharf simulate send`, as a person runs it.

use std::collections::BTreeSet;

use simulator::{UpdateKind, UpdateRef};

use crate::binary::run;
use crate::feed::{assert_exactly_once, expected_events};
use crate::meta::{PATH, SECRET};
use crate::wharf::{Setup, Wharf};

fn url(wharf: &Wharf) -> String {
    format!("http://{}{PATH}", wharf.public())
}

#[test]
fn simulated_webhooks_come_out_as_the_log_of_the_sender_says() {
    let wharf = Setup::new().without_limits().start();
    let log = wharf.setup().file("acknowledged.log", "");
    let sent = run(
        &[
            "simulate",
            "send",
            "--url",
            &url(&wharf),
            "--count",
            "300",
            "--batch",
            "2",
            "--messages",
            "2",
            "--statuses",
            "2",
            "--other",
            "1",
            "--duplicates",
            "0.1",
            "--forged",
            "0.05",
            "--seed",
            "7",
            "--acknowledged-log",
            log.to_str().unwrap(),
        ],
        &[("WHATSAPP_APP_SECRET", SECRET)],
    );
    assert_eq!(sent.code, Some(0), "{sent:?}");
    for part in ["seed 7", "posts 300", "p50", "p90", "p99", "max", "200: ", "403: "] {
        assert!(sent.stdout.contains(part), "{part}: {sent:?}");
    }
    assert!(sent.stderr.contains("300/300 sent"), "it shows its progress: {sent:?}");
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<UpdateRef> = log.lines().map(|line| line.parse().unwrap()).collect();
    let distinct: BTreeSet<_> = lines.iter().cloned().collect();
    assert!(distinct.len() < lines.len(), "repetitions are written again");
    let events = wharf.settled_events();
    assert_exactly_once(&events, &lines, &distinct);
    assert_eq!(events.len(), expected_events(&lines));
    for kind in [UpdateKind::Message, UpdateKind::Status, UpdateKind::Other] {
        assert!(lines.iter().any(|update| update.kind == kind), "{kind}");
    }
}

#[test]
fn a_sender_that_is_not_heard_fails() {
    let wharf = Setup::new().without_limits().start();
    let url = url(&wharf);
    let send = |secret: &str| {
        run(
            &["simulate", "send", "--url", &url, "--count", "2", "--retry-scale", "0"],
            &[("WHATSAPP_APP_SECRET", secret)],
        )
    };
    let refused = send("another-secret");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("403: 2"), "{refused:?}");
    drop(wharf);
    let gone = send(SECRET);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.stdout.contains("transport errors 2"), "{gone:?}");
    for arguments in [&["simulate", "send"][..], &["simulate", "send", "--secret", "x", "--forged", "2"]] {
        let misused = run(arguments, &[]);
        assert_eq!(misused.code, Some(2), "{misused:?}");
    }
}

#[test]
fn a_single_webhook_is_sent_without_waiting() {
    let wharf = Setup::new().start();
    let start = tokio::time::Instant::now();
    let sent = run(&["simulate", "send", "--url", &url(&wharf), "--secret", SECRET], &[]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(start.elapsed().as_secs_f64() < 3.0, "after {:?}", start.elapsed());
    assert_eq!(wharf.events_when(1).len(), 1);
}
