//! Statistics, read from the roll-ups; messages from their table.

use std::sync::Arc;

use async_trait::async_trait;
use common::Timestamp;
use common::record::SignatureStatus;
use common::update::Provider;
use ports::Unavailable;
use ports::statistics::rollup::{Answers, Kind, minute};
use ports::statistics::{PerformanceRow, ProcessingRow, SecurityRow, SecurityTotals, Statistics, TOP_ADDRESSES};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::database::{Database, ONE_MOMENT, bounded, settle};
use super::values::{Moment, signed};

/// Of the roll-ups: the time and the source.
const WHERE: &str = "WHERE bucket_start >= $1 AND bucket_start < $2 AND ($3::text IS NULL OR webhook_source = $3)";
/// When the hour of a row began.
const HOUR: &str = "date_trunc('hour', bucket_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour";

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresStatistics {
    database: Arc<Database>,
}

impl PostgresStatistics {
    pub(super) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

/// What is asked for, as it is bound.
#[derive(Clone, Copy)]
struct Asked {
    source: Option<&'static str>,
    since: Moment,
    until: Moment,
}

impl Asked {
    /// Of exact times.
    fn exactly(source: Option<Provider>, since: Timestamp, until: Timestamp) -> Self {
        Self { source: source.map(Provider::webhook_source), since: since.into(), until: until.into() }
    }

    /// Of the roll-ups, by whole minutes.
    fn new(source: Option<Provider>, since: Timestamp, until: Timestamp) -> Self {
        Self::exactly(source, minute(since), until)
    }

    async fn rows(self, connection: &mut PgConnection, sql: String) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.since).bind(self.until).bind(self.source);
        query.fetch_all(connection).await
    }
}

fn count(row: &PgRow, index: usize) -> u64 {
    row.get::<Option<i64>, _>(index).unwrap_or_default().unsigned_abs()
}

fn milliseconds(row: &PgRow, index: usize) -> f64 {
    row.get::<Option<f64>, _>(index).unwrap_or_default()
}

fn source(row: &PgRow, index: usize) -> Option<Provider> {
    Provider::from_webhook_source(row.get(index))
}

#[async_trait]
impl Statistics for PostgresStatistics {
    async fn processing(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<ProcessingRow>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let rows = bounded(processing(&mut connection, Asked::exactly(source, since, until))).await;
        settle(connection, rows)
    }

    async fn security(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<SecurityRow>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let rows = bounded(security(&mut connection, Asked::new(source, since, until))).await;
        settle(connection, rows)
    }

    async fn performance(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<PerformanceRow>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let rows = bounded(performance(&mut connection, Asked::new(source, since, until))).await;
        settle(connection, rows)
    }

    async fn security_totals(&self, since: Timestamp, until: Timestamp) -> Result<SecurityTotals, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let totals = bounded(security_totals(&mut connection, Asked::new(None, since, until))).await;
        settle(connection, totals)
    }
}

async fn processing(connection: &mut PgConnection, asked: Asked) -> Result<Vec<ProcessingRow>, sqlx::Error> {
    let sql = "SELECT webhook_source, status, count(*), avg(response_time_ms), max(response_time_ms), \
               sum(duplicate_count), sum(error_count) FROM messages \
               WHERE created_at >= $1 AND created_at < $2 AND ($3::text IS NULL OR webhook_source = $3) \
               GROUP BY 1, 2 ORDER BY webhook_source COLLATE \"C\", status COLLATE \"C\"";
    let rows = asked.rows(connection, sql.to_owned()).await?;
    let row = |row: &PgRow| {
        Some(ProcessingRow {
            source: source(row, 0)?,
            status: row.get(1),
            messages: count(row, 2),
            average_ms: milliseconds(row, 3),
            max_ms: milliseconds(row, 4),
            duplicates: count(row, 5),
            errors: count(row, 6),
        })
    };
    Ok(rows.iter().filter_map(row).collect())
}

async fn security(connection: &mut PgConnection, asked: Asked) -> Result<Vec<SecurityRow>, sqlx::Error> {
    let sql = format!(
        "SELECT webhook_source, {HOUR}, sum(request_count)::bigint, \
         (sum(request_count) FILTER (WHERE signature_status = 'valid'))::bigint, \
         (sum(request_count) FILTER (WHERE signature_status NOT IN ('valid', 'skipped')))::bigint, \
         (sum(request_count) FILTER (WHERE suspicious))::bigint \
         FROM webhook_security_metrics {WHERE} GROUP BY 1, 2 ORDER BY hour DESC, 1"
    );
    let rows = asked.rows(connection, sql).await?;
    let row = |row: &PgRow| {
        Some(SecurityRow {
            source: source(row, 0)?,
            hour: row.get::<Moment, _>(1).into(),
            requests: count(row, 2),
            valid: count(row, 3),
            invalid: count(row, 4),
            suspicious: count(row, 5),
        })
    };
    Ok(rows.iter().filter_map(row).collect())
}

async fn performance(connection: &mut PgConnection, asked: Asked) -> Result<Vec<PerformanceRow>, sqlx::Error> {
    let sums = format!(
        "SELECT webhook_source, endpoint_path, {HOUR}, sum(request_count)::bigint, sum(success_count)::bigint, \
         sum(failure_count)::bigint, sum(sum_ms), max(max_ms) FROM webhook_performance_metrics {WHERE} \
         GROUP BY 1, 2, 3 ORDER BY hour DESC, 1, 2"
    );
    let buckets = format!(
        "SELECT webhook_source, endpoint_path, {HOUR}, counted.bucket - 1, sum(counted.requests)::bigint \
         FROM webhook_performance_metrics \
         CROSS JOIN LATERAL unnest(histogram) WITH ORDINALITY AS counted (requests, bucket) {WHERE} \
         AND counted.requests > 0 GROUP BY 1, 2, 3, 4 ORDER BY hour DESC, 1, 2"
    );
    let mut transaction = connection.begin_with(ONE_MOMENT).await?;
    let sums = asked.rows(&mut transaction, sums).await?;
    let buckets = asked.rows(&mut transaction, buckets).await?;
    transaction.commit().await?;
    let mut buckets = buckets.iter().peekable();
    let key = |row: &PgRow| (row.get::<String, _>(0), row.get::<String, _>(1), row.get::<Moment, _>(2));
    let mut rows = Vec::with_capacity(sums.len());
    for row in &sums {
        let mut answers = Answers {
            requests: count(row, 3),
            succeeded: count(row, 4),
            failed: count(row, 5),
            sum_ms: milliseconds(row, 6),
            max_ms: milliseconds(row, 7),
            ..Answers::default()
        };
        // Both are in the same order.
        while let Some(bucket) = buckets.next_if(|bucket| key(bucket) == key(row)) {
            let place = usize::try_from(bucket.get::<i64, _>(3)).unwrap_or(usize::MAX);
            answers.histogram.count_in(place, count(bucket, 4));
        }
        let Some(source) = source(row, 0) else { continue };
        rows.push(answers.row(source, row.get(1), row.get::<Moment, _>(2).into()));
    }
    Ok(rows)
}

async fn security_totals(connection: &mut PgConnection, asked: Asked) -> Result<SecurityTotals, sqlx::Error> {
    let kinds = format!(
        "SELECT signature_status, http_status, suspicious, reason, sum(request_count)::bigint \
         FROM webhook_security_metrics {WHERE} GROUP BY 1, 2, 3, 4"
    );
    let held =
        format!("SELECT sum(throttled_count)::bigint, sum(late_count)::bigint FROM webhook_message_metrics {WHERE}");
    let addresses = format!(
        "SELECT source_ip, sum(request_count)::bigint AS requests FROM webhook_refused_addresses {WHERE} \
         GROUP BY 1 ORDER BY requests DESC, 1 LIMIT {}",
        signed(TOP_ADDRESSES)
    );
    let mut transaction = connection.begin_with(ONE_MOMENT).await?;
    let kinds = asked.rows(&mut transaction, kinds).await?;
    let held = asked.rows(&mut transaction, held).await?;
    let addresses = asked.rows(&mut transaction, addresses).await?;
    transaction.commit().await?;
    let mut totals = SecurityTotals::default();
    for row in &kinds {
        let Some(signature) = SignatureStatus::from_name(row.get(0)) else { continue };
        let http_status = u16::try_from(row.get::<i32, _>(1)).unwrap_or_default();
        totals.add(Kind { signature, http_status, suspicious: row.get(2), reason: row.get(3) }, count(row, 4));
    }
    for row in &held {
        totals.throttled_messages = count(row, 0);
        totals.late_duplicates = count(row, 1);
    }
    let address = |row: &PgRow| Some((row.get::<&str, _>(0).parse().ok()?, count(row, 1)));
    totals.top_addresses = addresses.iter().filter_map(address).collect();
    Ok(totals)
}
