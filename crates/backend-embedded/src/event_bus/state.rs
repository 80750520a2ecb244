//! What the embedded bus knows without asking the database: leases, quotas, dedup ids, how far each consumer has read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::Timestamp;
use ports::Unavailable;
use ports::event_bus::{Consumer, Retention, Stream};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::sqlite::{Database, unavailable};

/// All queues.
#[derive(Debug)]
pub(super) struct Queues {
    queues: HashMap<Stream, Queue>,
    pub(super) stop: CancellationToken,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Queue {
    stream: Stream,
    inner: Mutex<Inner>,
    /// Rings when something was committed or handed back.
    pub(super) arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The highest committed sequence.
    last: i64,
    stored: u64,
    /// See [`Queue::is_time_to_prune`].
    pruned_at: u64,
    per_subject: HashMap<Arc<str>, u64>,
    consumers: HashMap<&'static str, Reader>,
    dedup: HashMap<String, (i64, Timestamp)>,
    dedup_order: VecDeque<(Timestamp, String)>,
    /// For each crash the last message that may have been in somebody's hands.
    crashes: Vec<i64>,
}

#[derive(Debug, Default)]
struct Reader {
    turn: Arc<Turn>,
    /// Everything up to here was delivered at least once.
    cursor: i64,
    /// Beyond the cursor: acknowledged before a restart.
    acked: BTreeSet<i64>,
    leases: BTreeMap<i64, Lease>,
    due: BTreeSet<(Duration, i64)>,
}

#[derive(Debug)]
struct Lease {
    until: Duration,
    delivered: u32,
    subject: Arc<str>,
}

/// Whoever holds it reads for the consumer.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Queues {
    pub(super) async fn load(database: &Database, now: Timestamp) -> Result<Self, sqlx::Error> {
        let mut queues = HashMap::new();
        for stream in Stream::ALL {
            let table = stream.name();
            let mut inner = Inner::default();
            let subjects = format!("SELECT subject, count(*) FROM {table} GROUP BY subject");
            for row in sqlx::query(AssertSqlSafe(subjects)).fetch_all(&database.readers).await? {
                let count = u64::try_from(row.get::<i64, _>(1)).unwrap_or(0);
                inner.stored += count;
                inner.per_subject.insert(Arc::from(row.get::<&str, _>(0)), count);
            }
            inner.last = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = ?")
                .bind(table)
                .fetch_optional(&database.readers)
                .await?
                .unwrap_or(0);
            let known = format!(
                "SELECT dedup_id, seq, published_at FROM {table} WHERE dedup_id IS NOT NULL AND published_at > ?1 \
                 UNION ALL SELECT dedup_id, seq, published_at FROM dedup WHERE stream = ?2 AND published_at > ?1 \
                 ORDER BY published_at"
            );
            let since = now.minus(Stream::DUPLICATE_WINDOW);
            let rows = sqlx::query(AssertSqlSafe(known)).bind(since.as_millis()).bind(table);
            for row in rows.fetch_all(&database.readers).await? {
                let at = Timestamp::from_millis(row.get(2));
                inner.dedup_order.push_back((at, row.get(0)));
                inner.dedup.insert(row.get(0), (row.get(1), at));
            }
            inner.crashes = crashes(database, stream).await?;
            queues.insert(stream, Queue { stream, inner: Mutex::new(inner), arrived: Notify::new() });
        }
        Ok(Self { queues, stop: CancellationToken::new() })
    }

    pub(super) fn get(&self, stream: Stream) -> &Queue {
        &self.queues[&stream]
    }
}

/// Crashes this far back are remembered.
const REMEMBERED_CRASHES: i64 = 100;
/// The oldest messages that readers may have had in hand.
const IN_HAND: i64 = 1024;

/// Notes a crash of the process before this one, and returns all that still concern a message.
pub(super) async fn note_crash(database: &Database) -> Result<(), Unavailable> {
    let mut writer = database.writer().await?;
    let mut transaction = writer.begin().await?;
    let result = async {
        let clean: bool = sqlx::query_scalar("SELECT clean FROM process").fetch_one(&mut *transaction).await?;
        for stream in Stream::ALL {
            if clean || !matches!(stream.retention(), Retention::WorkQueue { .. }) {
                continue;
            }
            let table = stream.name();
            let sql = format!(
                "INSERT INTO crashes (stream, upto) SELECT ?, max(seq) FROM (SELECT seq FROM {table} ORDER BY seq LIMIT ?) \
                 HAVING max(seq) IS NOT NULL"
            );
            sqlx::query(AssertSqlSafe(sql)).bind(table).bind(IN_HAND).execute(&mut *transaction).await?;
        }
        sqlx::query("DELETE FROM crashes WHERE id <= (SELECT max(id) FROM crashes) - ?")
            .bind(REMEMBERED_CRASHES)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE process SET clean = 0").execute(&mut *transaction).await?;
        sqlx::Result::Ok(())
    }
    .await;
    result.map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)
}

/// Notes that the process ends in an orderly way.
pub(super) async fn note_clean_end(database: &Database) -> Result<(), Unavailable> {
    let mut writer = database.writer().await?;
    let mut transaction = writer.begin().await?;
    sqlx::query("UPDATE process SET clean = 1").execute(&mut *transaction).await.map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)
}

async fn crashes(database: &Database, stream: Stream) -> Result<Vec<i64>, sqlx::Error> {
    let sql = format!(
        "SELECT upto FROM crashes WHERE stream = ? AND upto >= (SELECT coalesce(min(seq), 0) FROM {})",
        stream.name()
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).bind(stream.name()).fetch_all(&database.readers).await
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the consumer known and returns the right to read for it.
    pub(super) async fn consumer(&self, database: &Database, consumer: &Consumer) -> Result<Arc<Turn>, sqlx::Error> {
        if let Some(reader) = self.lock().consumers.get(consumer.name) {
            return Ok(reader.turn.clone());
        }
        let (mut cursor, mut acked) = (0, BTreeSet::new());
        if matches!(self.stream.retention(), Retention::Limits { .. }) {
            let floor = sqlx::query_scalar("SELECT floor FROM consumers WHERE name = ?").bind(consumer.name);
            cursor = floor.fetch_optional(&database.readers).await?.unwrap_or(0);
            let beyond = sqlx::query_scalar("SELECT seq FROM consumer_acks WHERE name = ?").bind(consumer.name);
            acked.extend(beyond.fetch_all(&database.readers).await?.into_iter().filter(|seq: &i64| *seq > cursor));
        }
        let mut inner = self.lock();
        let known = inner.consumers.entry(consumer.name);
        let reader = known.or_insert_with(|| Reader { cursor, acked, ..Reader::default() });
        Ok(reader.turn.clone())
    }

    /// Takes leases that ran out, at most `max`, and renews them.
    pub(super) fn take_due(&self, consumer: &Consumer, now: Duration, max: usize) -> Vec<i64> {
        let mut inner = self.lock();
        let Some(reader) = inner.consumers.get_mut(consumer.name) else { return Vec::new() };
        let due: Vec<i64> = reader.due.iter().take_while(|(at, _)| *at <= now).take(max).map(|(_, seq)| *seq).collect();
        for seq in &due {
            if let Some(lease) = reader.leases.get_mut(seq) {
                reader.due.remove(&(lease.until, *seq));
                lease.until = now + consumer.ack_wait;
                lease.delivered = lease.delivered.saturating_add(1);
                reader.due.insert((lease.until, *seq));
            }
        }
        due
    }

    /// Drops leases of messages that are no longer stored (a stream with limits lets its oldest go).
    pub(super) fn forget_missing(&self, consumer: &Consumer, sequences: &[i64], stored: impl Fn(i64) -> bool) {
        let mut inner = self.lock();
        let Some(reader) = inner.consumers.get_mut(consumer.name) else { return };
        for seq in sequences.iter().filter(|seq| !stored(**seq)) {
            reader.end(*seq);
        }
    }

    /// Between which sequences (after, up to) the consumer has not read.
    pub(super) fn unread(&self, consumer: &Consumer) -> (i64, i64) {
        let inner = self.lock();
        (inner.consumers.get(consumer.name).map_or(0, |reader| reader.cursor), inner.last)
    }

    /// Records a first delivery of messages and that everything up to `last` is read.
    pub(super) fn lease<'a>(
        &self,
        consumer: &Consumer,
        messages: impl Iterator<Item = (i64, &'a str)>,
        last: i64,
        now: Duration,
    ) {
        let mut inner = self.lock();
        let Inner { consumers, per_subject, crashes, .. } = &mut *inner;
        let Some(reader) = consumers.get_mut(consumer.name) else { return };
        for (seq, subject) in messages {
            let before = crashes.iter().filter(|upto| seq <= **upto).count();
            let delivered = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
            let subject = per_subject.get_key_value(subject).map_or_else(|| Arc::from(subject), |(key, _)| key.clone());
            let until = now + consumer.ack_wait;
            reader.leases.insert(seq, Lease { until, delivered, subject });
            reader.due.insert((until, seq));
        }
        reader.cursor = reader.cursor.max(last);
    }

    /// Whether the message was acknowledged before a restart.
    pub(super) fn was_acked(&self, consumer: &Consumer, seq: i64) -> bool {
        self.lock().consumers.get(consumer.name).is_some_and(|reader| reader.acked.contains(&seq))
    }

    pub(super) fn delivered(&self, consumer: &Consumer, seq: i64) -> u32 {
        let inner = self.lock();
        let lease = inner.consumers.get(consumer.name).and_then(|reader| reader.leases.get(&seq));
        lease.map_or(1, |lease| lease.delivered)
    }

    /// Moves the end of leases.
    pub(super) fn postpone(&self, consumer: &Consumer, sequences: &[i64], until: Duration) {
        let mut inner = self.lock();
        let Some(reader) = inner.consumers.get_mut(consumer.name) else { return };
        for seq in sequences {
            if let Some(lease) = reader.leases.get_mut(seq) {
                reader.due.remove(&(lease.until, *seq));
                lease.until = until;
                reader.due.insert((until, *seq));
            }
        }
    }

    pub(super) fn next_due(&self, consumer: &Consumer) -> Option<Duration> {
        let inner = self.lock();
        inner.consumers.get(consumer.name)?.due.first().map(|(at, _)| *at)
    }

    /// Messages not acknowledged, and a sequence before which none is.
    pub(super) fn depth(&self, consumer: &Consumer) -> (u64, i64) {
        let inner = self.lock();
        match self.stream.retention() {
            Retention::WorkQueue { .. } => (inner.stored, 0),
            Retention::Limits { .. } => {
                let Some(reader) = inner.consumers.get(consumer.name) else { return (inner.stored, 0) };
                let unread = u64::try_from(inner.last - reader.cursor).unwrap_or(0).min(inner.stored);
                let ahead = reader.acked.range(reader.cursor + 1..).count() as u64;
                (unread.saturating_sub(ahead) + reader.leases.len() as u64, reader.floor())
            }
        }
    }

    /// Of these sequences, those that are still leased: the others are acknowledged already.
    pub(super) fn still_leased(&self, consumer: &Consumer, sequences: &[i64]) -> Vec<i64> {
        let inner = self.lock();
        let Some(reader) = inner.consumers.get(consumer.name) else { return Vec::new() };
        sequences.iter().copied().filter(|seq| reader.leases.contains_key(seq)).collect()
    }

    /// The consumer's floor once these sequences are acknowledged too.
    pub(super) fn floor_without(&self, consumer: &Consumer, sequences: &[i64]) -> i64 {
        let inner = self.lock();
        let Some(reader) = inner.consumers.get(consumer.name) else { return 0 };
        let acked: BTreeSet<i64> = sequences.iter().copied().collect();
        reader.leases.keys().find(|seq| !acked.contains(seq)).map_or(reader.cursor, |seq| seq - 1)
    }

    /// Ends leases after their acknowledgement was committed.
    pub(super) fn acked(&self, consumer: &Consumer, sequences: &[i64]) {
        let mut inner = self.lock();
        let Inner { consumers, per_subject, stored, .. } = &mut *inner;
        let Some(reader) = consumers.get_mut(consumer.name) else { return };
        for seq in sequences {
            let Some(lease) = reader.end(*seq) else { continue };
            if matches!(self.stream.retention(), Retention::WorkQueue { .. }) {
                *stored = stored.saturating_sub(1);
                if let Some(count) = per_subject.get_mut(&lease.subject) {
                    *count -= 1;
                    if *count == 0 {
                        per_subject.remove(&lease.subject);
                    }
                }
            }
        }
    }

    /// How many messages of a subject are stored.
    pub(super) fn stored_of(&self, subject: &str) -> u64 {
        self.lock().per_subject.get(subject).copied().unwrap_or(0)
    }

    /// The sequence of a message with this dedup id within the window.
    pub(super) fn duplicate_of(&self, dedup_id: &str, now: Timestamp) -> Option<i64> {
        let mut inner = self.lock();
        while let Some((at, _)) = inner.dedup_order.front() {
            if now.since(*at) < Stream::DUPLICATE_WINDOW {
                break;
            }
            if let Some((at, id)) = inner.dedup_order.pop_front()
                && inner.dedup.get(&id).is_some_and(|(_, newest)| *newest == at)
            {
                inner.dedup.remove(&id);
            }
        }
        inner.dedup.get(dedup_id).map(|(seq, _)| *seq)
    }

    pub(super) fn last(&self) -> i64 {
        self.lock().last
    }

    pub(super) fn has_dedup_ids(&self) -> bool {
        !self.lock().dedup.is_empty()
    }

    /// Makes committed messages visible.
    pub(super) fn committed<'a>(
        &self,
        messages: impl Iterator<Item = (i64, &'a str, Option<&'a str>)>,
        now: Timestamp,
    ) {
        let mut inner = self.lock();
        for (seq, subject, dedup_id) in messages {
            inner.last = inner.last.max(seq);
            inner.stored += 1;
            if let Some(count) = inner.per_subject.get_mut(subject) {
                *count += 1;
            } else {
                inner.per_subject.insert(Arc::from(subject), 1);
            }
            if let Some(id) = dedup_id {
                inner.dedup.insert(id.to_owned(), (seq, now));
                inner.dedup_order.push_back((now, id.to_owned()));
            }
        }
        drop(inner);
        self.arrived.notify_waiters();
    }

    /// Records that a stream with limits let messages go.
    pub(super) fn pruned(&self, count: u64) {
        let mut inner = self.lock();
        inner.stored = inner.stored.saturating_sub(count);
        // Subjects of such a stream have no quota.
        inner.per_subject.clear();
    }

    /// True once in so many committed messages: to look for ones that are too old.
    pub(super) fn is_time_to_prune(&self, every: u64) -> bool {
        let mut inner = self.lock();
        let due = inner.last.unsigned_abs() / every > inner.pruned_at;
        inner.pruned_at = inner.last.unsigned_abs() / every;
        due
    }

    pub(super) fn stored(&self) -> u64 {
        self.lock().stored
    }
}

impl Reader {
    fn end(&mut self, seq: i64) -> Option<Lease> {
        let lease = self.leases.remove(&seq)?;
        self.due.remove(&(lease.until, seq));
        Some(lease)
    }

    fn floor(&self) -> i64 {
        self.leases.keys().next().map_or(self.cursor, |seq| seq - 1)
    }
}
