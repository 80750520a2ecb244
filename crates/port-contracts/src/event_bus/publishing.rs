//! What happens to a message on its way into the bus.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ports::event_bus::{Outgoing, PublishError, Published, Retention, Stream};

use super::{
    LIVE, ack, consumer, nothing_comes, outgoing, publish, publish_texts, subject, take, texts, try_publish, with_id,
};
use crate::harness::Harness;
use crate::scene::Scene;

pub async fn what_was_published_is_pulled_with_its_subject_and_payload<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for stream in Stream::ALL {
        let payload = Bytes::from((0..=u8::MAX).collect::<Vec<_>>());
        let message = Outgoing { payload: payload.clone(), ..outgoing(stream, "acme", "") };
        publish(&scene, vec![message]).await;
        let taken = take(&scene, &consumer(stream), 1).await.remove(0);
        assert_eq!((taken.subject, taken.payload), (subject(stream, "acme"), payload), "{}", stream.name());
        assert_eq!(taken.delivered, 1);
    }
}

pub async fn a_delivery_names_the_position_and_the_time_of_its_publishing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = publish_texts(&scene, LIVE, &["a"]).await.remove(0);
    scene.pass(Duration::from_mins(1)).await;
    let second = publish_texts(&scene, LIVE, &["b"]).await.remove(0);
    scene.pass(Duration::from_mins(1)).await;
    let taken = take(&scene, &consumer(LIVE), 2).await;
    assert_eq!([taken[0].sequence, taken[1].sequence], [first.sequence, second.sequence]);
    assert!(first.sequence < second.sequence);
    let between = taken[1].published_at.since(taken[0].published_at);
    assert_eq!(between.as_secs() / 60, 1, "{between:?} between the two");
}

pub async fn messages_of_one_subject_come_in_the_order_of_publishing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let all: Vec<String> = (0..60).map(|n| format!("{n:02}")).collect();
    for chunk in all.chunks(20) {
        let messages = chunk.iter().flat_map(|text| [outgoing(LIVE, "acme", text), outgoing(LIVE, "other", text)]);
        publish(&scene, messages.collect()).await;
    }
    let taken = take(&scene, &consumer(LIVE), 120).await;
    for who in ["acme", "other"] {
        let of_one: Vec<_> = taken.iter().filter(|each| each.subject == subject(LIVE, who)).cloned().collect();
        assert_eq!(texts(&of_one), all, "{who}");
    }
}

pub async fn an_empty_publish_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert!(publish(&scene, vec![]).await.is_empty());
    nothing_comes(&scene, &consumer(LIVE)).await;
}

pub async fn a_message_of_the_largest_size_is_taken<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let payload = Bytes::from(vec![7; Stream::MAX_MESSAGE_BYTES]);
    publish(&scene, vec![Outgoing { payload: payload.clone(), ..outgoing(LIVE, "acme", "") }]).await;
    assert!(take(&scene, &consumer(LIVE), 1).await[0].payload == payload, "it comes out as it went in");
}

pub async fn a_message_that_is_too_large_does_not_undo_the_others<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let large = Bytes::from(vec![7; Stream::MAX_MESSAGE_BYTES + 1]);
    let messages = vec![
        outgoing(LIVE, "acme", "before"),
        Outgoing { payload: large.clone(), ..outgoing(LIVE, "acme", "") },
        outgoing(LIVE, "acme", "after"),
    ];
    let answers = try_publish(&scene, messages).await;
    assert!(
        matches!(&answers[..], [Ok(_), Err(PublishError::TooLarge { size, limit }), Ok(_)]
            if *size == large.len() && *limit == Stream::MAX_MESSAGE_BYTES),
        "{answers:?}"
    );
    assert_eq!(texts(&take(&scene, &consumer(LIVE), 2).await), ["before", "after"]);
    nothing_comes(&scene, &consumer(LIVE)).await;
}

/// Fills the subject of `acme` on the stream with the smallest quota.
async fn fill<H: Harness>(scene: &Scene<H>) {
    let Retention::WorkQueue { max_per_subject } = Stream::Wakeups.retention() else { unreachable!() };
    for _ in 0..max_per_subject / 1000 {
        publish(scene, vec![outgoing(Stream::Wakeups, "acme", ""); 1000]).await;
    }
}

pub async fn a_full_subject_refuses_while_other_subjects_go_on<H: Harness>() {
    let scene = Scene::<H>::open().await;
    fill(&scene).await;
    let messages = ["other", "acme", "third"].map(|who| outgoing(Stream::Wakeups, who, "one more")).to_vec();
    let answers = try_publish(&scene, messages).await;
    assert!(matches!(&answers[..], [Ok(_), Err(PublishError::Full { stream: "wakeups" }), Ok(_)]), "{answers:?}");
    // What was there is still there, and makes room once it is acknowledged.
    let oldest = take(&scene, &consumer(Stream::Wakeups), 2).await;
    assert!(oldest.iter().all(|each| each.subject == subject(Stream::Wakeups, "acme")));
    ack(&scene, &consumer(Stream::Wakeups), &oldest).await;
    publish_once_there_is_room(&scene, outgoing(Stream::Wakeups, "acme", "one more")).await;
    publish(&scene, vec![outgoing(Stream::Wakeups, "acme", "one more")]).await;
    let answers = try_publish(&scene, vec![outgoing(Stream::Wakeups, "acme", "too many")]).await;
    assert!(matches!(&answers[..], [Err(PublishError::Full { .. })]), "{answers:?}");
}

pub async fn a_refused_message_does_not_use_up_its_dedup_id<H: Harness>() {
    let scene = Scene::<H>::open().await;
    fill(&scene).await;
    let answers = try_publish(&scene, vec![with_id(Stream::Wakeups, "retried", "id")]).await;
    assert!(matches!(&answers[..], [Err(PublishError::Full { .. })]), "{answers:?}");
    let oldest = take(&scene, &consumer(Stream::Wakeups), 1).await;
    ack(&scene, &consumer(Stream::Wakeups), &oldest).await;
    let published = publish_once_there_is_room(&scene, with_id(Stream::Wakeups, "retried", "id")).await;
    assert!(!published.duplicate);
}

/// What is acknowledged makes room, if not at once.
async fn publish_once_there_is_room<H: Harness>(scene: &Scene<H>, message: Outgoing) -> Published {
    let publishing = async {
        loop {
            match try_publish(scene, vec![message.clone()]).await.remove(0) {
                Ok(published) => return published,
                Err(PublishError::Full { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), publishing).await.expect("room")
}

pub async fn concurrent_publishes_lose_nothing_and_keep_each_order<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let publisher = async |who: String| {
        for n in (0..20).step_by(2) {
            let pair = [n, n + 1].map(|n| outgoing(LIVE, &who, &format!("{n:02}"))).to_vec();
            publish(&scene, pair).await;
        }
    };
    join_all((0..8).map(|n| publisher(format!("tenant-{n}")))).await;
    let taken = take(&scene, &consumer(LIVE), 160).await;
    let mut sequences: Vec<u64> = taken.iter().map(|each| each.sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 160, "every message has a position of its own");
    for n in 0..8 {
        let own = subject(LIVE, &format!("tenant-{n}"));
        let of_one: Vec<_> = taken.iter().filter(|each| each.subject == own).cloned().collect();
        assert_eq!(texts(&of_one), (0..20).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    }
}

pub async fn published_messages_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for stream in Stream::ALL {
        publish_texts(&scene, stream, &["a", "b"]).await;
    }
    let scene = scene.restart().await;
    for stream in Stream::ALL {
        let taken = take(&scene, &consumer(stream), 2).await;
        assert_eq!(texts(&taken), ["a", "b"], "{}", stream.name());
        assert_eq!(taken[0].subject, subject(stream, "acme"));
    }
}

/// A position is never given again, not even when everything before it is gone: late acknowledgements name it.
pub async fn positions_go_on_after_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let last = publish_texts(&scene, LIVE, &["a", "b"]).await[1].sequence;
    let taken = take(&scene, &consumer(LIVE), 2).await;
    ack(&scene, &consumer(LIVE), &taken).await;
    let scene = scene.restart().await;
    assert!(publish_texts(&scene, LIVE, &["c"]).await[0].sequence > last);
}

pub async fn a_work_queue_forgets_nothing_by_age<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let queues = Stream::ALL.into_iter().filter(|each| matches!(each.retention(), Retention::WorkQueue { .. }));
    for stream in queues.clone() {
        publish_texts(&scene, stream, &["old"]).await;
    }
    scene.pass(Duration::from_hours(24 * 30)).await;
    for stream in queues {
        publish_texts(&scene, stream, &["new"]).await;
        assert_eq!(texts(&take(&scene, &consumer(stream), 2).await), ["old", "new"], "{}", stream.name());
    }
}

pub async fn a_healthy_bus_is_connected<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    assert!(scene.bus().is_connected());
}

pub async fn what_is_published_whole_is_there_in_its_order_or_not_at_all<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let all: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    let messages: Vec<_> = all.iter().map(|text| with_id(Stream::Events, text, text)).collect();
    if scene.bus().publish_whole(&messages).await.unwrap() {
        assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 40).await), all);
    }
    nothing_comes(&scene, &consumer(Stream::Events)).await;
}

pub async fn what_is_published_whole_with_a_known_dedup_id_is_not_there<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish(&scene, vec![with_id(Stream::Events, "known", "7")]).await;
    let messages: Vec<_> = (0..40).map(|n| with_id(Stream::Events, "again", &n.to_string())).collect();
    assert!(!scene.bus().publish_whole(&messages).await.unwrap());
    assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 1).await), ["known"]);
    nothing_comes(&scene, &consumer(Stream::Events)).await;
    // None of their ids is taken.
    assert!(publish(&scene, messages[8..].to_vec()).await.iter().all(|published| !published.duplicate));
}
