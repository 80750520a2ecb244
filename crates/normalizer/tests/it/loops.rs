//! The loops: outages, blob store, stop, and everything together.

use std::time::Duration;

use bytes::Bytes;
use port_contracts::Operation;
use ports::event_bus::Stream;

use crate::scene::{Scene, bounded, message_ids, text, webhook};

async fn send_some(scene: &Scene, from: u32, to: u32) {
    for n in from..to {
        scene.send(&webhook("messages", &[text(n)])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_on_the_lane_comes_out_as_events() {
    let scene = Scene::new();
    scene.start();
    send_some(&scene, 0, 500).await;
    scene.until("all are published", async |scene| scene.backend.published(Stream::Events).len() == 500).await;
    scene.until("all are acknowledged", async |scene| scene.depth().await == 0).await;
    scene.until("all are marked", async |scene| scene.deps.outbox.unpublished().await.unwrap() == 0).await;
    let event: serde_json::Value = serde_json::from_slice(&scene.backend.published(Stream::Events)[0].payload).unwrap();
    assert_eq!((&event["type"], &event["tenant"]), (&"wharf.message.received".into(), &"acme".into()));
    scene.stop().await;
}

#[tokio::test]
async fn a_commit_rings_for_the_publisher() {
    let scene = Scene::with(|config| config.outbox_poll = Duration::from_hours(1));
    scene.start();
    scene.until("the publisher looked once", async |scene| scene.backend.faults().calls(Operation::Claim) >= 1).await;
    send_some(&scene, 0, 1).await;
    scene.until("it is published", async |scene| scene.backend.published(Stream::Events).len() == 1).await;
    scene.stop().await;
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_settled_and_afterwards_the_backlog_drains() {
    let scene = Scene::with(|config| {
        config.batch = 2;
        config.pull_wait = Duration::from_hours(1);
    });
    let faults = scene.backend.faults();
    faults.take_down(Operation::Commit);
    send_some(&scene, 0, 10).await;
    scene.start();
    bounded("commits are tried again", faults.called(Operation::Commit, 4)).await;
    let pulls = faults.calls(Operation::Pull);
    bounded("commits are tried again", faults.called(Operation::Commit, 6)).await;
    assert_eq!(faults.calls(Operation::Ack), 0);
    assert_eq!(scene.depth().await, 10);
    assert!(scene.backend.dead_letters().is_empty());
    assert_eq!((pulls, faults.calls(Operation::Pull)), (3, 3), "nothing more is pulled");
    faults.restore(Operation::Commit);
    scene.until("the backlog drains", async |scene| scene.depth().await == 0).await;
    assert_eq!(message_ids(&scene.backend).len(), 10);
    assert!(scene.backend.dead_letters().is_empty());
    scene.stop().await;
}

#[tokio::test]
async fn what_is_held_during_an_outage_is_extended() {
    let scene = Scene::with(|config| config.ack_wait = Duration::from_millis(60));
    let faults = scene.backend.faults();
    faults.hang(Operation::Commit);
    send_some(&scene, 0, 3).await;
    scene.start();
    bounded("it is extended", faults.called(Operation::Extend, 3)).await;
    faults.restore(Operation::Commit);
    scene.until("the backlog drains", async |scene| scene.depth().await == 0).await;
    scene.stop().await;
}

#[tokio::test]
async fn an_answer_that_was_lost_makes_no_second_event() {
    let scene = Scene::new();
    scene.backend.faults().lose_next_answers(Operation::Commit, 2);
    scene.backend.faults().lose_next_answers(Operation::Ack, 2);
    send_some(&scene, 0, 3).await;
    scene.start();
    scene.until("all is acknowledged", async |scene| scene.depth().await == 0).await;
    scene.until("all is published", async |scene| scene.backend.published(Stream::Events).len() == 3).await;
    assert_eq!((message_ids(&scene.backend).len(), scene.backend.duplicates()), (3, 0));
    scene.stop().await;
}

#[tokio::test]
async fn the_loops_survive_a_bus_that_is_away() {
    let scene = Scene::new();
    send_some(&scene, 0, 3).await;
    scene.backend.faults().disconnect();
    scene.start();
    bounded("pulls are tried", scene.backend.faults().called(Operation::Pull, 6)).await;
    scene.backend.faults().reconnect();
    scene.until("all is published", async |scene| scene.backend.published(Stream::Events).len() == 3).await;
    scene.stop().await;
}

#[tokio::test]
async fn while_the_blob_store_is_down_raw_bytes_wait_in_the_database() {
    let scene = Scene::new();
    scene.take_blobs_down();
    send_some(&scene, 0, 3).await;
    let sealed: Vec<Bytes> = scene.pull().await.into_iter().map(|delivery| delivery.payload).collect();
    scene.backend.crash();
    scene.start();
    scene.until("it is normalised all the same", async |scene| scene.depth().await == 0).await;
    let pending = scene.backend.store().raw_pending(10).await.unwrap();
    assert_eq!(pending.iter().map(|pending| pending.sealed.clone()).collect::<Vec<_>>(), sealed);
    assert!(scene.backend.raw_objects().is_empty());
    scene.restore_blobs();
    // A store that failed is left alone for a while.
    scene.backend.clock().advance(scene.config.raw_sweep);
    scene.until("it is swept", async |scene| scene.backend.raw_objects().len() == 3).await;
    assert!(scene.backend.store().raw_pending(10).await.unwrap().is_empty());
    let object = scene.backend.raw_objects().remove(0);
    let bytes = std::fs::read(scene.folder.path().join(&object.object)).unwrap();
    assert_eq!(bytes.len(), sealed.iter().map(Bytes::len).sum::<usize>());
    scene.stop().await;
}

#[tokio::test]
async fn raw_bytes_of_few_envelopes_wait_in_the_database_for_the_sweep() {
    let scene = Scene::with(|config| config.archive_at_once = 4);
    for (from, to) in [(0, 2), (2, 5)] {
        send_some(&scene, from, to).await;
        scene.step().await;
    }
    assert!(scene.backend.raw_objects().is_empty() && scene.objects().is_empty());
    assert_eq!(scene.backend.store().raw_pending(10).await.unwrap().len(), 5);
    scene.start();
    scene.until("it is swept", async |scene| scene.backend.raw_objects().len() == 5).await;
    assert_eq!(scene.objects().len(), 1, "one object for what gathered");
    assert!(scene.backend.store().raw_pending(10).await.unwrap().is_empty());
    scene.stop().await;
    send_some(&scene, 5, 9).await;
    scene.step().await;
    assert_eq!((scene.backend.raw_objects().len(), scene.objects().len()), (9, 2), "many are archived at once");
}

#[tokio::test]
async fn an_idle_normalizer_stops_at_once() {
    let scene = Scene::with(|config| config.stop_grace = Duration::from_hours(1));
    scene.start();
    scene.until("it runs", async |scene| scene.backend.faults().calls(Operation::Pull) >= 3).await;
    scene.stop().await;
}

#[tokio::test]
async fn a_stop_during_an_outage_leaves_the_work_to_redelivery() {
    let scene = Scene::with(|config| config.stop_grace = Duration::from_hours(1));
    scene.backend.faults().take_down(Operation::Commit);
    send_some(&scene, 0, 3).await;
    scene.start();
    bounded("it pauses", scene.backend.faults().called(Operation::Commit, 2)).await;
    scene.stop().await;
    assert_eq!((scene.depth().await, scene.backend.faults().calls(Operation::Ack)), (3, 0));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_store_that_hangs() {
    let scene = Scene::new();
    scene.backend.faults().hang(Operation::Commit);
    send_some(&scene, 0, 3).await;
    scene.start();
    bounded("it hangs", scene.backend.faults().hanging(Operation::Commit, 1)).await;
    scene.stop().await;
    assert_eq!(scene.depth().await, 3);
}
