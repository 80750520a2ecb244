//! The laws of [`Feed`](ports::feed::Feed).
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::time::Duration;

use common::Timestamp;
use common::event::{EventType, PARTITIONS, PartitionKey};
use ports::event_store::NewUpdate;
use ports::feed::{FeedEvent, FeedFilter};
use serde_json::{Value, json};

use crate::clock::START;
use crate::harness::Harness;
use crate::samples::{data, impersonal, key, message, status};
use crate::scene::{Scene, bounded, tenant};

/// One test for each law of the feed.
#[macro_export]
macro_rules! feed_contract {
    ($harness:ident) => {
        $crate::laws!($harness, feed:
            an_empty_feed_has_an_empty_page,
            an_event_is_invisible_before_it_is_sequenced,
            an_event_comes_out_with_everything_it_was_stored_with,
            an_event_is_valid_cloudevents_json,
            positions_grow_in_the_order_of_commits,
            the_events_of_a_batch_keep_its_order,
            positions_never_change,
            a_later_commit_comes_after_everything_visible,
            a_page_holds_at_most_limit_events,
            reading_on_from_next_is_complete,
            the_filter_by_tenant_lets_only_its_events_through,
            the_filter_by_type_lets_only_its_events_through,
            both_filters_together_narrow,
            next_moves_over_what_the_filter_holds_back,
            a_reader_who_reads_on_misses_nothing_while_others_write,
            published_events_stay_in_the_feed,
            an_event_of_a_conversation_is_in_its_partition,
            an_event_without_a_conversation_is_in_the_partition_of_its_number,
            an_event_without_a_number_is_in_the_partition_of_its_waba_or_tenant,
            the_feed_survives_a_restart,
        );
    };
}

const ALL: FeedFilter = FeedFilter { tenant: None, event_type: None };

fn of_tenant(name: &str, update: NewUpdate) -> NewUpdate {
    NewUpdate { tenant: tenant(name), ..update }
}

fn keys(events: &[FeedEvent]) -> Vec<common::EventKey> {
    events.iter().map(|event| event.key).collect()
}

/// Everything about an event, comparable.
fn whole(events: &[FeedEvent]) -> Vec<(i64, String)> {
    let json = |event: &FeedEvent| String::from_utf8(event.to_json().unwrap()).unwrap();
    events.iter().map(|event| (event.position, json(event))).collect()
}

pub async fn an_empty_feed_has_an_empty_page<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let page = scene.feed().read(0, 10, &ALL).await.unwrap();
    assert!(page.events.is_empty());
    assert_eq!(page.next, 0);
}

pub async fn an_event_is_invisible_before_it_is_sequenced<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.commit_new(vec![message(1)]).await;
    let page = scene.feed().read(0, 10, &ALL).await.unwrap();
    assert!(page.events.is_empty());
    scene.sequence_all().await;
    // Whoever looked before and reads on finds it.
    assert_eq!(keys(&scene.read_all(page.next, &ALL).await), [key(1)]);
}

pub async fn an_event_comes_out_with_everything_it_was_stored_with<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let event = scene.emit(vec![message(5)]).await.remove(0);
    assert!(event.position > 0);
    assert_eq!((event.tenant.as_str(), event.key, event.revision), ("acme", key(5), 1));
    assert_eq!(event.event_type, EventType::MessageReceived.as_str());
    assert_eq!(event.occurred_at, START.plus(Duration::from_secs(5)));
    assert_eq!(event.number.as_ref().map(common::NumberId::as_str), Some("777"));
    assert_eq!(event.data, data(5));
    assert!(event.conversation.is_some());
    assert_eq!(event.id(), key(5).event_id());
    let mut precise = message(6);
    precise.event.occurred_at = Timestamp::from_millis(START.as_millis() + 123);
    let event = scene.emit(vec![precise]).await.remove(0);
    assert_eq!(event.occurred_at.as_millis(), START.as_millis() + 123, "to the millisecond");
}

pub async fn an_event_is_valid_cloudevents_json<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let mut bare = impersonal(2, "777");
    bare.event.number = None;
    for event in scene.emit(vec![message(1), bare]).await {
        let json: Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
        let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("`{name}` is a text")).to_owned();
        // What CloudEvents 1.0 requires ...
        assert_eq!(text("specversion"), "1.0");
        assert_eq!(text("id"), event.id().to_string());
        assert_eq!(text("type"), event.event_type);
        let number = event.number.as_ref().map(|id| format!("/numbers/{id}")).unwrap_or_default();
        assert_eq!(text("source"), format!("//wharf/tenants/acme{number}"));
        // ... allows ...
        assert_eq!(text("time").parse::<Timestamp>().unwrap(), event.occurred_at);
        assert_eq!(text("datacontenttype"), "application/json");
        assert!(text("dataschema").starts_with("wharf:schema/"));
        assert_eq!(json["data"], serde_json::from_slice::<Value>(&event.data).unwrap());
        // ... and takes as extensions, whose names are lower-case letters and digits.
        assert_eq!(text("tenant"), "acme");
        assert_eq!((&json["partition"], &json["revision"]), (&json!(event.partition), &json!(1)));
        assert_eq!(json.get("conversation"), event.conversation.map(|id| json!(id)).as_ref());
        let names = json.as_object().unwrap().keys();
        assert!(names.into_iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())));
    }
}

pub async fn positions_grow_in_the_order_of_commits<H: Harness>() {
    let scene = Scene::<H>::open().await;
    // Falling keys and rising ones, so that no order of keys passes for the order of commits.
    let order = [5, 3, 8, 1, 9];
    for n in order {
        scene.commit_new(vec![message(n)]).await;
    }
    scene.sequence_all().await;
    assert_eq!(keys(&scene.all_events().await), order.map(key));
}

pub async fn the_events_of_a_batch_keep_its_order<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let order = [5, 3, 8, 1, 9, 2, 7];
    let events = scene.emit(order.map(message).to_vec()).await;
    assert_eq!(keys(&events), order.map(key));
}

pub async fn positions_never_change<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.emit(vec![message(1), message(2)]).await;
    let before = whole(&scene.all_events().await);
    scene.emit(vec![message(3)]).await;
    scene.sequence_all().await;
    assert_eq!(whole(&scene.all_events().await)[..2], before);
}

pub async fn a_later_commit_comes_after_everything_visible<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let mut last = 0;
    for n in (1..=10).rev() {
        let event = scene.emit(vec![message(n)]).await.remove(0);
        assert!(event.position > last, "{} after {last}", event.position);
        last = event.position;
    }
}

pub async fn a_page_holds_at_most_limit_events<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.emit((1..=5).map(message).collect()).await;
    let first = scene.feed().read(0, 2, &ALL).await.unwrap();
    assert_eq!(keys(&first.events), [key(1), key(2)]);
    let second = scene.feed().read(first.next, 2, &ALL).await.unwrap();
    assert_eq!(keys(&second.events), [key(3), key(4)]);
    let third = scene.feed().read(second.next, 2, &ALL).await.unwrap();
    assert_eq!(keys(&third.events), [key(5)]);
    let end = scene.feed().read(third.next, 2, &ALL).await.unwrap();
    assert!(end.events.is_empty());
    assert_eq!(end.next, third.next, "nothing was looked at");
}

pub async fn reading_on_from_next_is_complete<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.emit((1..=20).map(message).collect()).await;
    let middle = scene.feed().read(0, 7, &ALL).await.unwrap().next;
    scene.emit((21..=30).map(message).collect()).await;
    assert_eq!(keys(&scene.read_all(middle, &ALL).await), (8..=30).map(key).collect::<Vec<_>>());
    assert_eq!(keys(&scene.all_events().await), (1..=30).map(key).collect::<Vec<_>>());
}

/// Tenants and types take turns, in runs longer than a page of `read_all`.
async fn mixed<H: Harness>(scene: &Scene<H>) {
    let mut updates = Vec::new();
    for n in 0..40 {
        let update = if n % 8 < 4 { message(n) } else { status(n) };
        updates.push(if n % 20 < 15 { update } else { of_tenant("other", update) });
    }
    scene.emit(updates).await;
}

async fn filtered<H: Harness>(filter: FeedFilter, expected: impl Fn(u32) -> bool) {
    let scene = Scene::<H>::open().await;
    mixed(&scene).await;
    let events = scene.read_all(0, &filter).await;
    let expected: Vec<_> = (0..40).filter(|n| expected(*n)).map(key).collect();
    assert_eq!(keys(&events), expected);
}

pub async fn the_filter_by_tenant_lets_only_its_events_through<H: Harness>() {
    filtered::<H>(FeedFilter { tenant: Some(tenant("other")), ..ALL }, |n| n % 20 >= 15).await;
    filtered::<H>(FeedFilter { tenant: Some(tenant("nobody")), ..ALL }, |_| false).await;
}

pub async fn the_filter_by_type_lets_only_its_events_through<H: Harness>() {
    let of_type = |event_type: &str| FeedFilter { event_type: Some(event_type.to_owned()), ..ALL };
    filtered::<H>(of_type("wharf.message.status"), |n| n % 8 >= 4).await;
    filtered::<H>(of_type("wharf.message"), |_| false).await;
}

pub async fn both_filters_together_narrow<H: Harness>() {
    let event_type = Some("wharf.message.received".to_owned());
    filtered::<H>(FeedFilter { tenant: Some(tenant("acme")), event_type }, |n| n % 8 < 4 && n % 20 < 15).await;
}

/// A reader of a quiet tenant must not look through the whole feed again each time.
pub async fn next_moves_over_what_the_filter_holds_back<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let last = scene.emit((1..=5).map(message).collect()).await.pop().unwrap().position;
    let filter = FeedFilter { tenant: Some(tenant("other")), ..ALL };
    let mut next = 0;
    for _ in 0..5 {
        let page = scene.feed().read(next, 1, &filter).await.unwrap();
        assert!(page.events.is_empty());
        next = page.next;
    }
    assert_eq!(next, last);
}

pub async fn a_reader_who_reads_on_misses_nothing_while_others_write<H: Harness>() {
    const WRITERS: u32 = 4;
    const EACH: u32 = 25;
    const TOTAL: usize = (WRITERS * EACH) as usize;
    let scene = Scene::<H>::open().await;
    let writer = async |who: u32| {
        for n in 0..EACH {
            scene.commit_new(vec![message(who * 1000 + n)]).await;
            tokio::task::yield_now().await;
        }
    };
    let sequencer = async {
        let mut done = 0;
        while done < TOTAL {
            done += scene.outbox().sequence(scene.fence().await, 3).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let reader = async {
        let (mut next, mut seen) = (0, Vec::new());
        while seen.len() < TOTAL {
            let page = scene.feed().read(next, 5, &ALL).await.unwrap();
            next = page.next;
            seen.extend(page.events);
            tokio::task::yield_now().await;
        }
        seen
    };
    let writers = futures_util::future::join_all((0..WRITERS).map(writer));
    let (_, (), seen) = bounded("reading on", async { tokio::join!(writers, sequencer, reader) }).await;
    assert!(seen.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(whole(&seen), whole(&scene.all_events().await), "what was read on is the whole feed");
}

pub async fn published_events_stay_in_the_feed<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let events = scene.emit(vec![message(1), message(2)]).await;
    let owner = uuid::Uuid::from_u128(1);
    let claimed = scene.outbox().claim(owner, 10, Duration::from_mins(1)).await.unwrap();
    let positions: Vec<_> = claimed.iter().map(|event| event.position).collect();
    scene.outbox().mark(owner, &positions).await.unwrap();
    assert_eq!(whole(&scene.all_events().await), whole(&events));
}

pub async fn an_event_of_a_conversation_is_in_its_partition<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for event in scene.emit(vec![message(1), status(2)]).await {
        let expected = PartitionKey::Conversation(event.conversation.unwrap()).partition();
        assert_eq!(event.partition, expected);
        assert!(event.partition < PARTITIONS);
    }
}

pub async fn an_event_without_a_conversation_is_in_the_partition_of_its_number<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let event = scene.emit(vec![impersonal(1, "778")]).await.remove(0);
    assert_eq!(event.partition, PartitionKey::Text("778").partition());
}

pub async fn an_event_without_a_number_is_in_the_partition_of_its_waba_or_tenant<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let mut of_waba = impersonal(1, "778");
    of_waba.event.number = None;
    let mut of_tenant = impersonal(2, "778");
    of_tenant.event.number = None;
    of_tenant.event.waba = None;
    let events = scene.emit(vec![of_waba, of_tenant]).await;
    assert_eq!(events[0].partition, PartitionKey::Text("888").partition());
    assert_eq!(events[1].partition, PartitionKey::Text("acme").partition());
    assert!(events.iter().all(|event| event.number.is_none()));
}

pub async fn the_feed_survives_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    scene.emit(vec![message(1), impersonal(2, "778")]).await;
    let before = whole(&scene.all_events().await);
    scene.commit_new(vec![message(3)]).await;
    let scene = scene.restart().await;
    assert_eq!(whole(&scene.all_events().await), before);
    scene.pass(Duration::from_mins(2)).await;
    assert_eq!(scene.sequence_all().await, 1, "what had no position yet gets one");
    let after = scene.all_events().await;
    assert_eq!(whole(&after)[..2], before);
    assert_eq!(after[2].key, key(3));
}
