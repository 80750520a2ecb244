//! The laws of [`Statistics`](ports::statistics::Statistics).
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use common::envelope::ParkReason;
use common::record::{Outcome, REASON_ADDRESS_LIST, RecordBatch, RecordedMessages, RequestRecord, SignatureStatus};
use common::update::Provider;
use common::{EnvelopeId, EventKey, RequestId, Timestamp};
use ports::event_store::{Batch, DeadLetter, NewUpdate, Parked};
use ports::statistics::rollup::{LATE, WINDOW, hour, minute};
use ports::statistics::{PerformanceRow, ProcessingRow, SecurityRow, SecurityTotals};
use uuid::Uuid;

use crate::clock::START;
use crate::harness::Harness;
use crate::samples::{key, message, status};
use crate::scene::{Scene, tenant};

/// One test for each law of statistics.
#[macro_export]
macro_rules! statistics_contract {
    ($harness:ident) => {
        $crate::laws!($harness, statistics:
            without_anything_there_is_nothing,
            messages_are_counted_by_source_and_status,
            messages_count_from_when_they_were_stored,
            a_message_without_a_record_takes_no_time,
            signatures_are_counted_by_hour_the_newest_first,
            samples_count_by_their_weight,
            a_batch_recorded_again_is_counted_once,
            answers_are_counted_by_path,
            percentiles_span_batches_and_minutes,
            a_time_is_of_whole_minutes,
            a_source_is_asked_for_alone,
            the_report_names_signatures_reasons_and_limits,
            the_report_names_the_addresses_that_were_refused_most,
            throttled_messages_count_once_for_each_envelope,
            duplicates_after_their_key_has_expired_are_replays,
            concurrent_recorders_lose_nothing,
            statistics_survive_a_restart,
        );
    };
}

const MINUTE: Duration = Duration::from_mins(1);

/// A record of a request that was received then.
fn request(at: Timestamp) -> RequestRecord {
    RequestRecord {
        request: RequestId::fresh(),
        received_at: at,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        provider: Provider::Meta,
        endpoint: "/webhooks/meta".to_owned(),
        app: None,
        tenant: None,
        event: None,
        event_type: None,
        event_count: 0,
        signature: SignatureStatus::Valid,
        http_status: 200,
        outcome: Outcome::Accepted,
        reason: None,
        suspicious: false,
        processing_ms: 1.0,
        weight: 1,
        messages: Vec::new(),
    }
}

/// A record of several that were refused.
fn refused(at: Timestamp, signature: SignatureStatus, weight: u32) -> RequestRecord {
    RequestRecord {
        signature,
        http_status: 403,
        outcome: Outcome::Refused,
        reason: Some("signature".to_owned()),
        weight,
        ..request(at)
    }
}

/// A record of a request with messages of `acme`.
fn carrying(stored: &[EventKey], duplicates: &[EventKey], processing_ms: f64) -> RequestRecord {
    let messages =
        RecordedMessages { tenant: tenant("acme"), stored: stored.to_vec(), duplicates: duplicates.to_vec() };
    RequestRecord { processing_ms, messages: vec![messages], ..request(START) }
}

async fn record<H: Harness>(scene: &Scene<H>, records: Vec<RequestRecord>) {
    scene.request_log().record(&[RecordBatch { id: Uuid::now_v7(), records }]).await.unwrap();
}

fn from(update: NewUpdate, provider: Provider) -> NewUpdate {
    NewUpdate { provider, ..update }
}

fn letter(n: u32) -> DeadLetter {
    DeadLetter {
        tenant: tenant("acme"),
        provider: Provider::Twilio,
        key: key(n),
        envelope: EnvelopeId::fresh(),
        received_at: START,
        reason: "broken".to_owned(),
        sealed: Bytes::from_static(b"sealed"),
        message: Some((format!("wamid.{n}"), None)),
    }
}

fn throttled(phones: &[Option<&str>]) -> Parked {
    Parked {
        envelope: EnvelopeId::fresh(),
        tenant: tenant("acme"),
        provider: Provider::Meta,
        reason: ParkReason::Throttled,
        number: None,
        received_at: START,
        updates: 1,
        sealed: Bytes::from_static(b"sealed"),
        due_at: None,
        pace: None,
        throttled: phones.iter().map(|phone| phone.map(str::to_owned)).collect(),
    }
}

/// Everything up to a week after the start.
fn span() -> (Timestamp, Timestamp) {
    (START.minus(Duration::from_hours(48)), START.plus(Duration::from_hours(24 * 7)))
}

async fn processing<H: Harness>(scene: &Scene<H>) -> Vec<ProcessingRow> {
    scene.statistics().processing(None, span().0, span().1).await.unwrap()
}

async fn security<H: Harness>(scene: &Scene<H>) -> Vec<SecurityRow> {
    scene.statistics().security(None, span().0, span().1).await.unwrap()
}

async fn performance<H: Harness>(scene: &Scene<H>) -> Vec<PerformanceRow> {
    scene.statistics().performance(None, span().0, span().1).await.unwrap()
}

async fn totals<H: Harness>(scene: &Scene<H>) -> SecurityTotals {
    scene.statistics().security_totals(span().0, span().1).await.unwrap()
}

fn is_near(one: f64, two: f64) -> bool {
    (one - two).abs() < 1e-6
}

pub async fn without_anything_there_is_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(processing(&scene).await, []);
    assert_eq!(security(&scene).await, []);
    assert_eq!(performance(&scene).await, []);
    assert_eq!(totals(&scene).await, SecurityTotals::default());
}

pub async fn messages_are_counted_by_source_and_status<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let mut updates: Vec<NewUpdate> = (1..=3).map(message).collect();
    updates.extend([from(message(4), Provider::Twilio), status(5)]);
    scene.commit_new(updates).await;
    scene.commit(vec![message(1)]).await;
    let again = letter(6);
    for dead_letters in [vec![again.clone()], vec![again], vec![letter(6)]] {
        scene.store().commit(Batch { dead_letters, ..Batch::default() }).await.unwrap();
    }
    record(&scene, vec![carrying(&[key(1), key(2)], &[], 2.0), carrying(&[key(3)], &[], 8.0)]).await;
    record(&scene, vec![carrying(&[], &[key(1), key(2)], 0.5)]).await;
    let row = |source, status: &str, messages, average_ms, max_ms, duplicates, errors| ProcessingRow {
        source,
        status: status.to_owned(),
        messages,
        average_ms,
        max_ms,
        duplicates,
        errors,
    };
    let expected = [
        row(Provider::Twilio, "completed", 1, 0.0, 0.0, 0, 0),
        row(Provider::Twilio, "failed", 1, 0.0, 0.0, 0, 2),
        row(Provider::Meta, "completed", 3, 4.0, 8.0, 3, 0),
    ];
    assert_eq!(processing(&scene).await, expected);
}

pub async fn messages_count_from_when_they_were_stored<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1)]).await;
    scene.pass(MINUTE).await;
    scene.commit_new(vec![message(2), message(3)]).await;
    let count = async |since, until| {
        let rows = scene.statistics().processing(None, since, until).await.unwrap();
        rows.first().map_or(0, |row| row.messages)
    };
    let later = START.plus(MINUTE);
    assert_eq!([count(START, later).await, count(later, span().1).await, count(START, START).await], [1, 2, 0]);
    assert_eq!(count(START, later.plus(Duration::from_millis(1))).await, 3);
}

pub async fn a_message_without_a_record_takes_no_time<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1), message(2)]).await;
    record(&scene, vec![carrying(&[key(2)], &[], 6.0)]).await;
    let row = &processing(&scene).await[0];
    assert!(row.messages == 2 && is_near(row.average_ms, 6.0), "the average is over those that are known: {row:?}");
}

pub async fn signatures_are_counted_by_hour_the_newest_first<H: Harness>() {
    use SignatureStatus::{Invalid, Malformed, Missing, Skipped, Valid};
    let scene = Scene::<H>::open().await;
    let later = START.plus(WINDOW);
    let mut records: Vec<RequestRecord> =
        [Valid, Valid, Invalid, Missing, Malformed, Skipped].map(|signature| refused(START, signature, 1)).to_vec();
    records.push(RequestRecord { suspicious: true, ..request(later) });
    records.push(RequestRecord { provider: Provider::Twilio, ..request(START) });
    record(&scene, records).await;
    let row = |source, at, requests, valid, invalid, suspicious| SecurityRow {
        source,
        hour: hour(at),
        requests,
        valid,
        invalid,
        suspicious,
    };
    let expected = [
        row(Provider::Meta, later, 1, 1, 0, 1),
        row(Provider::Twilio, START, 1, 1, 0, 0),
        row(Provider::Meta, START, 6, 2, 3, 0),
    ];
    assert_eq!(security(&scene).await, expected);
}

pub async fn samples_count_by_their_weight<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let slow = RequestRecord { processing_ms: 4.0, ..refused(START, SignatureStatus::Invalid, 9) };
    record(&scene, vec![slow, request(START)]).await;
    let rows = security(&scene).await;
    assert_eq!((rows[0].requests, rows[0].valid, rows[0].invalid), (10, 1, 9));
    let row = &performance(&scene).await[0];
    assert_eq!(row.requests, 10);
    assert!(is_near(row.average_ms, 3.7), "{row:?}");
    assert_eq!(totals(&scene).await.invalid_signatures, [(SignatureStatus::Invalid, 9)]);
}

pub async fn a_batch_recorded_again_is_counted_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let batch = RecordBatch { id: Uuid::now_v7(), records: vec![refused(START, SignatureStatus::Missing, 5)] };
    scene.request_log().record(&[batch.clone(), batch.clone()]).await.unwrap();
    scene.request_log().record(&[batch]).await.unwrap();
    assert_eq!(security(&scene).await[0].requests, 5);
    assert_eq!(performance(&scene).await[0].requests, 5);
    assert_eq!(totals(&scene).await.top_addresses, [(IpAddr::V4(Ipv4Addr::LOCALHOST), 5)]);
}

pub async fn answers_are_counted_by_path<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let answered =
        |endpoint: &str, http_status| RequestRecord { endpoint: endpoint.to_owned(), http_status, ..request(START) };
    let mut records = vec![answered("/webhook", 200); 3];
    records.extend([answered("/webhook", 503), answered("/webhook", 403), answered("/a", 404)]);
    record(&scene, records).await;
    let rows = performance(&scene).await;
    let seen: Vec<(&str, u64)> = rows.iter().map(|row| (row.endpoint.as_str(), row.requests)).collect();
    assert_eq!(seen, [("/a", 1), ("/webhook", 5)]);
    assert!(is_near(rows[0].success_rate, 100.0), "nothing failed");
    assert!(is_near(rows[1].success_rate, 75.0), "{rows:?}");
    assert!(rows.iter().all(|row| row.hour == hour(START) && row.source == Provider::Meta));
}

pub async fn percentiles_span_batches_and_minutes<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let begun = hour(START);
    for third in 0..3_u32 {
        let times = (1..=1000_u32).filter(|n| n % 3 == third);
        let took = |n: u32| RequestRecord {
            processing_ms: f64::from(n),
            ..request(begun.plus(Duration::from_secs(u64::from(n))))
        };
        record(&scene, times.map(took).collect()).await;
    }
    let row = &performance(&scene).await[0];
    assert_eq!(row.requests, 1000);
    assert!(is_near(row.average_ms, 500.5), "{row:?}");
    assert!((row.p95_ms / 950.0 - 1.0).abs() < 0.05 && (row.p99_ms / 990.0 - 1.0).abs() < 0.05, "{row:?}");
}

pub async fn a_time_is_of_whole_minutes<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let begun = hour(START);
    for n in 0..5 {
        record(&scene, vec![refused(begun.plus(n * MINUTE), SignatureStatus::Invalid, 10_u32.pow(n))]).await;
    }
    let second = |n: u64| begun.plus(Duration::from_secs(n));
    for (since, until, expected) in [(60, 180, 110), (90, 180, 110), (90, 181, 1110), (119, 120, 10), (120, 120, 0)] {
        let statistics = scene.statistics();
        let rows = statistics.security(None, second(since), second(until)).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), expected, "{since} to {until}");
        let rows = statistics.performance(None, second(since), second(until)).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), expected, "{since} to {until}");
        assert_eq!(statistics.security_totals(second(since), second(until)).await.unwrap().requests, expected);
    }
}

pub async fn a_source_is_asked_for_alone<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let providers = Provider::ALL;
    scene.commit_new((1..).zip(providers).map(|(n, provider)| from(message(n), provider)).collect()).await;
    record(&scene, providers.map(|provider| RequestRecord { provider, ..request(START) }).to_vec()).await;
    let (since, until) = span();
    let statistics = scene.statistics();
    for source in providers {
        let only = Some(source);
        let messages = statistics.processing(only, since, until).await.unwrap();
        let requests = statistics.security(only, since, until).await.unwrap();
        let answers = statistics.performance(only, since, until).await.unwrap();
        assert_eq!((messages.len(), requests.len(), answers.len()), (1, 1, 1));
        assert_eq!([messages[0].source, requests[0].source, answers[0].source], [source; 3]);
    }
    assert_eq!(
        (processing(&scene).await.len(), security(&scene).await.len(), performance(&scene).await.len()),
        (3, 3, 3)
    );
}

pub async fn the_report_names_signatures_reasons_and_limits<H: Harness>() {
    use SignatureStatus::{Invalid, Malformed, Missing, Skipped};
    let scene = Scene::<H>::open().await;
    let with = |record: RequestRecord, reason: &str, suspicious| RequestRecord {
        reason: Some(reason.to_owned()),
        suspicious,
        ..record
    };
    let over_limit = RequestRecord { http_status: 429, ..refused(START, Skipped, 30) };
    record(
        &scene,
        vec![
            refused(START, Missing, 2),
            refused(START, Invalid, 3),
            refused(START.plus(MINUTE), Missing, 2),
            with(refused(START, Malformed, 1), "several-signatures", true),
            with(over_limit, "address-limit", false),
            with(refused(START, Skipped, 7), REASON_ADDRESS_LIST, true),
            with(request(START), "too-old", true),
            with(request(START.plus(MINUTE)), "too-old", true),
            RequestRecord { suspicious: true, ..request(START) },
        ],
    )
    .await;
    let totals = totals(&scene).await;
    assert_eq!(totals.requests, 48);
    assert_eq!(totals.invalid_signatures, [(Invalid, 3), (Missing, 4), (Malformed, 1)]);
    let suspicious: Vec<(&str, u64)> = totals.suspicious.iter().map(|(reason, count)| (&**reason, *count)).collect();
    assert_eq!(suspicious, [(REASON_ADDRESS_LIST, 7), ("too-old", 2), ("", 1), ("several-signatures", 1)]);
    assert_eq!((totals.too_old, totals.over_limit, totals.not_on_list), (2, 30, 7));
}

pub async fn the_report_names_the_addresses_that_were_refused_most<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let address = |n: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
    let by = |n: u8, weight| RequestRecord {
        source_ip: address(n),
        ..refused(START.plus(MINUTE * u32::from(n % 3)), SignatureStatus::Invalid, weight)
    };
    let mut records: Vec<RequestRecord> = (1..=12).map(|n| by(n, u32::from(n))).collect();
    records.extend([by(1, 100), RequestRecord { source_ip: address(99), ..request(START) }]);
    record(&scene, records).await;
    let expected: Vec<(IpAddr, u64)> =
        std::iter::once((address(1), 101)).chain((4..=12).rev().map(|n| (address(n), u64::from(n)))).collect();
    assert_eq!(totals(&scene).await.top_addresses, expected);
}

pub async fn throttled_messages_count_once_for_each_envelope<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let one = throttled(&[Some("+491700000001"), Some("+491700000001"), None, Some("not a \0 number")]);
    let other = Parked { reason: ParkReason::Paused, ..throttled(&[]) };
    let batch = Batch { parked: vec![one.clone(), other, one], ..Batch::default() };
    scene.store().commit(batch.clone()).await.unwrap();
    scene.store().commit(batch).await.unwrap();
    assert_eq!(totals(&scene).await.throttled_messages, 4);
    scene.store().commit(Batch { parked: vec![throttled(&[None])], ..Batch::default() }).await.unwrap();
    assert_eq!(totals(&scene).await.throttled_messages, 5);
}

pub async fn duplicates_after_their_key_has_expired_are_replays<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let at = |later: Duration| {
        let update = message(1);
        NewUpdate { received_at: update.received_at.plus(later), ..update }
    };
    scene.commit_new(vec![at(Duration::ZERO), message(2)]).await;
    scene.commit(vec![at(LATE)]).await;
    assert_eq!(totals(&scene).await.late_duplicates, 0, "the gateway should have known this one");
    let late = at(LATE + Duration::from_millis(1));
    scene.commit(vec![late.clone(), late.clone()]).await;
    scene.commit(vec![late]).await;
    assert_eq!(totals(&scene).await.late_duplicates, 1, "a redelivery is none");
    scene.commit(vec![at(LATE * 2)]).await;
    assert_eq!(totals(&scene).await.late_duplicates, 2);
}

pub async fn concurrent_recorders_lose_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let log = scene.request_log();
    let recorder = |odd: bool| {
        let log = log.clone();
        async move {
            for round in 0..20_u32 {
                let minutes = if odd { vec![3, 1, 2, 0] } else { vec![0, 2, 1, 3] };
                let took = |n: u32| RequestRecord {
                    processing_ms: f64::from(round * 5 + n),
                    ..refused(minute(START).plus(n * MINUTE), SignatureStatus::Invalid, 2)
                };
                let records = minutes.into_iter().map(took).collect();
                log.record(&[RecordBatch { id: Uuid::now_v7(), records }]).await.unwrap();
            }
        }
    };
    let others = scene.store();
    let committing = async {
        for n in 0..20 {
            let batch = Batch { updates: vec![message(n)], ..Batch::default() };
            others.commit(batch).await.unwrap();
        }
    };
    tokio::join!(recorder(true), recorder(false), committing);
    let rows = security(&scene).await;
    assert_eq!(
        rows.iter().map(|row| (row.requests, row.invalid)).fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1)),
        (320, 320)
    );
    assert_eq!(performance(&scene).await.iter().map(|row| row.requests).sum::<u64>(), 320);
    assert_eq!(totals(&scene).await.top_addresses, [(IpAddr::V4(Ipv4Addr::LOCALHOST), 320)]);
}

pub async fn statistics_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1)]).await;
    scene.store().commit(Batch { parked: vec![throttled(&[None])], ..Batch::default() }).await.unwrap();
    record(&scene, vec![refused(START, SignatureStatus::Invalid, 3)]).await;
    let before = (processing(&scene).await, security(&scene).await, performance(&scene).await, totals(&scene).await);
    let scene = scene.restart().await;
    let after = (processing(&scene).await, security(&scene).await, performance(&scene).await, totals(&scene).await);
    assert_eq!(before, after);
}
