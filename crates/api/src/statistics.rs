//! Statistics of requests for operators: the shape of an earlier service under its prefix, and a report on security.

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use common::Timestamp;
use common::clock::rfc3339;
use common::update::Provider;
use ports::statistics::{PerformanceRow, ProcessingRow, SecurityRow};
use serde::Serialize;

use crate::State;
use crate::problem::Problem;
use crate::query::Query;

const MAX_HOURS: u32 = 720;
const DEFAULT_HOURS: u32 = 24;

#[derive(Serialize)]
struct Answer {
    success: bool,
    data: Tables,
}

#[derive(Serialize)]
struct Tables {
    processing: Vec<Processing>,
    security: Vec<Security>,
    performance: Vec<Performance>,
}

#[derive(Serialize)]
struct Processing {
    webhook_source: &'static str,
    status: String,
    message_count: u64,
    avg_response_time_ms: f64,
    max_response_time_ms: f64,
    total_duplicates: u64,
    total_errors: u64,
}

#[derive(Serialize)]
struct Security {
    webhook_source: &'static str,
    hour: String,
    total_requests: u64,
    valid_signatures: u64,
    invalid_signatures: u64,
    suspicious_requests: u64,
}

#[derive(Serialize)]
struct Performance {
    webhook_source: &'static str,
    endpoint_path: String,
    hour: String,
    request_count: u64,
    avg_response_time_ms: f64,
    p95_response_time_ms: f64,
    p99_response_time_ms: f64,
    success_rate: f64,
}

/// `2026-02-14 10:00:00`, UTC.
fn hour(at: Timestamp) -> String {
    at.to_string().replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Enough for people, and the same number again when it is read back.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1000.0).round() / 1000.0
}

fn source(text: &str) -> Result<Provider, &'static str> {
    let provider = Provider::from_webhook_source(text).or_else(|| Provider::from_name(text));
    provider.ok_or("must be whatsapp (or meta), twilio or generic")
}

/// From so many hours ago until now.
fn span(state: &State, hours: Option<u32>) -> (Timestamp, Timestamp) {
    let now = state.clock.now();
    (now.minus(Duration::from_hours(hours.unwrap_or(DEFAULT_HOURS).into())), now.plus(Duration::from_secs(1)))
}

/// `GET <prefix>/stats`, and `GET /stats` with `source` or `hours`.
pub(crate) async fn stats(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["source", "hours"]);
    let source = query.read("source", source);
    let hours = query.number("hours", 1..=MAX_HOURS);
    query.finish()?;
    let (since, until) = span(&state, hours);
    let statistics = &state.statistics;
    let processing = statistics.processing(source, since, until).await?;
    let security = statistics.security(source, since, until).await?;
    let performance = statistics.performance(source, since, until).await?;
    let data = Tables {
        processing: processing.into_iter().map(Processing::from).collect(),
        security: security.into_iter().map(Security::from).collect(),
        performance: performance.into_iter().map(Performance::from).collect(),
    };
    Ok(HttpResponse::Ok().json(Answer { success: true, data }))
}

impl From<ProcessingRow> for Processing {
    fn from(row: ProcessingRow) -> Self {
        Self {
            webhook_source: row.source.webhook_source(),
            status: row.status,
            message_count: row.messages,
            avg_response_time_ms: rounded(row.average_ms),
            max_response_time_ms: rounded(row.max_ms),
            total_duplicates: row.duplicates,
            total_errors: row.errors,
        }
    }
}

impl From<SecurityRow> for Security {
    fn from(row: SecurityRow) -> Self {
        Self {
            webhook_source: row.source.webhook_source(),
            hour: hour(row.hour),
            total_requests: row.requests,
            valid_signatures: row.valid,
            invalid_signatures: row.invalid,
            suspicious_requests: row.suspicious,
        }
    }
}

impl From<PerformanceRow> for Performance {
    fn from(row: PerformanceRow) -> Self {
        Self {
            webhook_source: row.source.webhook_source(),
            endpoint_path: row.endpoint,
            hour: hour(row.hour),
            request_count: row.requests,
            avg_response_time_ms: rounded(row.average_ms),
            p95_response_time_ms: rounded(row.p95_ms),
            p99_response_time_ms: rounded(row.p99_ms),
            success_rate: rounded(row.success_rate),
        }
    }
}

#[derive(Serialize)]
struct Counted {
    what: String,
    requests: u64,
}

#[derive(Serialize)]
struct Report {
    #[serde(with = "rfc3339")]
    since: Timestamp,
    #[serde(with = "rfc3339")]
    until: Timestamp,
    requests: u64,
    /// By what the signature was.
    invalid_signatures: Vec<Counted>,
    /// By why they are.
    suspicious: Vec<Counted>,
    replays: Replays,
    violations: Violations,
    /// Where refused requests came from.
    top_addresses: Vec<Counted>,
}

#[derive(Serialize)]
struct Replays {
    /// Requests with updates older than the age limit.
    too_old: u64,
    /// Messages that came again long after their keys were forgotten.
    late_duplicates: u64,
}

#[derive(Serialize)]
struct Violations {
    /// Messages parked because their sender was over the limit.
    throttled_messages: u64,
    /// Requests answered 429.
    over_limit: u64,
    /// Requests from addresses that are not on the list.
    not_on_list: u64,
}

/// `GET /api/security`
pub(crate) async fn security(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["hours"]);
    let hours = query.number("hours", 1..=MAX_HOURS);
    query.finish()?;
    let (since, until) = span(&state, hours);
    let totals = state.statistics.security_totals(since, until).await?;
    let counted = |(what, requests)| Counted { what, requests };
    let invalid = totals.invalid_signatures.into_iter().map(|(status, count)| (status.as_str().to_owned(), count));
    let addresses = totals.top_addresses.into_iter().map(|(address, count)| (address.to_string(), count));
    Ok(HttpResponse::Ok().json(Report {
        since,
        until,
        requests: totals.requests,
        invalid_signatures: invalid.map(counted).collect(),
        suspicious: totals.suspicious.into_iter().map(counted).collect(),
        replays: Replays { too_old: totals.too_old, late_duplicates: totals.late_duplicates },
        violations: Violations {
            throttled_messages: totals.throttled_messages,
            over_limit: totals.over_limit,
            not_on_list: totals.not_on_list,
        },
        top_addresses: addresses.map(counted).collect(),
    }))
}
