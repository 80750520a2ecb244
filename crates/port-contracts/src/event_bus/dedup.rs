//! What a dedup id does.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use ports::event_bus::{Published, Stream};

use super::{LIVE, ack, consumer, nothing_comes, publish, publish_texts, take, texts, with_id};
use crate::harness::Harness;
use crate::scene::Scene;

async fn once<H: Harness>(scene: &Scene<H>, stream: Stream, text: &str) -> Published {
    publish(scene, vec![with_id(stream, text, "id")]).await[0]
}

pub async fn a_dedup_id_twice_stores_one_and_names_the_first<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, Stream::Events, &["other"]).await;
    let first = once(&scene, Stream::Events, "first").await;
    assert!(!first.duplicate);
    publish_texts(&scene, Stream::Events, &["other"]).await;
    scene.pass(Stream::DUPLICATE_WINDOW / 2).await;
    let second = once(&scene, Stream::Events, "second").await;
    assert_eq!(second, Published { sequence: first.sequence, duplicate: true });
    assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 3).await), ["other", "first", "other"]);
    nothing_comes(&scene, &consumer(Stream::Events)).await;
}

pub async fn a_dedup_id_twice_in_one_publish_stores_one<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let both = ["first", "second"].map(|text| with_id(Stream::Events, text, "id")).to_vec();
    let answers = publish(&scene, both).await;
    assert_eq!(answers[1], Published { sequence: answers[0].sequence, duplicate: true });
    assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 1).await), ["first"]);
    nothing_comes(&scene, &consumer(Stream::Events)).await;
}

pub async fn a_dedup_id_twice_among_many_stores_one<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let many = (0..20).map(|n| with_id(Stream::Events, &format!("{n:02}"), &format!("id-{}", n % 19))).collect();
    let published = publish(&scene, many).await;
    assert_eq!(published[19], Published { sequence: published[0].sequence, duplicate: true });
    let expected: Vec<_> = (0..19).map(|n| format!("{n:02}")).collect();
    assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 19).await), expected);
    nothing_comes(&scene, &consumer(Stream::Events)).await;
}

pub async fn a_dedup_id_that_is_known_does_not_undo_the_others<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = publish(&scene, vec![with_id(Stream::Events, "first", "id-7")]).await[0].sequence;
    let many = (0..20).map(|n| with_id(Stream::Events, &format!("{n:02}"), &format!("id-{n}"))).collect();
    let published = publish(&scene, many).await;
    let duplicates: Vec<_> = published.iter().filter(|each| each.duplicate).map(|each| each.sequence).collect();
    assert_eq!(duplicates, [first]);
    let taken = take(&scene, &consumer(Stream::Events), 20).await;
    let mut expected = vec!["first".to_owned()];
    expected.extend((0..20).filter(|n| *n != 7).map(|n| format!("{n:02}")));
    assert_eq!(texts(&taken), expected);
    let stored: Vec<_> = published.iter().filter(|each| !each.duplicate).map(|each| each.sequence).collect();
    assert_eq!(taken[1..].iter().map(|each| each.sequence).collect::<Vec<_>>(), stored);
}

pub async fn a_dedup_id_is_known_after_its_message_was_acked<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for stream in [Stream::Wakeups, Stream::Events] {
        let first = once(&scene, stream, "first").await;
        let taken = take(&scene, &consumer(stream), 1).await;
        ack(&scene, &consumer(stream), &taken).await;
        let second = once(&scene, stream, "second").await;
        assert_eq!(second, Published { sequence: first.sequence, duplicate: true });
        nothing_comes(&scene, &consumer(stream)).await;
    }
}

pub async fn a_dedup_id_is_known_after_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = once(&scene, Stream::Events, "first").await;
    let scene = scene.restart().await;
    let second = once(&scene, Stream::Events, "second").await;
    assert_eq!(second, Published { sequence: first.sequence, duplicate: true });
}

pub async fn a_dedup_id_of_an_acked_message_is_known_after_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    once(&scene, Stream::Wakeups, "first").await;
    let taken = take(&scene, &consumer(Stream::Wakeups), 1).await;
    ack(&scene, &consumer(Stream::Wakeups), &taken).await;
    let scene = scene.restart().await;
    let second = once(&scene, Stream::Wakeups, "second").await;
    assert!(second.duplicate || !H::REMEMBERS_DEDUP_OF_ACKED_OVER_RESTART);
}

pub async fn a_dedup_id_is_new_again_after_the_window<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = once(&scene, Stream::Events, "first").await;
    // Longer than the window: a server looks for what has expired from time to time.
    scene.pass(Stream::DUPLICATE_WINDOW * 2).await;
    let second = once(&scene, Stream::Events, "second").await;
    assert!(!second.duplicate && second.sequence > first.sequence, "{second:?}");
    assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 2).await), ["first", "second"]);
}

/// The two lanes are left out: they may be one stream of the technology.
pub async fn a_dedup_id_counts_within_its_stream_only<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let streams = [LIVE, Stream::Audit, Stream::Events, Stream::Wakeups];
    for stream in streams {
        assert!(!once(&scene, stream, stream.name()).await.duplicate);
    }
    for stream in streams {
        assert_eq!(texts(&take(&scene, &consumer(stream), 1).await), [stream.name()]);
    }
}

pub async fn messages_without_a_dedup_id_are_never_duplicates<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let answers = publish_texts(&scene, LIVE, &["same", "same"]).await;
    assert!(answers.iter().all(|answer| !answer.duplicate));
    assert_eq!(take(&scene, &consumer(LIVE), 2).await.len(), 2);
}
