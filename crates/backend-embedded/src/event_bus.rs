//! The event bus on SQLite: group commit, leases in memory.
//!
//! Two files of one schema: what the gateway waits for is in `inbound.db`, everything else in `bus.db`, so that events
//! and request records never lengthen the commit that a webhook's answer waits for. Publishes and acknowledgements go
//! through one writer task per file ([`writer`]): what has gathered while the last commit ran is the next commit, so one
//! sync serves many callers. What is delivered, and until when, is kept in memory
//! ([`state`]): after a restart everything unacknowledged is delivered again.

mod state;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Clock, Timestamp};
use ports::Unavailable;
use ports::event_bus::{
    AckToken, Backlog, Consumer, Delivery, EventBus, Outgoing, PublishError, Published, Retention, Stream,
};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use self::state::{Queue, Queues};
use self::writer::Command;
use crate::sqlite::{Database, unavailable};

/// Commands that may wait for the writer; more callers wait their turn.
const QUEUED_COMMANDS: usize = 4096;
/// Bytes of one pull, and at most one message more.
const PULL_BYTES: i64 = 16 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteEventBus {
    inbound: BusFile,
    rest: BusFile,
    clock: Arc<dyn Clock>,
}

/// One file with its writer.
#[derive(Debug)]
struct BusFile {
    database: Arc<Database>,
    queues: Arc<Queues>,
    commands: mpsc::Sender<Command>,
}

impl BusFile {
    async fn open(database: Arc<Database>, clock: &Arc<dyn Clock>, tasks: &TaskTracker) -> Result<Self, Unavailable> {
        state::note_crash(&database).await?;
        let queues = Arc::new(Queues::load(&database, clock.now()).await.map_err(unavailable)?);
        let (commands, receiver) = mpsc::channel(QUEUED_COMMANDS);
        tasks.spawn(writer::run(database.clone(), queues.clone(), clock.clone(), receiver));
        Ok(Self { database, queues, commands })
    }

    async fn send<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Unavailable::new("the event bus", "it is stopped");
        self.commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        self.send(|reply| Command::Publish { messages, reply }).await.unwrap_or_else(|_| {
            let stopped = || Err(PublishError::Unavailable(Unavailable::new("the event bus", "it is stopped")));
            (0..count).map(|_| stopped()).collect()
        })
    }

    async fn stop(&self) {
        self.queues.stop.cancel();
        if let Err(error) = state::note_clean_end(&self.database).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the orderly end could not be noted");
        }
    }
}

impl SqliteEventBus {
    pub(crate) async fn open(
        inbound: Arc<Database>,
        rest: Arc<Database>,
        clock: Arc<dyn Clock>,
        tasks: &TaskTracker,
    ) -> Result<Self, Unavailable> {
        let inbound = BusFile::open(inbound, &clock, tasks).await?;
        let rest = BusFile::open(rest, &clock, tasks).await?;
        Ok(Self { inbound, rest, clock })
    }

    const fn file(&self, stream: Stream) -> &BusFile {
        if is_inbound(stream) { &self.inbound } else { &self.rest }
    }

    fn queue(&self, stream: Stream) -> &Queue {
        self.file(stream).queues.get(stream)
    }

    /// Ends the writers and notes that the process ended in an orderly way.
    pub(crate) async fn stop(&self) {
        self.inbound.stop().await;
        self.rest.stop().await;
    }

    async fn deliver(&self, consumer: &Consumer, max: usize) -> Result<Vec<Delivery>, Unavailable> {
        let queue = self.queue(consumer.stream);
        let reading = queue.consumer(&self.file(consumer.stream).database, consumer).await.map_err(unavailable)?;
        // One reader at a time per consumer, so that two pulls never take the same rows.
        let _turn = reading.turn.lock().await;
        let now = self.clock.monotonic();
        let again = queue.take_due(consumer, now, max);
        let mut rows: BTreeMap<i64, (String, Bytes, Timestamp)> = BTreeMap::new();
        let table = consumer.stream.name();
        let readers = &self.file(consumer.stream).database.readers;
        if !again.is_empty() {
            let sequences = serde_json::to_string(&again).unwrap_or_default();
            let sql = format!(
                "SELECT seq, subject, payload, published_at FROM {table} \
                 WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"
            );
            let found = sqlx::query(AssertSqlSafe(sql)).bind(sequences).fetch_all(readers).await;
            rows.extend(found.map_err(unavailable)?.iter().map(message));
            queue.forget_missing(consumer, &again, |seq| rows.contains_key(&seq));
        }
        let (after, upto) = queue.unread(consumer);
        if rows.len() < max && after < upto {
            let sql = format!(
                "SELECT seq, subject, payload, published_at FROM {table} WHERE seq IN \
                 (SELECT seq FROM (SELECT seq, sum(length(payload)) OVER (ORDER BY seq) - length(payload) AS before \
                  FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?) WHERE before < ?) ORDER BY seq"
            );
            let limit = i64::try_from(max - rows.len()).unwrap_or(i64::MAX);
            let query = sqlx::query(AssertSqlSafe(sql)).bind(after).bind(upto).bind(limit).bind(PULL_BYTES);
            let fresh = query.fetch_all(readers).await.map_err(unavailable)?;
            let mut fresh: Vec<_> = fresh.iter().map(message).collect();
            let bytes: usize = fresh.iter().map(|(_, (_, payload, _))| payload.len()).sum();
            let complete = fresh.len() < usize::try_from(limit).unwrap_or(usize::MAX)
                && i64::try_from(bytes).is_ok_and(|bytes| bytes < PULL_BYTES);
            let last = if complete { upto } else { fresh.last().map_or(upto, |(seq, _)| *seq) };
            fresh.retain(|(seq, _)| !queue.was_acked(consumer, *seq));
            queue.lease(consumer, fresh.iter().map(|(seq, (subject, ..))| (*seq, subject.as_str())), last, now);
            rows.extend(fresh);
        }
        Ok(rows
            .into_iter()
            .map(|(seq, (subject, payload, published_at))| Delivery {
                subject,
                payload,
                sequence: seq.unsigned_abs(),
                delivered: queue.delivered(consumer, seq),
                published_at,
                token: AckToken(seq.to_string()),
            })
            .collect())
    }
}

#[async_trait]
impl EventBus for SqliteEventBus {
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>> {
        let places: Vec<bool> = messages.iter().map(|message| is_inbound(message.stream)).collect();
        let (inbound, rest): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| is_inbound(message.stream));
        let (inbound, rest) = futures_util::join!(self.inbound.publish(inbound), self.rest.publish(rest));
        let (mut inbound, mut rest) = (inbound.into_iter(), rest.into_iter());
        // Every message has its answer in the list of its file.
        places.into_iter().filter_map(|is_inbound| if is_inbound { inbound.next() } else { rest.next() }).collect()
    }

    async fn pull(&self, consumer: &Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>, Unavailable> {
        let deadline = tokio::time::Instant::now() + wait;
        let queue = self.queue(consumer.stream);
        loop {
            let arrived = queue.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let deliveries = self.deliver(consumer, max).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !deliveries.is_empty() || left.is_zero() {
                return Ok(deliveries);
            }
            let due = queue.next_due(consumer).map_or(left, |due| due.saturating_sub(self.clock.monotonic()));
            // Something new, something due again, or the end of the wait.
            tokio::select! {
                () = &mut arrived => {}
                () = tokio::time::sleep(left.min(due.max(Duration::from_millis(1)))) => {}
                () = self.file(consumer.stream).queues.stop.cancelled() => return Ok(Vec::new()),
            }
        }
    }

    async fn ack(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        let sequences = sequences(tokens);
        if sequences.is_empty() {
            return Ok(());
        }
        let consumer = consumer.clone();
        let file = self.file(consumer.stream);
        file.send(|reply| Command::Ack { consumer, sequences, reply }).await?
    }

    async fn retry_after(&self, consumer: &Consumer, tokens: &[AckToken], delay: Duration) -> Result<(), Unavailable> {
        let queue = self.queue(consumer.stream);
        queue.postpone(consumer, &sequences(tokens), self.clock.monotonic() + delay);
        queue.arrived.notify_waiters();
        Ok(())
    }

    async fn extend(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        let until = self.clock.monotonic() + consumer.ack_wait;
        self.queue(consumer.stream).postpone(consumer, &sequences(tokens), until);
        Ok(())
    }

    async fn backlog(&self, consumer: &Consumer) -> Result<Backlog, Unavailable> {
        let queue = self.queue(consumer.stream);
        queue.consumer(&self.file(consumer.stream).database, consumer).await.map_err(unavailable)?;
        let (depth, floor) = queue.depth(consumer);
        if depth == 0 {
            return Ok(Backlog::default());
        }
        let sql = format!("SELECT published_at FROM {} WHERE seq > ? ORDER BY seq LIMIT 1", consumer.stream.name());
        let oldest: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(floor)
            .fetch_optional(&self.file(consumer.stream).database.readers)
            .await
            .map_err(unavailable)?;
        let oldest_age = oldest.map_or(Duration::ZERO, |at| self.clock.now().since(Timestamp::from_millis(at)));
        Ok(Backlog { depth, oldest_age })
    }

    async fn probe(&self, stream: Stream) -> Result<(), Unavailable> {
        self.file(stream).send(|reply| Command::Probe { reply }).await?
    }

    fn is_connected(&self) -> bool {
        !self.inbound.commands.is_closed() && !self.inbound.queues.stop.is_cancelled()
    }
}

fn message(row: &sqlx::sqlite::SqliteRow) -> (i64, (String, Bytes, Timestamp)) {
    let payload: Vec<u8> = row.get(2);
    (row.get(0), (row.get(1), Bytes::from(payload), Timestamp::from_millis(row.get(3))))
}

fn sequences(tokens: &[AckToken]) -> Vec<i64> {
    tokens.iter().filter_map(|token| token.0.parse().ok()).collect()
}

/// The quota of a subject, if the stream has one.
fn quota(stream: Stream) -> Option<u64> {
    match stream.retention() {
        Retention::WorkQueue { max_per_subject } => Some(max_per_subject),
        Retention::Limits { .. } => None,
    }
}

const fn is_inbound(stream: Stream) -> bool {
    matches!(stream, Stream::Inbound(_))
}
