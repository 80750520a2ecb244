//! The laws of [`EventBus`](ports::event_bus::EventBus).
//!
//! Not laws here, because of what they would cost or because the port does not say when they happen: the quotas of the
//! larger work queues (the quota is shown on `Wakeups`, whose is small), and that `Events` lets go of what is too old or
//! too much (only that it keeps what is not).

mod consumers;
mod dedup;
mod delivery;
mod publishing;

use std::time::Duration;

use bytes::Bytes;
use common::envelope::Lane;
use ports::event_bus::{AckToken, Backlog, Consumer, Delivery, Outgoing, PublishError, Published, Stream};

pub use consumers::*;
pub use dedup::*;
pub use delivery::*;
pub use publishing::*;

use crate::harness::Harness;
use crate::scene::{Scene, bounded};

/// One test for each law of the event bus.
#[macro_export]
macro_rules! event_bus_contract {
    ($harness:ident) => {
        $crate::laws!($harness, event_bus:
            // publishing
            what_was_published_is_pulled_with_its_subject_and_payload,
            a_delivery_names_the_position_and_the_time_of_its_publishing,
            messages_of_one_subject_come_in_the_order_of_publishing,
            an_empty_publish_is_fine,
            a_message_of_the_largest_size_is_taken,
            a_message_that_is_too_large_does_not_undo_the_others,
            a_full_subject_refuses_while_other_subjects_go_on,
            a_refused_message_does_not_use_up_its_dedup_id,
            concurrent_publishes_lose_nothing_and_keep_each_order,
            published_messages_survive_a_restart,
            positions_go_on_after_a_restart,
            a_work_queue_forgets_nothing_by_age,
            a_healthy_bus_is_connected,
            what_is_published_whole_is_there_in_its_order_or_not_at_all,
            what_is_published_whole_with_a_known_dedup_id_is_not_there,
            // delivery
            an_acked_message_never_comes_again,
            an_acked_message_does_not_come_again_after_a_restart,
            an_unacked_message_comes_again_after_a_restart,
            an_unacked_message_comes_again_after_the_ack_wait,
            a_message_in_hand_does_not_come_again_before_the_ack_wait,
            an_extended_message_comes_again_only_an_ack_wait_later,
            a_message_handed_back_comes_again_after_its_delay,
            a_message_handed_back_without_delay_comes_again_at_once,
            a_message_handed_back_comes_again_after_a_restart,
            handing_back_after_an_ack_brings_nothing_back,
            a_late_ack_ends_a_message_that_waits_for_redelivery,
            a_late_ack_ends_a_message_that_was_redelivered,
            an_ack_twice_is_fine,
            an_ack_of_nothing_is_fine,
            an_ack_ends_only_its_own_message,
            an_ack_with_a_token_from_before_a_restart_ends_no_other_message,
            every_message_is_redelivered_until_acked,
            // consumers
            a_pull_returns_empty_after_its_wait,
            a_waiting_pull_wakes_up_when_a_message_arrives,
            a_dropped_pull_loses_nothing,
            a_pull_takes_at_most_max,
            two_pullers_of_one_consumer_never_hold_the_same_message,
            events_reach_every_consumer,
            events_stay_for_a_consumer_that_comes_later,
            an_ack_of_events_counts_for_its_consumer_only_over_a_restart,
            events_stay_for_as_long_as_promised,
            live_and_bulk_lanes_are_separate,
            streams_are_separate,
            the_backlog_counts_what_is_not_acked_and_shrinks_by_acks,
            the_backlog_of_an_idle_consumer_is_empty,
            the_backlog_ages_by_its_oldest_message,
            the_backlog_survives_a_restart,
            a_probe_of_a_healthy_bus_succeeds_and_leaves_nothing,
            consumers_of_events_have_backlogs_of_their_own,
            // dedup
            a_dedup_id_twice_stores_one_and_names_the_first,
            a_dedup_id_twice_in_one_publish_stores_one,
            a_dedup_id_twice_among_many_stores_one,
            a_dedup_id_that_is_known_does_not_undo_the_others,
            a_dedup_id_is_known_after_its_message_was_acked,
            a_dedup_id_is_known_after_a_restart,
            a_dedup_id_of_an_acked_message_is_known_after_a_restart,
            a_dedup_id_is_new_again_after_the_window,
            a_dedup_id_counts_within_its_stream_only,
            messages_without_a_dedup_id_are_never_duplicates,
        );
    };
}

/// Every law's ack wait.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long a pull waits for what must come.
const SOON: Duration = Duration::from_secs(5);
/// How long a pull waits for what must not come.
const QUIET: Duration = Duration::from_millis(50);

const LIVE: Stream = Stream::Inbound(Lane::Live);
const BULK: Stream = Stream::Inbound(Lane::Bulk);

fn named(name: &'static str, stream: Stream) -> Consumer {
    Consumer { name, stream, ack_wait: ACK_WAIT }
}

fn consumer(stream: Stream) -> Consumer {
    let name = match stream {
        Stream::Inbound(Lane::Live) => "law-live",
        Stream::Inbound(Lane::Bulk) => "law-bulk",
        Stream::Audit => "law-audit",
        Stream::Events => "law-events",
        Stream::Wakeups => "law-wakeups",
    };
    named(name, stream)
}

/// A subject of the stream, as the jobs form them.
fn subject(stream: Stream, who: &str) -> String {
    match stream {
        Stream::Inbound(lane) => format!("inbound.{}.{who}", lane.as_str()),
        Stream::Audit => format!("audit.{who}"),
        Stream::Events => format!("wharf.events.{who}.7.message.received"),
        Stream::Wakeups => format!("wakeups.{who}"),
    }
}

fn outgoing(stream: Stream, who: &str, text: &str) -> Outgoing {
    Outgoing { stream, subject: subject(stream, who), payload: Bytes::copy_from_slice(text.as_bytes()), dedup_id: None }
}

fn with_id(stream: Stream, text: &str, id: &str) -> Outgoing {
    Outgoing { dedup_id: Some(id.to_owned()), ..outgoing(stream, "acme", text) }
}

async fn try_publish<H: Harness>(scene: &Scene<H>, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>> {
    let count = messages.len();
    let answers = bounded("publish", scene.bus().publish(messages)).await;
    assert_eq!(answers.len(), count, "one answer for each message");
    answers
}

/// Publishes messages that must all be taken.
async fn publish<H: Harness>(scene: &Scene<H>, messages: Vec<Outgoing>) -> Vec<Published> {
    try_publish(scene, messages).await.into_iter().map(Result::unwrap).collect()
}

/// Publishes texts of `acme`.
async fn publish_texts<H: Harness>(scene: &Scene<H>, stream: Stream, texts: &[&str]) -> Vec<Published> {
    publish(scene, texts.iter().map(|text| outgoing(stream, "acme", text)).collect()).await
}

/// Pulls exactly `count` messages that must come.
async fn take<H: Harness>(scene: &Scene<H>, consumer: &Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    bounded("pulling what must come", async {
        while taken.len() < count {
            taken.extend(scene.bus().pull(consumer, count - taken.len(), SOON).await.unwrap());
        }
    })
    .await;
    assert_eq!(taken.len(), count, "a pull takes at most max");
    taken
}

async fn nothing_comes<H: Harness>(scene: &Scene<H>, consumer: &Consumer) {
    let taken = bounded("an empty pull", scene.bus().pull(consumer, 10, QUIET)).await.unwrap();
    assert!(taken.is_empty(), "nothing comes, but: {:?}", texts(&taken));
}

async fn ack<H: Harness>(scene: &Scene<H>, consumer: &Consumer, deliveries: &[Delivery]) {
    scene.bus().ack(consumer, &tokens(deliveries)).await.unwrap();
}

async fn backlog<H: Harness>(scene: &Scene<H>, consumer: &Consumer) -> Backlog {
    scene.bus().backlog(consumer).await.unwrap()
}

fn tokens(deliveries: &[Delivery]) -> Vec<AckToken> {
    deliveries.iter().map(|delivery| delivery.token.clone()).collect()
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.payload).into_owned()).collect()
}
