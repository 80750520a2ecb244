//! The other things a batch writes: parked envelopes, places of raw bytes, attempts.

use std::collections::HashSet;

use bytes::Bytes;
use common::envelope::ParkReason;
use common::{EnvelopeId, NumberId};
use ports::event_store::{Parked, RawObject, RawPending};
use ports::statistics::rollup::Messages;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::postgres::feed::PAGE_BYTES;
use crate::postgres::values::{Moment, column, signed, storable};

/// References in the order of their envelopes: whoever writes the same rows does so in the same order.
fn by_envelope<R>(rows: &[R], envelope: impl Fn(&R) -> EnvelopeId) -> Vec<&R> {
    let mut sorted: Vec<&R> = rows.iter().collect();
    sorted.sort_by_key(|row| envelope(row));
    sorted
}

pub(super) async fn park<'a>(
    connection: &mut PgConnection,
    parked: &'a [Parked],
    counted: &mut Messages<'a>,
) -> Result<(), sqlx::Error> {
    if parked.is_empty() {
        return Ok(());
    }
    let rows = by_envelope(parked, |each| each.envelope);
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO parked (envelope, tenant, reason, number, received_at, updates, sealed, due_at) \
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], \
         $7::bytea[], $8::timestamptz[]) \
         ON CONFLICT (envelope) DO NOTHING RETURNING envelope",
    )
    .bind(column(&rows, |each| each.envelope.0))
    .bind(column(&rows, |each| each.tenant.as_str()))
    .bind(column(&rows, |each| each.reason.as_str()))
    .bind(column(&rows, |each| each.number.as_ref().map(NumberId::as_str)))
    .bind(column(&rows, |each| Moment::from(each.received_at)))
    .bind(column(&rows, |each| i64::from(each.updates)))
    .bind(column(&rows, |each| &*each.sealed))
    .bind(column(&rows, |each| each.due_at.map(Moment::from)))
    .fetch_all(&mut *connection)
    .await?;
    let mut new: HashSet<Uuid> = new.into_iter().collect();
    for parked in parked.iter().filter(|each| new.remove(&each.envelope.0)) {
        counted.parked(parked);
        take_turn(connection, parked).await?;
    }
    Ok(())
}

/// Gives a throttled envelope its turn: a window after its receipt, and a window after the one that its sender may have
/// let go with it.
async fn take_turn(connection: &mut PgConnection, parked: &Parked) -> Result<(), sqlx::Error> {
    let Some(pace) = parked.pace else { return Ok(()) };
    sqlx::query(
        "UPDATE parked SET sender = $2, due_at = greatest(received_at + $3 * interval '1 microsecond', \
         (SELECT other.due_at FROM parked AS other WHERE other.tenant = parked.tenant AND other.sender = $2 \
          AND other.envelope <> $1 AND other.due_at IS NOT NULL ORDER BY other.due_at DESC LIMIT 1 OFFSET $4) + $3 * interval '1 microsecond') \
         WHERE envelope = $1",
    )
    .bind(parked.envelope.0)
    .bind(pace.sender.0.as_slice())
    .bind(signed(pace.window.as_micros()))
    .bind(i64::from(pace.max.saturating_sub(1)))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Takes envelopes out of their parking place; whether one of them was throttled.
pub(super) async fn release(connection: &mut PgConnection, envelopes: &[EnvelopeId]) -> Result<bool, sqlx::Error> {
    if envelopes.is_empty() {
        return Ok(false);
    }
    let rows = by_envelope(envelopes, |envelope| *envelope);
    let reasons: Vec<String> = sqlx::query_scalar("DELETE FROM parked WHERE envelope = ANY($1) RETURNING reason")
        .bind(column(&rows, |envelope| envelope.0))
        .fetch_all(connection)
        .await?;
    Ok(reasons.iter().any(|reason| reason == ParkReason::Throttled.as_str()))
}

pub(super) async fn raw_objects(connection: &mut PgConnection, objects: &[RawObject]) -> Result<(), sqlx::Error> {
    if objects.is_empty() {
        return Ok(());
    }
    let rows = by_envelope(objects, |object| object.envelope);
    sqlx::query(
        "INSERT INTO raw_objects (envelope, object, \"offset\", length) \
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::bigint[]) ON CONFLICT (envelope) DO NOTHING",
    )
    .bind(column(&rows, |object| object.envelope.0))
    .bind(column(&rows, |object| storable(&object.object)))
    .bind(column(&rows, |object| signed(object.offset)))
    .bind(column(&rows, |object| signed(object.length)))
    .execute(connection)
    .await
    .map(|_| ())
}

/// In the order given, which is that of their age.
pub(super) async fn raw_pending(connection: &mut PgConnection, pending: &[RawPending]) -> Result<(), sqlx::Error> {
    if pending.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO raw_pending (envelope, sealed) SELECT * FROM UNNEST($1::uuid[], $2::bytea[]) \
         ON CONFLICT (envelope) DO NOTHING",
    )
    .bind(column(pending, |each| each.envelope.0))
    .bind(column(pending, |each| &*each.sealed))
    .execute(connection)
    .await
    .map(|_| ())
}

/// The oldest envelopes that wait for the blob store, at most [`PAGE_BYTES`] and one more.
pub(super) async fn oldest_pending(connection: &mut PgConnection, max: usize) -> Result<Vec<RawPending>, sqlx::Error> {
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT envelope, sealed FROM (SELECT *, sum(octet_length(sealed)) OVER (ORDER BY id) - octet_length(sealed) \
             AS before FROM (SELECT * FROM raw_pending ORDER BY id LIMIT $1) AS page) AS sized \
         WHERE before < $2 ORDER BY id",
    )
    .bind(signed(max))
    .bind(PAGE_BYTES)
    .fetch_all(connection)
    .await?;
    let pending = |(envelope, sealed)| RawPending { envelope: EnvelopeId(envelope), sealed: Bytes::from(sealed) };
    Ok(rows.into_iter().map(pending).collect())
}

pub(super) async fn no_longer_pending(connection: &mut PgConnection, objects: &[RawObject]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM raw_pending WHERE envelope = ANY($1)")
        .bind(column(objects, |object| object.envelope.0))
        .execute(connection)
        .await
        .map(|_| ())
}

/// Clears attempt counters. The table is nearly always empty.
pub(super) async fn finish(connection: &mut PgConnection, finished: &[EnvelopeId]) -> Result<(), sqlx::Error> {
    if finished.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM attempts WHERE envelope = ANY($1)")
        .bind(column(finished, |envelope| envelope.0))
        .execute(connection)
        .await
        .map(|_| ())
}
