//! `/v1/events`.

use std::sync::Arc;

use bytes::Bytes;
use common::{EventKey, NumberId, TenantId, Timestamp};
use ports::feed::{FeedEvent, FeedPage};

use crate::world::World;

fn event(position: i64, data: &'static str) -> FeedEvent {
    FeedEvent {
        position,
        tenant: TenantId::new("acme").unwrap(),
        key: EventKey([7; 16]),
        event_type: "wharf.message.received".to_owned(),
        occurred_at: Timestamp::from_secs(1_795_000_000),
        number: Some(NumberId::new("777").unwrap()),
        conversation: None,
        partition: 3,
        revision: 1,
        data: Bytes::from_static(data.as_bytes()),
    }
}

fn with(events: Vec<FeedEvent>, next: i64) -> Arc<World> {
    Arc::new(World { feed: Some(FeedPage { events, next }), ..World::default() })
}

#[actix_web::test]
async fn a_page_holds_the_events_as_they_are_and_where_to_go_on() {
    let events = vec![event(5, r#"{"b":1,"a":1.0e3}"#), event(9, "{}")];
    let expected = [events[0].to_json().unwrap(), events[1].to_json().unwrap()].map(|e| String::from_utf8(e).unwrap());
    let answer = with(events, 12).get("/v1/events").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.text(), format!(r#"{{"events":[{},{}],"next":"12"}}"#, expected[0], expected[1]));
    assert!(answer.text().contains(r#""data":{"b":1,"a":1.0e3}"#), "byte for byte");
}

#[actix_web::test]
async fn an_empty_feed_says_to_stay() {
    let world = Arc::new(World::default());
    assert_eq!(world.get("/v1/events").await.text(), r#"{"events":[],"next":"0"}"#);
    assert_eq!(world.get("/v1/events?after=41").await.text(), r#"{"events":[],"next":"41"}"#);
}

#[actix_web::test]
async fn every_parameter_reaches_the_feed() {
    let world = Arc::new(World::default());
    world.get("/v1/events").await;
    world.get("/v1/events?after=9223372036854775807&limit=1000&type=wharf.message.status&tenant=acme").await;
    let read = world.read.lock().unwrap();
    assert_eq!((read[0].0, read[0].1), (0, 100));
    assert_eq!((&read[0].2.tenant, &read[0].2.event_type), (&None, &None));
    assert_eq!((read[1].0, read[1].1), (i64::MAX, 1000));
    assert_eq!(read[1].2.event_type.as_deref(), Some("wharf.message.status"));
    assert_eq!(read[1].2.tenant, Some(TenantId::new("acme").unwrap()));
}

#[actix_web::test]
async fn bad_values_are_refused_by_field() {
    let world = Arc::new(World::default());
    let long = "a".repeat(10_000);
    let cases = [
        ("after", vec!["-1", "%2B1", "x", "9223372036854775808", "1%20", "%00", "%ff", &long]),
        ("limit", vec!["0", "1001", "-5", "99999999999999999999999999"]),
        ("type", vec!["Wharf", "a%00", "%ff", "*", &long]),
        ("tenant", vec!["", "A", "%00"]),
    ];
    for (field, values) in cases {
        for value in values {
            assert_eq!(world.refused(&format!("/v1/events?{field}={value}")).await, [field], "{field}={value:.40}");
        }
    }
    assert_eq!(world.refused("/v1/events?cursor=1").await, ["query"]);
    assert!(world.read.lock().unwrap().is_empty());
    assert_eq!(world.get("/v1/events?after=&limit=&type=").await.status, 200);
}

#[actix_web::test]
async fn a_damaged_event_is_never_left_out_silently() {
    let answer = with(vec![event(5, "{}"), event(6, "{LEAK")], 6).get("/v1/events").await;
    let detail = answer.problem(500)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("after=6") && !detail.contains("LEAK"), "{detail}");
}
