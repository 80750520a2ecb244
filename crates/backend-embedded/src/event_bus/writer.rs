//! The writer task: turns whatever has gathered into one transaction, and answers after its commit.
//!
//! There is no timer: while a commit waits for the disk the next batch gathers by itself, and what arrives while a batch
//! is being written joins it; so one caller alone waits for one sync and a hundred share one. Messages are written a statement at a time; should the database refuse one, each of
//! its messages is tried in a statement of its own, so that one failure does not undo the rest. After any other error
//! the connection is closed and opened again.

use std::collections::HashMap;
use std::sync::Arc;

use common::{Clock, Timestamp};
use ports::Unavailable;
use ports::event_bus::{Consumer, Outgoing, PublishError, Published, Retention, Stream};
use sqlx::{AssertSqlSafe, Sqlite, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::quota;
use super::state::{Queue, Queues};
use crate::insert::{LONGEST_RUN, Rows, Values};
use crate::sqlite::{Database, is_data_error, unavailable};

/// Messages of one commit. Described with all other metrics in `service::names`, which backends do not see.
const COMMIT_MESSAGES: &str = "wharf_bus_commit_messages";
/// Messages in one transaction, so that no caller waits for a giant one.
const MAX_BATCH: usize = 1024;
/// Bytes in one transaction.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// A stream with limits is pruned by this many messages at once.
const PRUNE_STEP: u64 = 2048;

type PublishAnswers = Vec<Result<Published, PublishError>>;

/// What callers ask of the writer.
#[derive(Debug)]
pub(super) enum Command {
    Publish {
        messages: Vec<Outgoing>,
        reply: oneshot::Sender<PublishAnswers>,
    },
    Ack {
        consumer: Consumer,
        sequences: Vec<i64>,
        reply: oneshot::Sender<Result<(), Unavailable>>,
    },
    /// Writes and commits something that changes nothing.
    Probe {
        reply: oneshot::Sender<Result<(), Unavailable>>,
    },
}

impl Command {
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Publish { messages, .. } => {
                (messages.len(), messages.iter().map(|message| message.payload.len()).sum())
            }
            Self::Ack { sequences, .. } => (sequences.len(), 0),
            Self::Probe { .. } => (0, 0),
        }
    }
}

/// A message with its answer: the sequence it gets, or why not.
struct Slot {
    message: Outgoing,
    answer: Option<Result<Published, PublishError>>,
    sequence: i64,
}

pub(super) async fn run(
    database: Arc<Database>,
    queues: Arc<Queues>,
    clock: Arc<dyn Clock>,
    mut commands: mpsc::Receiver<Command>,
) {
    loop {
        let first = tokio::select! {
            biased;
            command = commands.recv() => command,
            () = queues.stop.cancelled() => None,
        };
        let Some(first) = first else { return };
        let mut batch = Batch::new(&queues, clock.now());
        batch.take(first);
        let written = write(&database, &mut batch, &mut commands).await;
        metrics::histogram!(COMMIT_MESSAGES).record(batch.count as f64);
        batch.answer(written);
    }
}

type PublishGroup = (Vec<Slot>, oneshot::Sender<PublishAnswers>);
type AckGroup = (Consumer, Vec<i64>, oneshot::Sender<Result<(), Unavailable>>);

/// What goes into one transaction.
struct Batch<'a> {
    queues: &'a Queues,
    now: Timestamp,
    planned: HashMap<Stream, Plan>,
    publishes: Vec<PublishGroup>,
    acks: Vec<AckGroup>,
    probes: Vec<oneshot::Sender<Result<(), Unavailable>>>,
    /// How much of `publishes` and `acks` is written.
    written: (usize, usize),
    count: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(queues: &'a Queues, now: Timestamp) -> Self {
        Self {
            queues,
            now,
            planned: HashMap::new(),
            publishes: Vec::new(),
            acks: Vec::new(),
            probes: Vec::new(),
            written: (0, 0),
            count: 0,
            bytes: 0,
        }
    }

    fn take(&mut self, command: Command) {
        let (count, bytes) = command.size();
        self.count += count;
        self.bytes += bytes;
        match command {
            Command::Publish { messages, reply } => {
                let slots = messages.into_iter();
                let slots = slots.map(|message| plan(self.queues, &mut self.planned, message, self.now)).collect();
                self.publishes.push((slots, reply));
            }
            Command::Ack { consumer, sequences, reply } => {
                let live = self.queues.get(consumer.stream).still_leased(&consumer, &sequences);
                self.acks.push((consumer, live, reply));
            }
            Command::Probe { reply } => self.probes.push(reply),
        }
    }

    /// Takes what is waiting, as far as there is room; true if there is something new to write.
    fn take_waiting(&mut self, commands: &mut mpsc::Receiver<Command>) -> bool {
        while self.count < MAX_BATCH && self.bytes < MAX_BATCH_BYTES {
            let Ok(next) = commands.try_recv() else { break };
            self.take(next);
        }
        self.written != (self.publishes.len(), self.acks.len())
    }

    /// Writes what is not written yet.
    async fn write_new(&mut self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), Unavailable> {
        let (publishes, acks) = self.written;
        for stream in Stream::ALL {
            let mut slots: Vec<&mut Slot> = self.publishes[publishes..]
                .iter_mut()
                .flat_map(|(slots, _)| slots)
                .filter(|slot| slot.answer.is_none() && slot.message.stream == stream)
                .collect();
            if !slots.is_empty() {
                insert(transaction, stream, &mut slots, self.now).await?;
            }
        }
        for (consumer, live, _) in self.acks[acks..].iter().filter(|(_, live, _)| !live.is_empty()) {
            acknowledge(transaction, self.queues.get(consumer.stream), consumer, live, self.now).await?;
        }
        self.written = (self.publishes.len(), self.acks.len());
        Ok(())
    }

    /// Answers everyone, after the commit or its failure.
    fn answer(self, written: Result<(), Unavailable>) {
        let Err(error) = written else {
            for (slots, reply) in self.publishes {
                publish_done(self.queues, slots, reply, self.now);
            }
            for (consumer, live, reply) in self.acks {
                self.queues.get(consumer.stream).acked(&consumer, &live);
                let _ = reply.send(Ok(()));
            }
            for reply in self.probes {
                let _ = reply.send(Ok(()));
            }
            return;
        };
        tracing::error!(error = crate::sqlite::chain(&error), "a commit of the event bus failed");
        let again = || Unavailable::new("the event bus", error.to_string());
        for (slots, reply) in self.publishes {
            let answers = slots.into_iter().map(|slot| match slot.answer {
                Some(Err(known)) => Err(known),
                _ => Err(PublishError::Unavailable(again())),
            });
            let _ = reply.send(answers.collect());
        }
        for reply in self.acks.into_iter().map(|(_, _, reply)| reply).chain(self.probes) {
            let _ = reply.send(Err(again()));
        }
    }
}

/// Writes a batch, and what arrives while it is being written, in one transaction.
async fn write(
    database: &Database,
    batch: &mut Batch<'_>,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<(), Unavailable> {
    let mut writer = database.writer().await?;
    let mut pruned = Vec::new();
    let result = async {
        let mut transaction = writer.begin().await?;
        while batch.take_waiting(commands) {
            batch.write_new(&mut transaction).await?;
        }
        if !batch.probes.is_empty() {
            // As large as a small envelope, so that a disk without room for one says so.
            let query = sqlx::query("UPDATE process SET probe = randomblob(2048)");
            query.execute(&mut *transaction).await.map_err(unavailable)?;
        }
        for stream in batch.planned.keys() {
            let count = prune(&mut transaction, batch.queues.get(*stream), *stream, batch.now).await?;
            pruned.push((*stream, count));
        }
        transaction.commit().await.map_err(unavailable)
    }
    .await;
    match result {
        Ok(()) => {
            writer.wrote(batch.bytes + 64 * batch.count);
            for (stream, count) in pruned.into_iter().filter(|(_, count)| *count > 0) {
                batch.queues.get(stream).pruned(count);
            }
            Ok(())
        }
        Err(error) => {
            writer.discard().await;
            Err(error)
        }
    }
}

/// What a batch adds to a stream before it is committed.
#[derive(Default)]
struct Plan {
    next: i64,
    per_subject: HashMap<String, u64>,
    dedup: HashMap<String, i64>,
}

/// Decides what can be decided without the database.
fn plan(queues: &Queues, planned: &mut HashMap<Stream, Plan>, message: Outgoing, now: Timestamp) -> Slot {
    let queue = queues.get(message.stream);
    let plan = planned.entry(message.stream).or_insert_with(|| Plan { next: queue.last() + 1, ..Plan::default() });
    let size = message.payload.len();
    if size > Stream::MAX_MESSAGE_BYTES {
        let answer = Err(PublishError::TooLarge { size, limit: Stream::MAX_MESSAGE_BYTES });
        return Slot { message, answer: Some(answer), sequence: 0 };
    }
    if let Some(id) = &message.dedup_id {
        let known = plan.dedup.get(id).copied().or_else(|| queue.duplicate_of(id, now));
        if let Some(sequence) = known {
            let answer = Ok(Published { sequence: sequence.unsigned_abs(), duplicate: true });
            return Slot { message, answer: Some(answer), sequence: 0 };
        }
    }
    if let Some(max) = quota(message.stream) {
        let added = plan.per_subject.entry(message.subject.clone()).or_insert(0);
        if queue.stored_of(&message.subject) + *added >= max {
            let answer = Err(PublishError::Full { stream: message.stream.name() });
            return Slot { message, answer: Some(answer), sequence: 0 };
        }
        *added += 1;
    }
    let sequence = plan.next;
    plan.next += 1;
    if let Some(id) = &message.dedup_id {
        plan.dedup.insert(id.clone(), sequence);
    }
    Slot { message, answer: None, sequence }
}

fn insert_into(stream: Stream) -> Rows {
    let head = match stream.name() {
        "inbound_live" => "INSERT INTO inbound_live (seq, subject, payload, published_at, dedup_id) SELECT * FROM",
        "inbound_bulk" => "INSERT INTO inbound_bulk (seq, subject, payload, published_at, dedup_id) SELECT * FROM",
        "audit" => "INSERT INTO audit (seq, subject, payload, published_at, dedup_id) SELECT * FROM",
        "events" => "INSERT INTO events (seq, subject, payload, published_at, dedup_id) SELECT * FROM",
        _ => "INSERT INTO wakeups (seq, subject, payload, published_at, dedup_id) SELECT * FROM",
    };
    Rows { head, columns: 5, tail: "WHERE column1 IS NOT NULL" }
}

async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    stream: Stream,
    slots: &mut [&mut Slot],
    now: Timestamp,
) -> Result<(), Unavailable> {
    let statement = insert_into(stream);
    let values = |slot: &&mut Slot, values: &mut Values| {
        values.push(slot.sequence);
        values.push(slot.message.subject.clone());
        values.push(slot.message.payload.to_vec());
        values.push(now.as_millis());
        values.push(slot.message.dedup_id.clone());
    };
    // A statement that fails undoes itself alone, so it needs no savepoint of its own.
    for run in slots.chunks_mut(LONGEST_RUN) {
        match statement.execute(&mut *transaction, run, values).await {
            Ok(_) => continue,
            Err(error) if is_data_error(&error) => {}
            Err(error) => return Err(unavailable(error)),
        }
        for slot in run {
            match statement.execute(&mut *transaction, std::slice::from_ref(slot), values).await {
                Ok(_) => {}
                Err(error) if is_data_error(&error) => {
                    slot.answer = Some(Err(PublishError::Unavailable(unavailable(error))));
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
    }
    Ok(())
}

/// Lets the oldest messages of a stream with limits go, a step at a time.
async fn prune(
    transaction: &mut Transaction<'_, Sqlite>,
    queue: &Queue,
    stream: Stream,
    now: Timestamp,
) -> Result<u64, Unavailable> {
    let Retention::Limits { max_messages, max_age } = stream.retention() else { return Ok(0) };
    let over = queue.stored() >= max_messages + PRUNE_STEP;
    if !over && !queue.is_time_to_prune(PRUNE_STEP / 2) {
        return Ok(0);
    }
    let keep_after = queue.last() - i64::try_from(max_messages).unwrap_or(i64::MAX);
    let sql = format!(
        "DELETE FROM {0} WHERE seq IN (SELECT seq FROM {0} ORDER BY seq LIMIT ?1) AND (seq <= ?2 OR published_at < ?3)",
        stream.name()
    );
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(i64::try_from(PRUNE_STEP).unwrap_or(i64::MAX))
        .bind(keep_after)
        .bind(now.minus(max_age).as_millis())
        .execute(&mut **transaction)
        .await
        .map_err(unavailable)?;
    Ok(done.rows_affected())
}

async fn acknowledge(
    transaction: &mut Transaction<'_, Sqlite>,
    queue: &Queue,
    consumer: &Consumer,
    live: &[i64],
    now: Timestamp,
) -> Result<(), Unavailable> {
    let table = consumer.stream.name();
    if matches!(consumer.stream.retention(), Retention::Limits { .. }) {
        let floor = queue.floor_without(consumer, live);
        let beyond: Vec<i64> = live.iter().copied().filter(|seq| *seq > floor).collect();
        for (sql, value) in [
            (
                "INSERT INTO consumers (name, floor) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET floor = max(floor, ?2)",
                floor,
            ),
            ("DELETE FROM consumer_acks WHERE name = ?1 AND seq <= ?2", floor),
        ] {
            let query = sqlx::query(sql).bind(consumer.name).bind(value);
            query.execute(&mut **transaction).await.map_err(unavailable)?;
        }
        if !beyond.is_empty() {
            sqlx::query("INSERT OR IGNORE INTO consumer_acks (name, seq) SELECT ?, value FROM json_each(?)")
                .bind(consumer.name)
                .bind(serde_json::to_string(&beyond).unwrap_or_default())
                .execute(&mut **transaction)
                .await
                .map_err(unavailable)?;
        }
        return Ok(());
    }
    let sequences = serde_json::to_string(live).unwrap_or_default();
    if queue.has_dedup_ids() {
        let sql = format!(
            "INSERT OR IGNORE INTO dedup (stream, dedup_id, seq, published_at) \
             SELECT ?1, dedup_id, seq, published_at FROM {table} \
             WHERE seq IN (SELECT value FROM json_each(?2)) AND dedup_id IS NOT NULL"
        );
        let oldest = now.minus(Stream::DUPLICATE_WINDOW).as_millis();
        sqlx::query("DELETE FROM dedup WHERE published_at < ?")
            .bind(oldest)
            .execute(&mut **transaction)
            .await
            .map_err(unavailable)?;
        sqlx::query(AssertSqlSafe(sql))
            .bind(table)
            .bind(&sequences)
            .execute(&mut **transaction)
            .await
            .map_err(unavailable)?;
    }
    let sql = format!("DELETE FROM {table} WHERE seq IN (SELECT value FROM json_each(?))");
    sqlx::query(AssertSqlSafe(sql)).bind(sequences).execute(&mut **transaction).await.map_err(unavailable)?;
    Ok(())
}

fn publish_done(queues: &Queues, slots: Vec<Slot>, reply: oneshot::Sender<PublishAnswers>, now: Timestamp) {
    for stream in Stream::ALL {
        let mut stored = slots.iter().filter(|slot| slot.answer.is_none() && slot.message.stream == stream).peekable();
        if stored.peek().is_some() {
            let rows = stored.map(|slot| (slot.sequence, &*slot.message.subject, slot.message.dedup_id.as_deref()));
            queues.get(stream).committed(rows, now);
        }
    }
    let answers = slots.into_iter().map(|slot| {
        slot.answer.unwrap_or_else(|| Ok(Published { sequence: slot.sequence.unsigned_abs(), duplicate: false }))
    });
    let _ = reply.send(answers.collect());
}
