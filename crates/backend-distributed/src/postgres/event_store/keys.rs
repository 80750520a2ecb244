//! Event keys: what is new, and how often the rest came again.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{EventKey, TenantId};
use ports::event_store::{CommitOutcome, Detail, NewUpdate};
use ports::statistics::rollup::Messages;
use sqlx::postgres::PgConnection;

use super::rounds;
use crate::postgres::receipts::MessageKey;
use crate::postgres::values::{Moment, column};

/// Claims keys; returns those that nobody had. Waits for a concurrent transaction that claims one of them.
pub(super) async fn new_keys(
    connection: &mut PgConnection,
    updates: &[NewUpdate],
    candidates: &[(&TenantId, EventKey, usize)],
) -> Result<HashSet<MessageKey>, sqlx::Error> {
    let returned: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "INSERT INTO event_keys (tenant, key, first_seen) \
         SELECT * FROM UNNEST($1::text[], $2::bytea[], $3::timestamptz[]) \
         ON CONFLICT (tenant, key) DO NOTHING RETURNING tenant, key",
    )
    .bind(column(candidates, |(tenant, ..)| tenant.as_str()))
    .bind(column(candidates, |(_, key, _)| key.0))
    .bind(column(candidates, |(.., index)| Moment::from(updates[*index].received_at)))
    .fetch_all(connection)
    .await?;
    Ok(returned.into_iter().filter_map(message_key).collect())
}

fn message_key((tenant, key): (String, Vec<u8>)) -> Option<MessageKey> {
    Some((TenantId::new(&tenant).ok()?, EventKey(key.try_into().ok()?)))
}

/// Counts updates that were known. An envelope that is delivered again is no duplicate of itself.
pub(super) async fn repeats(
    connection: &mut PgConnection,
    updates: &[NewUpdate],
    outcomes: &[CommitOutcome],
    counted: &mut Messages<'_>,
) -> Result<(), sqlx::Error> {
    let repeated = updates.iter().zip(outcomes).filter(|(_, outcome)| **outcome == CommitOutcome::Duplicate);
    let repeated: Vec<&NewUpdate> = repeated.map(|(update, _)| update).collect();
    if repeated.is_empty() {
        return Ok(());
    }
    let mut counts: BTreeMap<(&TenantId, EventKey), i64> = BTreeMap::new();
    for update in &repeated {
        *counts.entry((&update.tenant, update.key)).or_insert(0) += 1;
    }
    let counts: Vec<_> = counts.into_iter().collect();
    let seen: Vec<(String, Vec<u8>, Moment)> = sqlx::query_as(
        "UPDATE event_keys SET count = event_keys.count + again.count \
         FROM UNNEST($1::text[], $2::bytea[], $3::bigint[]) AS again (tenant, key, count) \
         WHERE event_keys.tenant = again.tenant AND event_keys.key = again.key \
         RETURNING event_keys.tenant, event_keys.key, event_keys.first_seen",
    )
    .bind(column(&counts, |((tenant, _), _)| tenant.as_str()))
    .bind(column(&counts, |((_, key), _)| key.0))
    .bind(column(&counts, |(_, count)| *count))
    .fetch_all(&mut *connection)
    .await?;
    let seen: HashMap<MessageKey, Moment> =
        seen.into_iter().filter_map(|(tenant, key, at)| Some((message_key((tenant, key))?, at))).collect();
    let messages = repeated.into_iter().filter_map(|update| match update.event.detail {
        Detail::Message { .. } => Some((update, *seen.get(&(update.tenant.clone(), update.key))?)),
        _ => None,
    });
    for round in rounds(messages, |(update, _)| (&update.tenant, update.key)) {
        let marked: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "UPDATE messages AS m SET duplicate_count = m.duplicate_count + 1, last_envelope = again.envelope, \
             last_duplicate_at = greatest(m.last_duplicate_at, again.at) \
             FROM UNNEST($1::text[], $2::bytea[], $3::timestamptz[], $4::uuid[], $5::timestamptz[]) \
                 AS again (tenant, key, first_seen, envelope, at) \
             WHERE m.tenant = again.tenant AND m.key = again.key AND m.received_at = again.first_seen \
             AND m.envelope <> again.envelope AND m.last_envelope IS DISTINCT FROM again.envelope \
             RETURNING m.tenant, m.key",
        )
        .bind(column(&round, |(update, _)| update.tenant.as_str()))
        .bind(column(&round, |(update, _)| update.key.0))
        .bind(column(&round, |(_, first_seen)| *first_seen))
        .bind(column(&round, |(update, _)| update.envelope.0))
        .bind(column(&round, |(update, _)| Moment::from(update.received_at)))
        .fetch_all(&mut *connection)
        .await?;
        let marked: HashSet<MessageKey> = marked.into_iter().filter_map(message_key).collect();
        for (update, first_seen) in round {
            if marked.contains(&(update.tenant.clone(), update.key)) {
                counted.repeated(update, first_seen.into());
            }
        }
    }
    Ok(())
}
