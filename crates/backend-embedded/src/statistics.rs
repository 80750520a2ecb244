//! Statistics, read from the roll-ups; messages from their table.

use std::sync::Arc;

use async_trait::async_trait;
use common::Timestamp;
use common::record::SignatureStatus;
use common::update::Provider;
use ports::Unavailable;
use ports::statistics::rollup::{Answers, Kind, minute};
use ports::statistics::{PerformanceRow, ProcessingRow, SecurityRow, SecurityTotals, Statistics, TOP_ADDRESSES};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::sqlite::{Database, unavailable};

/// Of the roll-ups: the time and the source.
const WHERE: &str = "WHERE bucket_start >= ?1 AND bucket_start < ?2 AND (?3 IS NULL OR webhook_source = ?3)";
/// When the hour of a row began, in milliseconds.
const HOUR: &str = "bucket_start / 3600000 * 3600000";

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteStatistics {
    database: Arc<Database>,
}

impl SqliteStatistics {
    pub(crate) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

/// What is asked for, as it is bound.
struct Asked {
    source: Option<&'static str>,
    since: i64,
    until: i64,
}

impl Asked {
    /// Of the roll-ups, by whole minutes.
    fn new(source: Option<Provider>, since: Timestamp, until: Timestamp) -> Self {
        let source = source.map(Provider::webhook_source);
        Self { source, since: minute(since).as_millis(), until: until.as_millis() }
    }

    async fn rows(&self, connection: &mut sqlx::SqliteConnection, sql: String) -> Result<Vec<SqliteRow>, Unavailable> {
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.since).bind(self.until).bind(self.source);
        query.fetch_all(connection).await.map_err(unavailable)
    }
}

fn count(row: &SqliteRow, index: usize) -> u64 {
    row.get::<Option<i64>, _>(index).unwrap_or_default().unsigned_abs()
}

fn source(row: &SqliteRow, index: usize) -> Option<Provider> {
    Provider::from_webhook_source(row.get(index))
}

fn moment(row: &SqliteRow, index: usize) -> Timestamp {
    Timestamp::from_millis(row.get(index))
}

#[async_trait]
impl Statistics for SqliteStatistics {
    async fn processing(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<ProcessingRow>, Unavailable> {
        let rows = sqlx::query(
            "SELECT webhook_source, status, count(*), avg(response_time_ms), max(response_time_ms), \
             sum(duplicate_count), sum(error_count) FROM messages \
             WHERE created_at >= ?1 AND created_at < ?2 AND (?3 IS NULL OR webhook_source = ?3) \
             GROUP BY 1, 2 ORDER BY 1, 2",
        )
        .bind(since.as_millis())
        .bind(until.as_millis())
        .bind(source.map(Provider::webhook_source))
        .fetch_all(&self.database.readers)
        .await
        .map_err(unavailable)?;
        let row = |row: &SqliteRow| {
            Some(ProcessingRow {
                source: self::source(row, 0)?,
                status: row.get(1),
                messages: count(row, 2),
                average_ms: row.get::<Option<f64>, _>(3).unwrap_or_default(),
                max_ms: row.get::<Option<f64>, _>(4).unwrap_or_default(),
                duplicates: count(row, 5),
                errors: count(row, 6),
            })
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    async fn security(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<SecurityRow>, Unavailable> {
        let sql = format!(
            "SELECT webhook_source, {HOUR} AS hour, sum(request_count), \
             sum(CASE WHEN signature_status = 'valid' THEN request_count END), \
             sum(CASE WHEN signature_status NOT IN ('valid', 'skipped') THEN request_count END), \
             sum(CASE WHEN suspicious THEN request_count END) \
             FROM webhook_security_metrics {WHERE} GROUP BY 1, 2 ORDER BY hour DESC, 1"
        );
        let mut connection = self.database.readers.acquire().await.map_err(unavailable)?;
        let rows = Asked::new(source, since, until).rows(&mut connection, sql).await?;
        let row = |row: &SqliteRow| {
            Some(SecurityRow {
                source: self::source(row, 0)?,
                hour: moment(row, 1),
                requests: count(row, 2),
                valid: count(row, 3),
                invalid: count(row, 4),
                suspicious: count(row, 5),
            })
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    async fn performance(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<PerformanceRow>, Unavailable> {
        let asked = Asked::new(source, since, until);
        let mut transaction = self.database.readers.begin().await.map_err(unavailable)?;
        let sums = format!(
            "SELECT webhook_source, endpoint_path, {HOUR} AS hour, sum(request_count), sum(success_count), \
             sum(failure_count), sum(sum_ms), max(max_ms) FROM webhook_performance_metrics {WHERE} \
             GROUP BY 1, 2, 3 ORDER BY hour DESC, 1, 2"
        );
        let sums = asked.rows(&mut transaction, sums).await?;
        let buckets = format!(
            "SELECT webhook_source, endpoint_path, {HOUR} AS hour, counted.key, sum(counted.value) \
             FROM webhook_performance_metrics CROSS JOIN json_each(histogram) AS counted {WHERE} \
             AND counted.value > 0 GROUP BY 1, 2, 3, 4 ORDER BY hour DESC, 1, 2"
        );
        let buckets = asked.rows(&mut transaction, buckets).await?;
        let mut buckets = buckets.iter().peekable();
        let key = |row: &SqliteRow| (row.get::<String, _>(0), row.get::<String, _>(1), row.get::<i64, _>(2));
        let mut rows = Vec::with_capacity(sums.len());
        for row in &sums {
            let mut answers = Answers {
                requests: count(row, 3),
                succeeded: count(row, 4),
                failed: count(row, 5),
                sum_ms: row.get(6),
                max_ms: row.get(7),
                ..Answers::default()
            };
            // Both are in the same order.
            while let Some(bucket) = buckets.next_if(|bucket| key(bucket) == key(row)) {
                answers
                    .histogram
                    .count_in(usize::try_from(bucket.get::<i64, _>(3)).unwrap_or(usize::MAX), count(bucket, 4));
            }
            let Some(source) = self::source(row, 0) else { continue };
            rows.push(answers.row(source, row.get(1), moment(row, 2)));
        }
        Ok(rows)
    }

    async fn security_totals(&self, since: Timestamp, until: Timestamp) -> Result<SecurityTotals, Unavailable> {
        let asked = Asked::new(None, since, until);
        let mut transaction = self.database.readers.begin().await.map_err(unavailable)?;
        let kinds = format!(
            "SELECT signature_status, http_status, suspicious, reason, sum(request_count) \
             FROM webhook_security_metrics {WHERE} GROUP BY 1, 2, 3, 4"
        );
        let mut totals = SecurityTotals::default();
        for row in &asked.rows(&mut transaction, kinds).await? {
            let Some(signature) = SignatureStatus::from_name(row.get(0)) else { continue };
            let kind = Kind { signature, http_status: row.get(1), suspicious: row.get(2), reason: row.get(3) };
            totals.add(kind, count(row, 4));
        }
        let held = format!("SELECT sum(throttled_count), sum(late_count) FROM webhook_message_metrics {WHERE}");
        for row in &asked.rows(&mut transaction, held).await? {
            totals.throttled_messages = count(row, 0);
            totals.late_duplicates = count(row, 1);
        }
        let addresses = format!(
            "SELECT source_ip, sum(request_count) AS requests FROM webhook_refused_addresses {WHERE} \
             GROUP BY 1 ORDER BY requests DESC, 1 LIMIT {TOP_ADDRESSES}"
        );
        let addresses = asked.rows(&mut transaction, addresses).await?;
        let address = |row: &SqliteRow| Some((row.get::<&str, _>(0).parse().ok()?, count(row, 1)));
        totals.top_addresses = addresses.iter().filter_map(address).collect();
        Ok(totals)
    }
}
