//! What happens to a message in a consumer's hands.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::time::Duration;

use super::{ACK_WAIT, LIVE, ack, backlog, consumer, nothing_comes, publish_texts, take, texts, tokens};
use crate::harness::Harness;
use crate::scene::Scene;

const LONG: Duration = Duration::from_mins(2);

pub async fn an_acked_message_never_comes_again<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    ack(&scene, &consumer(LIVE), &taken).await;
    scene.pass(LONG).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
}

pub async fn an_acked_message_does_not_come_again_after_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a", "b", "c"]).await;
    let taken = take(&scene, &consumer(LIVE), 3).await;
    ack(&scene, &consumer(LIVE), &taken[1..2]).await;
    let scene = scene.restart().await;
    scene.pass(ACK_WAIT).await;
    if H::REMEMBERS_ACKS_OVER_RESTART {
        assert_eq!(texts(&take(&scene, &consumer(LIVE), 2).await), ["a", "c"]);
        nothing_comes(&scene, &consumer(LIVE)).await;
    } else {
        let again = texts(&take(&scene, &consumer(LIVE), 2).await);
        assert!(again == ["a", "c"] || again == ["a", "b"], "{again:?}");
    }
}

pub async fn an_unacked_message_comes_again_after_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    take(&scene, &consumer(LIVE), 1).await;
    let scene = scene.restart().await;
    scene.pass(ACK_WAIT).await;
    assert_eq!(texts(&take(&scene, &consumer(LIVE), 1).await), ["a"]);
}

pub async fn an_unacked_message_comes_again_after_the_ack_wait<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let published = publish_texts(&scene, LIVE, &["a"]).await;
    let first = take(&scene, &consumer(LIVE), 1).await.remove(0);
    scene.pass(ACK_WAIT).await;
    let again = take(&scene, &consumer(LIVE), 1).await.remove(0);
    assert_eq!((again.delivered, again.sequence), (2, published[0].sequence));
    assert_eq!((again.subject, again.payload), (first.subject, first.payload));
    assert_eq!(again.published_at, first.published_at);
}

pub async fn a_message_in_hand_does_not_come_again_before_the_ack_wait<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    take(&scene, &consumer(LIVE), 1).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    scene.pass(ACK_WAIT / 3 * 2).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
}

pub async fn an_extended_message_comes_again_only_an_ack_wait_later<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    for _ in 0..3 {
        scene.pass(ACK_WAIT / 3 * 2).await;
        scene.bus().extend(&consumer(LIVE), &tokens(&taken)).await.unwrap();
    }
    scene.pass(ACK_WAIT / 3 * 2).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    scene.pass(ACK_WAIT / 3).await;
    assert_eq!(take(&scene, &consumer(LIVE), 1).await[0].delivered, 2);
}

pub async fn a_message_handed_back_comes_again_after_its_delay<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    scene.bus().retry_after(&consumer(LIVE), &tokens(&taken), ACK_WAIT * 3).await.unwrap();
    scene.pass(ACK_WAIT * 2).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    scene.pass(ACK_WAIT).await;
    assert_eq!(take(&scene, &consumer(LIVE), 1).await[0].delivered, 2);
}

pub async fn a_message_handed_back_without_delay_comes_again_at_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    scene.bus().retry_after(&consumer(LIVE), &tokens(&taken), Duration::ZERO).await.unwrap();
    assert_eq!(take(&scene, &consumer(LIVE), 1).await[0].delivered, 2);
}

pub async fn a_message_handed_back_comes_again_after_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    scene.bus().retry_after(&consumer(LIVE), &tokens(&taken), LONG).await.unwrap();
    let scene = scene.restart().await;
    scene.pass(LONG).await;
    assert_eq!(texts(&take(&scene, &consumer(LIVE), 1).await), ["a"]);
}

pub async fn handing_back_after_an_ack_brings_nothing_back<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    ack(&scene, &consumer(LIVE), &taken).await;
    scene.bus().retry_after(&consumer(LIVE), &tokens(&taken), Duration::ZERO).await.unwrap();
    scene.bus().extend(&consumer(LIVE), &tokens(&taken)).await.unwrap();
    scene.pass(LONG).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await.depth, 0);
}

pub async fn a_late_ack_ends_a_message_that_waits_for_redelivery<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    scene.pass(ACK_WAIT).await;
    ack(&scene, &consumer(LIVE), &taken).await;
    scene.pass(LONG).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await.depth, 0);
}

pub async fn a_late_ack_ends_a_message_that_was_redelivered<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let first = take(&scene, &consumer(LIVE), 1).await;
    scene.pass(ACK_WAIT).await;
    let second = take(&scene, &consumer(LIVE), 1).await;
    ack(&scene, &consumer(LIVE), &first).await;
    scene.pass(LONG).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    ack(&scene, &consumer(LIVE), &second).await;
}

pub async fn an_ack_twice_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a", "b"]).await;
    let taken = take(&scene, &consumer(LIVE), 1).await;
    ack(&scene, &consumer(LIVE), &taken).await;
    ack(&scene, &consumer(LIVE), &taken).await;
    ack(&scene, &consumer(LIVE), &[taken[0].clone(), taken[0].clone()]).await;
    assert_eq!(texts(&take(&scene, &consumer(LIVE), 1).await), ["b"]);
}

pub async fn an_ack_of_nothing_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    scene.bus().ack(&consumer(LIVE), &[]).await.unwrap();
    scene.bus().extend(&consumer(LIVE), &[]).await.unwrap();
    scene.bus().retry_after(&consumer(LIVE), &[], Duration::ZERO).await.unwrap();
    assert_eq!(take(&scene, &consumer(LIVE), 1).await[0].delivered, 1);
}

pub async fn an_ack_ends_only_its_own_message<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a", "b", "c", "d"]).await;
    let taken = take(&scene, &consumer(LIVE), 4).await;
    // Those before and those after stay.
    ack(&scene, &consumer(LIVE), &taken[2..3]).await;
    scene.pass(ACK_WAIT).await;
    let mut again = texts(&take(&scene, &consumer(LIVE), 3).await);
    again.sort_unstable();
    assert_eq!(again, ["a", "b", "d"]);
}

pub async fn an_ack_with_a_token_from_before_a_restart_ends_no_other_message<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    let old = take(&scene, &consumer(LIVE), 1).await;
    ack(&scene, &consumer(LIVE), &old).await;
    let scene = scene.restart().await;
    publish_texts(&scene, LIVE, &["b"]).await;
    ack(&scene, &consumer(LIVE), &old).await;
    second_comes(&scene).await;
    ack(&scene, &consumer(LIVE), &old).await;
    scene.pass(ACK_WAIT).await;
    second_comes(&scene).await;
}

/// The message "b" comes; before it the acknowledged "a" may, where a crash forgets that it is.
async fn second_comes<H: Harness>(scene: &Scene<H>) {
    loop {
        let taken = texts(&take(scene, &consumer(LIVE), 1).await);
        if taken == ["b"] {
            return;
        }
        assert!(taken == ["a"] && !H::REMEMBERS_ACKS_OVER_RESTART, "{taken:?}");
    }
}

/// There is no last delivery: what is poison is for the consumer to decide.
pub async fn every_message_is_redelivered_until_acked<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    for delivered in 1..=20 {
        let taken = take(&scene, &consumer(LIVE), 1).await;
        assert_eq!(taken[0].delivered, delivered);
        scene.bus().retry_after(&consumer(LIVE), &tokens(&taken), Duration::ZERO).await.unwrap();
    }
}
