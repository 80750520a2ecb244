//! The gateway behind its HTTP routes, on in-memory ports that can fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod scene;

use std::time::Duration;

use actix_web::http::StatusCode;
use common::envelope::{Disposition, ParkReason, decode};
use common::record::{Outcome, SignatureStatus};
use port_contracts::memory::Operation;
use ports::event_bus::Stream;

use scene::{Scene, message, statuses};

#[actix_web::test]
async fn a_signed_webhook_is_on_the_bus_when_it_is_answered_200() {
    let scene = Scene::open();
    let answer = scene.send(&message("a")).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "OK"));
    assert_eq!(scene.dispositions(), [Disposition::Deliver]);
}

#[actix_web::test]
async fn a_webhook_that_nobody_signed_is_403_and_leaves_nothing() {
    let scene = Scene::open();
    for header in [None, Some("sha256=00"), Some(""), Some(&*format!("sha256={}", "0".repeat(64)))] {
        let answer = scene.send_with(&message("a"), header).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{header:?}");
        assert!(answer.body.contains("\"code\":\"signature\""), "{}", answer.body);
    }
    assert!(scene.dispositions().is_empty());
}

#[actix_web::test]
async fn a_full_stop_of_the_bus_is_503_at_once_and_nothing_is_remembered() {
    let scene = Scene::open();
    scene.faults().fail_next(Operation::Publish, 1);
    let answer = scene.send(&message("a")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
    // The sender's retry is no duplicate.
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::OK);
    assert_eq!(scene.dispositions(), [Disposition::Deliver]);
}

#[actix_web::test]
async fn a_disconnected_bus_is_503_without_trying() {
    let scene = Scene::open();
    scene.faults().disconnect();
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.faults().calls(Operation::Publish), 0);
    scene.faults().reconnect();
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn a_frozen_bus_is_503_at_the_deadline_and_then_the_breaker_answers_at_once() {
    let scene = Scene::impatient();
    scene.faults().hang(Operation::Publish);
    let started = tokio::time::Instant::now();
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(started.elapsed() >= scene::DEADLINE, "the first waits for the deadline");
    let calls = scene.faults().calls(Operation::Publish);
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.faults().calls(Operation::Publish), calls, "the breaker is open");
    scene.faults().restore(Operation::Publish);
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::OK, "one try closes it");
}

#[actix_web::test]
async fn admission_that_fails_or_hangs_stops_nothing() {
    let scene = Scene::open();
    scene.faults().take_down(Operation::Admit);
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::OK);
    scene.faults().restore(Operation::Admit);
    scene.faults().hang(Operation::Admit);
    assert_eq!(scene.send(&message("b")).await.status, StatusCode::OK);
    assert_eq!(scene.dispositions().len(), 2);
}

#[actix_web::test]
async fn what_was_stored_is_answered_without_storing_again() {
    let scene = Scene::open();
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::OK);
    scene.remembered(1).await;
    let again = scene.send(&message("a")).await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::OK, "OK"), "a duplicate gets the same answer");
    assert_eq!(scene.dispositions().len(), 1);
    let record = scene.records().await.pop().unwrap();
    assert_eq!(record.outcome, Outcome::Duplicate);
    assert_eq!(record.messages[0].duplicates.len(), 1);
}

#[actix_web::test]
async fn the_same_id_with_other_content_is_stored_again() {
    let scene = Scene::open();
    scene.send(&message("a")).await;
    scene.remembered(1).await;
    let other = message("a").replace("hello", "other");
    assert_eq!(scene.send(&other).await.status, StatusCode::OK);
    assert_eq!(scene.dispositions().len(), 2, "the database decides");
}

#[actix_web::test]
async fn the_101st_message_of_a_sender_is_200_and_parked() {
    let scene = Scene::open();
    for n in 0..101 {
        assert_eq!(scene.send(&message(&format!("m{n}"))).await.status, StatusCode::OK);
    }
    let dispositions = scene.dispositions();
    assert!(dispositions[..100].iter().all(|each| *each == Disposition::Deliver));
    assert_eq!(dispositions[100], Disposition::Parked(ParkReason::Throttled));
}

#[actix_web::test]
async fn an_unknown_tenant_is_200_and_parked() {
    let scene = Scene::open();
    let body = message("a").replace("777000111222333", "999");
    assert_eq!(scene.send(&body).await.status, StatusCode::OK);
    assert_eq!(scene.dispositions(), [Disposition::Parked(ParkReason::UnknownTenant)]);
}

#[actix_web::test]
async fn without_a_directory_it_is_503_and_never_403() {
    let scene = Scene::without_directory();
    assert_eq!(scene.send(&message("a")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.send_with(&message("a"), None).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[actix_web::test]
async fn an_app_in_the_path_accepts_its_own_secret_only() {
    let scene = Scene::open();
    let signature = scene::signature("other-secret", &message("a"));
    assert_eq!(scene.post("/webhooks/meta/main", &message("a"), Some(&signature)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        scene.post("/webhooks/meta/nobody", &message("a"), Some(&signature)).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(scene.post("/webhooks/meta/other", &message("a"), Some(&signature)).await.status, StatusCode::OK);
    assert_eq!(scene.dispositions(), [Disposition::Parked(ParkReason::ForeignApp)]);
}

#[actix_web::test]
async fn the_51st_request_of_an_address_in_a_second_is_429_signed_or_not() {
    let scene = Scene::with_address_limit(50);
    for n in 0..50 {
        let answer = scene.send(&statuses(&format!("s{n}"), 1)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let answer = scene.send(&statuses("s51", 1)).await;
    assert_eq!((answer.status, answer.retry_after.as_deref()), (StatusCode::TOO_MANY_REQUESTS, Some("1")));
}

#[actix_web::test]
async fn a_large_batch_takes_the_same_way() {
    let scene = Scene::open();
    let body = statuses("large", 1000);
    assert!(body.len() > 128 << 10);
    assert_eq!(scene.send(&body).await.status, StatusCode::OK);
    let envelope = scene.backend.published(Stream::Inbound(common::envelope::Lane::Live)).remove(0);
    assert_eq!(decode(&envelope.payload).unwrap().header.updates, 1000);
    scene.remembered(1000).await;
    assert_eq!(scene.send(&body).await.status, StatusCode::OK);
    assert_eq!(scene.dispositions().len(), 1, "known as a whole");
}

#[actix_web::test]
async fn one_refused_envelope_makes_the_request_503_and_the_rest_is_published() {
    let scene = Scene::open();
    let two = scene::two_tenants("a", "b");
    scene.faults().fill("inbound.live.beta");
    assert_eq!(scene.send(&two).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.dispositions().len(), 1);
    scene.faults().make_room("inbound.live.beta");
    assert_eq!(scene.send(&two).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn every_request_leaves_a_record_without_ids_in_the_clear() {
    let scene = Scene::open();
    scene.send(&message("wamid.SECRET")).await;
    scene.send_with(&message("b"), None).await;
    let records = scene.records().await;
    let signatures: Vec<_> = records.iter().map(|record| (record.signature, record.http_status)).collect();
    assert_eq!(signatures, [(SignatureStatus::Valid, 200), (SignatureStatus::Missing, 403)]);
    assert_eq!(records[0].messages[0].stored.len(), 1);
    let json = serde_json::to_string(&records).unwrap();
    assert!(!json.contains("SECRET") && !json.contains("351910000001"));
}

#[actix_web::test]
async fn the_handshake_answers_the_challenge_for_the_right_token_only() {
    let scene = Scene::open();
    let get = |token: &str| format!("/webhooks/meta?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=4%3C2");
    let good = scene.get(&get("verify")).await;
    assert_eq!((good.status, good.body.as_str()), (StatusCode::OK, "4<2"));
    assert_eq!(scene.get(&get("wrong")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(scene.get("/webhook").await.status, StatusCode::FORBIDDEN);
    assert_eq!(scene.get("/nowhere").await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn a_test_of_metas_dashboard_is_recorded_as_one_and_nothing_suspicious() {
    let scene = Scene::open();
    let body = std::fs::read_to_string("../providers/src/meta/fixtures/dashboard_test.json").unwrap();
    let fixture: serde_json::Value = serde_json::from_str(&body).unwrap();
    let body = fixture.get("body").unwrap_or(&fixture).to_string();
    assert_eq!(scene.send(&body).await.status, 200);
    let record = scene.records().await.remove(0);
    assert_eq!((record.event_type.as_deref(), record.reason.as_deref()), (Some("test"), Some("test")));
    assert!(!record.suspicious);
}
