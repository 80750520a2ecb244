//! What a commit does with updates.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use bytes::Bytes;
use futures_util::future::join_all;
use ports::event_store::CommitOutcome::{Duplicate, New, Refused};
use ports::event_store::{CommitOutcome, Detail, NewUpdate};
use ports::message_log::{MessageFilter, MessagePage};

use crate::harness::Harness;
use crate::samples::{data, key, message};
use crate::scene::{Scene, tenant};

/// The longest message id, in characters.
const LONGEST_ID: usize = 255;

fn with_id(n: u32, wamid: &str) -> NewUpdate {
    let mut update = message(n);
    update.event.detail = Detail::Message { id: wamid.to_owned(), kind: "text".to_owned(), text: None };
    update
}

fn with_text(n: u32, saying: &str) -> NewUpdate {
    let mut update = message(n);
    let id = format!("wamid.{n}");
    update.event.detail = Detail::Message { id, kind: "text".to_owned(), text: Some(saying.to_owned()) };
    update
}

async fn messages<H: Harness>(scene: &Scene<H>) -> MessagePage {
    scene.message_log().search(&MessageFilter { limit: 100, ..MessageFilter::default() }).await.unwrap()
}

/// The keys of all events, in order.
async fn keys<H: Harness>(scene: &Scene<H>) -> Vec<common::EventKey> {
    scene.sequence_all().await;
    scene.all_events().await.iter().map(|event| event.key).collect()
}

pub async fn an_update_is_new_once_and_then_a_duplicate<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(scene.commit(vec![message(1)]).await, [New]);
    for _ in 0..3 {
        assert_eq!(scene.commit(vec![message(1)]).await, [Duplicate]);
    }
}

pub async fn an_update_twice_in_one_batch_is_new_and_then_a_duplicate<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let batch = vec![message(1), message(2), message(1), message(1)];
    assert_eq!(scene.commit(batch).await, [New, New, Duplicate, Duplicate]);
    assert_eq!(keys(&scene).await, [key(1), key(2)]);
}

pub async fn a_duplicate_emits_no_second_event<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit(vec![message(1)]).await;
    assert_eq!(keys(&scene).await, [key(1)]);
    scene.commit(vec![message(1), message(2)]).await;
    assert_eq!(keys(&scene).await, [key(1), key(2)]);
    assert_eq!(scene.outbox().unpublished().await.unwrap(), 2);
    assert_eq!(messages(&scene).await.total, 2);
}

pub async fn a_duplicate_keeps_the_first_content<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit(vec![with_text(1, "first")]).await;
    let mut other = with_text(1, "second");
    other.event.data = data(2);
    assert_eq!(scene.commit(vec![other]).await, [Duplicate]);
    scene.sequence_all().await;
    assert_eq!(scene.all_events().await[0].data, data(1));
    assert_eq!(messages(&scene).await.messages[0].text.as_deref(), Some("first"));
}

pub async fn keys_are_unique_within_their_tenant_only<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let other = || NewUpdate { tenant: tenant("other"), ..message(1) };
    assert_eq!(scene.commit(vec![message(1), other()]).await, [New, New]);
    assert_eq!(scene.commit(vec![other(), message(1)]).await, [Duplicate, Duplicate]);
    assert_eq!(keys(&scene).await, [key(1), key(1)]);
}

pub async fn outcomes_come_in_the_order_of_the_updates<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit((0..100).filter(|n| n % 3 == 0).map(message).collect()).await;
    // Falling keys: nothing may depend on the batch being sorted.
    let outcomes = scene.commit((0..100).rev().map(message).collect()).await;
    let expected: Vec<CommitOutcome> = (0..100).rev().map(|n| if n % 3 == 0 { Duplicate } else { New }).collect();
    assert_eq!(outcomes, expected);
}

pub async fn an_empty_batch_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert!(scene.commit(vec![]).await.is_empty());
    assert!(keys(&scene).await.is_empty());
}

pub async fn a_redelivered_envelope_is_a_duplicate_and_emits_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let envelope = vec![message(1), message(2)];
    assert_eq!(scene.commit(envelope.clone()).await, [New, New]);
    let before = keys(&scene).await;
    assert_eq!(scene.commit(envelope).await, [Duplicate, Duplicate]);
    assert_eq!(keys(&scene).await, before);
}

pub async fn concurrent_commits_of_one_update_store_it_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let outcomes = join_all((0..8).map(async |_| scene.commit(vec![message(1)]).await.remove(0))).await;
    assert_eq!(outcomes.iter().filter(|each| **each == New).count(), 1, "{outcomes:?}");
    assert_eq!(keys(&scene).await, [key(1)]);
}

/// Batches that name the same updates in opposite orders must not block each other for good.
pub async fn concurrent_commits_of_overlapping_batches_all_succeed<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let batches = (0..6).map(async |n| {
        let mut batch: Vec<NewUpdate> = (0..20).map(message).collect();
        if n % 2 == 1 {
            batch.reverse();
        }
        scene.commit(batch).await
    });
    let outcomes: Vec<CommitOutcome> = join_all(batches).await.concat();
    assert_eq!(outcomes.iter().filter(|each| **each == New).count(), 20);
    assert_eq!(keys(&scene).await.len(), 20);
}

pub async fn a_large_batch_is_stored_whole<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new((0..1000).map(message).collect()).await;
    assert_eq!(scene.sequence_all().await, 1000);
    assert_eq!(messages(&scene).await.total, 1000);
}

pub async fn a_message_id_of_the_longest_length_is_stored<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let ids = ["w".repeat(LONGEST_ID), "\u{1f680}".repeat(LONGEST_ID)];
    assert_eq!(scene.commit(vec![with_id(1, &ids[0]), with_id(2, &ids[1])]).await, [New, New]);
    let found = messages(&scene).await.messages;
    assert_eq!([&found[0].message_id, &found[1].message_id], [&ids[0], &ids[1]]);
}

pub async fn a_message_id_that_is_too_long_is_refused_and_its_neighbours_are_stored<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let long = with_id(2, &"w".repeat(LONGEST_ID + 1));
    let outcomes = scene.commit(vec![message(1), long, message(3), message(1)]).await;
    assert!(matches!(&outcomes[..], [New, Refused(reason), New, Duplicate] if !reason.is_empty()), "{outcomes:?}");
    assert_eq!(keys(&scene).await, [key(1), key(3)]);
}

pub async fn nothing_of_a_refused_update_is_stored<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let long = with_id(1, &"w".repeat(LONGEST_ID + 1));
    for _ in 0..2 {
        assert!(matches!(&scene.commit(vec![long.clone()]).await[..], [Refused(_)]));
    }
    assert!(keys(&scene).await.is_empty());
    assert_eq!(messages(&scene).await.total, 0);
    assert_eq!(scene.outbox().unpublished().await.unwrap(), 0);
    assert_eq!(scene.commit(vec![message(1)]).await, [New], "its key is not used up");
}

pub async fn a_nul_in_a_text_is_stored_as_a_replacement_character<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(scene.commit(vec![with_text(1, "a\0b"), with_id(2, "wamid.\0")]).await, [New, New]);
    let found = messages(&scene).await.messages;
    assert_eq!(found[0].text.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(found[1].message_id, "wamid.\u{fffd}");
}

pub async fn the_data_of_an_event_is_stored_byte_for_byte<H: Harness>() {
    let scene = Scene::<H>::open().await;
    // Neither order, spaces, number forms, repeated names nor escapes may change.
    let odd = Bytes::from(r#" {"z":1.0e2, "a":"\u0000\ud83d\ude80","a":"\/", "big":12345678901234567890.10}  "#);
    let mut update = message(1);
    update.event.data = odd.clone();
    assert_eq!(scene.emit(vec![update]).await[0].data, odd);
}

pub async fn committed_updates_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit(vec![message(1), message(2)]).await;
    let scene = scene.restart().await;
    assert_eq!(scene.commit(vec![message(1), message(2), message(3)]).await, [Duplicate, Duplicate, New]);
    assert_eq!(keys(&scene).await, [key(1), key(2), key(3)]);
    assert_eq!(messages(&scene).await.total, 3);
}
