//! The publisher: order within partitions, repeats, leases.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::EventKey;
use common::event::event_subject;
use normalizer::Publisher;
use port_contracts::Operation;
use port_contracts::samples::{impersonal, key, numbers_of_different_partitions};
use ports::event_bus::{PublishError, Stream};
use ports::event_store::{Batch, NewUpdate};
use uuid::Uuid;

use crate::scene::{Scene, bounded};

async fn commit(scene: &Scene, updates: Vec<NewUpdate>) {
    scene.deps.store.commit(Batch { updates, ..Batch::default() }).await.unwrap();
}

fn publisher(scene: &Scene) -> Publisher {
    Publisher::new(&scene.config, &scene.deps)
}

/// Commits `each` events for every number, in turns.
async fn emit(scene: &Scene, numbers: &[String], each: u32) {
    let all = (0..each).flat_map(|round| numbers.iter().map(move |number| (round, number)));
    commit(scene, (0..).zip(all).map(|(n, (_, number))| impersonal(n, number)).collect()).await;
}

/// The ids of the events on the bus, by partition.
fn published(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in scene.backend.published(Stream::Events) {
        all.entry(message.subject).or_default().push(message.dedup_id.unwrap());
    }
    all
}

fn assert_in_order(scene: &Scene, numbers: &[String], each: u32) {
    let published = published(scene);
    assert_eq!(published.len(), numbers.len());
    for (index, number) in numbers.iter().enumerate() {
        let keys =
            (0..each).map(|round| key(round * u32::try_from(numbers.len()).unwrap() + u32::try_from(index).unwrap()));
        let expected: Vec<String> = keys.map(|key: EventKey| format!("{}-1", key.event_id())).collect();
        assert_eq!(published[&subject(number)], expected, "each once, in order");
    }
}

fn subject(number: &str) -> String {
    let partition = common::event::PartitionKey::Text(number).partition();
    event_subject(&crate::scene::tenant("acme"), partition, "wharf.unsupported")
}

async fn all_published(scene: &Scene, publisher: &mut Publisher) {
    bounded("everything is published", async {
        while scene.deps.outbox.unpublished().await.unwrap() > 0 {
            let _ = publisher.step().await;
        }
    })
    .await;
}

#[tokio::test]
async fn events_are_published_in_order_and_marked() {
    let scene = Scene::new();
    let numbers = numbers_of_different_partitions(5);
    emit(&scene, &numbers, 20).await;
    let mut publisher = publisher(&scene);
    let progress = publisher.step().await.unwrap();
    assert_eq!((progress.sequenced, progress.published), (100, 100));
    assert_in_order(&scene, &numbers, 20);
    publisher.step().await.unwrap();
    assert_eq!(scene.deps.outbox.unpublished().await.unwrap(), 0);
    assert_eq!(scene.backend.faults().calls(Operation::Publish), 20, "partitions go side by side");
}

#[tokio::test]
async fn what_was_claimed_is_published_as_a_whole_if_the_bus_can() {
    let scene = Scene::new();
    scene.backend.faults().allow_batches();
    let numbers = numbers_of_different_partitions(5);
    emit(&scene, &numbers, 20).await;
    let mut publisher = publisher(&scene);
    assert_eq!(publisher.step().await.unwrap().published, 100);
    assert_in_order(&scene, &numbers, 20);
    let faults = scene.backend.faults();
    assert_eq!((faults.calls(Operation::PublishWhole), faults.calls(Operation::Publish)), (1, 0));
}

#[tokio::test]
async fn order_holds_and_nothing_repeats_whatever_fails() {
    for is_whole in [false, true] {
        order_holds(is_whole).await;
    }
}

async fn order_holds(is_whole: bool) {
    let scene = Scene::with(|config| config.publish_batch = 7);
    let numbers = numbers_of_different_partitions(4);
    emit(&scene, &numbers, 25).await;
    let faults = scene.backend.faults();
    if is_whole {
        faults.allow_batches();
    }
    let publish = if is_whole { Operation::PublishWhole } else { Operation::Publish };
    for operation in [publish, Operation::Mark, Operation::Claim, Operation::Sequence] {
        for _ in 0..3 {
            faults.fail_next(operation, 1);
            faults.lose_next_answers(operation, 1);
        }
    }
    let mut publisher = publisher(&scene);
    bounded("everything is published", async {
        while scene.deps.outbox.unpublished().await.unwrap() > 0 {
            let progress = publisher.step().await;
            // What a claim with a lost answer took comes back with its lease; nobody rang for it.
            if progress.is_ok_and(|progress| progress.published == 0 && progress.sequenced == 0) {
                scene.backend.clock().advance(Duration::from_secs(5));
            }
        }
    })
    .await;
    assert_in_order(&scene, &numbers, 25);
}

#[tokio::test]
async fn an_event_that_the_bus_does_not_take_holds_back_its_partition_only() {
    let scene = Scene::new();
    let numbers = numbers_of_different_partitions(3);
    emit(&scene, &numbers, 10).await;
    scene.backend.faults().fill(&subject(&numbers[1]));
    let mut publisher = publisher(&scene);
    let progress = publisher.step().await.unwrap();
    assert!(matches!(progress.refused, Some(PublishError::Full { .. })));
    assert_eq!(progress.published, 20);
    assert!(!published(&scene).contains_key(&subject(&numbers[1])));
    assert_eq!(publisher.step().await.unwrap().published, 0);
    scene.backend.faults().make_room(&subject(&numbers[1]));
    all_published(&scene, &mut publisher).await;
    assert_in_order(&scene, &numbers, 10);
}

#[tokio::test]
async fn events_that_were_stored_and_not_acknowledged_are_on_the_bus_once() {
    let scene = Scene::new();
    let numbers = numbers_of_different_partitions(3);
    emit(&scene, &numbers, 5).await;
    scene.backend.faults().lose_next_answers(Operation::Publish, 4);
    all_published(&scene, &mut publisher(&scene)).await;
    assert_in_order(&scene, &numbers, 5);
}

#[tokio::test]
async fn a_crash_before_the_mark_repeats_nothing_within_the_window() {
    let scene = Scene::new();
    let numbers = numbers_of_different_partitions(3);
    emit(&scene, &numbers, 5).await;
    scene.backend.faults().take_down(Operation::Mark);
    let mut publishing = publisher(&scene);
    assert_eq!(publishing.step().await.unwrap().published, 15);
    assert!(publishing.step().await.is_err());
    scene.backend.faults().restore(Operation::Mark);
    scene.backend.crash();
    all_published(&scene, &mut publisher(&scene)).await;
    assert_in_order(&scene, &numbers, 5);
}

#[tokio::test]
async fn a_publisher_that_was_fenced_off_acquires_again() {
    let scene = Scene::new();
    let mut publisher = publisher(&scene);
    publisher.step().await.unwrap();
    scene.backend.clock().advance(scene.config.sequencer_ttl);
    commit(&scene, vec![impersonal(1, "777")]).await;
    scene.sequence(9).await;
    commit(&scene, vec![impersonal(2, "777")]).await;
    assert_eq!(publisher.step().await.unwrap().published, 1, "another sequences, this one publishes");
    scene.backend.clock().advance(scene.config.sequencer_ttl);
    assert_eq!(publisher.step().await.unwrap().sequenced, 1);
}

#[tokio::test]
async fn what_another_publisher_has_taken_over_is_not_published_again() {
    let scene = Scene::new();
    emit(&scene, &["777".to_owned()], 3).await;
    let mut publisher = publisher(&scene);
    scene.backend.faults().take_down(Operation::Publish);
    assert!(publisher.step().await.unwrap().refused.is_some());
    scene.backend.clock().advance(scene.config.publish_lease);
    let other = scene.backend.outbox().claim(Uuid::from_u128(7), 10, Duration::from_mins(10)).await.unwrap();
    assert_eq!(other.len(), 3);
    scene.backend.faults().restore(Operation::Publish);
    for _ in 0..3 {
        assert_eq!(publisher.step().await.unwrap().published, 0);
    }
    assert!(scene.backend.published(Stream::Events).is_empty());
}

/// Under the owner id that still holds the first events, the store would hand out the later ones of their partition.
#[tokio::test]
async fn order_holds_though_a_claim_ran_out_while_the_bus_was_down() {
    let scene = Scene::new();
    emit(&scene, &["777".to_owned()], 3).await;
    let mut publisher = publisher(&scene);
    scene.backend.faults().take_down(Operation::Publish);
    assert!(publisher.step().await.unwrap().refused.is_some());
    scene.backend.faults().restore(Operation::Publish);
    scene.backend.clock().advance(scene.config.publish_lease / 8 * 7);
    commit(&scene, vec![impersonal(3, "777")]).await;
    assert_eq!(publisher.step().await.unwrap().published, 0);
    scene.backend.clock().advance(scene.config.publish_lease);
    all_published(&scene, &mut publisher).await;
    assert_in_order(&scene, &["777".to_owned()], 4);
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_bus_does_not_hold_back_its_partition() {
    let scene = Scene::new();
    let mut large = impersonal(1, "777");
    large.event.data = Bytes::from(format!(r#"{{"text":"{}"}}"#, "x".repeat(Stream::MAX_MESSAGE_BYTES)));
    let mut broken = impersonal(2, "777");
    broken.event.data = Bytes::from_static(b"{");
    commit(&scene, vec![impersonal(0, "777"), large, broken, impersonal(3, "777")]).await;
    let mut publisher = publisher(&scene);
    assert_eq!(publisher.step().await.unwrap().published, 2);
    publisher.settle().await.unwrap();
    assert_eq!(scene.deps.outbox.unpublished().await.unwrap(), 0);
}
