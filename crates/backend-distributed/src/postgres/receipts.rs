//! What request records say of messages (how long the answer took, how many duplicates were stopped), which may be
//! recorded before or after the message is stored.
//!
//! Both sides first commit what they have, then look for what the other has left: whoever comes second finds the
//! other's. Looking within the transaction would miss what a concurrent one is about to commit.

use std::collections::HashSet;

use common::{EventKey, TenantId, Timestamp};
use sqlx::postgres::PgConnection;

use super::values::{Moment, column};

/// A message by its key.
pub(super) type MessageKey = (TenantId, EventKey);

/// What records say of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Receipt {
    /// Of the first record that stored it.
    pub(super) response_time: Option<f64>,
    /// Stopped at the gateway.
    pub(super) duplicates: i32,
    /// When the last of them came.
    pub(super) last_duplicate: Option<Timestamp>,
}

/// Puts receipts on the rows of those messages that are stored; returns the others.
pub(super) async fn apply(
    connection: &mut PgConnection,
    receipts: Vec<(MessageKey, Receipt)>,
) -> Result<Vec<(MessageKey, Receipt)>, sqlx::Error> {
    if receipts.is_empty() {
        return Ok(receipts);
    }
    let stored: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "UPDATE messages AS m SET response_time_ms = coalesce(m.response_time_ms, r.response_time_ms), \
         duplicate_count = m.duplicate_count + r.duplicate_count, \
         last_duplicate_at = greatest(m.last_duplicate_at, r.last_duplicate_at) \
         FROM UNNEST($1::text[], $2::bytea[], $3::double precision[], $4::integer[], $5::timestamptz[]) \
             AS r (tenant, key, response_time_ms, duplicate_count, last_duplicate_at) \
         JOIN event_keys AS e ON e.tenant = r.tenant AND e.key = r.key \
         WHERE m.tenant = r.tenant AND m.key = r.key AND m.received_at = e.first_seen RETURNING m.tenant, m.key",
    )
    .bind(column(&receipts, |((tenant, _), _)| tenant.as_str()))
    .bind(column(&receipts, |((_, key), _)| key.0))
    .bind(column(&receipts, |(_, receipt)| receipt.response_time))
    .bind(column(&receipts, |(_, receipt)| receipt.duplicates))
    .bind(column(&receipts, |(_, receipt)| receipt.last_duplicate.map(Moment::from)))
    .fetch_all(connection)
    .await?;
    let stored: HashSet<(&str, &[u8])> = stored.iter().map(|(tenant, key)| (&**tenant, &**key)).collect();
    Ok(receipts.into_iter().filter(|((tenant, key), _)| !stored.contains(&(tenant.as_str(), &key.0))).collect())
}

/// Puts receipts aside until their messages are stored.
pub(super) async fn put_aside(
    connection: &mut PgConnection,
    receipts: &[(MessageKey, Receipt)],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if receipts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO message_receipts AS r (tenant, key, response_time_ms, duplicate_count, last_duplicate_at, \
         recorded_at) \
         SELECT *, $6 FROM UNNEST($1::text[], $2::bytea[], $3::double precision[], $4::integer[], $5::timestamptz[]) \
         ON CONFLICT (tenant, key) DO UPDATE SET \
         response_time_ms = coalesce(r.response_time_ms, excluded.response_time_ms), \
         duplicate_count = r.duplicate_count + excluded.duplicate_count, \
         last_duplicate_at = greatest(r.last_duplicate_at, excluded.last_duplicate_at)",
    )
    .bind(column(receipts, |((tenant, _), _)| tenant.as_str()))
    .bind(column(receipts, |((_, key), _)| key.0))
    .bind(column(receipts, |(_, receipt)| receipt.response_time))
    .bind(column(receipts, |(_, receipt)| receipt.duplicates))
    .bind(column(receipts, |(_, receipt)| receipt.last_duplicate.map(Moment::from)))
    .bind(Moment::from(now))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Moves receipts that were put aside to those of the messages that are stored. A message lies where its key was first
/// seen, a dead letter where the letter says.
pub(super) async fn merge(connection: &mut PgConnection, keys: &[MessageKey]) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "WITH taken AS (DELETE FROM message_receipts AS r \
             USING UNNEST($1::text[], $2::bytea[]) AS k (tenant, key) \
             LEFT JOIN event_keys AS e ON e.tenant = k.tenant AND e.key = k.key \
             LEFT JOIN dead_letters AS d ON d.tenant = k.tenant AND d.key = k.key \
             WHERE r.tenant = k.tenant AND r.key = k.key AND coalesce(e.first_seen, d.received_at) IS NOT NULL \
             RETURNING r.*, coalesce(e.first_seen, d.received_at) AS stored_at) \
         UPDATE messages AS m SET response_time_ms = coalesce(m.response_time_ms, taken.response_time_ms), \
         duplicate_count = m.duplicate_count + taken.duplicate_count, \
         last_duplicate_at = greatest(m.last_duplicate_at, taken.last_duplicate_at) \
         FROM taken WHERE m.tenant = taken.tenant AND m.key = taken.key AND m.received_at = taken.stored_at",
    )
    .bind(column(keys, |(tenant, _)| tenant.as_str()))
    .bind(column(keys, |(_, key)| key.0))
    .execute(connection)
    .await
    .map(|_| ())
}
