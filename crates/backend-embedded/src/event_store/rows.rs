//! The statements of a batch.

use std::collections::HashSet;

use common::envelope::ParkReason;
use common::event::EventType;
use common::{EnvelopeId, EventKey, TenantId, Timestamp};
use ports::event_store::{CommitOutcome, DeadLetter, Detail, NewUpdate, Parked, RawObject, RawPending, StatusDetail};
use ports::statistics::rollup::Messages;
use sqlx::{Row as _, SqliteConnection};

use super::Resolved;
use crate::insert::{Rows, Values};
use crate::storable;

fn optional(text: Option<&String>) -> Option<String> {
    text.map(|text| storable(text))
}

fn key_bytes(key: EventKey) -> Vec<u8> {
    key.0.to_vec()
}

/// Claims keys; returns those that nobody had.
pub(super) async fn new_keys(
    connection: &mut SqliteConnection,
    updates: &[NewUpdate],
    candidates: &[(&TenantId, EventKey, usize)],
) -> Result<HashSet<(TenantId, EventKey)>, sqlx::Error> {
    const KEYS: Rows = Rows {
        head: "INSERT INTO event_keys (tenant, key, first_seen) SELECT * FROM",
        columns: 3,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, key) DO NOTHING RETURNING tenant, key",
    };
    let returned = KEYS
        .fetch(connection, candidates, |(tenant, key, index), values: &mut Values| {
            values.push(tenant.as_str().to_owned());
            values.push(key_bytes(*key));
            values.push(updates[*index].received_at.as_millis());
        })
        .await?;
    let new = returned.iter().filter_map(|row| {
        let key: [u8; 16] = row.get::<&[u8], _>(1).try_into().ok()?;
        Some((TenantId::new(row.get(0)).ok()?, EventKey(key)))
    });
    Ok(new.collect())
}

pub(super) async fn events(connection: &mut SqliteConnection, new: &[Resolved<'_>]) -> Result<(), sqlx::Error> {
    const EVENTS: Rows = Rows {
        head: "INSERT INTO events (tenant, key, event_type, occurred_at, received_at, number, conversation, partition, data) SELECT * FROM",
        columns: 9,
        tail: "WHERE column1 IS NOT NULL",
    };
    EVENTS
        .execute(connection, new, |each, values| {
            let (update, event) = (each.update, &each.update.event);
            values.push(update.tenant.as_str().to_owned());
            values.push(key_bytes(update.key));
            values.push(EventType::as_str(event.event_type));
            values.push(event.occurred_at.as_millis());
            values.push(update.received_at.as_millis());
            values.push(event.number.as_ref().map(|number| number.as_str().to_owned()));
            values.push(each.conversation.map(|id| id.as_bytes().to_vec()));
            values.push(each.partition);
            values.push(event.data.to_vec());
        })
        .await
        .map(|_| ())
}

pub(super) async fn messages(
    connection: &mut SqliteConnection,
    new: &[Resolved<'_>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    // A dead letter that was released takes the place of the failed row.
    const MESSAGES: Rows = Rows {
        head: "INSERT INTO messages (tenant, key, envelope, webhook_source, message_id, type, phone_number, user_id, \
               to_number, text, text_folded, sent_at, conversation, status, received_at, created_at) SELECT * FROM",
        columns: 16,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, key) DO UPDATE SET envelope = excluded.envelope, type = excluded.type, \
               text = excluded.text, text_folded = excluded.text_folded, phone_number = excluded.phone_number, user_id = excluded.user_id, \
               to_number = excluded.to_number, sent_at = excluded.sent_at, conversation = excluded.conversation, \
               status = excluded.status",
    };
    let rows: Vec<_> = new
        .iter()
        .filter_map(|each| match &each.update.event.detail {
            Detail::Message { id, kind, text } => Some((each, id, kind, text)),
            _ => None,
        })
        .collect();
    MESSAGES
        .execute(connection, &rows, |(each, id, kind, text), values| {
            let (update, event) = (each.update, &each.update.event);
            values.push(update.tenant.as_str().to_owned());
            values.push(key_bytes(update.key));
            values.push(update.envelope.0.as_bytes().to_vec());
            values.push(update.provider.webhook_source());
            values.push(storable(id));
            values.push(storable(kind));
            values.push(optional(event.party.phone.as_ref()));
            values.push(optional(event.party.user_id.as_ref()));
            values.push(optional(event.display_number.as_ref()));
            values.push(optional(text.as_ref()));
            values.push(text.as_ref().map(|text| storable(text).to_lowercase()));
            values.push(event.occurred_at.as_millis());
            values.push(each.conversation.map(|id| id.as_bytes().to_vec()));
            values.push("completed");
            values.push(update.received_at.as_millis());
            values.push(now.as_millis());
        })
        .await?;
    if rows.is_empty() { Ok(()) } else { receipts(connection, &rows.iter().map(|row| row.0).collect::<Vec<_>>()).await }
}

/// Adds what request records said of these messages before they were stored.
async fn receipts(connection: &mut SqliteConnection, new: &[&Resolved<'_>]) -> Result<(), sqlx::Error> {
    const ADD: Rows = Rows {
        head: "UPDATE messages SET response_time_ms = coalesce(messages.response_time_ms, r.response_time_ms), \
               duplicate_count = messages.duplicate_count + r.duplicate_count, \
               last_duplicate_at = r.last_duplicate_at FROM",
        columns: 2,
        tail: "AS v CROSS JOIN message_receipts AS r ON r.tenant = v.column1 AND r.key = v.column2 \
               WHERE messages.tenant = r.tenant AND messages.key = r.key",
    };
    const REMOVE: Rows = Rows { head: "DELETE FROM message_receipts WHERE (tenant, key) IN", columns: 2, tail: "" };
    let any: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM message_receipts LIMIT 1").fetch_optional(&mut *connection).await?;
    if any.is_none() {
        return Ok(());
    }
    let values = |each: &&Resolved<'_>, values: &mut Values| {
        values.push(each.update.tenant.as_str().to_owned());
        values.push(key_bytes(each.update.key));
    };
    if ADD.execute(&mut *connection, new, values).await? > 0 {
        REMOVE.execute(connection, new, values).await?;
    }
    Ok(())
}

pub(super) async fn statuses(connection: &mut SqliteConnection, new: &[Resolved<'_>]) -> Result<(), sqlx::Error> {
    const STATUSES: Rows = Rows {
        head: "INSERT INTO statuses (tenant, key, number, message_id, status, occurred_at, received_at, recipient, \
               recipient_user_id, participant, conversation_id, conversation_origin, conversation_expires_at, \
               pricing_billable, pricing_model, pricing_type, pricing_category, errors, biz_opaque_callback_data) SELECT * FROM",
        columns: 19,
        tail: "WHERE column1 IS NOT NULL",
    };
    // Only forward, and nothing after `failed`: the rule of `common::status::DeliveryState::after`.
    const STATES: Rows = Rows {
        head: "INSERT INTO message_states (tenant, number, message_id, participant, state, rank, changed_at) SELECT * FROM",
        columns: 7,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, number, message_id, participant) DO UPDATE \
               SET state = excluded.state, rank = excluded.rank, changed_at = excluded.changed_at \
               WHERE excluded.rank > message_states.rank AND message_states.state <> 'failed'",
    };
    let rows: Vec<(&Resolved<'_>, &StatusDetail)> = new
        .iter()
        .filter_map(|each| match &each.update.event.detail {
            Detail::Status(status) => Some((each, status)),
            _ => None,
        })
        .collect();
    STATUSES
        .execute(connection, &rows, |(each, status), values| {
            let (update, event) = (each.update, &each.update.event);
            let conversation = status.conversation.clone().unwrap_or_default();
            let pricing = status.pricing.clone().unwrap_or_default();
            let errors = (!status.errors.is_empty()).then(|| serde_json::to_string(&status.errors).unwrap_or_default());
            values.push(update.tenant.as_str().to_owned());
            values.push(key_bytes(update.key));
            values.push(event.number.as_ref().map(|number| number.as_str().to_owned()));
            values.push(storable(&status.message_id));
            values.push(status.state.as_str());
            values.push(event.occurred_at.as_millis());
            values.push(update.received_at.as_millis());
            values.push(optional(event.party.phone.as_ref()));
            values.push(optional(event.party.user_id.as_ref()));
            values.push(optional(status.participant.as_ref()));
            values.push(optional(conversation.id.as_ref()));
            values.push(optional(conversation.origin.as_ref()));
            values.push(conversation.expires_at);
            values.push(pricing.billable);
            values.push(optional(pricing.model.as_ref()));
            values.push(optional(pricing.r#type.as_ref()));
            values.push(optional(pricing.category.as_ref()));
            values.push(errors);
            values.push(optional(status.biz_opaque_callback_data.as_ref()));
        })
        .await?;
    STATES
        .execute(connection, &rows, |(each, status), values| {
            let event = &each.update.event;
            values.push(each.update.tenant.as_str().to_owned());
            values.push(event.number.as_ref().map_or_else(String::new, |number| number.as_str().to_owned()));
            values.push(storable(&status.message_id));
            values.push(status.participant.as_deref().map_or_else(String::new, storable));
            values.push(status.state.as_str());
            values.push(status.state.rank());
            values.push(event.occurred_at.as_millis());
        })
        .await
        .map(|_| ())
}

/// Counts updates that were known. An envelope that is delivered again is no duplicate of itself.
pub(super) async fn repeats<'a>(
    connection: &mut SqliteConnection,
    updates: &'a [NewUpdate],
    outcomes: &[CommitOutcome],
    counted: &mut Messages<'a>,
) -> Result<(), sqlx::Error> {
    for (update, _) in updates.iter().zip(outcomes).filter(|(_, outcome)| **outcome == CommitOutcome::Duplicate) {
        let (tenant, key) = (update.tenant.as_str(), key_bytes(update.key));
        let first_seen: Option<i64> = sqlx::query_scalar(
            "UPDATE event_keys SET count = count + 1 WHERE tenant = ? AND key = ? RETURNING first_seen",
        )
        .bind(tenant)
        .bind(key.clone())
        .fetch_optional(&mut *connection)
        .await?;
        if matches!(update.event.detail, Detail::Message { .. }) {
            let marked = sqlx::query(
                "UPDATE messages SET duplicate_count = duplicate_count + 1, last_envelope = ?3, \
                 last_duplicate_at = max(coalesce(last_duplicate_at, 0), ?4) \
                 WHERE tenant = ?1 AND key = ?2 AND envelope <> ?3 AND coalesce(last_envelope, x'') <> ?3",
            )
            .bind(tenant)
            .bind(key)
            .bind(update.envelope.0.as_bytes().to_vec())
            .bind(update.received_at.as_millis())
            .execute(&mut *connection)
            .await?;
            if let Some(first_seen) = first_seen.filter(|_| marked.rows_affected() > 0) {
                counted.repeated(update, Timestamp::from_millis(first_seen));
            }
        }
    }
    Ok(())
}

pub(super) async fn park<'a>(
    connection: &mut SqliteConnection,
    parked: &'a [Parked],
    counted: &mut Messages<'a>,
) -> Result<(), sqlx::Error> {
    const PARKED: Rows = Rows {
        head: "INSERT INTO parked (envelope, tenant, reason, number, received_at, updates, sealed, due_at) SELECT * FROM",
        columns: 8,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (envelope) DO NOTHING RETURNING envelope",
    };
    let new = PARKED
        .fetch(&mut *connection, parked, |each, values| {
            values.push(each.envelope.0.as_bytes().to_vec());
            values.push(each.tenant.as_str().to_owned());
            values.push(each.reason.as_str());
            values.push(each.number.as_ref().map(|number| number.as_str().to_owned()));
            values.push(each.received_at.as_millis());
            values.push(each.updates);
            values.push(each.sealed.to_vec());
            values.push(each.due_at.map(Timestamp::as_millis));
        })
        .await?;
    let mut new: HashSet<Vec<u8>> = new.iter().map(|row| row.get(0)).collect();
    for parked in parked.iter().filter(|each| new.remove(each.envelope.0.as_bytes().as_slice())) {
        counted.parked(parked);
        take_turn(connection, parked).await?;
    }
    Ok(())
}

/// Gives a throttled envelope its turn: a window after its receipt, and a window after the one that its sender may have
/// let go with it.
async fn take_turn(connection: &mut SqliteConnection, parked: &Parked) -> Result<(), sqlx::Error> {
    let Some(pace) = parked.pace else { return Ok(()) };
    let window = i64::try_from(pace.window.as_millis()).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE parked SET sender = ?2, due_at = max(received_at + ?3, coalesce((SELECT other.due_at FROM parked AS other \
         WHERE other.tenant = parked.tenant AND other.sender = ?2 AND other.envelope <> ?1 \
         ORDER BY other.due_at DESC LIMIT 1 OFFSET ?4) + ?3, 0)) WHERE envelope = ?1",
    )
    .bind(parked.envelope.0.as_bytes().to_vec())
    .bind(pace.sender.0.to_vec())
    .bind(window)
    .bind(i64::from(pace.max.saturating_sub(1)))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Takes envelopes out of their parking place; whether one of them was throttled.
pub(super) async fn release(connection: &mut SqliteConnection, envelopes: &[EnvelopeId]) -> Result<bool, sqlx::Error> {
    let mut was_throttled = false;
    for envelope in envelopes {
        let reason: Option<String> = sqlx::query_scalar("DELETE FROM parked WHERE envelope = ? RETURNING reason")
            .bind(envelope.0.as_bytes().to_vec())
            .fetch_optional(&mut *connection)
            .await?;
        was_throttled |= reason.is_some_and(|reason| reason == ParkReason::Throttled.as_str());
    }
    Ok(was_throttled)
}

pub(super) async fn bury(
    connection: &mut SqliteConnection,
    letters: &[DeadLetter],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    const LETTERS: Rows = Rows {
        head: "INSERT INTO dead_letters (tenant, key, envelope, received_at, reason, sealed, created_at) SELECT * FROM",
        columns: 7,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, key) DO NOTHING",
    };
    const FAILED: Rows = Rows {
        head: "INSERT INTO messages (tenant, key, envelope, webhook_source, message_id, type, phone_number, sent_at, \
               status, error_message, error_count, received_at, created_at) SELECT * FROM",
        columns: 13,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, key) DO UPDATE SET error_message = excluded.error_message, \
               error_count = messages.error_count + 1, envelope = excluded.envelope, status = 'failed' \
               WHERE messages.envelope <> excluded.envelope",
    };
    LETTERS
        .execute(connection, letters, |letter, values| {
            values.push(letter.tenant.as_str().to_owned());
            values.push(key_bytes(letter.key));
            values.push(letter.envelope.0.as_bytes().to_vec());
            values.push(letter.received_at.as_millis());
            values.push(letter.reason.clone());
            values.push(letter.sealed.to_vec());
            values.push(now.as_millis());
        })
        .await?;
    let failed: Vec<_> = letters.iter().filter_map(|letter| Some((letter, letter.message.as_ref()?))).collect();
    FAILED
        .execute(connection, &failed, |(letter, (id, phone)), values| {
            values.push(letter.tenant.as_str().to_owned());
            values.push(key_bytes(letter.key));
            values.push(letter.envelope.0.as_bytes().to_vec());
            values.push(letter.provider.webhook_source());
            values.push(storable(id).chars().take(NewUpdate::MAX_MESSAGE_ID).collect::<String>());
            values.push("unknown");
            values.push(optional(phone.as_ref()));
            values.push(letter.received_at.as_millis());
            values.push("failed");
            values.push(letter.reason.clone());
            values.push(1);
            values.push(letter.received_at.as_millis());
            values.push(now.as_millis());
        })
        .await
        .map(|_| ())
}

pub(super) async fn raw_objects(connection: &mut SqliteConnection, objects: &[RawObject]) -> Result<(), sqlx::Error> {
    const OBJECTS: Rows = Rows {
        head: "INSERT INTO raw_objects (envelope, object, offset, length) SELECT * FROM",
        columns: 4,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (envelope) DO NOTHING",
    };
    OBJECTS
        .execute(connection, objects, |object, values| {
            values.push(object.envelope.0.as_bytes().to_vec());
            values.push(object.object.clone());
            values.push(i64::try_from(object.offset).unwrap_or(i64::MAX));
            values.push(i64::try_from(object.length).unwrap_or(i64::MAX));
        })
        .await
        .map(|_| ())
}

pub(super) async fn raw_pending(connection: &mut SqliteConnection, pending: &[RawPending]) -> Result<(), sqlx::Error> {
    const PENDING: Rows = Rows {
        head: "INSERT INTO raw_pending (envelope, sealed) SELECT * FROM",
        columns: 2,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (envelope) DO NOTHING",
    };
    PENDING
        .execute(connection, pending, |each, values| {
            values.push(each.envelope.0.as_bytes().to_vec());
            values.push(each.sealed.to_vec());
        })
        .await
        .map(|_| ())
}

pub(super) async fn no_longer_pending(
    connection: &mut SqliteConnection,
    objects: &[RawObject],
) -> Result<(), sqlx::Error> {
    for object in objects {
        sqlx::query("DELETE FROM raw_pending WHERE envelope = ?")
            .bind(object.envelope.0.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Clears attempt counters. The table is nearly always empty, so this is one look in a batch.
pub(super) async fn finish(connection: &mut SqliteConnection, finished: &[EnvelopeId]) -> Result<(), sqlx::Error> {
    let any: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM attempts LIMIT 1").fetch_optional(&mut *connection).await?;
    if any.is_none() {
        return Ok(());
    }
    for envelope in finished {
        sqlx::query("DELETE FROM attempts WHERE envelope = ?")
            .bind(envelope.0.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
