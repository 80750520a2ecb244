//! The event store on SQLite: a batch is one transaction of set-based statements.
//!
//! [`identities`] finds or makes the conversation of each update; [`rows`] holds the statements.

mod identities;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Clock, EnvelopeId, EventKey, TenantId};
use ports::Unavailable;
use ports::event_store::{Batch, CommitOutcome, Committed, EventStore, NewUpdate, RawObject, RawPending};
use ports::statistics::rollup::Messages;
use sqlx::{Connection as _, Row as _, Sqlite, Transaction};
use uuid::Uuid;

use self::identities::Conversations;
use crate::feed::PAGE_BYTES;
use crate::rollups;
use crate::sqlite::{Database, is_data_error, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteEventStore {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    conversations: Conversations,
}

impl SqliteEventStore {
    pub(crate) fn new(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock, conversations: Conversations::default() }
    }
}

/// A new update with what the transaction found out about it.
struct Resolved<'a> {
    update: &'a NewUpdate,
    conversation: Option<Uuid>,
    partition: u16,
}

#[async_trait]
impl EventStore for SqliteEventStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, Unavailable> {
        let mut writer = self.database.writer().await?;
        let now = self.clock.now();
        let mut found = identities::Found::default();
        let result = async {
            let mut transaction = writer.begin().await?;
            let mut outcomes = vec![CommitOutcome::Duplicate; batch.updates.len()];
            let indices: Vec<usize> = (0..batch.updates.len()).collect();
            self.write_updates(&mut transaction, &batch.updates, &indices, &mut outcomes, &mut found).await?;
            let mut counted = Messages::default();
            // What was throttled was counted when it was parked.
            if !rows::release(&mut transaction, &batch.released).await.map_err(unavailable)? {
                let new = batch.updates.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == CommitOutcome::New);
                new.for_each(|(update, _)| counted.delivered(update));
            }
            rows::repeats(&mut transaction, &batch.updates, &outcomes, &mut counted).await.map_err(unavailable)?;
            rows::park(&mut transaction, &batch.parked, &mut counted).await.map_err(unavailable)?;
            rows::bury(&mut transaction, &batch.dead_letters, now).await.map_err(unavailable)?;
            rows::raw_objects(&mut transaction, &batch.raw_objects).await.map_err(unavailable)?;
            rows::raw_pending(&mut transaction, &batch.raw_pending).await.map_err(unavailable)?;
            rows::finish(&mut transaction, &batch.finished).await.map_err(unavailable)?;
            rollups::messages(&mut transaction, &counted).await.map_err(unavailable)?;
            transaction.commit().await.map_err(unavailable)?;
            Ok(Committed { outcomes })
        }
        .await;
        match result {
            Ok(committed) => {
                writer.wrote(batch.updates.iter().map(|update| update.event.data.len() + 1024).sum());
                self.conversations.remember(found);
                Ok(committed)
            }
            Err(error) => {
                writer.discard().await;
                Err(error)
            }
        }
    }

    async fn begin_attempt(&self, envelope: EnvelopeId) -> Result<u32, Unavailable> {
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        let count: i64 = sqlx::query_scalar(
            "INSERT INTO attempts (envelope, count) VALUES (?, 1) \
             ON CONFLICT (envelope) DO UPDATE SET count = count + 1 RETURNING count",
        )
        .bind(envelope.0.as_bytes().to_vec())
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn take_back_attempt(&self, envelope: EnvelopeId) -> Result<(), Unavailable> {
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query("UPDATE attempts SET count = count - 1 WHERE envelope = ? AND count > 0")
            .bind(envelope.0.as_bytes().to_vec())
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }

    async fn raw_pending(&self, max: usize) -> Result<Vec<RawPending>, Unavailable> {
        let query = sqlx::query(
            "SELECT envelope, sealed FROM (SELECT id, envelope, sealed, \
                 sum(length(sealed)) OVER (ORDER BY id) - length(sealed) AS before \
                 FROM (SELECT id, envelope, sealed FROM raw_pending ORDER BY id LIMIT ?)) \
             WHERE before < ? ORDER BY id",
        );
        let query = query.bind(i64::try_from(max).unwrap_or(i64::MAX)).bind(PAGE_BYTES);
        let rows = query.fetch_all(&self.database.readers).await.map_err(unavailable)?;
        Ok(rows
            .iter()
            .map(|row| RawPending {
                envelope: EnvelopeId(Uuid::from_slice(row.get(0)).unwrap_or_default()),
                sealed: Bytes::from(row.get::<Vec<u8>, _>(1)),
            })
            .collect())
    }

    async fn raw_archived(&self, objects: Vec<RawObject>) -> Result<(), Unavailable> {
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        rows::raw_objects(&mut transaction, &objects).await.map_err(unavailable)?;
        rows::no_longer_pending(&mut transaction, &objects).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }
}

impl SqliteEventStore {
    /// Writes the updates at `indices`, in a savepoint; if the database refuses their data, halves of them, down to the
    /// single update that is refused.
    async fn write_updates(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        updates: &[NewUpdate],
        indices: &[usize],
        outcomes: &mut [CommitOutcome],
        found: &mut identities::Found,
    ) -> Result<(), Unavailable> {
        let mut halves = vec![indices.to_vec()];
        while let Some(indices) = halves.pop() {
            let mut savepoint = transaction.begin().await.map_err(unavailable)?;
            match self.write_all(&mut savepoint, updates, &indices, outcomes, found).await {
                Ok(()) => savepoint.commit().await.map_err(unavailable)?,
                Err(error) if is_data_error(&error) => {
                    savepoint.rollback().await.map_err(unavailable)?;
                    found.clear();
                    if let [single] = indices[..] {
                        outcomes[single] = CommitOutcome::Refused("the database refuses its data".to_owned());
                    } else {
                        let (first, second) = indices.split_at(indices.len() / 2);
                        // The first half is written first, so that the first of two equal updates is the new one.
                        halves.push(second.to_vec());
                        halves.push(first.to_vec());
                    }
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(())
    }

    async fn write_all(
        &self,
        connection: &mut Transaction<'_, Sqlite>,
        updates: &[NewUpdate],
        indices: &[usize],
        outcomes: &mut [CommitOutcome],
        found: &mut identities::Found,
    ) -> Result<(), sqlx::Error> {
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
        // Sorted, so that the pages of the index are visited in order.
        candidates.sort_unstable();
        let new = rows::new_keys(connection, updates, &candidates).await?;
        let mut order: Vec<usize> = candidates
            .iter()
            .filter(|(tenant, key, _)| new.contains(&((*tenant).clone(), *key)))
            .map(|c| c.2)
            .collect();
        order.sort_unstable();
        let new: Vec<&NewUpdate> = order.iter().map(|index| &updates[*index]).collect();
        let conversations = self.conversations.find(connection, &new, found, self.clock.now()).await?;
        for index in order {
            outcomes[index] = CommitOutcome::New;
        }
        let resolved: Vec<Resolved<'_>> = new
            .into_iter()
            .zip(conversations)
            .map(|(update, conversation)| Resolved { update, conversation, partition: update.partition(conversation) })
            .collect();
        rows::events(connection, &resolved).await?;
        rows::messages(connection, &resolved, self.clock.now()).await?;
        rows::statuses(connection, &resolved).await?;
        Ok(())
    }
}
