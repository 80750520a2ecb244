//! The laws of [`Outbox`](ports::outbox::Outbox). What sequencing means to readers is in [`crate::feed`].
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::collections::BTreeSet;
use std::time::Duration;

use common::EventKey;
use ports::feed::{FeedEvent, Position};
use ports::outbox::{Fence, SequenceError};
use uuid::Uuid;

use crate::harness::Harness;
use crate::samples::{impersonal, key, message, numbers_of_different_partitions};
use crate::scene::{Scene, bounded};

/// One test for each law of the outbox.
#[macro_export]
macro_rules! outbox_contract {
    ($harness:ident) => {
        $crate::laws!($harness, outbox:
            // the sequencer
            there_is_one_sequencer_at_a_time,
            of_many_who_want_to_be_the_sequencer_one_is,
            renewing_keeps_the_fence_and_extends_the_lease,
            another_owner_may_sequence_once_the_lease_has_run_out,
            an_older_fence_is_worthless_once_there_is_a_newer,
            another_owner_may_sequence_after_a_crash,
            sequencing_takes_at_most_max_and_says_how_many,
            sequencing_gives_each_event_one_position,
            // publishing
            nothing_is_claimed_before_it_is_sequenced,
            claims_come_in_the_order_of_positions,
            a_claim_takes_at_most_max,
            a_claimed_event_is_not_claimed_again_while_the_lease_runs,
            a_claimed_event_is_as_it_is_in_the_feed,
            another_owner_gets_events_once_the_lease_has_run_out,
            other_owners_get_nothing_of_a_partition_in_hand,
            other_owners_get_later_events_of_a_partition_only_after_the_earlier,
            other_partitions_go_on_meanwhile,
            concurrent_owners_share_no_event_and_no_partition,
            a_marked_event_is_never_claimed_again,
            marking_twice_is_fine,
            marking_some_leaves_the_others,
            marking_and_sequencing_in_one_step_is_both,
            one_who_is_fenced_off_marks_and_sequences_nothing,
            what_is_not_marked_is_counted_sequenced_or_not,
            a_crash_makes_unmarked_events_claimable_again,
            marks_survive_a_restart,
        );
    };
}

const LEASE: Duration = Duration::from_secs(30);
const ANN: Uuid = Uuid::from_u128(0xa);
const BOB: Uuid = Uuid::from_u128(0xb);

async fn acquire<H: Harness>(scene: &Scene<H>, owner: Uuid) -> Option<Fence> {
    scene.outbox().acquire_sequencer(owner, LEASE).await.unwrap()
}

async fn claim<H: Harness>(scene: &Scene<H>, owner: Uuid, max: usize) -> Vec<FeedEvent> {
    let claimed = scene.outbox().claim(owner, max, LEASE).await.unwrap();
    assert!(claimed.len() <= max, "a claim takes at most max");
    claimed
}

async fn claim_keys<H: Harness>(scene: &Scene<H>, owner: Uuid, max: usize) -> Vec<EventKey> {
    claim(scene, owner, max).await.iter().map(|event| event.key).collect()
}

fn positions(events: &[FeedEvent]) -> Vec<Position> {
    events.iter().map(|event| event.position).collect()
}

async fn mark<H: Harness>(scene: &Scene<H>, owner: Uuid, events: &[FeedEvent]) {
    scene.outbox().mark(owner, &positions(events)).await.unwrap();
}

async fn unpublished<H: Harness>(scene: &Scene<H>) -> u64 {
    scene.outbox().unpublished().await.unwrap()
}

/// Emits one event for each given number; equal numbers are one partition.
async fn emit<H: Harness>(scene: &Scene<H>, first: u32, numbers: &[&str]) -> Vec<FeedEvent> {
    scene.emit((first..).zip(numbers).map(|(n, number)| impersonal(n, number)).collect()).await
}

pub async fn there_is_one_sequencer_at_a_time<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert!(acquire(&scene, ANN).await.is_some());
    assert_eq!(acquire(&scene, BOB).await, None);
    scene.pass(LEASE / 3 * 2).await;
    assert_eq!(acquire(&scene, BOB).await, None);
}

pub async fn of_many_who_want_to_be_the_sequencer_one_is<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let wanting = (1..=10).map(async |n| acquire(&scene, Uuid::from_u128(n)).await);
    let fences = futures_util::future::join_all(wanting).await;
    assert_eq!(fences.iter().flatten().count(), 1);
}

pub async fn renewing_keeps_the_fence_and_extends_the_lease<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let fence = acquire(&scene, ANN).await;
    for _ in 0..3 {
        scene.pass(LEASE / 3 * 2).await;
        assert_eq!(acquire(&scene, ANN).await, fence);
        assert_eq!(acquire(&scene, BOB).await, None);
    }
    assert_eq!(scene.outbox().sequence(fence.unwrap(), 10).await.unwrap(), 0);
}

pub async fn another_owner_may_sequence_once_the_lease_has_run_out<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let old = acquire(&scene, ANN).await.unwrap();
    scene.pass(LEASE).await;
    let new = acquire(&scene, BOB).await.unwrap();
    assert!(new > old);
    assert_eq!(acquire(&scene, ANN).await, None);
    scene.commit_new(vec![message(1)]).await;
    assert_eq!(scene.outbox().sequence(new, 10).await.unwrap(), 1);
}

pub async fn an_older_fence_is_worthless_once_there_is_a_newer<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1)]).await;
    let old = acquire(&scene, ANN).await.unwrap();
    scene.pass(LEASE).await;
    let new = acquire(&scene, BOB).await.unwrap();
    assert!(matches!(scene.outbox().sequence(old, 10).await, Err(SequenceError::Fenced)));
    assert!(scene.all_events().await.is_empty(), "it did nothing");
    // Not even once the newer lease has run out.
    scene.pass(LEASE).await;
    assert!(matches!(scene.outbox().sequence(old, 10).await, Err(SequenceError::Fenced)));
    let again = acquire(&scene, ANN).await.unwrap();
    assert!(again > new, "a lease that was lost comes back with a new fence");
    assert_eq!(scene.outbox().sequence(again, 10).await.unwrap(), 1);
}

pub async fn another_owner_may_sequence_after_a_crash<H: Harness>() {
    let scene = Scene::<H>::open().await;
    acquire(&scene, ANN).await.unwrap();
    scene.commit_new(vec![message(1)]).await;
    let scene = scene.restart().await;
    scene.pass(LEASE).await;
    let fence = acquire(&scene, BOB).await.unwrap();
    assert_eq!(scene.outbox().sequence(fence, 10).await.unwrap(), 1);
}

pub async fn sequencing_takes_at_most_max_and_says_how_many<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new((1..=5).map(message).collect()).await;
    let fence = acquire(&scene, ANN).await.unwrap();
    for expected in [2, 2, 1, 0] {
        assert_eq!(scene.outbox().sequence(fence, 2).await.unwrap(), expected);
    }
    assert_eq!(scene.all_events().await.len(), 5);
}

pub async fn sequencing_gives_each_event_one_position<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new((1..=50).map(message).collect()).await;
    let fence = acquire(&scene, ANN).await.unwrap();
    let steps = (0..10).map(async |_| scene.outbox().sequence(fence, 10).await.unwrap());
    let done: usize = futures_util::future::join_all(steps).await.iter().sum();
    assert_eq!(done + scene.outbox().sequence(fence, 100).await.unwrap(), 50);
    let events = scene.all_events().await;
    assert_eq!(events.iter().map(|event| event.key).collect::<Vec<_>>(), (1..=50).map(key).collect::<Vec<_>>());
}

pub async fn nothing_is_claimed_before_it_is_sequenced<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1)]).await;
    assert!(claim(&scene, ANN, 10).await.is_empty());
    scene.sequence_all().await;
    assert_eq!(claim_keys(&scene, ANN, 10).await, [key(1)]);
}

pub async fn claims_come_in_the_order_of_positions<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778", "777", "779", "778", "777"]).await;
    let claimed = [claim(&scene, ANN, 4).await, claim(&scene, ANN, 4).await].concat();
    assert_eq!(claimed.iter().map(|event| event.key).collect::<Vec<_>>(), (1..=6).map(key).collect::<Vec<_>>());
    assert!(claimed.is_sorted_by(|a, b| a.position < b.position));
}

pub async fn a_claim_takes_at_most_max<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778", "779"]).await;
    assert_eq!(claim(&scene, ANN, 2).await.len(), 2);
    assert_eq!(claim(&scene, ANN, 2).await.len(), 1);
}

pub async fn a_claimed_event_is_not_claimed_again_while_the_lease_runs<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778"]).await;
    assert_eq!(claim(&scene, ANN, 10).await.len(), 2);
    scene.pass(LEASE / 3 * 2).await;
    assert!(claim(&scene, ANN, 10).await.is_empty());
    assert!(claim(&scene, BOB, 10).await.is_empty());
}

pub async fn a_claimed_event_is_as_it_is_in_the_feed<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let feed = scene.emit(vec![message(1), impersonal(2, "777")]).await;
    let claimed = claim(&scene, ANN, 10).await;
    for (one, other) in feed.iter().zip(&claimed) {
        assert_eq!(one.position, other.position);
        assert_eq!(one.to_json().unwrap(), other.to_json().unwrap(), "the same bytes on the bus and in the feed");
    }
    assert_eq!(claimed.len(), 2);
}

pub async fn another_owner_gets_events_once_the_lease_has_run_out<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778"]).await;
    claim(&scene, ANN, 10).await;
    scene.pass(LEASE).await;
    emit(&scene, 3, &["777"]).await;
    assert_eq!(claim_keys(&scene, BOB, 10).await, [key(1), key(2), key(3)]);
    assert!(claim(&scene, ANN, 10).await.is_empty());
}

pub async fn other_owners_get_nothing_of_a_partition_in_hand<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "777", "777"]).await;
    assert_eq!(claim_keys(&scene, ANN, 1).await, [key(1)]);
    assert!(claim(&scene, BOB, 10).await.is_empty());
    emit(&scene, 4, &["777"]).await;
    assert!(claim(&scene, BOB, 10).await.is_empty(), "nor what came later");
    assert_eq!(claim_keys(&scene, ANN, 10).await, [key(2), key(3), key(4)], "its owner goes on");
}

pub async fn other_owners_get_later_events_of_a_partition_only_after_the_earlier<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "777", "777"]).await;
    let two = claim(&scene, ANN, 2).await;
    mark(&scene, ANN, &two[..1]).await;
    assert!(claim(&scene, BOB, 10).await.is_empty(), "one is still in hand");
    mark(&scene, ANN, &two[1..]).await;
    assert_eq!(claim_keys(&scene, BOB, 10).await, [key(3)]);
}

pub async fn other_partitions_go_on_meanwhile<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let numbers = numbers_of_different_partitions(2);
    let (one, two) = (numbers[0].as_str(), numbers[1].as_str());
    emit(&scene, 1, &[one, one, two, one, two]).await;
    assert_eq!(claim_keys(&scene, ANN, 1).await, [key(1)]);
    assert_eq!(claim_keys(&scene, BOB, 10).await, [key(3), key(5)]);
    assert_eq!(claim_keys(&scene, ANN, 10).await, [key(2), key(4)]);
}

pub async fn concurrent_owners_share_no_event_and_no_partition<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let numbers = numbers_of_different_partitions(8);
    let of_each: Vec<&str> = (0..10).flat_map(|_| numbers.iter().map(String::as_str)).collect();
    emit(&scene, 1, &of_each).await;
    let publisher = async |owner: u128| {
        let mut published = Vec::new();
        while unpublished(&scene).await > 0 {
            let claimed = claim(&scene, Uuid::from_u128(owner), 7).await;
            tokio::task::yield_now().await;
            mark(&scene, Uuid::from_u128(owner), &claimed).await;
            published.extend(claimed);
        }
        published
    };
    let work = async { tokio::join!(publisher(1), publisher(2), publisher(3)) };
    let (one, two, three) = bounded("publishing everything", work).await;
    let all: Vec<Position> = [positions(&one), positions(&two), positions(&three)].concat();
    assert_eq!(all.len(), 80, "each event is published");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 80, "once");
    for own in [one, two, three] {
        for partition in 0..64 {
            let of_one = own.iter().filter(|event| event.partition == partition);
            assert!(of_one.is_sorted_by(|a, b| a.position < b.position), "in order within a partition");
        }
    }
}

pub async fn a_marked_event_is_never_claimed_again<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778"]).await;
    let claimed = claim(&scene, ANN, 10).await;
    mark(&scene, ANN, &claimed).await;
    scene.pass(LEASE * 10).await;
    assert!(claim(&scene, ANN, 10).await.is_empty());
    assert!(claim(&scene, BOB, 10).await.is_empty());
}

pub async fn marking_twice_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778"]).await;
    let claimed = claim(&scene, ANN, 1).await;
    mark(&scene, ANN, &[claimed.clone(), claimed.clone()].concat()).await;
    mark(&scene, ANN, &claimed).await;
    mark(&scene, ANN, &[]).await;
    assert_eq!(unpublished(&scene).await, 1);
    assert_eq!(claim_keys(&scene, ANN, 10).await, [key(2)]);
}

pub async fn marking_some_leaves_the_others<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let numbers = numbers_of_different_partitions(3);
    emit(&scene, 1, &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let claimed = claim(&scene, ANN, 10).await;
    mark(&scene, ANN, &claimed[1..2]).await;
    assert_eq!(unpublished(&scene).await, 2);
    scene.pass(LEASE).await;
    assert_eq!(claim_keys(&scene, BOB, 10).await, [key(1), key(3)]);
}

pub async fn marking_and_sequencing_in_one_step_is_both<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778"]).await;
    let claimed = claim(&scene, ANN, 10).await;
    scene.pass(LEASE * 10).await;
    let fence = acquire(&scene, ANN).await.unwrap();
    scene.commit_new((3..=5).map(message).collect()).await;
    let step = async |marked: &[Position]| scene.outbox().mark_and_sequence(ANN, marked, fence, 2).await.unwrap();
    assert_eq!(step(&positions(&claimed[..1])).await, 2);
    assert_eq!((unpublished(&scene).await, scene.all_events().await.len()), (4, 4));
    assert_eq!(step(&positions(&claimed[1..])).await, 1);
    assert_eq!(step(&[]).await, 0);
    assert_eq!((unpublished(&scene).await, scene.all_events().await.len()), (3, 5));
    assert_eq!(claim_keys(&scene, BOB, 10).await, [key(3), key(4), key(5)]);
}

pub async fn one_who_is_fenced_off_marks_and_sequences_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777"]).await;
    let claimed = claim(&scene, ANN, 10).await;
    scene.pass(LEASE * 10).await;
    let old = acquire(&scene, ANN).await.unwrap();
    scene.pass(LEASE).await;
    acquire(&scene, BOB).await.unwrap();
    scene.commit_new(vec![message(2)]).await;
    let step = scene.outbox().mark_and_sequence(ANN, &positions(&claimed), old, 10).await;
    assert!(matches!(step, Err(SequenceError::Fenced)), "{step:?}");
    assert_eq!((unpublished(&scene).await, scene.all_events().await.len()), (1, 1));
}

pub async fn what_is_not_marked_is_counted_sequenced_or_not<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(unpublished(&scene).await, 0);
    scene.commit_new((1..=3).map(message).collect()).await;
    assert_eq!(unpublished(&scene).await, 3, "committed");
    scene.sequence_all().await;
    assert_eq!(unpublished(&scene).await, 3, "sequenced");
    let claimed = claim(&scene, ANN, 10).await;
    assert_eq!(unpublished(&scene).await, 3, "in hand");
    mark(&scene, ANN, &claimed[..2]).await;
    assert_eq!(unpublished(&scene).await, 1, "marked");
}

pub async fn a_crash_makes_unmarked_events_claimable_again<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "777", "778"]).await;
    let claimed = claim(&scene, ANN, 10).await;
    mark(&scene, ANN, &claimed[..1]).await;
    let scene = scene.restart().await;
    scene.pass(LEASE).await;
    assert_eq!(claim_keys(&scene, BOB, 10).await, [key(2), key(3)]);
}

pub async fn marks_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    emit(&scene, 1, &["777", "778"]).await;
    let claimed = claim(&scene, ANN, 10).await;
    mark(&scene, ANN, &claimed).await;
    let scene = scene.restart().await;
    scene.pass(LEASE).await;
    assert_eq!(unpublished(&scene).await, 0);
    assert!(claim(&scene, ANN, 10).await.is_empty());
}
