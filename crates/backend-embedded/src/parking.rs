//! Parked envelopes and places of raw bytes on SQLite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::envelope::ParkReason;
use common::{Clock, EnvelopeId, TenantId, Timestamp};
use ports::Unavailable;
use ports::event_store::RawObject;
use ports::parking::{Due, ParkedFilter, ParkedGroup, ParkedRow, Parking};
use ports::raw::{RawIndex, RawPlace};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Sqlite, query::Query};
use uuid::Uuid;

use crate::sqlite::{Database, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteParking {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
}

impl SqliteParking {
    pub(crate) const fn new(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }
}

const COLUMNS: &str = "envelope, tenant, reason, number, received_at, updates, due_at";
const MATCHES: &str = "(?1 IS NULL OR envelope = ?1) AND (?2 IS NULL OR tenant = ?2) AND (?3 IS NULL OR reason = ?3) \
                       AND (?4 IS NULL OR number = ?4)";

/// Rows that one transaction makes due: others write in between.
const PORTION: i64 = 10_000;

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

fn filtered<'q>(sql: String, filter: &ParkedFilter) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(sql))
        .bind(filter.envelope.map(bytes))
        .bind(filter.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
        .bind(filter.reason.map(ParkReason::as_str))
        .bind(filter.number.as_ref().map(|number| number.as_str().to_owned()))
}

fn bytes(envelope: EnvelopeId) -> Vec<u8> {
    envelope.0.as_bytes().to_vec()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl SqliteParking {
    /// Runs statements that write, in one transaction; the rows of the last one that was given.
    async fn write(&self, statements: Vec<Statement<'_>>) -> Result<(Vec<SqliteRow>, u64), Unavailable> {
        let mut writer = self.database.writer().await?;
        let result = async {
            let mut transaction = writer.begin().await?;
            let (mut rows, mut affected) = (Vec::new(), 0);
            for statement in statements {
                rows = statement.fetch_all(&mut *transaction).await.map_err(unavailable)?;
                affected += sqlx::query_scalar::<_, i64>("SELECT changes()")
                    .fetch_one(&mut *transaction)
                    .await
                    .map_err(unavailable)?
                    .unsigned_abs();
            }
            transaction.commit().await.map_err(unavailable)?;
            Ok((rows, affected))
        }
        .await;
        if result.is_err() {
            writer.discard().await;
        }
        result
    }
}

#[async_trait]
impl Parking for SqliteParking {
    async fn list(
        &self,
        filter: &ParkedFilter,
        after: Option<(Timestamp, EnvelopeId)>,
        limit: u32,
    ) -> Result<Vec<ParkedRow>, Unavailable> {
        let sql = format!(
            "SELECT {COLUMNS} FROM parked WHERE {MATCHES} AND (?5 IS NULL OR (received_at, envelope) > (?5, ?6)) \
             ORDER BY received_at, envelope LIMIT ?7"
        );
        let rows = filtered(sql, filter)
            .bind(after.map(|(at, _)| at.as_millis()))
            .bind(after.map(|(_, envelope)| bytes(envelope)))
            .bind(limit)
            .fetch_all(&self.database.readers)
            .await
            .map_err(unavailable)?;
        rows.iter().map(row).collect()
    }

    async fn groups(&self) -> Result<Vec<ParkedGroup>, Unavailable> {
        let rows = sqlx::query(
            "SELECT tenant, reason, number, count(*) AS envelopes, sum(updates) AS updates, min(received_at) AS oldest \
             FROM parked GROUP BY tenant, reason, number ORDER BY tenant, reason, number",
        )
        .fetch_all(&self.database.readers)
        .await
        .map_err(unavailable)?;
        let group = |row: &SqliteRow| {
            Ok(ParkedGroup {
                tenant: tenant(row)?,
                reason: reason(row)?,
                number: number(row)?,
                envelopes: row.get::<i64, _>("envelopes").unsigned_abs(),
                updates: row.get::<i64, _>("updates").unsigned_abs(),
                oldest: Timestamp::from_millis(row.get("oldest")),
            })
        };
        rows.iter().map(group).collect()
    }

    async fn make_due(&self, filter: &ParkedFilter, at: Timestamp, forced: bool) -> Result<u64, Unavailable> {
        let last = format!(
            "SELECT received_at, envelope, count(*) OVER () AS portion FROM (SELECT received_at, envelope FROM parked \
                 WHERE {MATCHES} AND (?5 IS NULL OR (received_at, envelope) > (?5, ?6)) \
                 ORDER BY received_at, envelope LIMIT ?7) ORDER BY received_at DESC, envelope DESC LIMIT 1"
        );
        let change = format!(
            "UPDATE parked SET due_at = min(coalesce(due_at, ?5), ?5), forced = max(forced, ?6), \
                 taken_until = CASE WHEN ?6 THEN 0 ELSE taken_until END \
             WHERE {MATCHES} AND (?7 IS NULL OR (received_at, envelope) > (?7, ?8)) AND (received_at, envelope) <= (?9, ?10) \
                 AND (due_at IS NULL OR due_at > ?5 OR (?6 AND NOT forced))"
        );
        let (mut total, mut after) = (0, None::<(i64, Vec<u8>)>);
        loop {
            let (from, behind) = after.unzip();
            let query = filtered(last.clone(), filter).bind(from).bind(behind.clone()).bind(PORTION);
            let row = query.fetch_optional(&self.database.readers).await.map_err(unavailable)?;
            let Some(row) = row else { return Ok(total) };
            let (upto, portion): ((i64, Vec<u8>), i64) = ((row.get(0), row.get(1)), row.get(2));
            let statement = filtered(change.clone(), filter).bind(at.as_millis()).bind(forced);
            self.write(vec![statement.bind(from).bind(behind).bind(upto.0).bind(upto.1.clone())]).await?;
            total += portion.unsigned_abs();
            if portion < PORTION {
                return Ok(total);
            }
            after = Some(upto);
        }
    }

    async fn take_due(&self, now: Timestamp, max: usize, lease: Duration) -> Result<Vec<Due>, Unavailable> {
        let clock = self.clock.now();
        let sql = format!(
            "UPDATE parked SET taken_until = ?1 WHERE envelope IN (SELECT envelope FROM parked \
             WHERE due_at <= ?2 AND taken_until <= ?3 ORDER BY due_at, received_at, envelope LIMIT ?4) \
             RETURNING {COLUMNS}, forced, sealed"
        );
        let statement = sqlx::query(AssertSqlSafe(sql))
            .bind(clock.plus(lease).as_millis())
            .bind(now.as_millis())
            .bind(clock.as_millis())
            .bind(count(max));
        due(&self.write(vec![statement]).await?.0)
    }

    async fn put_back(&self, envelopes: &[EnvelopeId], due_at: Option<Timestamp>) -> Result<(), Unavailable> {
        let statement = |envelope: &EnvelopeId| {
            sqlx::query(
                "UPDATE parked SET due_at = ?2, taken_until = 0, forced = 0 WHERE envelope = ?1 AND taken_until > 0",
            )
            .bind(bytes(*envelope))
            .bind(due_at.map(Timestamp::as_millis))
        };
        self.write(envelopes.iter().map(statement).collect()).await.map(|_| ())
    }

    async fn expire(&self, received_before: Timestamp, max: usize) -> Result<Vec<ParkedRow>, Unavailable> {
        let sql = format!(
            "DELETE FROM parked WHERE envelope IN (SELECT envelope FROM parked WHERE received_at < ?1 \
             ORDER BY received_at, envelope LIMIT ?2) RETURNING {COLUMNS}"
        );
        let statement = sqlx::query(AssertSqlSafe(sql)).bind(received_before.as_millis()).bind(count(max));
        let mut rows: Vec<ParkedRow> =
            self.write(vec![statement]).await?.0.iter().map(row).collect::<Result<_, _>>()?;
        rows.sort_by_key(|row| (row.received_at, row.envelope));
        Ok(rows)
    }
}

#[async_trait]
impl RawIndex for SqliteParking {
    async fn find(&self, envelope: EnvelopeId) -> Result<Option<RawPlace>, Unavailable> {
        let mut transaction = self.database.readers.begin().await.map_err(unavailable)?;
        let object = sqlx::query("SELECT object, offset, length FROM raw_objects WHERE envelope = ?")
            .bind(bytes(envelope))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
        if let Some(row) = object {
            let number = |column: &str| row.get::<i64, _>(column).unsigned_abs();
            let object = row.get("object");
            let (offset, length) = (number("offset"), number("length"));
            return Ok(Some(RawPlace::Object(RawObject { envelope, object, offset, length })));
        }
        let here: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT sealed FROM raw_pending WHERE envelope = ?1 \
             UNION ALL SELECT sealed FROM parked WHERE envelope = ?1 LIMIT 1",
        )
        .bind(bytes(envelope))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(unavailable)?;
        Ok(here.map(|sealed| RawPlace::Here(Bytes::from(sealed))))
    }

    async fn forget_below(&self, object: &str, max: usize) -> Result<u64, Unavailable> {
        let statement = sqlx::query(
            "DELETE FROM raw_objects WHERE envelope IN (SELECT envelope FROM raw_objects WHERE object < ?1 LIMIT ?2)",
        )
        .bind(object.to_owned())
        .bind(count(max));
        Ok(self.write(vec![statement]).await?.1)
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::new("a parked envelope's row (written by newer software?)", error)
}

fn tenant(row: &SqliteRow) -> Result<TenantId, Unavailable> {
    row.get::<&str, _>("tenant").parse().map_err(unreadable)
}

fn reason(row: &SqliteRow) -> Result<ParkReason, Unavailable> {
    ParkReason::from_name(row.get("reason")).ok_or_else(|| unreadable("an unknown reason"))
}

fn number(row: &SqliteRow) -> Result<Option<common::NumberId>, Unavailable> {
    row.get::<Option<&str>, _>("number").map(|text| text.parse().map_err(unreadable)).transpose()
}

fn row(row: &SqliteRow) -> Result<ParkedRow, Unavailable> {
    Ok(ParkedRow {
        envelope: EnvelopeId(Uuid::from_slice(row.get("envelope")).map_err(unreadable)?),
        tenant: tenant(row)?,
        reason: reason(row)?,
        number: number(row)?,
        received_at: Timestamp::from_millis(row.get("received_at")),
        updates: u32::try_from(row.get::<i64, _>("updates")).unwrap_or(u32::MAX),
        due_at: row.get::<Option<i64>, _>("due_at").map(Timestamp::from_millis),
    })
}

/// In the order in which they are due, which RETURNING does not keep.
fn due(rows: &[SqliteRow]) -> Result<Vec<Due>, Unavailable> {
    let one = |each: &SqliteRow| {
        let sealed = Bytes::from(each.get::<Vec<u8>, _>("sealed"));
        Ok(Due { row: row(each)?, is_forced: each.get("forced"), sealed })
    };
    let mut due: Vec<Due> = rows.iter().map(one).collect::<Result<_, Unavailable>>()?;
    due.sort_by_key(|due| (due.row.due_at, due.row.received_at, due.row.envelope));
    Ok(due)
}
