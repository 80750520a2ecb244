//! Statements that people run on the tables and views of statistics, and a load whose figures are known.
//!
//! They must go on running as they are written here. Each backend runs them on its own database and hands what is
//! printed to [`check`].

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use common::envelope::ParkReason;
use common::record::{Outcome, RecordBatch, RecordedMessages, RequestRecord, SignatureStatus};
use common::update::Provider;
use common::{EnvelopeId, EventKey, RequestId, TenantId, Timestamp};
use ports::event_store::{Batch, DeadLetter, EventStore, NewUpdate, Parked};
use ports::request_log::RequestLog;
use ports::statistics::rollup::{WINDOW, hour};
use uuid::Uuid;

use crate::samples::{by_phone, key, message};

/// The messages of the last hour. Only PostgreSQL has `NOW()` and `INTERVAL`.
pub const RECENT: &str = "SELECT 
  message_id,
  webhook_source,
  phone_number,
  status,
  response_time_ms,
  duplicate_count,
  created_at
FROM webhook_messages
WHERE created_at >= NOW() - INTERVAL '1 hour'
ORDER BY created_at DESC
LIMIT 100;";

/// What came more than once.
pub const DUPLICATES: &str = "SELECT 
  message_id,
  phone_number,
  duplicate_count,
  first_received_at,
  last_duplicate_at
FROM webhook_messages
WHERE duplicate_count > 0
ORDER BY duplicate_count DESC
LIMIT 50;";

/// Who sends much.
pub const RATE_LIMITS: &str = "SELECT * FROM webhook_rate_limit_stats
WHERE total_requests > 50
ORDER BY total_requests DESC;";

/// Answers by the hour.
pub const PERFORMANCE: &str = "SELECT * FROM webhook_performance_stats
WHERE webhook_source = 'whatsapp'
ORDER BY hour DESC
LIMIT 24;";

/// Signatures by the hour.
pub const SECURITY: &str = "SELECT * FROM webhook_security_stats
WHERE webhook_source = 'whatsapp'
ORDER BY hour DESC
LIMIT 24;";

/// The slowest.
pub const SLOW: &str = "SELECT 
  message_id,
  phone_number,
  response_time_ms,
  created_at
FROM webhook_messages
WHERE response_time_ms > 1000
ORDER BY response_time_ms DESC
LIMIT 50;";

/// What failed.
pub const FAILED: &str = "SELECT 
  message_id,
  phone_number,
  error_message,
  error_count,
  created_at
FROM webhook_messages
WHERE status = 'failed'
ORDER BY created_at DESC
LIMIT 100;";

/// All that are slow.
pub const ALL_SLOW: &str = "SELECT * FROM webhook_messages WHERE response_time_ms > 1000;";

/// Whose messages come again.
pub const DUPLICATES_BY_SENDER: &str =
    "SELECT phone_number, AVG(duplicate_count) FROM webhook_messages GROUP BY phone_number;";

/// Who was blocked.
pub const BLOCKED: &str = "SELECT * FROM webhook_rate_limit_stats WHERE times_blocked > 0;";

const BUSY: &str = "+491700000001";
const QUIET: &str = "+491700000002";

/// What a statement printed: for each row the columns with their names; an empty text for none.
pub type Printed = Vec<Vec<(String, String)>>;

/// When the load was received: in the hour before this moment.
fn received(now: Timestamp) -> Timestamp {
    hour(now).minus(WINDOW / 2)
}

fn record(at: Timestamp, stored: &[EventKey], duplicates: &[EventKey], processing_ms: f64) -> RequestRecord {
    let tenant = TenantId::new("acme").unwrap();
    RequestRecord {
        request: RequestId::fresh(),
        received_at: at,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        provider: Provider::Meta,
        endpoint: "/webhook".to_owned(),
        app: None,
        tenant: Some(tenant.clone()),
        event: None,
        event_type: None,
        event_count: 1,
        signature: SignatureStatus::Valid,
        http_status: 200,
        outcome: Outcome::Accepted,
        reason: None,
        suspicious: false,
        processing_ms,
        weight: 1,
        messages: vec![RecordedMessages { tenant, stored: stored.to_vec(), duplicates: duplicates.to_vec() }],
    }
}

/// Stores the load: 64 messages of one sender, 3 of which were throttled and let go, and 3 of another, of them two slow and
/// three that came again; one that failed; forged requests; and a few of Twilio.
pub async fn load(store: &dyn EventStore, log: &dyn RequestLog, now: Timestamp) {
    let at = received(now);
    let of = |n: u32, phone: &str| {
        let mut update = NewUpdate { received_at: at, ..message(n) };
        update.event.party = by_phone(phone);
        update
    };
    let mut updates: Vec<NewUpdate> = (1..=61).map(|n| of(n, BUSY)).collect();
    updates.extend((62..=64).map(|n| of(n, QUIET)));
    updates.push(NewUpdate { provider: Provider::Twilio, ..of(65, QUIET) });
    let throttled = Parked {
        envelope: EnvelopeId::fresh(),
        tenant: TenantId::new("acme").unwrap(),
        provider: Provider::Meta,
        reason: ParkReason::Throttled,
        number: None,
        received_at: at,
        updates: 3,
        sealed: Bytes::from_static(b"sealed"),
        due_at: None,
        pace: None,
        throttled: vec![Some(BUSY.to_owned()); 3],
    };
    let failed = DeadLetter {
        tenant: TenantId::new("acme").unwrap(),
        provider: Provider::Meta,
        key: key(66),
        envelope: EnvelopeId::fresh(),
        received_at: at,
        reason: "it is broken".to_owned(),
        sealed: Bytes::from_static(b"sealed"),
        message: Some(("wamid.66".to_owned(), Some(QUIET.to_owned()))),
    };
    let envelope = throttled.envelope;
    let batch = Batch { updates, parked: vec![throttled], dead_letters: vec![failed], ..Batch::default() };
    // Twice, as it is after a crash between commit and acknowledgement.
    store.commit(batch.clone()).await.unwrap();
    store.commit(batch).await.unwrap();
    store.commit(Batch { updates: vec![of(62, QUIET)], ..Batch::default() }).await.unwrap();
    let let_go = (71..=73).map(|n| of(n, BUSY)).collect();
    store.commit(Batch { updates: let_go, released: vec![envelope], ..Batch::default() }).await.unwrap();

    // A hundred requests: 95 of 10 ms with a message or nothing, then two slow ones, then three forged ones.
    let later = at.plus(Duration::from_mins(1));
    let mut records: Vec<RequestRecord> = (3..=64).map(|n| record(at, &[key(n)], &[], 10.0)).collect();
    records.extend((0..32).map(|_| record(later, &[], &[], 10.0)));
    records.push(record(later, &[], &[key(62), key(63)], 10.0));
    records.push(record(later, &[key(1)], &[], 1500.0));
    records.push(RequestRecord {
        http_status: 503,
        outcome: Outcome::Unavailable,
        ..record(later, &[key(2)], &[], 2500.0)
    });
    let forged = RequestRecord {
        signature: SignatureStatus::Invalid,
        http_status: 403,
        outcome: Outcome::Refused,
        ..record(at, &[], &[], 10.0)
    };
    records.push(RequestRecord { weight: 2, ..forged.clone() });
    records.push(RequestRecord { suspicious: true, ..forged.clone() });
    records.push(RequestRecord { provider: Provider::Twilio, weight: 7, ..forged });
    for records in records.chunks(30) {
        let batch = RecordBatch { id: Uuid::now_v7(), records: records.to_vec() };
        log.record(std::slice::from_ref(&batch)).await.unwrap();
        log.record(&[batch]).await.unwrap();
    }
}

/// The named columns of each row; numbers as short as can be.
fn cells(printed: &Printed, columns: &[&str]) -> Vec<Vec<String>> {
    let cell = |row: &[(String, String)], column: &str| {
        let value = row.iter().find(|(name, _)| name == column).unwrap_or_else(|| panic!("no column {column}"));
        let is_number = !value.1.starts_with('+') && value.1.parse::<f64>().is_ok();
        if is_number { value.1.parse::<f64>().unwrap().to_string() } else { value.1.clone() }
    };
    printed.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect()
}

fn names(printed: &Printed) -> Vec<&str> {
    printed[0].iter().map(|(name, _)| name.as_str()).collect()
}

/// Compares what the statements printed with the load. `run` runs a statement; what it cannot run it does not get asked.
pub async fn check(now: Timestamp, has_intervals: bool, run: impl AsyncFn(&'static str) -> Printed) {
    if has_intervals {
        let recent = run(RECENT).await;
        assert_eq!(recent.len(), 69);
        let columns = "message_id webhook_source phone_number status response_time_ms duplicate_count created_at";
        assert_eq!(names(&recent).join(" "), columns);
        let twilio = cells(&recent, &["webhook_source", "status"]);
        assert_eq!(twilio.iter().filter(|row| **row == ["twilio", "completed"]).count(), 1);
        assert_eq!(twilio.iter().filter(|row| **row == ["whatsapp", "failed"]).count(), 1);
    }
    let duplicates = run(DUPLICATES).await;
    let seen = cells(&duplicates, &["message_id", "phone_number", "duplicate_count"]);
    assert_eq!(seen, [["wamid.62", QUIET, "2"], ["wamid.63", QUIET, "1"]]);
    assert!(duplicates.iter().flatten().all(|(_, text)| !text.is_empty()), "first and last are known");

    let senders = run(RATE_LIMITS).await;
    assert_eq!(names(&senders).join(" "), "webhook_source phone_number total_requests times_blocked");
    assert_eq!(senders.len(), 1);
    assert_eq!(cells(&run(BLOCKED).await, &names(&senders)), [["whatsapp", BUSY, "64", "3"]]);
    assert_eq!(cells(&senders, &names(&senders)), [["whatsapp", BUSY, "64", "3"]]);

    // As it is printed: `2026-02-14 10:00:00`.
    let begun = hour(received(now)).to_string().replace('T', " ").replace('Z', "");
    let performance = run(PERFORMANCE).await;
    let columns = "webhook_source endpoint_path hour request_count avg_response_time_ms p95_response_time_ms \
                   p99_response_time_ms success_rate";
    assert_eq!(names(&performance).join(" "), columns);
    let seen = cells(&performance, &["webhook_source", "endpoint_path", "hour", "request_count"]);
    assert_eq!(seen, [["whatsapp", "/webhook", &begun, "100"]]);
    let number = |column: &str| cells(&performance, &[column])[0][0].parse::<f64>().unwrap();
    let is_near = |column: &str, exact: f64| {
        let told = number(column);
        assert!((told / exact - 1.0).abs() < 0.05, "{column}: {told}, not {exact}");
    };
    assert!((number("avg_response_time_ms") - 49.8).abs() < 1e-6);
    is_near("p95_response_time_ms", 10.0);
    is_near("p99_response_time_ms", 1500.0);
    // Of 97 with 2xx or 5xx one failed; refusals do not count.
    assert!((number("success_rate") - 100.0 * 96.0 / 97.0).abs() < 1e-6);

    let security = run(SECURITY).await;
    let columns = "webhook_source hour total_requests valid_signatures invalid_signatures suspicious_requests";
    assert_eq!(names(&security).join(" "), columns);
    assert_eq!(cells(&security, &names(&security)), [["whatsapp", &begun, "100", "97", "3", "1"]]);

    let slow = [["wamid.2", BUSY, "2500"], ["wamid.1", BUSY, "1500"]];
    let columns = ["message_id", "phone_number", "response_time_ms"];
    assert_eq!(cells(&run(SLOW).await, &columns), slow);
    let mut all = cells(&run(ALL_SLOW).await, &columns);
    all.sort();
    assert_eq!(all, [slow[1], slow[0]]);
    let failed = cells(&run(FAILED).await, &["message_id", "phone_number", "error_message", "error_count"]);
    assert_eq!(failed, [["wamid.66", QUIET, "it is broken", "1"]]);

    let mut by_sender = run(DUPLICATES_BY_SENDER).await;
    by_sender.sort();
    let averages: Vec<(&str, f64)> =
        by_sender.iter().map(|row| (row[0].1.as_str(), row[1].1.parse::<f64>().unwrap())).collect();
    let expected = [(BUSY, 0.0), (QUIET, 0.6)];
    for ((phone, average), (other, exact)) in averages.iter().zip(expected) {
        assert!(*phone == other && (average - exact).abs() < 1e-6, "{averages:?}");
    }
    assert_eq!(averages.len(), 2);
}
