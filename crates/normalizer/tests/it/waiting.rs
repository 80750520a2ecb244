//! What this process cannot read yet: it waits, and is never given up.

use std::time::Duration;

use common::directory::{Directory, Entry, OpenDirectory};
use common::sealing;
use normalizer::consumer_live;
use port_contracts::Operation;

use crate::scene::{Scene, tenant, text, webhook};

#[tokio::test]
async fn an_envelope_of_a_newer_version_waits() {
    let scene = Scene::new();
    let mut sealed = scene.seal(scene.header("acme"), &webhook("messages", &[text(1)])).to_vec();
    sealed[4] = 9;
    scene.publish(sealed).await;
    scene.send(&webhook("messages", &[text(2)])).await;
    let settled = scene.step().await;
    assert_eq!((settled.done.len(), settled.waiting.len(), settled.events), (1, 1, 1));
    nothing_is_given_up_however_often_it_comes(&scene).await;
}

#[tokio::test]
async fn an_envelope_under_an_unknown_key_waits() {
    let scene = Scene::new();
    let mut header = scene.header("acme");
    header.key = "a-key-of-tomorrow".to_owned();
    scene.publish(scene.seal(header, &webhook("messages", &[text(1)]))).await;
    nothing_is_given_up_however_often_it_comes(&scene).await;
}

#[tokio::test]
async fn an_envelope_of_a_tenant_that_the_directory_lacks_waits_for_it() {
    let scene = Scene::new();
    let late = scene.tenant_entry("late");
    let mut header = scene.header("acme");
    header.tenant = tenant("late");
    header.key.clone_from(&late.data_keys[0].id);
    // Sealed as the gateway does, which has the tenant already.
    scene.publish(scene.seal_as(&late, header, &webhook("messages", &[text(1)]))).await;
    nothing_is_given_up_however_often_it_comes(&scene).await;
    scene.enter(Entry::Tenant(late));
    scene.number("777", "app", &[("late", common::Timestamp::default())]);
    assert_eq!(scene.step().await.events, 1);
    assert_eq!(scene.backend.committed()[0].tenant, tenant("late"));
}

#[tokio::test]
async fn nothing_is_pulled_before_there_is_a_directory() {
    let scene = Scene::with(|config| config.pull_wait = Duration::from_hours(1));
    scene.send(&webhook("messages", &[text(1)])).await;
    scene.forget_the_directory();
    let taken = scene.pull().await;
    let settled = scene.handle(taken).await;
    assert_eq!((settled.done.len(), settled.waiting.len()), (0, 1), "the step waits, too");
    scene.backend.crash();
    let pulls = scene.backend.faults().calls(Operation::Pull);
    scene.start();
    scene.until("the other loops run", async |scene| scene.backend.faults().calls(Operation::Backlog) > 6).await;
    // The recorder pulls once and waits.
    assert!(scene.backend.faults().calls(Operation::Pull) <= pulls + 1);
    scene.add_tenant("new");
    scene.until("it is normalised", async |scene| scene.backend.committed().len() == 1).await;
    scene.stop().await;
}

/// Delivers what waits many times and sees that it is never counted against it.
async fn nothing_is_given_up_however_often_it_comes(scene: &Scene) {
    for _ in 0..12 {
        let settled = scene.step().await;
        let tokens = &settled.waiting;
        scene.deps.bus.retry_after(&consumer_live(&scene.config), tokens, Duration::ZERO).await.unwrap();
        scene.backend.clock().advance(scene.config.ack_wait);
    }
    assert!(scene.backend.dead_letters().is_empty());
    assert_eq!(scene.depth().await, 1);
    assert_eq!(scene.pull().await.len(), 1);
    scene.backend.clock().advance(scene.config.ack_wait);
}

impl Scene {
    /// Seals with the keys of a tenant that is not in the directory.
    fn seal_as(&self, tenant: &common::directory::Tenant, header: common::envelope::Header, body: &str) -> Vec<u8> {
        let entry = Entry::Tenant(tenant.clone());
        let directory = Directory { revision: 1, entries: [(entry.key(), entry)].into() };
        let open = OpenDirectory::open(&directory, self.ring()).unwrap();
        sealing::seal(header, body.as_bytes(), open.tenant(&tenant.id).unwrap().sealing())
    }
}
