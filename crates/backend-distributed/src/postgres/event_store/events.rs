//! Events with their positions, and the outbox.

use common::NumberId;
use common::event::EventType;
use sqlx::postgres::PgConnection;

use super::Resolved;
use crate::postgres::values::{Moment, column, signed};

/// Stores events and their outbox rows, with positions in the order given. From here on until its commit no other
/// transaction gets positions.
pub(super) async fn events(connection: &mut PgConnection, new: &[Resolved<'_>]) -> Result<(), sqlx::Error> {
    if new.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "WITH reserved AS MATERIALIZED (SELECT reserve_positions($1) AS last), \
         stored AS (INSERT INTO events (position, tenant, key, event_type, occurred_at, received_at, number, \
             conversation, partition, data) \
             SELECT reserved.last - $1 + new.place, tenant, key, event_type, occurred_at, received_at, number, \
                 conversation, partition, data \
             FROM reserved CROSS JOIN UNNEST($2::text[], $3::bytea[], $4::text[], $5::timestamptz[], \
                 $6::timestamptz[], $7::text[], $8::uuid[], $9::smallint[], $10::bytea[]) WITH ORDINALITY \
                 AS new (tenant, key, event_type, occurred_at, received_at, number, conversation, partition, data, place) \
             RETURNING position, received_at, partition, octet_length(data) AS bytes) \
         INSERT INTO outbox (position, received_at, partition, bytes) SELECT * FROM stored",
    )
    .bind(signed(new.len()))
    .bind(column(new, |each| each.update.tenant.as_str()))
    .bind(column(new, |each| each.update.key.0))
    .bind(column(new, |each| EventType::as_str(each.update.event.event_type)))
    .bind(column(new, |each| Moment::from(each.update.event.occurred_at)))
    .bind(column(new, |each| Moment::from(each.update.received_at)))
    .bind(column(new, |each| each.update.event.number.as_ref().map(NumberId::as_str)))
    .bind(column(new, |each| each.conversation))
    .bind(column(new, |each| i16::try_from(each.partition).unwrap_or(0)))
    .bind(column(new, |each| &*each.update.event.data))
    .execute(connection)
    .await
    .map(|_| ())
}
