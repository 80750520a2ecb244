//! Admission under its laws on a real redis-server, and what happens when that server does not answer.
//!
//! Time passes for Redis by shortening what its keys have left to live.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backend_distributed::redis::RedisAdmission;
use common::{EventKey, Fingerprint, TenantId};
use deadpool_redis::redis::{self as client, AsyncCommands as _};
use port_contracts::memory::MemoryHarness;
use port_contracts::{Harness, ManualClock};
use ports::admission::{Admission, Candidate, Others, Remembered, SenderLimit};
use test_servers::Redis as Server;

use crate::{other_ports_in_memory, others};

struct RedisHarness {
    server: Server,
    admission: Arc<RedisAdmission>,
    others: MemoryHarness,
}

/// Longer than anything takes on a busy machine: what Redis does is tested here, not how soon.
const PATIENT: Duration = Duration::from_secs(10);

async fn connect(server: &Server, others: &MemoryHarness) -> Arc<RedisAdmission> {
    let admission = RedisAdmission::with_budget(&server.url().into(), Harness::admission(others), PATIENT).unwrap();
    assert!(admission.ping().await, "Redis answers");
    admission
}

async fn age_everything(server: &Server, time: Duration) {
    let client = client::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = connection.keys("*").await.unwrap();
    for key in keys {
        let left: i64 = connection.pttl(&key).await.unwrap();
        assert!(left > 0, "every key expires: {key}");
        let left = left - i64::try_from(time.as_millis()).unwrap();
        let () = if left > 0 { connection.pexpire(&key, left).await } else { connection.del(&key).await }.unwrap();
    }
}

#[async_trait]
impl Harness for RedisHarness {
    async fn open(clock: Arc<ManualClock>) -> Self {
        let server = Server::start();
        let others = others(clock).await;
        let admission = connect(&server, &others).await;
        Self { server, admission, others }
    }

    async fn restart(self) -> Self {
        Self { admission: connect(&self.server, &self.others).await, ..self }
    }

    async fn pass(&self, clock: &ManualClock, time: Duration) {
        clock.advance(time);
        age_everything(&self.server, time).await;
    }

    fn admission(&self) -> Arc<dyn Admission> {
        self.admission.clone()
    }

    other_ports_in_memory! {
        bus -> ports::event_bus::EventBus,
        directory -> ports::directory::DirectoryStore,
        store -> ports::event_store::EventStore,
        outbox -> ports::outbox::Outbox,
        feed -> ports::feed::Feed,
        message_log -> ports::message_log::MessageLog,
        request_log -> ports::request_log::RequestLog,
        statistics -> ports::statistics::Statistics,
        parking -> ports::parking::Parking,
        raw -> ports::raw::RawIndex,
        access -> ports::access::Access,
    }
}

port_contracts::admission_contract!(RedisHarness);

const LIMIT: SenderLimit = SenderLimit { max: 2, window: Duration::from_hours(1) };

fn candidate(n: u8) -> Candidate {
    Candidate {
        tenant: TenantId::new("acme").unwrap(),
        key: Some(EventKey([n; 16])),
        fingerprint: Fingerprint([n; 16]),
        sender: Some(EventKey([0xaa; 16])),
    }
}

fn remembered(n: u8) -> Remembered {
    let Candidate { tenant, key, fingerprint, .. } = candidate(n);
    Remembered { tenant, key: key.unwrap(), fingerprint }
}

async fn known(admission: &RedisAdmission, n: u8) -> bool {
    admission.admit(&[candidate(n)], LIMIT).await.unwrap()[0].known
}

async fn two_gateways(server: &Server) -> [Arc<RedisAdmission>; 2] {
    let clock = ManualClock::new();
    let (one, two) = (others(clock.clone()).await, others(clock).await);
    [connect(server, &one).await, connect(server, &two).await]
}

#[tokio::test]
async fn two_gateways_share_what_they_remember_and_count() {
    let server = Server::start();
    let [one, two] = two_gateways(&server).await;
    one.remember(&[remembered(1)]).await.unwrap();
    assert!(known(&two, 1).await);
    for n in 2..4 {
        assert!(!one.admit(&[candidate(n)], LIMIT).await.unwrap()[0].over_limit);
    }
    assert!(two.admit(&[candidate(4)], LIMIT).await.unwrap()[0].over_limit, "both count for one sender");
}

#[tokio::test]
async fn gateways_hear_what_the_others_take_and_forget_who_is_gone() {
    let server = Server::start();
    let [one, two] = two_gateways(&server).await;
    let heard = |gateways, taken| Others { gateways, taken };
    assert_eq!(one.compare(7).await.unwrap(), heard(0, 0));
    assert_eq!(two.compare(9).await.unwrap(), heard(1, 7));
    assert_eq!(one.compare(70).await.unwrap(), heard(1, 9));
    assert_eq!(two.compare(9).await.unwrap(), heard(1, 70));
    bounded(async { while one.compare(7).await.unwrap() != heard(0, 0) {} }).await;
    // What somebody else wrote there is nobody.
    let client = client::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (field, value) in [("x", "nonsense"), ("y", "1:2:3"), ("z", "1:2")] {
        let () = connection.hset("wa_gateways", field, value).await.unwrap();
    }
    assert_eq!(one.compare(7).await.unwrap(), heard(0, 0));
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.unwrap()
}

async fn answers(admission: &RedisAdmission) {
    bounded(async {
        while !admission.ping().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_redis_the_process_decides_by_itself_and_redis_takes_over_again() {
    let mut server = Server::start();
    let others = others(ManualClock::new()).await;
    let admission = connect(&server, &others).await;
    admission.remember(&[remembered(1)]).await.unwrap();
    server.kill();
    assert!(!known(&admission, 1).await, "the process knows nothing of it, and that loses nothing");
    assert!(!known(&admission, 2).await);
    admission.remember(&[remembered(2)]).await.unwrap();
    assert!(known(&admission, 2).await);
    bounded(async { while admission.ping().await || admission.is_up() {} }).await;
    server.start_again();
    answers(&admission).await;
    assert!(!known(&admission, 2).await, "a new Redis knows nothing, and that loses nothing");
    assert!(admission.is_up());
}

#[tokio::test]
async fn a_frozen_redis_costs_few_requests_their_budget() {
    let server = Server::start();
    let others = others(ManualClock::new()).await;
    let admission = RedisAdmission::new(&server.url().into(), Harness::admission(&others)).unwrap();
    server.freeze();
    let began = tokio::time::Instant::now();
    for n in 0..100 {
        admission.admit(&[candidate(n)], LIMIT).await.unwrap();
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(500), "a hundred requests took {took:?}");
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        assert!(admission.compare(1).await.is_err());
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(500), "what can wait until it answers again took {took:?}");
    server.thaw();
    answers(&admission).await;
}

#[tokio::test]
async fn keys_hold_hashes_only_and_all_of_them_expire() {
    let server = Server::start();
    let others = others(ManualClock::new()).await;
    let admission = connect(&server, &others).await;
    admission.admit(&[candidate(1)], LIMIT).await.unwrap();
    admission.remember(&[remembered(2)]).await.unwrap();
    let client = client::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<String> = connection.keys("*").await.unwrap();
    keys.sort();
    let hash = |n: &str| n.repeat(16);
    let expected = [("wa_dedup", "01"), ("wa_dedup", "02"), ("wa_rate", "aa")];
    assert_eq!(keys, expected.map(|(prefix, n)| format!("{prefix}:acme:{}", hash(n))));
    age_everything(&server, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_repeating_it() {
    let others = others(ManualClock::new()).await;
    let error = RedisAdmission::new(&"htp://:hunter2@host".into(), Harness::admission(&others)).unwrap_err();
    assert!(error.to_string().contains("redis.url") && !error.to_string().contains("hunter2"), "{error}");
}
