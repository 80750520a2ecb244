//! Parked envelopes and places of raw bytes on PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::envelope::ParkReason;
use common::{EnvelopeId, NumberId, TenantId, Timestamp};
use ports::Unavailable;
use ports::event_store::RawObject;
use ports::parking::{Due, ParkedFilter, ParkedGroup, ParkedRow, Parking};
use ports::raw::{RawIndex, RawPlace};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row as _};
use uuid::Uuid;

use super::database::{Database, bounded, settle};
use super::values::{Moment, column, signed};

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresParking {
    database: Arc<Database>,
}

const COLUMNS: &str = "envelope, tenant, reason, number, received_at, updates, due_at";
const MATCHES: &str = "($1::uuid IS NULL OR envelope = $1) AND ($2::text IS NULL OR tenant = $2) \
                       AND ($3::text IS NULL OR reason = $3) AND ($4::text IS NULL OR number = $4)";

/// Rows that one statement makes due: of a million, each statement has little to do.
const PORTION: i64 = 10_000;

type Statement<'q> = Query<'q, Postgres, PgArguments>;

fn filtered(sql: String, filter: &ParkedFilter) -> Statement<'_> {
    sqlx::query(AssertSqlSafe(sql))
        .bind(filter.envelope.map(|envelope| envelope.0))
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.reason.map(ParkReason::as_str))
        .bind(filter.number.as_ref().map(NumberId::as_str))
}

impl PostgresParking {
    pub(super) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    async fn fetch(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let rows = bounded(statement.fetch_all(&mut *connection)).await;
        settle(connection, rows)
    }

    async fn execute(&self, statement: Statement<'_>) -> Result<u64, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let done = bounded(statement.execute(&mut *connection)).await;
        settle(connection, done).map(|done| done.rows_affected())
    }
}

#[async_trait]
impl Parking for PostgresParking {
    async fn list(
        &self,
        filter: &ParkedFilter,
        after: Option<(Timestamp, EnvelopeId)>,
        limit: u32,
    ) -> Result<Vec<ParkedRow>, Unavailable> {
        let sql = format!(
            "SELECT {COLUMNS} FROM parked WHERE {MATCHES} \
             AND ($5::timestamptz IS NULL OR (received_at, envelope) > ($5, $6::uuid)) \
             ORDER BY received_at, envelope LIMIT $7"
        );
        let statement = filtered(sql, filter)
            .bind(after.map(|(at, _)| Moment::from(at)))
            .bind(after.map(|(_, envelope)| envelope.0))
            .bind(i64::from(limit));
        self.fetch(statement).await?.iter().map(row).collect()
    }

    async fn groups(&self) -> Result<Vec<ParkedGroup>, Unavailable> {
        let statement = sqlx::query(
            "SELECT tenant, reason, number, count(*) AS envelopes, sum(updates)::bigint AS updates, \
             min(received_at) AS oldest FROM parked GROUP BY tenant, reason, number \
             ORDER BY tenant, reason COLLATE \"C\", number NULLS FIRST",
        );
        let group = |row: &PgRow| {
            Ok(ParkedGroup {
                tenant: tenant(row)?,
                reason: reason(row)?,
                number: number(row)?,
                envelopes: row.get::<i64, _>("envelopes").unsigned_abs(),
                updates: row.get::<i64, _>("updates").unsigned_abs(),
                oldest: row.get::<Moment, _>("oldest").into(),
            })
        };
        self.fetch(statement).await?.iter().map(group).collect()
    }

    async fn make_due(&self, filter: &ParkedFilter, at: Timestamp, forced: bool) -> Result<u64, Unavailable> {
        let sql = format!(
            "WITH portion AS MATERIALIZED (SELECT envelope, received_at FROM parked WHERE {MATCHES} \
                 AND ($7::timestamptz IS NULL OR (received_at, envelope) > ($7, $8::uuid)) \
                 ORDER BY received_at, envelope LIMIT $9), \
             changed AS (UPDATE parked SET due_at = least(due_at, $5), forced = forced OR $6, \
                 taken_until = CASE WHEN $6 THEN '-infinity' ELSE taken_until END FROM portion \
                 WHERE parked.envelope = portion.envelope \
                 AND (due_at IS NULL OR due_at > $5 OR ($6 AND NOT forced))) \
             SELECT received_at, envelope, count(*) OVER () AS portion FROM portion \
             ORDER BY received_at DESC, envelope DESC LIMIT 1"
        );
        let (mut total, mut after) = (0, None::<(Moment, Uuid)>);
        loop {
            let statement = filtered(sql.clone(), filter).bind(Moment::from(at)).bind(forced);
            let statement = statement.bind(after.map(|after| after.0)).bind(after.map(|after| after.1)).bind(PORTION);
            let rows = self.fetch(statement).await?;
            let Some(last) = rows.first() else { return Ok(total) };
            let portion: i64 = last.get("portion");
            total += portion.unsigned_abs();
            if portion < PORTION {
                return Ok(total);
            }
            after = Some((last.get("received_at"), last.get("envelope")));
        }
    }

    async fn take_due(&self, now: Timestamp, max: usize, lease: Duration) -> Result<Vec<Due>, Unavailable> {
        let sql = format!(
            "UPDATE parked SET taken_until = now() + $1 * interval '1 microsecond' WHERE envelope IN \
             (SELECT envelope FROM parked WHERE due_at <= $2 AND taken_until <= now() \
              ORDER BY due_at, received_at, envelope LIMIT $3 FOR UPDATE SKIP LOCKED) \
             RETURNING {COLUMNS}, forced, sealed"
        );
        let statement =
            sqlx::query(AssertSqlSafe(sql)).bind(signed(lease.as_micros())).bind(Moment::from(now)).bind(signed(max));
        due(&self.fetch(statement).await?)
    }

    async fn put_back(&self, envelopes: &[EnvelopeId], due_at: Option<Timestamp>) -> Result<(), Unavailable> {
        let statement = sqlx::query(
            "UPDATE parked SET due_at = $2, taken_until = '-infinity', forced = false \
             WHERE envelope = ANY($1) AND taken_until > '-infinity'",
        )
        .bind(column(envelopes, |envelope| envelope.0))
        .bind(due_at.map(Moment::from));
        self.execute(statement).await.map(|_| ())
    }

    async fn expire(&self, received_before: Timestamp, max: usize) -> Result<Vec<ParkedRow>, Unavailable> {
        let sql = format!(
            "DELETE FROM parked WHERE envelope IN (SELECT envelope FROM parked WHERE received_at < $1 \
             ORDER BY received_at, envelope LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING {COLUMNS}"
        );
        let statement = sqlx::query(AssertSqlSafe(sql)).bind(Moment::from(received_before)).bind(signed(max));
        let mut rows: Vec<ParkedRow> = self.fetch(statement).await?.iter().map(row).collect::<Result<_, _>>()?;
        rows.sort_by_key(|row| (row.received_at, row.envelope));
        Ok(rows)
    }
}

#[async_trait]
impl RawIndex for PostgresParking {
    async fn find(&self, envelope: EnvelopeId) -> Result<Option<RawPlace>, Unavailable> {
        let statement = sqlx::query(
            "SELECT object, \"offset\", length, NULL::bytea AS sealed, 1 AS rank FROM raw_objects WHERE envelope = $1 \
             UNION ALL SELECT NULL, NULL, NULL, sealed, 2 FROM raw_pending WHERE envelope = $1 \
             UNION ALL SELECT NULL, NULL, NULL, sealed, 3 FROM parked WHERE envelope = $1 ORDER BY rank LIMIT 1",
        )
        .bind(envelope.0);
        let rows = self.fetch(statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(match row.get::<Option<String>, _>("object") {
            Some(object) => RawPlace::Object(RawObject {
                envelope,
                object,
                offset: row.get::<i64, _>("offset").unsigned_abs(),
                length: row.get::<i64, _>("length").unsigned_abs(),
            }),
            None => RawPlace::Here(Bytes::from(row.get::<Vec<u8>, _>("sealed"))),
        }))
    }

    async fn forget_below(&self, object: &str, max: usize) -> Result<u64, Unavailable> {
        let statement = sqlx::query(
            "DELETE FROM raw_objects WHERE envelope IN (SELECT envelope FROM raw_objects \
             WHERE object COLLATE \"C\" < $1 COLLATE \"C\" LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(object)
        .bind(signed(max));
        self.execute(statement).await
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::new("a parked envelope's row (written by newer software?)", error)
}

fn tenant(row: &PgRow) -> Result<TenantId, Unavailable> {
    row.get::<&str, _>("tenant").parse().map_err(unreadable)
}

fn reason(row: &PgRow) -> Result<ParkReason, Unavailable> {
    ParkReason::from_name(row.get("reason")).ok_or_else(|| unreadable("an unknown reason"))
}

fn number(row: &PgRow) -> Result<Option<NumberId>, Unavailable> {
    row.get::<Option<&str>, _>("number").map(|text| text.parse().map_err(unreadable)).transpose()
}

fn row(row: &PgRow) -> Result<ParkedRow, Unavailable> {
    Ok(ParkedRow {
        envelope: EnvelopeId(row.get::<Uuid, _>("envelope")),
        tenant: tenant(row)?,
        reason: reason(row)?,
        number: number(row)?,
        received_at: row.get::<Moment, _>("received_at").into(),
        updates: u32::try_from(row.get::<i64, _>("updates")).unwrap_or(u32::MAX),
        due_at: row.get::<Option<Moment>, _>("due_at").map(Into::into),
    })
}

/// In the order in which they are due, which RETURNING does not keep.
fn due(rows: &[PgRow]) -> Result<Vec<Due>, Unavailable> {
    let one = |each: &PgRow| {
        let sealed = Bytes::from(each.get::<Vec<u8>, _>("sealed"));
        Ok(Due { row: row(each)?, is_forced: each.get("forced"), sealed })
    };
    let mut due: Vec<Due> = rows.iter().map(one).collect::<Result<_, Unavailable>>()?;
    due.sort_by_key(|due| (due.row.due_at, due.row.received_at, due.row.envelope));
    Ok(due)
}
