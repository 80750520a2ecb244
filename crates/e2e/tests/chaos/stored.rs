//! What is stored at the end, asked of PostgreSQL and NATS themselves.

use std::collections::HashSet;
use std::str::FromStr as _;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt as _;
use serde::Deserialize;
use simulator::{UpdateKind, UpdateRef};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Row as _};

use crate::consumer::Data;

/// The tables, as far as they are compared.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Messages, statuses and everything else, each with its tenant.
    pub(crate) updates: Vec<(String, UpdateRef)>,
    /// Positions of all events, ascending.
    pub(crate) positions: Vec<i64>,
    pub(crate) head: i64,
    pub(crate) event_keys: i64,
    pub(crate) messages: i64,
    pub(crate) statuses: i64,
    /// Repetitions that came as far as the database.
    pub(crate) folded: i64,
    pub(crate) leftovers: Leftovers,
}

/// Rows that must not be there once all is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    pub(crate) dead_letters: i64,
    pub(crate) parked: i64,
    pub(crate) outbox: i64,
    pub(crate) attempts: i64,
    pub(crate) messages_without_event: i64,
}

/// What waits: events for the bus, and what is on the bus for workers, or in their hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) outbox: i64,
    pub(crate) envelopes: u64,
    pub(crate) envelopes_in_hand: usize,
    pub(crate) records: u64,
    pub(crate) records_in_hand: usize,
}

/// What waits at the moment.
pub(crate) fn waiting(nats: &str, postgres: &str) -> Waiting {
    run(async {
        let mut database = connect(postgres).await;
        let outbox = count(&mut database, "SELECT count(*) FROM outbox").await;
        let jetstream = jetstream::new(async_nats::connect(nats).await.unwrap());
        let mut waiting = Waiting { outbox, ..Waiting::default() };
        for (stream, consumer) in [("inbound_live", "normalizer-live"), ("audit", "recorder")] {
            let consumer = jetstream.get_consumer_from_stream::<pull::Config, _, _>(consumer, stream).await;
            let mut consumer = consumer.unwrap();
            let info = consumer.info().await.unwrap();
            let figures = (info.num_pending, info.num_ack_pending);
            if stream == "inbound_live" {
                (waiting.envelopes, waiting.envelopes_in_hand) = figures;
            } else {
                (waiting.records, waiting.records_in_hand) = figures;
            }
        }
        waiting
    })
}

/// All that the database has.
pub(crate) fn tables(postgres: &str) -> Tables {
    run(async {
        let mut database = connect(postgres).await;
        let mut updates = Vec::new();
        // Messages of kinds that have no type of their own yet have a row too; they are among the others.
        let messages = "SELECT m.tenant, e.number, m.message_id, NULL FROM messages m JOIN events e USING (tenant, key) \
                        WHERE e.event_type = 'wharf.message.received'";
        let statuses = "SELECT tenant, number, message_id, status FROM statuses";
        for (kind, query) in [(UpdateKind::Message, messages), (UpdateKind::Status, statuses)] {
            for row in sqlx::query(query).fetch_all(&mut database).await.unwrap() {
                let phone_number_id = row.get::<Option<String>, _>(1).unwrap_or_default();
                updates.push((row.get(0), UpdateRef { kind, phone_number_id, id: row.get(2), status: row.get(3) }));
            }
        }
        let others = "SELECT tenant, event_type, data FROM events \
                      WHERE event_type NOT IN ('wharf.message.received', 'wharf.message.status')";
        for row in sqlx::query(others).fetch_all(&mut database).await.unwrap() {
            let data: Data = serde_json::from_slice(row.get(2)).unwrap();
            updates.push((row.get(0), data.update(row.get(1))));
        }
        let positions = sqlx::query_scalar("SELECT position FROM events ORDER BY position");
        Tables {
            updates,
            positions: positions.fetch_all(&mut database).await.unwrap(),
            head: count(&mut database, "SELECT head FROM feed").await,
            event_keys: count(&mut database, "SELECT count(*) FROM event_keys").await,
            messages: count(&mut database, "SELECT count(*) FROM messages").await,
            statuses: count(&mut database, "SELECT count(*) FROM statuses").await,
            folded: count(&mut database, "SELECT coalesce(sum(count - 1), 0)::bigint FROM event_keys").await,
            leftovers: Leftovers {
                dead_letters: count(&mut database, "SELECT count(*) FROM dead_letters").await,
                parked: count(&mut database, "SELECT count(*) FROM parked").await,
                outbox: count(&mut database, "SELECT count(*) FROM outbox").await,
                attempts: count(&mut database, "SELECT count(*) FROM attempts").await,
                messages_without_event: count(
                    &mut database,
                    "SELECT count(*) FROM messages m WHERE NOT EXISTS \
                     (SELECT FROM events e WHERE (e.tenant, e.key) = (m.tenant, m.key))",
                )
                .await,
            },
        }
    })
}

/// The ids of all events that are on the bus, and how many messages those are.
pub(crate) fn published(nats: &str) -> (HashSet<String>, usize) {
    #[derive(Deserialize)]
    struct Event {
        id: String,
    }
    run(async {
        let jetstream = jetstream::new(async_nats::connect(nats).await.unwrap());
        let mut stream = jetstream.get_stream("events").await.unwrap();
        let there = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::All,
            inactive_threshold: Duration::from_mins(1),
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let (mut ids, mut read) = (HashSet::new(), 0);
        while read < there {
            let mut batch = consumer.fetch().max_messages(500).messages().await.unwrap();
            let before = read;
            while let Some(message) = batch.next().await {
                let message = message.unwrap();
                let event: Event = serde_json::from_slice(&message.payload).unwrap();
                ids.insert(event.id);
                read += 1;
            }
            assert!(read > before, "{read} of {there} events could be read from the bus");
        }
        (ids, read)
    })
}

async fn connect(postgres: &str) -> PgConnection {
    PgConnectOptions::from_str(postgres).unwrap().disable_statement_logging().connect().await.unwrap()
}

async fn count(database: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(database).await.unwrap()
}

fn run<T>(question: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(question)
}
