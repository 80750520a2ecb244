//! What the gateway itself adds to a webhook: microseconds and allocations of each step, without network and bus.
//!
//! Run with `cargo bench -p ingress`. The median of several rounds is shown; the machine's other work only adds.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and may panic")]

use std::alloc::System;
use std::hint::black_box;
use std::time::Duration;

use common::directory::{App, Assignment, Directory, Entry, Number, OpenDirectory, Tenant};
use common::keys::KeyRing;
use common::trace::TraceContext;
use common::update::Provider;
use common::{AppId, Clock as _, RequestId, SystemClock, TenantId, Timestamp};
use ingress::{Request, plan};
use ports::admission::Verdict;
use providers::meta::{cut::cut, peek::peek, signature};
use simulator::{Generator, Mix, Traffic};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MAX_AGE: Duration = Duration::from_hours(192);

fn main() {
    let (directory, app) = directory();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    println!(
        "{:<28} {:>10} {:>8}   {:>10} {:>8}   {:>10} {:>8}",
        "", "500 B", "allocs", "20 kB", "allocs", "3 MB", "allocs"
    );
    let bodies = [body(1, 1, 520), body(40, 1, 20_000), body(1000, 5, 3_000_000)];
    println!(
        "{:<28} {:>10} {:>8}   {:>10} {:>8}   {:>10} {:>8}",
        "bytes",
        bodies[0].len(),
        "",
        bodies[1].len(),
        "",
        bodies[2].len(),
        ""
    );
    let request = Request {
        id: RequestId::fresh(),
        provider: Provider::Meta,
        app,
        source_ip: "192.0.2.1".parse().unwrap(),
        received_at: Timestamp::from_secs(1_795_000_000),
        trace: TraceContext::fresh(),
        delivery: None,
    };
    row("HMAC", &bodies, |body| {
        let tag = [0; 32];
        black_box(signature::signed_by(&tag, body, [((), &key)]));
    });
    row("peek", &bodies, |body| {
        black_box(peek(body).unwrap());
    });
    row("plan (peek, owner, keys)", &bodies, |body| {
        black_box(plan(body, &request, &directory, MAX_AGE).unwrap().candidates());
    });
    row("cut (every other update)", &bodies, |body| {
        let peeked = peek(body).unwrap();
        let keep: Vec<bool> = (0..peeked.updates.len()).map(|index| index % 2 == 0).collect();
        black_box(cut(body, &peeked, &keep));
    });
    row("plan + seal", &bodies, |body| {
        let planned = plan(body, &request, &directory, MAX_AGE).unwrap();
        let verdicts = vec![Verdict::default(); planned.count()];
        black_box(planned.envelopes(&request, &verdicts));
    });
    row("all of it", &bodies, |body| {
        black_box(signature::signed_by(&[0; 32], body, [((), &key)]));
        let planned = plan(body, &request, &directory, MAX_AGE).unwrap();
        let verdicts = vec![Verdict::default(); planned.candidates().len()];
        black_box(planned.envelopes(&request, &verdicts));
    });
}

fn row(name: &str, bodies: &[Vec<u8>], step: impl Fn(&[u8])) {
    print!("{name:<28}");
    for body in bodies {
        let rounds = if body.len() > 1_000_000 { 9 } else { 51 };
        let repeats = u32::try_from((400_000 / body.len()).clamp(1, 200)).unwrap();
        step(body);
        let region = Region::new(ALLOCATOR);
        step(body);
        let allocations = region.change().allocations;
        let mut times: Vec<Duration> = (0..rounds)
            .map(|_| {
                let begin = SystemClock.monotonic();
                for _ in 0..repeats {
                    step(body);
                }
                SystemClock.monotonic().saturating_sub(begin) / repeats
            })
            .collect();
        times.sort();
        print!(" {:>8.2}µs {allocations:>8}  ", times[times.len() / 2].as_secs_f64() * 1e6);
    }
    println!();
}

/// A webhook with so many updates, padded to about so many bytes, of one or several numbers.
fn body(updates: usize, numbers: usize, bytes: usize) -> Vec<u8> {
    let number = |n: usize| format!("300:77{n}").parse().unwrap();
    let traffic = Traffic {
        batch: updates,
        mix: Mix { messages: 1, statuses: 0, other: 0 },
        numbers: (0..numbers).map(number).collect(),
        mixed_numbers: numbers > 1,
        start_time: 1_795_000_000,
        ..Traffic::default()
    };
    let webhook = Generator::new(traffic, "secret").next().unwrap();
    let text = String::from_utf8(webhook.body.to_vec()).unwrap();
    let missing = bytes.saturating_sub(text.len()) / updates;
    text.replace(r#""type":"text""#, &format!(r#""type":"text","padding":"{}""#, "p".repeat(missing))).into_bytes()
}

fn directory() -> (OpenDirectory, AppId) {
    let ring = KeyRing::parse(&KeyRing::generate_file("m1")).unwrap();
    let (app, tenant) = (AppId::new("main").unwrap(), TenantId::new("acme").unwrap());
    let owner = Assignment { tenant: Some(tenant.clone()), valid_from: Timestamp::default() };
    let entries = [
        Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring)),
        Entry::Tenant(Tenant::create(tenant, None, &ring)),
        Entry::App(App::create(app.clone(), Provider::Meta, &["secret"], &[], &ring)),
        Entry::Number(Number { id: None, waba: None, app: app.clone(), assignments: vec![owner] }),
    ];
    let entries = entries.into_iter().map(|entry| (entry.key(), entry)).collect();
    (OpenDirectory::open(&Directory { revision: 1, entries }, &ring).unwrap(), app)
}
