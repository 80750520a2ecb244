//! The distributed installation under load, with everything breaking that can break: what was acknowledged is in the
//! database, in the feed and on the bus, once, and nothing else is.
//!
//! Real servers, two gateways, three normalizers and an API, three tenants with twelve numbers. While a stand-in for Meta
//! sends (and sends again what was not answered), the faults of [`faults::Fault::ROUND`] happen one after the other.
//!
//! Parameters are in the environment: `WHARF_CHAOS_COUNT`, webhooks at least; `WHARF_CHAOS_ROUNDS`, how often each fault
//! happens; `WHARF_CHAOS_RATE`, webhooks in a second, by default so many that count and rounds end together.
//! `scripts/prove --distributed` is the long run.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a scenario fails by panicking")]
#![expect(clippy::print_stdout, reason = "a long run shows how far it is")]

mod binaries;
mod consumer;
mod disk;
mod faults;
mod http;
mod installation;
mod job;
mod load;
mod probe;
mod stored;
mod summary;
mod verdict;
#[path = "../it/wait.rs"]
mod wait;

use std::time::Duration;

use tokio::time::Instant;

use consumer::Consumer;
use faults::Fault;
use installation::Installation;
use load::{Load, Outcome};
use probe::Probes;
use stored::Waiting;
use summary::{Happened, Summary};
use verdict::Evidence;

const COUNT: u64 = 5000;
const ROUNDS: u32 = 1;
/// How long a round takes, about.
const SECONDS_PER_ROUND: u32 = 20;
/// Between two lines of progress, if nothing else is to be said.
const PROGRESS: Duration = Duration::from_secs(5);
/// Until both gateways answer 200 again after a fault.
const RECOVERY: Duration = Duration::from_mins(1);
/// Until nothing waits any more, and again for every so many webhooks.
const DRAIN: Duration = Duration::from_secs(90);
const DRAIN_PER: u64 = 20_000;

#[test]
fn nothing_is_lost_and_nothing_comes_twice_whatever_breaks() {
    let count = parameter("WHARF_CHAOS_COUNT", COUNT);
    let rounds = parameter("WHARF_CHAOS_ROUNDS", ROUNDS);
    let seconds = f64::from(rounds.max(1) * SECONDS_PER_ROUND);
    let rate = parameter("WHARF_CHAOS_RATE", count as f64 / seconds);

    let begun = Instant::now();
    // Room for what the streams keep: the events, and what waits for a worker.
    let mut installation = Installation::start(256 + count / 100);
    println!("{count} webhooks at {rate:.0}/s, {rounds} rounds of {} faults", Fault::ROUND.len());
    println!("full disk: {}", installation.disk.kind());
    println!("everything is up after {:.1} s", begun.elapsed().as_secs_f64());

    let api = installation.api.address();
    let gateways = installation.public();
    let consumer = Consumer::start(api);
    let (owner, number) = load::numbers().remove(0);
    let probes = Probes::start(&gateways, &number);
    let load = Load::start(&gateways, count, rate);
    let started = Instant::now();
    wait::until("both gateways answer", || probes.answered_since(started));

    let happened = break_everything(&mut installation, &probes, &load, &consumer, count, rounds);

    let Outcome { mut sent, reports } = load.finish();
    let probed = probes.finish();
    let sending = started.elapsed();
    println!("{:7.1} s  all is acknowledged; draining", begun.elapsed().as_secs_f64());
    sent.genuine.extend(probed.iter().cloned().map(|update| (update, owner)));
    let (nats, postgres) = (installation.nats.url(), installation.postgres.url());
    let patience = DRAIN + DRAIN * u32::try_from(count / DRAIN_PER).unwrap();
    let mut shown = Instant::now();
    wait::within(patience, "everything drains", || {
        let waiting = stored::waiting(&nats, &postgres);
        if shown.elapsed() > PROGRESS {
            shown = Instant::now();
            println!("{:7.1} s  {waiting:?}", begun.elapsed().as_secs_f64());
        }
        (waiting == Waiting::default()).then_some(())
    });
    let drained = started.elapsed();
    println!("{:7.1} s  drained; comparing", begun.elapsed().as_secs_f64());

    let followed = consumer.finish();
    let feed = consumer::read_all(api);
    let tables = stored::tables(&postgres);
    let (published, copies) = stored::published(&nats);
    // While a gateway was dead or had no directory yet, a forgery could not be refused. Now each must be.
    let forgeries = load::send_again(gateways[0], sent.forgeries.clone());
    let said = installation.stop();

    let acknowledged: Vec<_> = reports.iter().flat_map(|report| &report.acknowledged).chain(&probed).cloned().collect();
    let evidence = Evidence {
        sent: &sent,
        acknowledged: &acknowledged,
        tables: &tables,
        feed: &feed,
        followed: &followed,
        published: &published,
    };
    let mut problems = verdict::problems(&evidence);
    let summary = Summary {
        evidence: &evidence,
        reports: &reports,
        forgeries: &forgeries,
        probes: probed.len(),
        copies,
        happened: &happened,
        said: &said,
        sending,
        drained,
        disk: installation.disk.kind(),
    };
    problems.extend(summary.problems());
    println!("{summary}");
    let shown: Vec<_> = problems.iter().take(50).map(String::as_str).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), shown.join("\n"));
    println!("as it should be, after {:.1} s", begun.elapsed().as_secs_f64());
}

/// All faults of all rounds, spread over the load.
fn break_everything(
    installation: &mut Installation,
    probes: &Probes,
    load: &Load,
    consumer: &Consumer,
    count: u64,
    rounds: u32,
) -> Vec<Happened> {
    let started = Instant::now();
    let line = |what: &str| {
        let (sent, acknowledged) = load.progress();
        let (seconds, events) = (started.elapsed().as_secs_f64(), consumer.count());
        println!("{seconds:7.1} s  sent {sent:>7}  acknowledged {acknowledged:>7}  in the feed {events:>7}  {what}");
    };
    let all = u64::from(rounds) * Fault::ROUND.len() as u64;
    let mut happened = Vec::new();
    for at in 0..all {
        let due = count * at / all;
        let mut shown = Instant::now();
        wait::within(Duration::from_hours(1), "the load goes on", || {
            if shown.elapsed() > PROGRESS {
                shown = Instant::now();
                line("");
            }
            (load.progress().0 >= due).then_some(())
        });
        let fault = Fault::ROUND[usize::try_from(at).unwrap() % Fault::ROUND.len()];
        let round = usize::try_from(at).unwrap() / Fault::ROUND.len();
        line(&format!("{fault} ({} of {rounds})", round + 1));
        let begun = Instant::now();
        let (healed, noticed) = fault.inflict(round, installation, probes);
        let back = wait::within(RECOVERY, "both gateways answer 200 again", || probes.answered_since(healed));
        let event = Happened {
            fault,
            lasted: healed - begun,
            back: back - healed,
            silence: probes.longest_silence(begun, back),
            noticed,
        };
        line(&event.to_string());
        happened.push(event);
        for job in installation.jobs() {
            assert!(job.is_running(), "{} ended by itself after: {fault}\n{}", job.name, job.log());
        }
    }
    happened
}

/// A parameter of the environment, or its default.
fn parameter<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Some(text) = std::env::var_os(name) else { return default };
    let text = text.to_string_lossy();
    text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
}
