//! PostgreSQL under the laws of its ports, and what only a server has: clocks, crashes, partitions.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use backend_distributed::OpenError;
use backend_distributed::postgres::{Postgres, PostgresConfig};
use common::directory::Entry;
use common::message::Party;
use common::record::{Outcome, RecordBatch, RecordedMessages, RequestRecord, SignatureStatus};
use common::status::DeliveryState;
use common::update::Provider;
use common::{EnvelopeId, EventKey, RequestId, TenantId, Timestamp};
use port_contracts::clock::START;
use port_contracts::samples::{by_phone, by_user_id, impersonal, key, message, status};
use port_contracts::{Harness, ManualClock, MemoryBackend};
use ports::access::Access;
use ports::admission::Admission;
use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use ports::event_store::CommitOutcome::{Duplicate, New, Refused};
use ports::event_store::{Batch, CommitOutcome, DeadLetter, Detail, EventStore, NewUpdate};
use ports::feed::{Feed, FeedEvent, FeedFilter};
use ports::message_log::{MessageFilter, MessageLog};
use ports::outbox::Outbox;
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::request_log::RequestLog;
use ports::statistics::Statistics;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

mod opening;
mod partitions;
mod rollups;
mod rows;
mod servers;

/// Longer than anything that must happen takes, on a busy machine too.
const BOUND: Duration = Duration::from_secs(30);

/// A server with the tables, made once for each state of the migrations.
pub(crate) fn server() -> test_servers::Postgres {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        for migration in sqlx::migrate!("../../migrations/postgres").iter() {
            migration.checksum.hash(&mut hasher);
        }
        format!("wharf-{:016x}", hasher.finish())
    });
    test_servers::Postgres::start_prepared(name, |url| {
        let url = url.to_owned();
        // `prepare` is not async and may be called within a runtime.
        let prepared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let postgres = connect(&url).await;
                postgres.migrate().await.unwrap();
                postgres.close().await;
            });
        });
        prepared.join().unwrap();
    })
}

fn config(url: &str) -> PostgresConfig {
    PostgresConfig { url: url.into(), max_connections: 8 }
}

pub(crate) async fn connect(url: &str) -> Postgres {
    Postgres::connect(config(url)).await.unwrap()
}

struct PostgresHarness {
    postgres: Postgres,
    store: Arc<dyn EventStore>,
    request_log: Arc<dyn RequestLog>,
    access: Arc<dyn Access>,
    clock: Arc<ManualClock>,
    others: MemoryBackend,
    server: test_servers::Postgres,
}

impl PostgresHarness {
    async fn on(server: test_servers::Postgres, clock: Arc<ManualClock>) -> Self {
        let postgres = connect(&server.url()).await;
        Self {
            store: postgres.event_store(clock.clone()),
            request_log: postgres.request_log(clock.clone()),
            access: postgres.access(),
            others: MemoryBackend::new(clock.clone()),
            postgres,
            clock,
            server,
        }
    }

    async fn fresh() -> Self {
        Self::open(ManualClock::new()).await
    }

    /// A connection of the test's own.
    async fn look(&self) -> PgConnection {
        PgConnection::connect(&self.server.url()).await.unwrap()
    }

    async fn rows(&self, sql: &str) -> Vec<PgRow> {
        sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.look().await).await.unwrap()
    }

    async fn count(&self, sql: &str) -> i64 {
        self.rows(sql).await[0].get(0)
    }

    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.look().await).await.unwrap();
    }

    async fn commit(&self, updates: Vec<NewUpdate>) -> Vec<CommitOutcome> {
        self.store.commit(Batch { updates, ..Batch::default() }).await.unwrap().outcomes
    }

    async fn feed_after_sequencing(&self) -> Vec<FeedEvent> {
        let outbox = self.outbox();
        let fence = outbox.acquire_sequencer(Uuid::from_u128(1), Duration::from_mins(1)).await.unwrap().unwrap();
        while outbox.sequence(fence, 10_000).await.unwrap() > 0 {}
        self.feed().read(0, 100_000, &FeedFilter::default()).await.unwrap().events
    }
}

#[async_trait]
impl Harness for PostgresHarness {
    async fn open(clock: Arc<ManualClock>) -> Self {
        Self::on(server(), clock).await
    }

    async fn restart(mut self) -> Self {
        // Killed first, so that nothing is said goodbye to.
        self.server.kill();
        self.server.start_again();
        self.postgres.close().await;
        Self::on(self.server, self.clock).await
    }

    async fn pass(&self, clock: &ManualClock, time: Duration) {
        clock.advance(time);
        let micros = time.as_micros();
        self.run(&format!(
            "UPDATE sequencer SET until = until - {micros} * interval '1 microsecond'; \
             UPDATE parked SET taken_until = taken_until - {micros} * interval '1 microsecond'; \
             UPDATE outbox SET until = until - {micros} * interval '1 microsecond' WHERE until IS NOT NULL"
        ))
        .await;
    }

    fn bus(&self) -> Arc<dyn EventBus> {
        self.others.bus()
    }

    fn admission(&self) -> Arc<dyn Admission> {
        self.others.admission()
    }

    fn directory(&self) -> Arc<dyn DirectoryStore> {
        self.postgres.directory()
    }

    fn store(&self) -> Arc<dyn EventStore> {
        self.store.clone()
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.postgres.outbox()
    }

    fn feed(&self) -> Arc<dyn Feed> {
        self.postgres.feed()
    }

    fn message_log(&self) -> Arc<dyn MessageLog> {
        self.postgres.message_log()
    }

    fn request_log(&self) -> Arc<dyn RequestLog> {
        self.request_log.clone()
    }

    fn statistics(&self) -> Arc<dyn Statistics> {
        self.postgres.statistics()
    }

    fn parking(&self) -> Arc<dyn Parking> {
        self.postgres.parking()
    }

    fn raw(&self) -> Arc<dyn RawIndex> {
        self.postgres.parking()
    }

    fn access(&self) -> Arc<dyn Access> {
        self.access.clone()
    }
}

port_contracts::directory_contract!(PostgresHarness);
port_contracts::event_store_contract!(PostgresHarness);
port_contracts::outbox_contract!(PostgresHarness);
port_contracts::feed_contract!(PostgresHarness);
port_contracts::message_log_contract!(PostgresHarness);
port_contracts::request_log_contract!(PostgresHarness);
port_contracts::statistics_contract!(PostgresHarness);
port_contracts::access_contract!(PostgresHarness);
port_contracts::parking_contract!(PostgresHarness);
port_contracts::raw_contract!(PostgresHarness);

/// Fails instead of hanging.
async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    bounded(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn unsuitable(error: &OpenError) -> String {
    assert!(matches!(error, OpenError::Unsuitable(_)), "{error:?}");
    error.to_string()
}

fn at(n: u32, millis: i64) -> NewUpdate {
    let mut update = message(n);
    update.received_at = Timestamp::from_millis(millis);
    update.event.occurred_at = update.received_at;
    update
}

fn with_text(n: u32, text: &str) -> NewUpdate {
    let mut update = message(n);
    let id = format!("wamid.{n}");
    update.event.detail = Detail::Message { id, kind: "text".to_owned(), text: Some(text.to_owned()) };
    update
}
