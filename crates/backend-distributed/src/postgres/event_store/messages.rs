//! Rows of inbound messages, of those that are stored and of those that became dead letters.

use common::{TenantId, Timestamp};
use ports::event_store::{DeadLetter, Detail, NewUpdate};
use sqlx::postgres::PgConnection;

use super::{Resolved, rounds};
use crate::postgres::values::{Moment, column, optional, storable};

/// An inbound message among new updates.
struct Message<'a> {
    of: &'a Resolved<'a>,
    id: &'a str,
    kind: &'a str,
    text: Option<&'a String>,
}

/// A dead letter: tenant, key, and where its message lies.
type Letter = (String, Vec<u8>, Moment);

pub(super) async fn messages(
    connection: &mut PgConnection,
    new: &[Resolved<'_>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let rows: Vec<Message<'_>> = new
        .iter()
        .filter_map(|of| match &of.update.event.detail {
            Detail::Message { id, kind, text } => Some(Message { of, id, kind, text: text.as_ref() }),
            _ => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let letters: Vec<Letter> = sqlx::query_as(
        "WITH stored AS (INSERT INTO messages (tenant, key, envelope, webhook_source, message_id, type, phone_number, user_id, \
         to_number, \
         text, text_folded, sent_at, conversation, status, received_at, created_at) \
         SELECT tenant, key, envelope, webhook_source, message_id, type, phone_number, user_id, to_number, text, \
         text_folded, sent_at, conversation, 'completed', received_at, $15 \
         FROM UNNEST($1::text[], $2::bytea[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
         $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::uuid[], $14::timestamptz[]) AS new (tenant, key, \
         envelope, webhook_source, message_id, type, phone_number, user_id, to_number, text, text_folded, sent_at, \
         conversation, received_at) RETURNING tenant, key) \
         SELECT d.tenant, d.key, d.received_at FROM stored JOIN dead_letters AS d \
         ON d.tenant = stored.tenant AND d.key = stored.key ORDER BY d.tenant, d.key",
    )
    .bind(column(&rows, |row| row.of.update.tenant.as_str()))
    .bind(column(&rows, |row| row.of.update.key.0))
    .bind(column(&rows, |row| row.of.update.envelope.0))
    .bind(column(&rows, |row| row.of.update.provider.webhook_source()))
    .bind(column(&rows, |row| storable(row.id)))
    .bind(column(&rows, |row| storable(row.kind)))
    .bind(column(&rows, |row| optional(row.of.update.event.party.phone.as_ref())))
    .bind(column(&rows, |row| optional(row.of.update.event.party.user_id.as_ref())))
    .bind(column(&rows, |row| optional(row.of.update.event.display_number.as_ref())))
    .bind(column(&rows, |row| optional(row.text)))
    .bind(column(&rows, |row| row.text.map(|text| storable(text).to_lowercase())))
    .bind(column(&rows, |row| Moment::from(row.of.update.event.occurred_at)))
    .bind(column(&rows, |row| row.of.conversation))
    .bind(column(&rows, |row| Moment::from(row.of.update.received_at)))
    .bind(Moment::from(now))
    .fetch_all(&mut *connection)
    .await?;
    released(connection, &letters).await
}

/// Dead letters that were released: the message takes the place of the failed row, with what that has counted.
async fn released(connection: &mut PgConnection, letters: &[Letter]) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "WITH failed AS (DELETE FROM messages AS m \
             USING UNNEST($1::text[], $2::bytea[], $3::timestamptz[]) AS letter (tenant, key, received_at) \
             WHERE m.tenant = letter.tenant AND m.key = letter.key AND m.received_at = letter.received_at \
             AND m.status = 'failed' RETURNING m.*) \
         UPDATE messages AS m SET created_at = failed.created_at, error_message = failed.error_message, \
         error_count = failed.error_count, duplicate_count = failed.duplicate_count, \
         last_duplicate_at = failed.last_duplicate_at, response_time_ms = failed.response_time_ms \
         FROM failed JOIN event_keys AS e ON e.tenant = failed.tenant AND e.key = failed.key \
         WHERE m.tenant = e.tenant AND m.key = e.key AND m.received_at = e.first_seen AND m.status <> 'failed'",
    )
    .bind(column(letters, |letter| letter.0.as_str()))
    .bind(column(letters, |letter| letter.1.as_slice()))
    .bind(column(letters, |letter| letter.2))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Stores dead letters. One that is an inbound message shows among the messages as failed.
pub(super) async fn bury(
    connection: &mut PgConnection,
    letters: &[DeadLetter],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for round in rounds(letters, |letter| (&letter.tenant, letter.key)) {
        sqlx::query(
            "INSERT INTO dead_letters (tenant, key, envelope, received_at, reason, sealed, created_at) \
             SELECT *, $7 FROM UNNEST($1::text[], $2::bytea[], $3::uuid[], $4::timestamptz[], $5::text[], $6::bytea[]) \
             ON CONFLICT (tenant, key) DO NOTHING",
        )
        .bind(column(&round, |letter| letter.tenant.as_str()))
        .bind(column(&round, |letter| letter.key.0))
        .bind(column(&round, |letter| letter.envelope.0))
        .bind(column(&round, |letter| Moment::from(letter.received_at)))
        .bind(column(&round, |letter| storable(&letter.reason)))
        .bind(column(&round, |letter| &*letter.sealed))
        .bind(Moment::from(now))
        .execute(&mut *connection)
        .await?;
        let failed: Vec<Failed<'_>> = round.into_iter().filter_map(Failed::of).collect();
        if !failed.is_empty() {
            fail(connection, &failed, now).await?;
        }
    }
    Ok(())
}

/// A message that became a dead letter.
struct Failed<'a> {
    letter: &'a DeadLetter,
    tenant: &'a TenantId,
    id: String,
    phone: Option<&'a String>,
}

impl<'a> Failed<'a> {
    fn of(letter: &'a DeadLetter) -> Option<Self> {
        let (id, phone) = letter.message.as_ref()?;
        let id = storable(id).chars().take(NewUpdate::MAX_MESSAGE_ID).collect();
        // Nothing here may be refused: what cannot be a phone number is too long for the index, and left out.
        let phone = phone.as_ref().filter(|phone| phone.len() <= NewUpdate::MAX_MESSAGE_ID);
        Some(Self { letter, tenant: &letter.tenant, id, phone })
    }
}

/// Marks the row that there is, or makes one. The letters are stored already and hold off whoever does the same.
async fn fail(connection: &mut PgConnection, failed: &[Failed<'_>], now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH letter AS MATERIALIZED (SELECT v.*, coalesce(e.first_seen, d.received_at) AS stored_at \
             FROM UNNEST($1::text[], $2::bytea[], $3::uuid[], $4::text[], $5::text[], $6::text[], $8::text[]) \
                 AS v (tenant, key, envelope, message_id, phone_number, reason, webhook_source) \
             JOIN dead_letters AS d ON d.tenant = v.tenant AND d.key = v.key \
             LEFT JOIN event_keys AS e ON e.tenant = v.tenant AND e.key = v.key), \
         marked AS (UPDATE messages AS m SET error_message = letter.reason, error_count = m.error_count + 1, \
             envelope = letter.envelope, status = 'failed' FROM letter \
             WHERE m.tenant = letter.tenant AND m.key = letter.key AND m.received_at = letter.stored_at \
             AND m.envelope <> letter.envelope) \
         INSERT INTO messages (tenant, key, envelope, webhook_source, message_id, type, phone_number, sent_at, status, \
             error_message, error_count, received_at, created_at) \
         SELECT tenant, key, envelope, webhook_source, message_id, 'unknown', phone_number, stored_at, 'failed', \
             reason, 1, stored_at, $7 FROM letter \
         WHERE NOT EXISTS (SELECT FROM messages AS m WHERE m.tenant = letter.tenant AND m.key = letter.key \
             AND m.received_at = letter.stored_at)",
    )
    .bind(column(failed, |each| each.tenant.as_str()))
    .bind(column(failed, |each| each.letter.key.0))
    .bind(column(failed, |each| each.letter.envelope.0))
    .bind(column(failed, |each| each.id.as_str()))
    .bind(column(failed, |each| optional(each.phone)))
    .bind(column(failed, |each| storable(&each.letter.reason)))
    .bind(Moment::from(now))
    .bind(column(failed, |each| each.letter.provider.webhook_source()))
    .execute(connection)
    .await
    .map(|_| ())
}
