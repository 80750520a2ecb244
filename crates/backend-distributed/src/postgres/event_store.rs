//! The event store on PostgreSQL: a batch is one transaction of set-based statements.
//!
//! [`identities`] finds or makes the conversation of each update; [`keys`], [`messages`], [`statuses`], [`events`] and
//! [`work`] hold the statements.

mod events;
mod identities;
mod keys;
mod messages;
mod statuses;
mod work;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use common::{Clock, EnvelopeId, EventKey, TenantId, Timestamp};
use ports::Unavailable;
use ports::event_store::{Batch, CommitOutcome, Committed, Detail, EventStore, NewUpdate, RawObject, RawPending};
use ports::statistics::rollup::Messages;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use self::identities::{Conversations, Found};
use super::database::{Database, bounded, chain, is_conflict, is_data_error, settle};
use super::receipts::{self, MessageKey};
use super::rollups;

/// Times that a transaction is tried which another one was in the way of. A batch is idempotent.
const TRIES: usize = 4;
/// The statements of a commit are the same for any batch, so each is planned once for a connection. Planning them anew,
/// with sixteen partitions of keys, would take longer than carrying them out. The savepoint is where updates that the
/// database refuses are undone.
const BEGIN: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; SAVEPOINT updates";
/// Keeps what was written since the savepoint, and sets it anew.
const KEEP: &str = "RELEASE SAVEPOINT updates; SAVEPOINT updates";
/// Undoes what was written since the savepoint, which stays.
const UNDO: &str = "ROLLBACK TO SAVEPOINT updates";

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresEventStore {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    conversations: Conversations,
}

impl PostgresEventStore {
    pub(super) fn new(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock, conversations: Conversations::default() }
    }
}

/// A new update with what the transaction found out about it.
struct Resolved<'a> {
    index: usize,
    update: &'a NewUpdate,
    conversation: Option<Uuid>,
    partition: u16,
}

#[async_trait]
impl EventStore for PostgresEventStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let work = async {
            let mut tries = 1;
            loop {
                match self.write(&mut connection, &batch, self.clock.now()).await {
                    Err(error) if is_conflict(&error) && tries < TRIES => tries += 1,
                    result => return result,
                }
            }
        };
        let result = bounded(work).await;
        if result.is_ok() {
            self.merge_receipts(&mut connection, &batch).await;
        }
        let (committed, found) = settle(connection, result)?;
        self.conversations.remember(found);
        Ok(committed)
    }

    async fn begin_attempt(&self, envelope: EnvelopeId) -> Result<u32, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query_scalar::<_, i32>(
            "INSERT INTO attempts (envelope, count) VALUES ($1, 1) \
             ON CONFLICT (envelope) DO UPDATE SET count = attempts.count + 1 RETURNING count",
        );
        let count = bounded(query.bind(envelope.0).fetch_one(&mut *connection)).await;
        settle(connection, count).map(i32::unsigned_abs)
    }

    async fn take_back_attempt(&self, envelope: EnvelopeId) -> Result<(), Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query("UPDATE attempts SET count = count - 1 WHERE envelope = $1 AND count > 0");
        let done = bounded(query.bind(envelope.0).execute(&mut *connection)).await;
        settle(connection, done).map(|_| ())
    }

    async fn raw_pending(&self, max: usize) -> Result<Vec<RawPending>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let pending = bounded(work::oldest_pending(&mut connection, max)).await;
        settle(connection, pending)
    }

    async fn raw_archived(&self, objects: Vec<RawObject>) -> Result<(), Unavailable> {
        let mut connection = self.database.acquire().await?;
        let work = async {
            let mut transaction = connection.begin().await?;
            work::raw_objects(&mut transaction, &objects).await?;
            work::no_longer_pending(&mut transaction, &objects).await?;
            transaction.commit().await
        };
        let archived = bounded(work).await;
        settle(connection, archived)
    }
}

impl PostgresEventStore {
    async fn write(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        now: Timestamp,
    ) -> Result<(Committed, Found), sqlx::Error> {
        let mut found = Found::default();
        let mut outcomes = vec![CommitOutcome::Duplicate; batch.updates.len()];
        let mut transaction = connection.begin_with(BEGIN).await?;
        let new = self.write_updates(&mut transaction, &batch.updates, &mut outcomes, &mut found, now).await?;
        let mut counted = Messages::default();
        // What was throttled was counted when it was parked.
        if !work::release(&mut transaction, &batch.released).await? {
            for new in &new {
                counted.delivered(new.update);
            }
        }
        keys::repeats(&mut transaction, &batch.updates, &outcomes, &mut counted).await?;
        work::park(&mut transaction, &batch.parked, &mut counted).await?;
        messages::bury(&mut transaction, &batch.dead_letters, now).await?;
        work::raw_objects(&mut transaction, &batch.raw_objects).await?;
        work::raw_pending(&mut transaction, &batch.raw_pending).await?;
        work::finish(&mut transaction, &batch.finished).await?;
        rollups::messages(&mut transaction, &counted).await?;
        // Last, since from here on no other commit that makes events goes on.
        events::events(&mut transaction, &new).await?;
        transaction.commit().await?;
        Ok((Committed { outcomes }, found))
    }

    /// Writes the updates; if the database refuses their data, halves of them, down to the single update that is refused.
    /// Returns those that are new, in order.
    async fn write_updates<'a>(
        &self,
        connection: &mut PgConnection,
        updates: &'a [NewUpdate],
        outcomes: &mut [CommitOutcome],
        found: &mut Found,
        now: Timestamp,
    ) -> Result<Vec<Resolved<'a>>, sqlx::Error> {
        let mut all_new = Vec::with_capacity(updates.len());
        let mut halves: Vec<Vec<usize>> = vec![(0..updates.len()).collect()];
        while let Some(indices) = halves.pop() {
            if indices.is_empty() {
                continue;
            }
            match self.write_all(&mut *connection, updates, &indices, outcomes, found, now).await {
                Ok(new) => {
                    all_new.extend(new);
                    // Nearly always nothing is left: no round trip for it.
                    if !halves.is_empty() {
                        sqlx::raw_sql(KEEP).execute(&mut *connection).await?;
                    }
                }
                Err(error) if is_data_error(&error) => {
                    sqlx::raw_sql(UNDO).execute(&mut *connection).await?;
                    found.clear();
                    if let [single] = indices[..] {
                        tracing::debug!(error = chain(&error), "the database refuses an update");
                        outcomes[single] = CommitOutcome::Refused("the database refuses its data".to_owned());
                    } else {
                        let (first, second) = indices.split_at(indices.len() / 2);
                        // The first half is written first, so that the first of two equal updates is the new one.
                        halves.push(second.to_vec());
                        halves.push(first.to_vec());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        all_new.sort_unstable_by_key(|new| new.index);
        Ok(all_new)
    }

    async fn write_all<'a>(
        &self,
        connection: &mut PgConnection,
        updates: &'a [NewUpdate],
        indices: &[usize],
        outcomes: &mut [CommitOutcome],
        found: &mut Found,
        now: Timestamp,
    ) -> Result<Vec<Resolved<'a>>, sqlx::Error> {
        let mut candidates: Vec<(&TenantId, EventKey, usize)> = Vec::with_capacity(indices.len());
        let mut folded = HashSet::with_capacity(indices.len());
        for &index in indices {
            let update = &updates[index];
            outcomes[index] = match update.refusal() {
                Some(reason) => CommitOutcome::Refused(reason.to_owned()),
                None => CommitOutcome::Duplicate,
            };
            if outcomes[index] == CommitOutcome::Duplicate && folded.insert((&update.tenant, update.key)) {
                candidates.push((&update.tenant, update.key, index));
            }
        }
        // Sorted, so that two batches with the same keys wait for each other in one order.
        candidates.sort_unstable();
        let new = keys::new_keys(&mut *connection, updates, &candidates).await?;
        let is_new = |tenant: &TenantId, key: EventKey| new.contains(&(tenant.clone(), key));
        let mut order: Vec<usize> =
            candidates.iter().filter(|(tenant, key, _)| is_new(tenant, *key)).map(|candidate| candidate.2).collect();
        order.sort_unstable();
        let new: Vec<&NewUpdate> = order.iter().map(|index| &updates[*index]).collect();
        let conversations = self.conversations.find(&mut *connection, &new, found, now).await?;
        let resolved: Vec<Resolved<'a>> = order
            .iter()
            .zip(conversations)
            .map(|(&index, conversation)| {
                let update = &updates[index];
                Resolved { index, update, conversation, partition: update.partition(conversation) }
            })
            .collect();
        messages::messages(&mut *connection, &resolved, now).await?;
        statuses::statuses(&mut *connection, &resolved).await?;
        for index in order {
            outcomes[index] = CommitOutcome::New;
        }
        Ok(resolved)
    }

    /// Adds what request records said of the batch's messages before they were stored; see [`receipts`]. Duplicates
    /// too: perhaps this is the batch again after which a process ended.
    async fn merge_receipts(&self, connection: &mut PgConnection, batch: &Batch) {
        let is_message = |update: &&NewUpdate| matches!(update.event.detail, Detail::Message { .. });
        let updates = batch.updates.iter().filter(is_message).map(|update| (update.tenant.clone(), update.key));
        let letters = batch.dead_letters.iter().filter(|letter| letter.message.is_some());
        let letters = letters.map(|letter| (letter.tenant.clone(), letter.key));
        let mut keys: Vec<MessageKey> = updates.chain(letters).collect();
        keys.sort_unstable();
        keys.dedup();
        if let Err(error) = bounded(receipts::merge(connection, &keys)).await {
            tracing::warn!(error = chain(&error), "response times of some messages are not recorded");
        }
    }
}

/// Cuts rows into rounds in which no key comes twice, keeping their order: one statement cannot change a row twice.
fn rounds<K: Ord, R>(rows: impl IntoIterator<Item = R>, key: impl Fn(&R) -> K) -> Vec<Vec<R>> {
    let mut seen: std::collections::BTreeMap<K, usize> = std::collections::BTreeMap::new();
    let mut rounds: Vec<Vec<R>> = Vec::new();
    for row in rows {
        let round = seen.entry(key(&row)).or_insert(0);
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(row);
        *round += 1;
    }
    for round in &mut rounds {
        // Whoever locks the same rows does so in the same order.
        round.sort_by_key(&key);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::rounds;

    #[test]
    fn no_key_comes_twice_in_a_round_and_equal_keys_keep_their_order() {
        let rows = [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("b", 5), ("a", 6)];
        let expected = vec![vec![("a", 2), ("b", 1), ("c", 4)], vec![("a", 6), ("b", 3)], vec![("b", 5)]];
        assert_eq!(rounds(rows, |row| row.0), expected);
        assert!(rounds(Vec::<u8>::new(), |row| *row).is_empty());
    }
}
