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
use ports::admission::Admission;
use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use ports::event_store::CommitOutcome::{Duplicate, New, Refused};
use ports::event_store::{Batch, CommitOutcome, DeadLetter, Detail, EventStore, NewUpdate};
use ports::feed::{Feed, FeedEvent, FeedFilter};
use ports::message_log::{MessageFilter, MessageLog};
use ports::outbox::Outbox;
use ports::request_log::RequestLog;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

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
}

port_contracts::directory_contract!(PostgresHarness);
port_contracts::event_store_contract!(PostgresHarness);
port_contracts::outbox_contract!(PostgresHarness);
port_contracts::feed_contract!(PostgresHarness);
port_contracts::message_log_contract!(PostgresHarness);
port_contracts::request_log_contract!(PostgresHarness);

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

mod opening {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_without_tables_is_refused_until_it_is_migrated() {
        let server = test_servers::Postgres::start();
        let postgres = connect(&server.url()).await;
        assert!(unsuitable(&postgres.verify().await.unwrap_err()).contains("run `wharf migrate`"));
        let lines = postgres.migrate().await.unwrap();
        let expected =
            ["applied migration 1 (foundation)", "applied migration 2 (outbox steps)", "made 20 time partitions"];
        assert_eq!(lines, expected);
        postgres.verify().await.unwrap();
        assert!(postgres.migrate().await.unwrap().is_empty(), "there is nothing left to do");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn migrations_at_the_same_time_wait_for_each_other() {
        let server = test_servers::Postgres::start();
        let (one, two) = (connect(&server.url()).await, connect(&server.url()).await);
        let (one, two) = tokio::join!(one.migrate(), two.migrate());
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_of_other_software_are_refused() {
        let scene = PostgresHarness::fresh().await;
        scene.postgres.verify().await.unwrap();
        scene.run("INSERT INTO _sqlx_migrations SELECT 99, 'later', now(), true, '\\x00', 0").await;
        assert!(unsuitable(&scene.postgres.verify().await.unwrap_err()).contains("this program is older"));
        assert!(unsuitable(&scene.postgres.migrate().await.unwrap_err()).contains("this program is older"));
        scene.run("DELETE FROM _sqlx_migrations WHERE version = 99").await;
        scene.run("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
        assert!(unsuitable(&scene.postgres.verify().await.unwrap_err()).contains("of other software"));
        scene.run("DELETE FROM _sqlx_migrations").await;
        assert!(unsuitable(&scene.postgres.verify().await.unwrap_err()).contains("run `wharf migrate`"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_in_another_encoding_is_refused() {
        let scene = PostgresHarness::fresh().await;
        // As good as made so: nothing in it is beyond ASCII, and the locale C fits every encoding.
        scene.run("UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1')").await;
        let latin = connect(&scene.server.url()).await;
        assert!(unsuitable(&latin.verify().await.unwrap_err()).contains("LATIN1"));
        assert!(unsuitable(&latin.migrate().await.unwrap_err()).contains("LATIN1"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_schema_of_ones_own_is_made_and_used() {
        let scene = PostgresHarness::fresh().await;
        let own = connect(&format!("{}?schema=my-own", scene.server.url())).await;
        own.migrate().await.unwrap();
        own.verify().await.unwrap();
        let clock = ManualClock::new();
        own.event_store(clock).commit(Batch { updates: vec![message(1)], ..Batch::default() }).await.unwrap();
        assert_eq!(scene.count("SELECT count(*) FROM \"my-own\".messages").await, 1);
        assert_eq!(scene.count("SELECT count(*) FROM public.messages").await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_refused_is_told_so_and_who_finds_nobody_may_try_again() {
        let mut server = test_servers::Postgres::start();
        let nowhere = server.url().replace("/wharf", "/nowhere");
        let error = Postgres::connect(config(&nowhere)).await.unwrap_err();
        assert!(unsuitable(&error).contains("nowhere"), "{error}");
        server.kill();
        let error = Postgres::connect(config(&server.url())).await.unwrap_err();
        assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
    }
}

mod partitions {
    use super::*;

    const WEEK: i64 = 7 * 24 * 3600 * 1000;

    #[tokio::test(flavor = "multi_thread")]
    async fn making_them_again_makes_nothing_and_many_at_once_make_each_once() {
        let scene = PostgresHarness::fresh().await;
        assert_eq!(scene.postgres.make_partitions().await.unwrap(), 0);
        let of = |table: &str| {
            format!(
                "SELECT 'DROP TABLE ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass AND \
                     inhrelid::regclass::text NOT LIKE '%default'"
            )
        };
        for table in ["events", "messages", "statuses", "webhook_signature_log"] {
            for row in scene.rows(&of(table)).await {
                scene.run(row.get(0)).await;
            }
        }
        let all = (0..4).map(async |_| connect(&scene.server.url()).await.make_partitions().await.unwrap());
        let made: usize = futures_util::future::join_all(all).await.iter().sum();
        assert_eq!(made, 20);
        assert_eq!(scene.rows(&of("events")).await.len(), 5);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_lie_in_their_week_and_all_others_in_default() {
        let scene = PostgresHarness::fresh().await;
        let now: i64 = scene.count("SELECT (extract(epoch FROM now()) * 1000)::bigint").await;
        let mut late = status(4);
        late.received_at = Timestamp::from_millis(now + WEEK);
        let updates = vec![at(1, now), at(2, now + 2 * WEEK), at(3, now - 52 * WEEK), late];
        assert_eq!(scene.commit(updates.clone()).await, [New, New, New, New]);
        for table in ["events", "messages", "statuses"] {
            let misplaced = format!(
                "SELECT count(*) FROM {table} WHERE tableoid::regclass::text <> CASE WHEN received_at < now() - \
                 interval '8 days' \
                 THEN '{table}_default' ELSE '{table}_' || to_char(date_trunc('week', received_at), 'YYYYMMDD') END"
            );
            assert_eq!(scene.count(&misplaced).await, 0, "{table}");
        }
        assert_eq!(scene.count("SELECT count(*) FROM messages_default").await, 1);
        assert_eq!(scene.feed_after_sequencing().await.len(), 4, "the feed has them all");
        let claimed = scene.outbox().claim(Uuid::from_u128(1), 10, Duration::from_mins(1)).await.unwrap();
        assert_eq!(claimed.len(), 4, "and so has the outbox");
        assert_eq!(scene.commit(updates).await, vec![Duplicate; 4]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_week_whose_rows_are_in_default_stays_there() {
        let scene = PostgresHarness::fresh().await;
        let next: i64 = scene
            .count("SELECT (extract(epoch FROM date_trunc('week', now()) + interval '8 days') * 1000)::bigint")
            .await;
        let drop =
            "SELECT 'DROP TABLE messages_' || to_char(date_trunc('week', now()) + interval '7 days', 'YYYYMMDD')";
        scene.run(scene.rows(drop).await[0].get(0)).await;
        scene.commit(vec![at(1, next)]).await;
        assert_eq!(scene.postgres.make_partitions().await.unwrap(), 0);
        assert_eq!(scene.commit(vec![at(1, next), at(2, next)]).await, [Duplicate, New]);
        assert_eq!(scene.count("SELECT count(*) FROM messages_default").await, 2);
    }
}

mod rows {
    use DeliveryState::{Delivered, Failed, Read, Sent};

    use super::*;

    fn letter(n: u32, reason: &str) -> DeadLetter {
        DeadLetter {
            tenant: TenantId::new("acme").unwrap(),
            key: key(n),
            envelope: EnvelopeId::fresh(),
            received_at: START,
            reason: reason.to_owned(),
            sealed: b"sealed".as_slice().into(),
            message: Some((format!("wamid.{n}"), Some("+491700000001".to_owned()))),
        }
    }

    fn record(stored: &[EventKey], duplicates: &[EventKey], second: u64) -> RequestRecord {
        RequestRecord {
            request: RequestId::fresh(),
            received_at: START.plus(Duration::from_secs(second)),
            source_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            provider: Provider::Meta,
            endpoint: "/webhooks/\0meta".to_owned(),
            app: None,
            tenant: Some(TenantId::new("acme").unwrap()),
            event: Some(key(1)),
            event_type: Some("message".to_owned()),
            event_count: 1,
            signature: SignatureStatus::Valid,
            http_status: 200,
            outcome: Outcome::Accepted,
            reason: None,
            suspicious: false,
            processing_ms: 1.25,
            weight: 1,
            messages: vec![RecordedMessages {
                tenant: TenantId::new("acme").unwrap(),
                stored: stored.to_vec(),
                duplicates: duplicates.to_vec(),
            }],
        }
    }

    async fn log(scene: &PostgresHarness, record: RequestRecord) {
        let batch = RecordBatch { id: Uuid::now_v7(), records: vec![record] };
        for _ in 0..2 {
            scene.request_log.record(std::slice::from_ref(&batch)).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_duplicate_counts_once_for_each_envelope() {
        let scene = PostgresHarness::fresh().await;
        let (first, second) = (message(1), message(1));
        scene.commit(vec![first.clone(), message(2)]).await;
        scene.commit(vec![first, second.clone(), second.clone()]).await;
        scene.commit(vec![second, message(1), message(1)]).await;
        let row = scene
            .rows("SELECT duplicate_count, last_duplicate_at = received_at FROM messages ORDER BY message_id")
            .await;
        assert_eq!((row[0].get::<i32, _>(0), row[0].get::<bool, _>(1)), (3, true));
        assert_eq!((row[1].get::<i32, _>(0), row[1].get::<Option<bool>, _>(1)), (0, None));
        assert_eq!(scene.count("SELECT sum(count)::bigint FROM event_keys").await, 8, "all that came is counted");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_letter_is_a_failed_message_until_it_is_released() {
        let scene = PostgresHarness::fresh().await;
        let bury = async |letter| {
            let batch = Batch { dead_letters: vec![letter], ..Batch::default() };
            scene.store.commit(batch).await.unwrap();
        };
        let first = letter(1, "first");
        bury(first.clone()).await;
        bury(first).await;
        bury(letter(1, "second")).await;
        let view = "SELECT status, error_message, error_count, duplicate_count, response_time_ms FROM webhook_messages";
        let row = &scene.rows(view).await[..];
        assert_eq!((row.len(), row[0].get::<&str, _>(0), row[0].get::<&str, _>(1)), (1, "failed", "second"));
        assert_eq!(row[0].get::<i32, _>(2), 2, "counted once for each envelope");
        log(&scene, record(&[key(1)], &[], 0)).await;
        let mut released = message(1);
        released.received_at = START.plus(Duration::from_hours(24 * 30));
        assert_eq!(scene.commit(vec![released]).await, [New]);
        let row = &scene.rows(view).await[..];
        assert_eq!((row.len(), row[0].get::<&str, _>(0), row[0].get::<i32, _>(2)), (1, "completed", 2));
        assert!((row[0].get::<f64, _>(4) - 1.25).abs() < 1e-9, "what was recorded of it stays");
        bury(letter(1, "third")).await;
        let row = &scene.rows(view).await[..];
        assert_eq!((row.len(), row[0].get::<&str, _>(0), row[0].get::<&str, _>(1)), (1, "failed", "third"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_and_messages_meet_whichever_comes_first() {
        let scene = PostgresHarness::fresh().await;
        log(&scene, record(&[key(1)], &[key(2)], 5)).await;
        log(&scene, record(&[], &[key(1), key(1)], 9)).await;
        scene.commit((1..=3).map(message).collect()).await;
        log(&scene, record(&[key(2), key(3)], &[key(3)], 7)).await;
        let rows = scene
            .rows(
                "SELECT response_time_ms, duplicate_count, (extract(epoch FROM last_duplicate_at) * 1000)::bigint \
                   FROM messages ORDER BY message_id",
            )
            .await;
        let last = |second: u64| START.plus(Duration::from_secs(second)).as_millis();
        let seen: Vec<(f64, i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert_eq!(seen, [(1.25, 2, last(9)), (1.25, 1, last(5)), (1.25, 1, last(7))]);
        assert_eq!(scene.count("SELECT count(*) FROM message_receipts").await, 0);
        assert_eq!(scene.count("SELECT count(*) FROM webhook_signature_log").await, 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_and_messages_meet_when_they_come_at_the_same_time() {
        let scene = PostgresHarness::fresh().await;
        for round in 0..40 {
            let keys: Vec<EventKey> = (0..5).map(|n| key(round * 10 + n)).collect();
            let updates = (0..5).map(|n| message(round * 10 + n)).collect();
            tokio::join!(log(&scene, record(&keys, &keys, 1)), scene.commit(updates));
        }
        assert_eq!(scene.count("SELECT count(*) FROM message_receipts").await, 0);
        let met = "SELECT count(*) FROM messages WHERE response_time_ms IS NOT NULL AND duplicate_count = 1";
        assert_eq!(scene.count(met).await, 200);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_only_moves_forward_in_whichever_order_statuses_come() {
        let scene = PostgresHarness::fresh().await;
        let with = |n: u32, of: u32, state: DeliveryState| {
            let mut update = status(n);
            if let Detail::Status(status) = &mut update.event.detail {
                status.state = state;
                status.message_id = format!("wamid.out.{of}");
            }
            update
        };
        scene.commit(vec![with(1, 1, Delivered), with(2, 2, Sent), with(3, 3, Sent)]).await;
        let more = [(10, 1, Failed), (11, 1, Read), (12, 2, Failed), (13, 2, Read), (14, 3, Read), (15, 3, Delivered)];
        scene.commit(more.map(|(n, of, state)| with(n, of, state)).to_vec()).await;
        let states = scene.rows("SELECT state FROM message_states ORDER BY message_id").await;
        assert_eq!(states.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["read", "failed", "read"]);
        assert_eq!(scene.count("SELECT count(*) FROM statuses").await, 9, "every status is kept");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_database_refuses_leaves_its_neighbours() {
        let scene = PostgresHarness::fresh().await;
        // Too long for an index, and not compressible.
        let long: String = (0..400).map(|_| Uuid::now_v7().simple().to_string()).collect();
        let mut updates: Vec<NewUpdate> = (0..20).map(message).collect();
        updates[3].event.party = by_phone(&long);
        updates[11].event.party = by_user_id(&long);
        updates[12].event.group = Some(long);
        let outcomes = scene.commit(updates.clone()).await;
        let refused: Vec<usize> = (0..20).filter(|index| matches!(outcomes[*index], Refused(_))).collect();
        assert_eq!(refused, [3, 11, 12]);
        let keys: Vec<EventKey> = scene.feed_after_sequencing().await.iter().map(|event| event.key).collect();
        assert_eq!(keys, (0..20).filter(|n| ![3, 11, 12].contains(n)).map(key).collect::<Vec<_>>(), "in order");
        assert_eq!(scene.count("SELECT count(*) FROM event_keys").await, 17);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hostile_timestamps_and_texts_are_stored() {
        let scene = PostgresHarness::fresh().await;
        let moments = [i64::MIN, i64::MAX, -62_135_596_800_001, 253_402_300_800_000, -1, 0, 9_999_999_999_999_999];
        let mut updates: Vec<NewUpdate> = (0..).zip(moments).map(|(n, millis)| at(n, millis)).collect();
        let mut odd = with_text(50, "a\0b\u{1f680}\u{202e}\\'\"");
        odd.event.party = Party { user_id: Some("u\0\0".into()), ..by_phone("+49\0") };
        odd.event.display_number = Some("\0".into());
        updates.push(odd);
        let mut grouped = status(51);
        grouped.event.group = Some("g\0".into());
        grouped.event.occurred_at = Timestamp::from_millis(i64::MAX);
        updates.push(grouped);
        assert_eq!(scene.commit(updates.clone()).await, vec![New; 9]);
        assert_eq!(scene.commit(updates).await, vec![Duplicate; 9]);
        let events = scene.feed_after_sequencing().await;
        assert_eq!(events[0].occurred_at.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(events[1].occurred_at.to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!((events[4].occurred_at.as_millis(), events[5].occurred_at.as_millis()), (-1, 0));
        let since = Some(Timestamp::from_millis(i64::MAX));
        for filter in [
            MessageFilter { since, limit: 100, ..MessageFilter::default() },
            MessageFilter { text: Some("A\0B".into()), limit: 100, ..MessageFilter::default() },
            MessageFilter { from: Some("+49\0".into()), limit: 100, ..MessageFilter::default() },
        ] {
            assert!(scene.message_log().search(&filter).await.unwrap().total > 0, "{filter:?}");
        }
        assert!(scene.message_log().totals(None).await.unwrap().last.is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pages_are_bounded_by_bytes_and_go_on() {
        let scene = PostgresHarness::fresh().await;
        for n in 0..5 {
            let mut update = impersonal(n, "777");
            update.event.data = vec![b'1'; 3 << 20].into();
            scene.commit(vec![update]).await;
        }
        let (mut next, mut sizes) = (0, Vec::new());
        scene.feed_after_sequencing().await;
        for _ in 0..3 {
            let page = scene.feed().read(next, 100, &FeedFilter::default()).await.unwrap();
            sizes.push(page.events.len());
            next = page.next;
        }
        assert_eq!(sizes, [3, 2, 0]);
        let claim = async || scene.outbox().claim(Uuid::from_u128(1), 100, Duration::from_mins(1)).await.unwrap().len();
        assert_eq!([claim().await, claim().await, claim().await], [3, 2, 0]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_strangers_with_one_phone_number_stay_two_people() {
        let scene = PostgresHarness::fresh().await;
        for round in 0..20_u32 {
            let phone = format!("+4917000{round:05}");
            scene
                .commit(vec![NewUpdate { tenant: TenantId::new("acme").unwrap(), ..with(round * 10, &phone, None) }])
                .await;
            let (one, two) = (with(round * 10 + 1, &phone, Some("A")), with(round * 10 + 2, &phone, Some("B")));
            tokio::join!(scene.commit(vec![one]), scene.commit(vec![two]));
        }
        let people = "SELECT count(DISTINCT identity) FROM identity_aliases WHERE kind = 'user'";
        assert_eq!(scene.count(people).await, 40);
        let lost = "SELECT count(*) FROM identity_aliases AS a JOIN identities AS i ON i.id = a.identity \
                    WHERE a.kind = 'user' AND i.user_id IS DISTINCT FROM a.value";
        assert_eq!(scene.count(lost).await, 0);
    }

    fn with(n: u32, phone: &str, user: Option<&str>) -> NewUpdate {
        let mut update = message(n);
        update.event.party = by_phone(phone);
        update.event.party.user_id = user.map(|user| format!("{user}{phone}"));
        update
    }
}

mod servers {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_frozen_server_is_an_error_in_time_and_serves_again_once_it_goes_on() {
        let scene = PostgresHarness::fresh().await;
        scene.commit(vec![message(1)]).await;
        assert!(scene.postgres.ping().await);
        scene.server.freeze();
        assert!(!bounded("the ping", scene.postgres.ping()).await);
        let attempts = (2..=5)
            .map(async |n| scene.store.commit(Batch { updates: vec![message(n)], ..Batch::default() }).await.is_err());
        let failed = bounded("the commits", futures_util::future::join_all(attempts)).await;
        assert_eq!(failed, [true; 4]);
        scene.server.thaw();
        until("the ping", async || scene.postgres.ping().await).await;
        // Whether they were stored is not known; doing it again makes it certain.
        let commit = |n| scene.store.commit(Batch { updates: vec![message(n)], ..Batch::default() });
        for n in 2..=5 {
            until("the commit", async || commit(n).await.is_ok()).await;
        }
        assert_eq!(scene.feed_after_sequencing().await.len(), 5);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_committed_before_a_kill_is_there_exactly_once_and_nothing_else() {
        let mut scene = PostgresHarness::fresh().await;
        let store = scene.store.clone();
        let mut writers = JoinSet::new();
        for who in 0..4_u32 {
            let store = store.clone();
            writers.spawn(async move {
                let mut done = 0;
                loop {
                    let updates = (0..10).map(|n| message(who * 1_000_000 + done * 10 + n)).collect();
                    match store.commit(Batch { updates, ..Batch::default() }).await {
                        Ok(_) => done += 1,
                        Err(_) => return (who, done),
                    }
                }
            });
        }
        until("some commits", async || scene.count("SELECT count(*) FROM events").await > 500).await;
        scene.server.kill();
        let done = bounded("the end of the writers", writers.join_all()).await;
        let scene = scene.restart().await;
        let events = scene.feed_after_sequencing().await;
        let seen: std::collections::BTreeSet<EventKey> = events.iter().map(|event| event.key).collect();
        assert_eq!(seen.len(), events.len(), "each once");
        for (who, done) in &done {
            for n in 0..done * 10 {
                assert!(seen.contains(&key(who * 1_000_000 + n)), "writer {who}, update {n} of {}", done * 10);
            }
            // The last one was not acknowledged and is there as a whole or not at all.
            let last = (0..10).filter(|n| seen.contains(&key(who * 1_000_000 + done * 10 + n))).count();
            assert!(last == 0 || last == 10, "{last}");
        }
        assert_eq!(scene.count("SELECT count(*) FROM messages").await, i64::try_from(events.len()).unwrap());
        assert_eq!(scene.count("SELECT count(*) FROM event_keys").await, i64::try_from(events.len()).unwrap());
        assert!(done.iter().map(|(_, done)| done).sum::<u32>() >= 50, "{done:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_bell_rings_for_commits_of_other_processes_and_after_a_restart() {
        let mut scene = PostgresHarness::fresh().await;
        let other = connect(&scene.server.url()).await;
        let bell = Arc::new(Notify::new());
        let mut ringing = JoinSet::new();
        let rung = bell.clone();
        ringing.spawn(async move { other.ring_on_commit(rung).await });
        bounded("the first ring", bell.notified()).await;
        for n in 1..=3 {
            scene.commit(vec![message(n)]).await;
            bounded("a ring for a commit", bell.notified()).await;
        }
        // Neither duplicates nor what makes no event.
        scene.commit(vec![message(1)]).await;
        scene.commit(vec![]).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), bell.notified()).await.is_err());
        scene.server.kill();
        scene.server.start_again();
        bounded("a ring after the restart", bell.notified()).await;
        // The pool finds out by itself that its connections have gone.
        until("a commit", async || scene.store.commit(batch(9)).await.is_ok()).await;
        bounded("a ring for a commit after the restart", bell.notified()).await;
    }

    fn batch(n: u32) -> Batch {
        Batch { updates: vec![message(n)], ..Batch::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_of_the_directory_is_heard_of_by_other_processes() {
        let scene = PostgresHarness::fresh().await;
        let other = connect(&scene.server.url()).await;
        let mut watching = JoinSet::new();
        watching.spawn(async move { other.directory().changed(0).await.unwrap() });
        let written = scene.postgres.directory().write(vec![Entry::SingleTenant(true)], 0).await.unwrap();
        assert_eq!(bounded("the change", watching.join_all()).await, [written]);
        assert_eq!(scene.directory().write(vec![], 0).await.unwrap(), written, "nothing was written");
    }

    /// Not a law, since it is about speed; printed with `--no-capture`.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_batch_of_256_messages_is_committed_in_less_than_a_second() {
        let scene = PostgresHarness::fresh().await;
        let mut times = Vec::new();
        for round in 0..8_u32 {
            let updates: Vec<NewUpdate> = (0..256).map(|n| message(round * 1000 + n)).collect();
            let start = tokio::time::Instant::now();
            scene.commit(updates).await;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!("commits of 256 messages took {times:?}");
        assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
    }
}
