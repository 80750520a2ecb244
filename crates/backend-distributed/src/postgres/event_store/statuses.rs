//! Statuses, and how far each outbound message has come.

use std::borrow::Cow;
use std::collections::HashMap;

use common::status::DeliveryState;
use common::{NumberId, TenantId};
use ports::event_store::{Detail, StatusDetail};
use sqlx::postgres::PgConnection;

use super::{Resolved, rounds};
use crate::postgres::values::{Moment, column, optional, storable};

type Row<'a> = (&'a Resolved<'a>, &'a StatusDetail);

pub(super) async fn statuses(connection: &mut PgConnection, new: &[Resolved<'_>]) -> Result<(), sqlx::Error> {
    let rows: Vec<Row<'_>> = new
        .iter()
        .filter_map(|each| match &each.update.event.detail {
            Detail::Status(status) => Some((each, status)),
            _ => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    log(connection, &rows).await?;
    for round in rounds(furthest(rows), of_message) {
        advance(connection, &round).await?;
    }
    Ok(())
}

/// What states are kept of.
type OfMessage<'a> = (&'a TenantId, &'a Option<NumberId>, Cow<'a, str>, Cow<'a, str>);

/// As the table names it: what is stored alike is one row.
fn of_message<'a>((each, status): &Row<'a>) -> OfMessage<'a> {
    let participant = storable(status.participant.as_deref().unwrap_or_default());
    (&each.update.tenant, &each.update.event.number, storable(&status.message_id), participant)
}

/// Without those that a status of the same message goes beyond anyway: a statement changes a row once, and what is sent,
/// delivered and read in one batch would take three. Where one has failed all stay, as their order matters.
fn furthest(rows: Vec<Row<'_>>) -> Vec<Row<'_>> {
    let mut furthest: HashMap<OfMessage<'_>, (u8, bool)> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (rank, has_failed) = furthest.entry(of_message(row)).or_default();
        *rank = (*rank).max(row.1.state.rank());
        *has_failed |= row.1.state == DeliveryState::Failed;
    }
    let stays = |row: &Row<'_>| {
        furthest.get(&of_message(row)).is_none_or(|(rank, has_failed)| *has_failed || row.1.state.rank() == *rank)
    };
    rows.into_iter().filter(stays).collect()
}

async fn log(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
    let billing = |status: &StatusDetail| status.conversation.clone().unwrap_or_default();
    let pricing = |status: &StatusDetail| status.pricing.clone().unwrap_or_default();
    let errors = |status: &StatusDetail| {
        (!status.errors.is_empty()).then(|| serde_json::to_string(&status.errors).unwrap_or_default())
    };
    sqlx::query(
        "INSERT INTO statuses (tenant, key, number, message_id, status, occurred_at, received_at, recipient, \
         recipient_user_id, participant, conversation_id, conversation_origin, conversation_expires_at, \
         pricing_billable, \
         pricing_model, pricing_type, pricing_category, errors, biz_opaque_callback_data) \
         SELECT * FROM UNNEST($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], \
         $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], \
         $14::boolean[], \
         $15::text[], $16::text[], $17::text[], $18::text[], $19::text[])",
    )
    .bind(column(rows, |(each, _)| each.update.tenant.as_str()))
    .bind(column(rows, |(each, _)| each.update.key.0))
    .bind(column(rows, |(each, _)| each.update.event.number.as_ref().map(NumberId::as_str)))
    .bind(column(rows, |(_, status)| storable(&status.message_id)))
    .bind(column(rows, |(_, status)| status.state.as_str()))
    .bind(column(rows, |(each, _)| Moment::from(each.update.event.occurred_at)))
    .bind(column(rows, |(each, _)| Moment::from(each.update.received_at)))
    .bind(column(rows, |(each, _)| optional(each.update.event.party.phone.as_ref())))
    .bind(column(rows, |(each, _)| optional(each.update.event.party.user_id.as_ref())))
    .bind(column(rows, |(_, status)| optional(status.participant.as_ref())))
    .bind(column(rows, |(_, status)| billing(status).id.map(|id| storable(&id).into_owned())))
    .bind(column(rows, |(_, status)| billing(status).origin.map(|origin| storable(&origin).into_owned())))
    .bind(column(rows, |(_, status)| billing(status).expires_at))
    .bind(column(rows, |(_, status)| pricing(status).billable))
    .bind(column(rows, |(_, status)| pricing(status).model.map(|model| storable(&model).into_owned())))
    .bind(column(rows, |(_, status)| pricing(status).r#type.map(|kind| storable(&kind).into_owned())))
    .bind(column(rows, |(_, status)| pricing(status).category.map(|category| storable(&category).into_owned())))
    .bind(column(rows, |(_, status)| errors(status)))
    .bind(column(rows, |(_, status)| optional(status.biz_opaque_callback_data.as_ref())))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Only forward, and nothing after `failed`: the rule of `common::status::DeliveryState::after`.
async fn advance(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO message_states (tenant, number, message_id, participant, state, rank, changed_at) \
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::smallint[], \
         $7::timestamptz[]) \
         ON CONFLICT (tenant, number, message_id, participant) DO UPDATE \
         SET state = excluded.state, rank = excluded.rank, changed_at = excluded.changed_at \
         WHERE excluded.rank > message_states.rank AND message_states.state <> 'failed'",
    )
    .bind(column(rows, |(each, _)| each.update.tenant.as_str()))
    .bind(column(rows, |(each, _)| each.update.event.number.as_ref().map_or("", NumberId::as_str)))
    .bind(column(rows, |(_, status)| storable(&status.message_id)))
    .bind(column(rows, |(_, status)| storable(status.participant.as_deref().unwrap_or_default())))
    .bind(column(rows, |(_, status)| status.state.as_str()))
    .bind(column(rows, |(_, status)| i16::from(status.state.rank())))
    .bind(column(rows, |(each, _)| Moment::from(each.update.event.occurred_at)))
    .execute(connection)
    .await
    .map(|_| ())
}
