//! What is parked, let go: once the directory knows its owner, once its tenant is active again, in its turn, on request.

use std::sync::Arc;
use std::time::Duration;

use common::directory::{Entry, Tenant, TenantStatus};
use common::envelope::{Disposition, ParkReason};
use common::{EnvelopeId, Timestamp};
use normalizer::{Released, Releaser};
use ports::parking::ParkedFilter;

use crate::scene::{Scene, entry, message_ids, of_number, text, webhook};

fn releaser(scene: &Scene) -> Releaser {
    Releaser::new(&scene.config, &scene.deps, Arc::clone(&scene.wake))
}

/// Parks a webhook, as the gateway does.
async fn park(scene: &Scene, owner: &str, reason: ParkReason, body: &str) -> EnvelopeId {
    let mut header = scene.header(owner);
    header.disposition = Disposition::Parked(reason);
    header.number = body.split("phone_number_id\":\"").nth(1).and_then(|rest| rest[..3].parse().ok());
    let id = header.id;
    scene.publish(scene.seal(header, body)).await;
    scene.step().await;
    id
}

/// A look at the directory, and at all that is due.
async fn sweep(scene: &Scene) -> Released {
    let releaser = releaser(scene);
    releaser.look_at_directory().await.unwrap();
    releaser.step().await.unwrap()
}

async fn force(scene: &Scene) {
    let parking = scene.backend.parking();
    parking.make_due(&ParkedFilter::default(), scene.deps.clock.now(), true).await.unwrap();
}

fn status(scene: &Scene, status: TenantStatus) {
    scene.enter(Entry::Tenant(Tenant { status, ..scene.tenant_entry("acme") }));
}

#[tokio::test]
async fn a_number_that_is_registered_later_gets_what_was_parked_for_it() {
    let scene = Scene::new();
    park(&scene, "_unassigned", ParkReason::UnknownTenant, &of_number("555", "messages", &[text(1)])).await;
    assert_eq!(sweep(&scene).await, Released::default());
    scene.number("555", "app", &[("other", Timestamp::default())]);
    assert_eq!(sweep(&scene).await, Released { released: 1, kept: 0 });
    assert_eq!(message_ids(&scene.backend), ["wamid.00001"]);
    let event = &scene.backend.committed()[0];
    assert_eq!(event.tenant.as_str(), "other");
    // What it refers to is sealed under the keys of its owner.
    let raw = scene.deps.store.raw_pending(10).await.unwrap();
    let raw = raw.iter().find(|raw| raw.envelope == event.envelope).unwrap();
    let (header, body) = scene.opened(&raw.sealed);
    assert_eq!((header.tenant.as_str(), header.id), ("other", event.envelope));
    assert_eq!(body, of_number("555", "messages", &[text(1)]));
    assert!(scene.backend.parked().is_empty());
    assert_eq!(sweep(&scene).await, Released::default());
}

#[tokio::test]
async fn an_owner_from_a_later_moment_on_does_not_get_it() {
    let scene = Scene::new();
    park(&scene, "_unassigned", ParkReason::UnknownTenant, &of_number("555", "messages", &[text(1)])).await;
    scene.number("555", "app", &[("other", crate::scene::RECEIVED_AT.plus(Duration::from_secs(1)))]);
    assert_eq!(sweep(&scene).await, Released { released: 0, kept: 1 });
    force(&scene).await;
    assert_eq!(releaser(&scene).step().await.unwrap(), Released { released: 0, kept: 1 }, "not even on request");
    assert_eq!(scene.backend.parked().len(), 1);
}

#[tokio::test]
async fn what_has_an_owner_by_now_goes_and_the_rest_stays_behind() {
    let scene = Scene::new();
    let entries = [entry("555", "messages", &[text(1)]), entry("444", "messages", &[text(2)])];
    let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{}]}}"#, entries.join(","));
    park(&scene, "_unassigned", ParkReason::UnknownTenant, &body).await;
    scene.number("555", "app", &[("acme", Timestamp::default())]);
    force(&scene).await;
    assert_eq!(releaser(&scene).step().await.unwrap(), Released { released: 1, kept: 0 });
    assert_eq!(message_ids(&scene.backend), ["wamid.00001"]);
    let rest = scene.backend.parked();
    assert_eq!((rest.len(), rest[0].reason, rest[0].updates), (1, ParkReason::UnknownTenant, 1));
    let (_, body) = scene.opened(&rest[0].sealed);
    assert_eq!(body, of_number("444", "messages", &[text(2)]));
    scene.number("444", "app", &[("other", Timestamp::default())]);
    force(&scene).await;
    releaser(&scene).step().await.unwrap();
    assert_eq!(message_ids(&scene.backend), ["wamid.00001", "wamid.00002"]);
}

#[tokio::test]
async fn what_was_held_back_for_a_tenant_goes_when_it_is_active_again() {
    for (held, reason) in [(TenantStatus::Paused, ParkReason::Paused), (TenantStatus::Suspended, ParkReason::Suspended)]
    {
        let scene = Scene::new();
        status(&scene, held);
        park(&scene, "acme", reason, &webhook("messages", &[text(1)])).await;
        assert_eq!(sweep(&scene).await, Released::default());
        status(&scene, TenantStatus::Active);
        assert_eq!(sweep(&scene).await, Released { released: 1, kept: 0 });
        assert_eq!(message_ids(&scene.backend), ["wamid.00001"]);
    }
}

#[tokio::test]
async fn on_request_it_goes_though_the_tenant_is_held_back() {
    let scene = Scene::new();
    status(&scene, TenantStatus::Suspended);
    park(&scene, "acme", ParkReason::Suspended, &webhook("messages", &[text(1)])).await;
    force(&scene).await;
    assert_eq!(releaser(&scene).step().await.unwrap(), Released { released: 1, kept: 0 });
    assert_eq!(message_ids(&scene.backend), ["wamid.00001"]);
}

#[tokio::test]
async fn throttled_messages_go_at_the_pace_of_the_limit() {
    let scene = Scene::with(|config| config.throttle.meta.max = 2);
    for n in 1..=5 {
        let of_one = text(n).replace(&format!("4915100000{n:03}"), "4915100000001");
        park(&scene, "acme", ParkReason::Throttled, &webhook("messages", &[of_one])).await;
    }
    let releaser = releaser(&scene);
    for (hours, gone) in [(0, 0), (1, 2), (2, 4), (3, 5)] {
        if hours > 0 {
            scene.backend.clock().advance(Duration::from_hours(1));
        }
        while releaser.step().await.unwrap().released > 0 {}
        assert_eq!(message_ids(&scene.backend).len(), gone, "after {hours} h");
    }
}

#[tokio::test]
async fn a_throttled_message_whose_turn_comes_while_its_tenant_is_paused_goes_afterwards() {
    let scene = Scene::new();
    park(&scene, "acme", ParkReason::Throttled, &webhook("messages", &[text(1)])).await;
    status(&scene, TenantStatus::Paused);
    scene.backend.clock().advance(Duration::from_hours(1));
    assert_eq!(sweep(&scene).await, Released { released: 0, kept: 1 });
    status(&scene, TenantStatus::Active);
    scene.backend.clock().advance(Duration::from_mins(10));
    assert_eq!(sweep(&scene).await, Released { released: 1, kept: 0 });
    assert_eq!(message_ids(&scene.backend), ["wamid.00001"]);
}

#[tokio::test]
async fn what_nobody_can_read_stays_and_expires() {
    let scene = Scene::new();
    park(&scene, "_unassigned", ParkReason::Unreadable, "not JSON").await;
    force(&scene).await;
    assert_eq!(releaser(&scene).step().await.unwrap(), Released { released: 0, kept: 1 });
    scene.backend.clock().advance(scene.config.keep_parked);
    releaser(&scene).expire().await.unwrap();
    assert_eq!(scene.backend.parked().len(), 1, "not a moment too early");
    scene.backend.clock().advance(Duration::from_secs(1));
    releaser(&scene).expire().await.unwrap();
    assert!(scene.backend.parked().is_empty());
}

#[tokio::test]
async fn a_lost_answer_releases_nothing_twice() {
    let scene = Scene::new();
    park(&scene, "_unassigned", ParkReason::UnknownTenant, &of_number("555", "messages", &[text(1)])).await;
    scene.number("555", "app", &[("acme", Timestamp::default())]);
    let releaser = releaser(&scene);
    releaser.look_at_directory().await.unwrap();
    scene.backend.faults().lose_next_answers(port_contracts::Operation::Commit, 1);
    assert!(releaser.step().await.is_err());
    scene.backend.clock().advance(Duration::from_mins(2));
    assert_eq!(releaser.step().await.unwrap(), Released::default(), "it is not parked any more");
    assert_eq!(message_ids(&scene.backend).len(), 1);
    assert_eq!(scene.backend.duplicates(), 0);
}

#[tokio::test]
async fn raw_envelopes_are_deleted_after_their_time_with_their_objects() {
    let scene = Scene::new();
    scene.send(&webhook("messages", &[text(1)])).await;
    scene.step().await;
    let old = scene.backend.raw_objects();
    assert_eq!((old.len(), scene.objects().len()), (1, 1));
    scene.backend.clock().advance(scene.config.keep_raw);
    scene.send(&webhook("messages", &[text(2)])).await;
    scene.step().await;
    releaser(&scene).expire().await.unwrap();
    assert_eq!(scene.backend.raw_objects().len(), 2, "an hour is whole before it goes");
    scene.backend.clock().advance(Duration::from_hours(1));
    releaser(&scene).expire().await.unwrap();
    let left = scene.backend.raw_objects();
    assert_eq!((left.len(), scene.objects().len()), (1, 1));
    assert_ne!(left, old);
}
