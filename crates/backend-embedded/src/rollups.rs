//! The writing side of statistics: what a transaction adds to the roll-ups.

use ports::statistics::rollup::{Histogram, Messages, Requests, WINDOW};
use sqlx::{Row as _, SqliteConnection};

use crate::insert::Rows;
use crate::storable;

/// Adds what request records come to.
pub(crate) async fn requests(connection: &mut SqliteConnection, requests: &Requests<'_>) -> Result<(), sqlx::Error> {
    const KINDS: Rows = Rows {
        head: "INSERT INTO webhook_security_metrics (bucket_start, webhook_source, signature_status, http_status, \
               suspicious, reason, request_count) SELECT * FROM",
        columns: 7,
        tail: "WHERE column1 IS NOT NULL \
               ON CONFLICT (bucket_start, webhook_source, signature_status, http_status, suspicious, reason) \
               DO UPDATE SET request_count = request_count + excluded.request_count",
    };
    const REFUSED: Rows = Rows {
        head: "INSERT INTO webhook_refused_addresses (bucket_start, webhook_source, source_ip, request_count) \
               SELECT * FROM",
        columns: 4,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (bucket_start, webhook_source, source_ip) \
               DO UPDATE SET request_count = request_count + excluded.request_count",
    };
    answers(connection, requests).await?;
    let kinds: Vec<_> = requests.kinds.iter().collect();
    KINDS
        .execute(connection, &kinds, |((minute, source, kind), count), values| {
            values.push(minute.as_millis());
            values.push(source.webhook_source());
            values.push(kind.signature.as_str());
            values.push(kind.http_status);
            values.push(kind.suspicious);
            values.push(storable(kind.reason));
            values.push(count.cast_signed());
        })
        .await?;
    let refused: Vec<_> = requests.refused.iter().collect();
    REFUSED
        .execute(connection, &refused, |((minute, source, address), count), values| {
            values.push(minute.as_millis());
            values.push(source.webhook_source());
            values.push(address.to_string());
            values.push(count.cast_signed());
        })
        .await
        .map(|_| ())
}

/// Histograms are added here, as nobody else writes: few rows are touched, whatever the number of records.
async fn answers(connection: &mut SqliteConnection, requests: &Requests<'_>) -> Result<(), sqlx::Error> {
    for (endpoint, answers) in &requests.answers {
        let (minute, source, path) =
            (endpoint.minute.as_millis(), endpoint.source.webhook_source(), storable(endpoint.path));
        let before = sqlx::query(
            "SELECT histogram FROM webhook_performance_metrics \
             WHERE bucket_start = ? AND webhook_source = ? AND endpoint_path = ?",
        )
        .bind(minute)
        .bind(source)
        .bind(&path)
        .fetch_optional(&mut *connection)
        .await?;
        let mut histogram = answers.histogram.clone();
        if let Some(before) = before {
            histogram.add(&Histogram::new(serde_json::from_str(before.get(0)).unwrap_or_default()));
        }
        sqlx::query(
            "INSERT INTO webhook_performance_metrics (bucket_start, webhook_source, endpoint_path, request_count, \
             success_count, failure_count, sum_ms, max_ms, histogram) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (bucket_start, webhook_source, endpoint_path) DO UPDATE SET \
             request_count = request_count + excluded.request_count, \
             success_count = success_count + excluded.success_count, \
             failure_count = failure_count + excluded.failure_count, sum_ms = sum_ms + excluded.sum_ms, \
             max_ms = max(max_ms, excluded.max_ms), histogram = excluded.histogram",
        )
        .bind(minute)
        .bind(source)
        .bind(path)
        .bind(answers.requests.cast_signed())
        .bind(answers.succeeded.cast_signed())
        .bind(answers.failed.cast_signed())
        .bind(answers.sum_ms)
        .bind(answers.max_ms)
        .bind(serde_json::to_string(histogram.counts()).unwrap_or_default())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Adds what a commit comes to.
pub(crate) async fn messages(connection: &mut SqliteConnection, messages: &Messages<'_>) -> Result<(), sqlx::Error> {
    const SENDERS: Rows = Rows {
        head: "INSERT INTO webhook_rate_limits (window_start, window_end, tenant_id, webhook_source, phone_number, \
               request_count, blocked_count) SELECT * FROM",
        columns: 7,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (window_start, tenant_id, webhook_source, phone_number) \
               DO UPDATE SET request_count = request_count + excluded.request_count, \
               blocked_count = blocked_count + excluded.blocked_count",
    };
    const HELD: Rows = Rows {
        head: "INSERT INTO webhook_message_metrics (bucket_start, webhook_source, throttled_count, late_count) \
               SELECT * FROM",
        columns: 4,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (bucket_start, webhook_source) \
               DO UPDATE SET throttled_count = throttled_count + excluded.throttled_count, \
               late_count = late_count + excluded.late_count",
    };
    let senders: Vec<_> = messages.senders.iter().collect();
    SENDERS
        .execute(connection, &senders, |(sender, sent), values| {
            values.push(sender.window.as_millis());
            values.push(sender.window.plus(WINDOW).as_millis());
            values.push(sender.tenant.as_str().to_owned());
            values.push(sender.source.webhook_source());
            values.push(sender.phone.to_owned());
            values.push(sent.delivered.cast_signed());
            values.push(sent.blocked.cast_signed());
        })
        .await?;
    let held: Vec<_> = messages.held.iter().collect();
    HELD.execute(connection, &held, |((minute, source), held), values| {
        values.push(minute.as_millis());
        values.push(source.webhook_source());
        values.push(held.throttled.cast_signed());
        values.push(held.late.cast_signed());
    })
    .await
    .map(|_| ())
}
