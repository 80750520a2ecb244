//! What is kept without being handed out.

use common::Timestamp;
use common::envelope::{Disposition, ParkReason};
use common::update::Provider;

use crate::scene::{Scene, entry, message_ids, of_number, tenant, text, webhook};

#[tokio::test]
async fn a_parked_envelope_stays_parked() {
    let scene = Scene::new();
    let mut header = scene.header("acme");
    header.disposition = Disposition::Parked(ParkReason::Throttled);
    header.updates = 2;
    let id = header.id;
    let sealed = scene.seal(header, &webhook("messages", &[text(1), text(1)]));
    scene.publish(sealed.clone()).await;
    assert_eq!(scene.step().await.events, 0);
    let rows = scene.backend.parked();
    let [row] = &rows[..] else { panic!("one row") };
    assert_eq!((row.envelope, row.tenant.as_str(), row.reason), (id, "acme", ParkReason::Throttled));
    assert_eq!((row.updates, &row.sealed), (2, &sealed));
    assert_eq!(row.provider, Provider::Meta);
    let sender = Some("+4915100000001".to_owned());
    assert_eq!(row.throttled, [sender.clone(), sender], "one for each message");
    assert!(scene.backend.committed().is_empty() && scene.backend.dead_letters().is_empty());
    assert_eq!(scene.backend.raw_objects().len(), 1);
}

#[tokio::test]
async fn an_unreadable_body_is_parked_without_senders() {
    let scene = Scene::new();
    let mut header = scene.header("_unassigned");
    header.disposition = Disposition::Parked(ParkReason::Unreadable);
    scene.publish(scene.seal(header, "not JSON")).await;
    scene.step().await;
    let rows = scene.backend.parked();
    assert_eq!((rows.len(), rows[0].throttled.len()), (1, 0));
    assert!(scene.backend.dead_letters().is_empty());
}

#[tokio::test]
async fn what_belongs_to_nobody_by_now_is_parked_and_the_rest_passes() {
    let scene = Scene::new();
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{},{},{}]}}"#,
        entry("777", "messages", &[text(1)]),
        entry("666", "messages", &[text(2), text(3)]),
        entry("555", "messages", &[text(4)]),
    );
    let id = scene.send(&body).await;
    scene.handle(scene.pull().await).await;
    let first = scene.backend.parked();
    scene.backend.crash();
    scene.step().await;
    assert_eq!(message_ids(&scene.backend), ["wamid.00001"]);
    let mut rows = scene.backend.parked();
    rows.sort_by_key(|row| row.reason);
    assert_eq!(rows.len(), 2, "a redelivery does not park twice");
    assert_eq!(first.len(), 2);
    let [unknown, foreign] = &rows[..] else { panic!("two rows") };
    assert_eq!((unknown.reason, unknown.updates, unknown.throttled.len()), (ParkReason::UnknownTenant, 1, 0));
    assert_eq!((foreign.reason, foreign.updates, foreign.throttled.len()), (ParkReason::ForeignApp, 2, 0));
    assert!(rows.iter().all(|row| row.tenant.is_unassigned() && row.envelope != id));
    let (header, body) = scene.opened(&foreign.sealed);
    assert_eq!((header.id, header.disposition), (foreign.envelope, Disposition::Parked(ParkReason::ForeignApp)));
    assert_eq!(body, of_number("666", "messages", &[text(2), text(3)]));
}

#[tokio::test]
async fn a_number_that_moved_to_another_app_is_foreign() {
    let scene = Scene::new();
    scene.number("777", "strange", &[("other", Timestamp::default())]);
    scene.send(&webhook("messages", &[text(1)])).await;
    assert_eq!(scene.step().await.events, 0);
    assert_eq!(scene.backend.parked()[0].reason, ParkReason::ForeignApp);
    assert_eq!(scene.depth().await, 0);
}

#[tokio::test]
async fn updates_of_two_tenants_in_one_envelope_go_to_their_own() {
    let scene = Scene::new();
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{},{}]}}"#,
        entry("777", "messages", &[text(1)]),
        entry("888", "messages", &[text(2)]),
    );
    scene.send(&body).await;
    assert_eq!(scene.step().await.events, 2);
    let tenants: Vec<_> = scene.backend.committed().into_iter().map(|update| update.tenant).collect();
    assert_eq!(tenants, [tenant("acme"), tenant("other")]);
}
