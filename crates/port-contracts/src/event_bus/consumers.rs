//! How consumers share and do not share a stream, how they wait, and how far they are behind.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ports::event_bus::{Backlog, Consumer, Delivery, Retention, Stream};

use super::{
    ACK_WAIT, BULK, LIVE, QUIET, SOON, ack, backlog, consumer, named, nothing_comes, publish_texts, take, texts,
};
use crate::harness::Harness;
use crate::scene::{BOUND, Scene, bounded, is_waiting};

/// Whether a backlog is this deep and this old; real clocks have run on since, and a harness may make them run fast.
fn is(backlog: Backlog, depth: u64, minutes: u64) -> bool {
    backlog.depth == depth && backlog.oldest_age.as_secs() / 60 == minutes
}

pub async fn a_pull_returns_empty_after_its_wait<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for wait in [Duration::ZERO, QUIET] {
        let taken = bounded("an empty pull", scene.bus().pull(&consumer(LIVE), 1, wait)).await.unwrap();
        assert!(taken.is_empty());
    }
}

pub async fn a_waiting_pull_wakes_up_when_a_message_arrives<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (bus, consumer) = (scene.bus(), consumer(LIVE));
    let mut pull = pin!(bus.pull(&consumer, 10, BOUND * 4));
    is_waiting(&mut pull).await;
    publish_texts(&scene, LIVE, &["a"]).await;
    assert_eq!(texts(&bounded("the waiting pull", pull).await.unwrap()), ["a"]);
}

pub async fn a_dropped_pull_loses_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    {
        let (bus, consumer) = (scene.bus(), consumer(LIVE));
        let mut pull = pin!(bus.pull(&consumer, 10, BOUND * 4));
        is_waiting(&mut pull).await;
    }
    publish_texts(&scene, LIVE, &["a"]).await;
    scene.pass(ACK_WAIT).await;
    assert_eq!(texts(&take(&scene, &consumer(LIVE), 1).await), ["a"]);
}

pub async fn a_pull_takes_at_most_max<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a", "b", "c", "d", "e"]).await;
    let mut all = Vec::new();
    while all.len() < 5 {
        let taken = scene.bus().pull(&consumer(LIVE), 2, SOON).await.unwrap();
        assert!((1..=2).contains(&taken.len()), "{} messages", taken.len());
        all.extend(texts(&taken));
    }
    assert_eq!(all, ["a", "b", "c", "d", "e"]);
}

pub async fn two_pullers_of_one_consumer_never_hold_the_same_message<H: Harness>() {
    const COUNT: usize = 200;
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["x"; COUNT]).await;
    let total = AtomicUsize::new(0);
    let puller = async || {
        let (bus, mut held) = (scene.bus(), Vec::new());
        while total.load(Ordering::SeqCst) < COUNT {
            let taken = bus.pull(&consumer(LIVE), 7, QUIET).await.unwrap();
            total.fetch_add(taken.len(), Ordering::SeqCst);
            held.extend(taken.iter().map(|each| each.sequence));
        }
        held
    };
    let (one, two, three) = bounded("three pullers", async { tokio::join!(puller(), puller(), puller()) }).await;
    let held: Vec<u64> = [one, two, three].concat();
    assert_eq!(held.len(), COUNT);
    assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), COUNT, "each is held once");
}

fn events(name: &'static str) -> Consumer {
    named(name, Stream::Events)
}

pub async fn events_reach_every_consumer<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two) = (events("law-one"), events("law-two"));
    nothing_comes(&scene, &one).await;
    nothing_comes(&scene, &two).await;
    publish_texts(&scene, Stream::Events, &["a", "b"]).await;
    let taken = take(&scene, &one, 2).await;
    assert_eq!(texts(&taken), ["a", "b"]);
    ack(&scene, &one, &taken).await;
    assert_eq!(texts(&take(&scene, &two, 2).await), ["a", "b"]);
    scene.pass(ACK_WAIT).await;
    assert_eq!(texts(&take(&scene, &two, 2).await), ["a", "b"]);
    nothing_comes(&scene, &one).await;
}

pub async fn events_stay_for_a_consumer_that_comes_later<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, Stream::Events, &["a", "b"]).await;
    let taken = take(&scene, &events("law-one"), 2).await;
    ack(&scene, &events("law-one"), &taken).await;
    assert_eq!(texts(&take(&scene, &events("law-later"), 2).await), ["a", "b"]);
}

pub async fn an_ack_of_events_counts_for_its_consumer_only_over_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, Stream::Events, &["a", "b"]).await;
    let (one, two) = (events("law-one"), events("law-two"));
    let taken = take(&scene, &one, 2).await;
    ack(&scene, &one, &taken[1..]).await;
    let taken = take(&scene, &two, 2).await;
    ack(&scene, &two, &taken[..1]).await;
    let scene = scene.restart().await;
    scene.pass(ACK_WAIT).await;
    if H::REMEMBERS_ACKS_OVER_RESTART {
        assert_eq!(texts(&take(&scene, &one, 1).await), ["a"]);
        assert_eq!(texts(&take(&scene, &two, 1).await), ["b"]);
        nothing_comes(&scene, &one).await;
        nothing_comes(&scene, &two).await;
    } else {
        assert!(texts(&take_all(&scene, &one).await).contains(&"a".to_owned()));
        assert!(texts(&take_all(&scene, &two).await).contains(&"b".to_owned()));
    }
}

/// Everything that comes without a wait.
async fn take_all<H: Harness>(scene: &Scene<H>, consumer: &Consumer) -> Vec<Delivery> {
    let mut all = take(scene, consumer, 1).await;
    all.extend(scene.bus().pull(consumer, 10, QUIET).await.unwrap());
    all
}

pub async fn events_stay_for_as_long_as_promised<H: Harness>() {
    let Retention::Limits { max_age, .. } = Stream::Events.retention() else { unreachable!() };
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, Stream::Events, &["a"]).await;
    scene.pass(max_age.saturating_sub(Duration::from_mins(1))).await;
    publish_texts(&scene, Stream::Events, &["b"]).await;
    assert_eq!(texts(&take(&scene, &consumer(Stream::Events), 2).await), ["a", "b"]);
}

pub async fn a_probe_of_a_healthy_bus_succeeds_and_leaves_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for stream in Stream::ALL {
        bounded("a probe", scene.bus().probe(stream)).await.unwrap();
        assert!(is(backlog(&scene, &consumer(stream)).await, 0, 0));
        nothing_comes(&scene, &consumer(stream)).await;
    }
}

pub async fn live_and_bulk_lanes_are_separate<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, BULK, &["bulk"]).await;
    nothing_comes(&scene, &consumer(LIVE)).await;
    publish_texts(&scene, LIVE, &["live"]).await;
    assert!(is(backlog(&scene, &consumer(LIVE)).await, 1, 0));
    assert_eq!(texts(&take(&scene, &consumer(BULK), 1).await), ["bulk"]);
    assert_eq!(texts(&take(&scene, &consumer(LIVE), 1).await), ["live"]);
    nothing_comes(&scene, &consumer(BULK)).await;
}

pub async fn streams_are_separate<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for stream in Stream::ALL {
        publish_texts(&scene, stream, &[stream.name()]).await;
    }
    for stream in Stream::ALL {
        let taken = take(&scene, &consumer(stream), 1).await;
        assert_eq!(texts(&taken), [stream.name()]);
        ack(&scene, &consumer(stream), &taken).await;
        nothing_comes(&scene, &consumer(stream)).await;
    }
}

pub async fn the_backlog_counts_what_is_not_acked_and_shrinks_by_acks<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a", "b", "c"]).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await.depth, 3, "waiting");
    let taken = take(&scene, &consumer(LIVE), 2).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await.depth, 3, "in hand");
    ack(&scene, &consumer(LIVE), &taken[..1]).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await.depth, 2, "one acked");
    scene.pass(ACK_WAIT).await;
    let rest = take(&scene, &consumer(LIVE), 2).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await.depth, 2, "one delivered twice");
    ack(&scene, &consumer(LIVE), &rest).await;
    assert_eq!(backlog(&scene, &consumer(LIVE)).await, Backlog::default());
}

pub async fn the_backlog_of_an_idle_consumer_is_empty<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for stream in Stream::ALL {
        assert_eq!(backlog(&scene, &consumer(stream)).await, Backlog::default(), "{}", stream.name());
    }
}

pub async fn the_backlog_ages_by_its_oldest_message<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a"]).await;
    scene.pass(Duration::from_mins(1)).await;
    publish_texts(&scene, LIVE, &["b"]).await;
    scene.pass(Duration::from_mins(1)).await;
    assert!(is(backlog(&scene, &consumer(LIVE)).await, 2, 2));
    let taken = take(&scene, &consumer(LIVE), 2).await;
    assert!(is(backlog(&scene, &consumer(LIVE)).await, 2, 2), "taking it does not make it younger");
    ack(&scene, &consumer(LIVE), &taken[..1]).await;
    assert!(is(backlog(&scene, &consumer(LIVE)).await, 1, 1));
}

pub async fn the_backlog_survives_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, LIVE, &["a", "b", "c"]).await;
    let taken = take(&scene, &consumer(LIVE), 2).await;
    ack(&scene, &consumer(LIVE), &taken[..1]).await;
    scene.pass(Duration::from_mins(1)).await;
    let scene = scene.restart().await;
    assert!(is(backlog(&scene, &consumer(LIVE)).await, 2, 1));
}

pub async fn consumers_of_events_have_backlogs_of_their_own<H: Harness>() {
    let scene = Scene::<H>::open().await;
    publish_texts(&scene, Stream::Events, &["a", "b"]).await;
    let (one, two) = (events("law-one"), events("law-two"));
    let taken = take(&scene, &one, 2).await;
    assert_eq!(backlog(&scene, &two).await.depth, 2);
    ack(&scene, &one, &taken).await;
    assert_eq!(backlog(&scene, &one).await, Backlog::default());
    assert_eq!(backlog(&scene, &two).await.depth, 2);
}
