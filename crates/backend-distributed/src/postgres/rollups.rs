//! The writing side of statistics: what a transaction adds to the roll-ups.
//!
//! Several processes write the same rows. Each statement takes its rows in the order of their keys, the statements of a
//! transaction always come in the same order, and they come late in it, so that nobody waits for long.

use ports::statistics::rollup::{Messages, Requests, WINDOW};
use sqlx::postgres::PgConnection;

use super::values::{Moment, column, signed, storable};

/// Adds what request records come to.
pub(super) async fn requests(connection: &mut PgConnection, requests: &Requests<'_>) -> Result<(), sqlx::Error> {
    if requests.kinds.is_empty() {
        return Ok(());
    }
    answers(connection, requests).await?;
    let kinds: Vec<_> = requests.kinds.iter().collect();
    sqlx::query(
        "INSERT INTO webhook_security_metrics AS m (bucket_start, webhook_source, signature_status, http_status, \
         suspicious, reason, request_count) \
         SELECT * FROM UNNEST($1::timestamptz[], $2::text[], $3::text[], $4::integer[], $5::boolean[], $6::text[], \
         $7::bigint[]) \
         ON CONFLICT (bucket_start, webhook_source, signature_status, http_status, suspicious, reason) \
         DO UPDATE SET request_count = m.request_count + excluded.request_count",
    )
    .bind(column(&kinds, |((minute, ..), _)| Moment::from(*minute)))
    .bind(column(&kinds, |((_, source, _), _)| source.webhook_source()))
    .bind(column(&kinds, |((.., kind), _)| kind.signature.as_str()))
    .bind(column(&kinds, |((.., kind), _)| i32::from(kind.http_status)))
    .bind(column(&kinds, |((.., kind), _)| kind.suspicious))
    .bind(column(&kinds, |((.., kind), _)| storable(kind.reason)))
    .bind(column(&kinds, |(_, count)| signed(**count)))
    .execute(&mut *connection)
    .await?;
    let refused: Vec<_> = requests.refused.iter().collect();
    if refused.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO webhook_refused_addresses AS m (bucket_start, webhook_source, source_ip, request_count) \
         SELECT * FROM UNNEST($1::timestamptz[], $2::text[], $3::text[], $4::bigint[]) \
         ON CONFLICT (bucket_start, webhook_source, source_ip) \
         DO UPDATE SET request_count = m.request_count + excluded.request_count",
    )
    .bind(column(&refused, |((minute, ..), _)| Moment::from(*minute)))
    .bind(column(&refused, |((_, source, _), _)| source.webhook_source()))
    .bind(column(&refused, |((.., address), _)| address.to_string()))
    .bind(column(&refused, |(_, count)| signed(**count)))
    .execute(connection)
    .await
    .map(|_| ())
}

async fn answers(connection: &mut PgConnection, requests: &Requests<'_>) -> Result<(), sqlx::Error> {
    let answers: Vec<_> = requests.answers.iter().collect();
    // An array of arrays would have to be a rectangle, so each histogram travels as text.
    sqlx::query(
        "INSERT INTO webhook_performance_metrics AS m (bucket_start, webhook_source, endpoint_path, request_count, \
         success_count, failure_count, sum_ms, max_ms, histogram) \
         SELECT bucket_start, webhook_source, endpoint_path, request_count, success_count, failure_count, sum_ms, \
         max_ms, histogram::bigint[] \
         FROM UNNEST($1::timestamptz[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], \
         $7::double precision[], $8::double precision[], $9::text[]) AS new (bucket_start, webhook_source, \
         endpoint_path, request_count, success_count, failure_count, sum_ms, max_ms, histogram) \
         ON CONFLICT (bucket_start, webhook_source, endpoint_path) DO UPDATE SET \
         request_count = m.request_count + excluded.request_count, \
         success_count = m.success_count + excluded.success_count, \
         failure_count = m.failure_count + excluded.failure_count, sum_ms = m.sum_ms + excluded.sum_ms, \
         max_ms = greatest(m.max_ms, excluded.max_ms), histogram = add_histograms(m.histogram, excluded.histogram)",
    )
    .bind(column(&answers, |(endpoint, _)| Moment::from(endpoint.minute)))
    .bind(column(&answers, |(endpoint, _)| endpoint.source.webhook_source()))
    .bind(column(&answers, |(endpoint, _)| storable(endpoint.path)))
    .bind(column(&answers, |(_, answers)| signed(answers.requests)))
    .bind(column(&answers, |(_, answers)| signed(answers.succeeded)))
    .bind(column(&answers, |(_, answers)| signed(answers.failed)))
    .bind(column(&answers, |(_, answers)| answers.sum_ms))
    .bind(column(&answers, |(_, answers)| answers.max_ms))
    .bind(column(&answers, |(_, answers)| array(answers.histogram.counts())))
    .execute(connection)
    .await
    .map(|_| ())
}

/// As PostgreSQL writes an array.
fn array(counts: &[u64]) -> String {
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    format!("{{{}}}", counts.join(","))
}

/// Adds what a commit comes to.
pub(super) async fn messages(connection: &mut PgConnection, messages: &Messages<'_>) -> Result<(), sqlx::Error> {
    let senders: Vec<_> = messages.senders.iter().collect();
    if !senders.is_empty() {
        sqlx::query(
            "INSERT INTO webhook_rate_limits AS l (window_start, window_end, tenant_id, webhook_source, phone_number, \
             request_count, blocked_count) \
             SELECT * FROM UNNEST($1::timestamptz[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], \
             $6::bigint[], $7::bigint[]) \
             ON CONFLICT (window_start, tenant_id, webhook_source, phone_number) \
             DO UPDATE SET request_count = l.request_count + excluded.request_count, \
             blocked_count = l.blocked_count + excluded.blocked_count",
        )
        .bind(column(&senders, |(sender, _)| Moment::from(sender.window)))
        .bind(column(&senders, |(sender, _)| Moment::from(sender.window.plus(WINDOW))))
        .bind(column(&senders, |(sender, _)| sender.tenant.as_str()))
        .bind(column(&senders, |(sender, _)| sender.source.webhook_source()))
        .bind(column(&senders, |(sender, _)| sender.phone))
        .bind(column(&senders, |(_, sent)| signed(sent.delivered)))
        .bind(column(&senders, |(_, sent)| signed(sent.blocked)))
        .execute(&mut *connection)
        .await?;
    }
    let held: Vec<_> = messages.held.iter().collect();
    if !held.is_empty() {
        sqlx::query(
            "INSERT INTO webhook_message_metrics AS m (bucket_start, webhook_source, throttled_count, late_count) \
             SELECT * FROM UNNEST($1::timestamptz[], $2::text[], $3::bigint[], $4::bigint[]) \
             ON CONFLICT (bucket_start, webhook_source) \
             DO UPDATE SET throttled_count = m.throttled_count + excluded.throttled_count, \
             late_count = m.late_count + excluded.late_count",
        )
        .bind(column(&held, |((minute, _), _)| Moment::from(*minute)))
        .bind(column(&held, |((_, source), _)| source.webhook_source()))
        .bind(column(&held, |(_, held)| signed(held.throttled)))
        .bind(column(&held, |(_, held)| signed(held.late)))
        .execute(connection)
        .await?;
    }
    Ok(())
}
