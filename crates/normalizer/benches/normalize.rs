//! What an envelope costs before the store: decode, open, peek and parse of one text message of about 500 bytes.
//!
//! `cargo bench -p normalizer`. Prints microseconds per envelope for each part and for the whole step (against a store
//! that does nothing); compares nothing.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement has no API, reads the clock and prints"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::directory::{Assignment, Directory, Entry, Number, OpenDirectory, Tenant};
use common::envelope::{self, Disposition, Header, Lane, Packing};
use common::keys::KeyRing;
use common::trace::TraceContext;
use common::update::Provider;
use common::{AppId, EnvelopeId, NumberId, RequestId, TenantId, Timestamp, sealing};
use normalizer::{Config, Deps, Normalizer, Work};
use object_store::memory::InMemory;
use port_contracts::{ManualClock, MemoryBackend};
use ports::event_bus::{AckToken, Delivery};
use providers::meta::parse::parse;
use providers::meta::peek::peek;

fn body(n: usize) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"300111222333444","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"4915155500011","phone_number_id":"777000111222333"}},"contacts":[{{"profile":{{"name":"Ada"}},"wa_id":"351910000001"}}],"messages":[{{"from":"351910000001","id":"wamid.HBgMMzUxOTEwMDAwMDAxFQIAEhgUM0E{n:08}","timestamp":"1795000000","type":"text","text":{{"body":"Good morning, is my order 4711 on its way?"}}}}]}},"field":"messages"}}]}}]}}"#
    )
}

fn directory() -> Arc<OpenDirectory> {
    let Ok(ring) = KeyRing::parse(&KeyRing::generate_file("m1")) else { panic!("a generated key file is one") };
    let Ok(app) = AppId::new("app") else { panic!("an app id") };
    let assignments = vec![Assignment { tenant: Some(TenantId::default()), valid_from: Timestamp::default() }];
    let id = NumberId::new("777000111222333").ok();
    let entries = [
        Entry::Tenant(Tenant::create(TenantId::default(), None, &ring)),
        Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring)),
        Entry::Number(Number { id, waba: None, app, assignments }),
    ];
    let directory = Directory { revision: 1, entries: entries.into_iter().map(|e| (e.key(), e)).collect() };
    let Ok(open) = OpenDirectory::open(&directory, &ring) else { panic!("it opens") };
    Arc::new(open)
}

fn sealed(directory: &OpenDirectory, n: usize) -> Vec<u8> {
    let Some(keys) = directory.tenant(&TenantId::default()) else { panic!("the tenant is there") };
    let Ok(app) = AppId::new("app") else { panic!("an app id") };
    let header = Header {
        id: EnvelopeId::fresh(),
        request: RequestId::fresh(),
        provider: Provider::Meta,
        app,
        tenant: TenantId::default(),
        number: None,
        received_at: Timestamp::from_secs(1_795_000_001),
        disposition: Disposition::Deliver,
        lane: Lane::Live,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        body_sha256: "0".repeat(64),
        key: keys.sealing().id().to_owned(),
        packing: Packing::Plain,
        size: 0,
        updates: 1,
        trace: TraceContext::fresh(),
        delivery: None,
    };
    sealing::seal(header, body(n).as_bytes(), keys.sealing())
}

/// The median over 15 rounds of the time of one call, in microseconds.
fn measure(name: &str, calls: u32, mut call: impl FnMut()) {
    let mut rounds: Vec<Duration> = (0..15)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed()
        })
        .collect();
    rounds.sort();
    println!("{name:<44}{:>9.2} µs", rounds[7].as_secs_f64() * 1e6 / f64::from(calls));
}

fn main() {
    let directory = directory();
    let bytes = sealed(&directory, 0);
    let Some(keys) = directory.tenant(&TenantId::default()) else { return };
    let Ok(parts) = envelope::decode(&bytes) else { return };
    let key = keys.sealing();
    let Ok(payload) = sealing::open(&parts, key) else { return };
    let received_at = parts.header.received_at;
    println!("body {} bytes, envelope {} bytes; per envelope:", payload.len(), bytes.len());
    measure("decode", 20_000, || drop(black_box(envelope::decode(black_box(&bytes)))));
    measure("open", 20_000, || drop(black_box(sealing::open(black_box(&parts), key))));
    measure("peek", 20_000, || drop(black_box(peek(black_box(&payload)))));
    let Ok(peeked) = peek(&payload) else { return };
    measure("parse", 20_000, || drop(black_box(parse(black_box(&payload), &peeked, 0, received_at))));
    measure("decode + open + peek + parse", 20_000, || {
        let Ok(parts) = envelope::decode(black_box(&bytes)) else { return };
        let Ok(payload) = sealing::open(&parts, key) else { return };
        let Ok(peeked) = peek(&payload) else { return };
        drop(black_box(parse(&payload, &peeked, 0, received_at)));
    });
    steps(&directory);
}

/// The whole step over batches of 256 different envelopes, with the memory store.
fn steps(directory: &Arc<OpenDirectory>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let Ok(runtime) = runtime else { return };
    let (clock, directory) = (ManualClock::new(), Arc::clone(directory));
    let backend = MemoryBackend::new(Arc::clone(&clock));
    let given = Arc::clone(&directory);
    let deps = Deps {
        bus: backend.bus(),
        store: backend.store(),
        outbox: backend.outbox(),
        parking: backend.parking(),
        raw: backend.raw(),
        request_log: backend.request_log(),
        directory: Arc::new(move || Some(Arc::clone(&given))),
        blobs: Arc::new(InMemory::new()),
        clock,
    };
    let config = Config::default();
    let normalizer = Normalizer::new(config.clone(), &deps, Arc::default());
    let mut next = 0;
    let mut batches: Vec<Vec<Delivery>> = (0..40)
        .map(|_| {
            let delivery = |_| {
                next += 1;
                Delivery {
                    subject: "inbound.live.default".to_owned(),
                    payload: sealed(&directory, next).into(),
                    sequence: next as u64,
                    delivered: 1,
                    published_at: Timestamp::default(),
                    token: AckToken(next.to_string()),
                }
            };
            (0..config.batch).map(delivery).collect()
        })
        .collect();
    let mut rounds = Vec::new();
    while let Some(deliveries) = batches.pop() {
        let count = deliveries.len();
        let start = Instant::now();
        for mut work in Work::split(deliveries, &config) {
            let settled = runtime.block_on(normalizer.handle(&mut work));
            assert!(settled.is_ok_and(|settled| settled.events > 0), "all are new");
        }
        rounds.push(start.elapsed().as_secs_f64() * 1e6 / count as f64);
    }
    rounds.sort_by(f64::total_cmp);
    println!("{:<44}{:>9.2} µs", "whole step, batches of 256, memory store", rounds[rounds.len() / 2]);
}
