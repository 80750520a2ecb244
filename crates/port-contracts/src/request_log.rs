//! The laws of [`RequestLog`](ports::request_log::RequestLog).
//!
//! Records are read by statistics, not through a port; here it can only be seen that writing them works in every order,
//! repeatedly, and changes no message. What the rows hold is tested where they are, in the backends.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::record::{Outcome, RecordBatch, RecordedMessages, RequestRecord, SignatureStatus};
use common::update::Provider;
use common::{AppId, EventKey, RequestId};
use ports::event_store::CommitOutcome;
use ports::message_log::{MessageFilter, MessagePage};
use uuid::Uuid;

use crate::clock::START;
use crate::harness::Harness;
use crate::samples::{key, message};
use crate::scene::{Scene, tenant};

/// One test for each law of the request log.
#[macro_export]
macro_rules! request_log_contract {
    ($harness:ident) => {
        $crate::laws!($harness, request_log:
            recording_nothing_is_fine,
            a_batch_of_every_outcome_is_recorded,
            a_batch_recorded_again_is_fine,
            a_batch_recorded_again_after_a_restart_is_fine,
            records_may_come_before_and_after_their_messages,
            records_make_no_messages,
            a_large_batch_is_recorded,
        );
    };
}

fn record(stored: &[EventKey], duplicates: &[EventKey]) -> RequestRecord {
    RequestRecord {
        request: RequestId::fresh(),
        received_at: START,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        provider: Provider::Meta,
        endpoint: "/webhooks/meta".to_owned(),
        app: Some(AppId::new("app").unwrap()),
        tenant: Some(tenant("acme")),
        event: stored.first().or(duplicates.first()).copied(),
        event_type: Some("message".to_owned()),
        event_count: 1,
        signature: SignatureStatus::Valid,
        http_status: 200,
        outcome: Outcome::Accepted,
        reason: None,
        suspicious: false,
        processing_ms: 1.25,
        weight: 1,
        messages: vec![RecordedMessages {
            tenant: tenant("acme"),
            stored: stored.to_vec(),
            duplicates: duplicates.to_vec(),
        }],
    }
}

fn forged(signature: SignatureStatus, outcome: Outcome, weight: u32) -> RequestRecord {
    RequestRecord {
        source_ip: IpAddr::V6(Ipv6Addr::LOCALHOST),
        app: None,
        tenant: None,
        event: None,
        event_type: None,
        event_count: 0,
        signature,
        http_status: 403,
        outcome,
        reason: Some("signature".to_owned()),
        suspicious: true,
        weight,
        messages: vec![],
        ..record(&[], &[])
    }
}

fn batch(records: Vec<RequestRecord>) -> RecordBatch {
    RecordBatch { id: Uuid::now_v7(), records }
}

async fn write<H: Harness>(scene: &Scene<H>, batches: &[RecordBatch]) {
    scene.request_log().record(batches).await.unwrap();
}

async fn messages<H: Harness>(scene: &Scene<H>) -> MessagePage {
    scene.message_log().search(&MessageFilter { limit: 100, ..MessageFilter::default() }).await.unwrap()
}

pub async fn recording_nothing_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    write(&scene, &[]).await;
    write(&scene, &[batch(vec![])]).await;
}

pub async fn a_batch_of_every_outcome_is_recorded<H: Harness>() {
    use Outcome::{Accepted, Duplicate, Refused, Unavailable};
    use SignatureStatus::{Invalid, Malformed, Missing, Skipped, Valid};
    let scene = Scene::<H>::open().await;
    let mut records = vec![record(&[key(1)], &[key(2)])];
    for signature in [Valid, Invalid, Missing, Malformed, Skipped] {
        for outcome in [Accepted, Duplicate, Refused, Unavailable] {
            records.push(forged(signature, outcome, 1000));
        }
    }
    write(&scene, &[batch(records)]).await;
}

pub async fn a_batch_recorded_again_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two) = (batch(vec![record(&[key(1)], &[])]), batch(vec![record(&[], &[key(1)])]));
    write(&scene, &[one.clone(), two.clone(), one.clone()]).await;
    write(&scene, &[two, one]).await;
}

pub async fn a_batch_recorded_again_after_a_restart_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let one = batch(vec![record(&[key(1)], &[])]);
    write(&scene, std::slice::from_ref(&one)).await;
    let scene = scene.restart().await;
    write(&scene, &[one]).await;
}

pub async fn records_may_come_before_and_after_their_messages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    write(&scene, &[batch(vec![record(&[key(1)], &[]), record(&[], &[key(1), key(2)])])]).await;
    let updates = vec![message(1), message(2), message(3)];
    assert_eq!(scene.commit(updates.clone()).await, [CommitOutcome::New, CommitOutcome::New, CommitOutcome::New]);
    let before = messages(&scene).await;
    write(&scene, &[batch(vec![record(&[key(2), key(3)], &[key(1)])])]).await;
    assert_eq!(messages(&scene).await, before);
    assert_eq!(before.total, 3);
    assert_eq!(scene.commit(updates).await, vec![CommitOutcome::Duplicate; 3]);
}

pub async fn records_make_no_messages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    write(&scene, &[batch(vec![record(&[key(1)], &[key(2)])])]).await;
    assert_eq!(messages(&scene).await.total, 0);
    assert_eq!(scene.message_log().totals(None).await.unwrap().messages, 0);
    assert_eq!(scene.sequence_all().await, 0);
}

pub async fn a_large_batch_is_recorded<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let records = (0..1000).map(|n| record(&[key(n)], &[key(n + 1), key(n + 2)])).collect();
    write(&scene, &[batch(records)]).await;
}
