//! `/messages`, `/api/webhooks` and `/stats`.

use std::sync::Arc;
use std::time::Duration;

use common::{Clock as _, EnvelopeId, SystemClock, TenantId, Timestamp};
use ports::message_log::{LoggedMessage, MessagePage, MessageTotals};
use serde_json::json;

use crate::world::World;

fn found() -> LoggedMessage {
    LoggedMessage {
        tenant: TenantId::new("acme").unwrap(),
        envelope: EnvelopeId::fresh(),
        received_at: Timestamp::from_millis(1_795_000_001_500),
        message_id: "wamid.1".to_owned(),
        from: Some("+491700000001".to_owned()),
        to: Some("+15550000777".to_owned()),
        at: Timestamp::from_secs(1_795_000_000),
        text: Some("hello \u{1f600} \"x\"".to_owned()),
    }
}

#[actix_web::test]
async fn messages_have_the_documented_shape() {
    let full = found();
    let bare = LoggedMessage { message_id: "wamid.2".to_owned(), from: None, to: None, text: None, ..full.clone() };
    let page = MessagePage { messages: vec![full, bare], total: 7 };
    let answer = Arc::new(World { page, ..World::default() }).get("/messages").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.text(),
        "{\"data\":[\
         {\"message_id\":\"wamid.1\",\"from\":\"+491700000001\",\"to\":\"+15550000777\",\
         \"ts\":\"2026-11-18T11:06:40Z\",\"text\":\"hello \u{1f600} \\\"x\\\"\"},\
         {\"message_id\":\"wamid.2\",\"from\":null,\"to\":null,\"ts\":\"2026-11-18T11:06:40Z\",\"text\":null}],\
         \"total\":7,\"limit\":50,\"offset\":0}"
    );
}

#[actix_web::test]
async fn every_filter_reaches_the_log() {
    let world = Arc::new(World::default());
    let uri = "/messages?limit=100&offset=9223372036854775807&from=%2B491700000001&since=2026-01-31T12:00:00Z\
               &q=50%25_off%20%C3%A9+x&tenant=acme";
    let answer = world.get(uri).await;
    assert_eq!(answer.text(), r#"{"data":[],"total":0,"limit":100,"offset":9223372036854775807}"#);
    world.get("/messages?q=&tenant=_unassigned&").await;
    let searched = world.searched.lock().unwrap();
    let filter = &searched[0];
    assert_eq!(filter.limit, 100);
    assert_eq!(filter.offset, 9_223_372_036_854_775_807);
    assert_eq!(filter.from.as_deref(), Some("+491700000001"));
    assert_eq!(filter.since, Some("2026-01-31T12:00:00Z".parse().unwrap()));
    assert_eq!(filter.text.as_deref(), Some("50%_off é x"));
    assert_eq!(filter.tenant, Some(TenantId::new("acme").unwrap()));
    assert_eq!((&searched[1].text, searched[1].limit, searched[1].offset), (&None, 50, 0));
}

#[actix_web::test]
async fn webhooks_have_the_documented_shape() {
    let (one, two) = (found(), LoggedMessage { message_id: "wamid.2".to_owned(), ..found() });
    let webhook = |message: &LoggedMessage| {
        json!({
            "eventId": message.envelope,
            "channel": "whatsapp",
            "rawPayloadRef": message.envelope.raw_payload_ref(),
            "receivedAt": "2026-11-18T11:06:41.5Z",
            "messageId": message.message_id,
            "tenant": "acme",
        })
    };
    let data = [webhook(&one), webhook(&two)];
    let page = MessagePage { messages: vec![one, two], total: 7 };
    let answer = Arc::new(World { page, ..World::default() }).get("/api/webhooks?limit=2&offset=3").await;
    assert_eq!(answer.json(), json!({"data": data, "total": 7, "limit": 2, "offset": 3}));
}

#[actix_web::test]
async fn webhooks_are_searched_by_message_and_among_those_that_are_kept() {
    const WEEK: Duration = Duration::from_hours(7 * 24);
    let world = Arc::new(World::default());
    let before = SystemClock.now();
    world.get("/api/webhooks").await;
    let after = SystemClock.now();
    world
        .get("/api/webhooks?message_id=wamid.a%2Bb/c%3D&from=491700000001&since=2026-01-31T12:00:00Z&tenant=acme")
        .await;
    for (query, field) in [
        ("message_id=".to_owned(), "message_id"),
        (format!("message_id={}", "x".repeat(256)), "message_id"),
        ("message_id=%00".to_owned(), "message_id"),
        ("message_id=a&message_id=a".to_owned(), "message_id"),
        ("limit=101".to_owned(), "limit"),
        ("q=hello".to_owned(), "query"),
    ] {
        assert_eq!(world.refused(&format!("/api/webhooks?{query}")).await, [field], "{query}");
    }
    assert_eq!(world.refused("/messages?message_id=wamid.1").await, ["query"]);
    let searched = world.searched.lock().unwrap();
    assert_eq!(searched.len(), 2);
    let since = searched[0].since.unwrap();
    assert!((before.minus(WEEK)..=after.minus(WEEK)).contains(&since), "{since}");
    assert_eq!((&searched[0].message_id, &searched[0].tenant, searched[0].limit), (&None, &None, 50));
    assert_eq!(searched[1].message_id.as_deref(), Some("wamid.a+b/c="));
    assert_eq!(searched[1].from.as_deref(), Some("+491700000001"));
    assert_eq!(searched[1].since, Some("2026-01-31T12:00:00Z".parse().unwrap()));
    assert_eq!(searched[1].tenant, Some(TenantId::new("acme").unwrap()));
}

#[actix_web::test]
async fn a_sender_may_come_without_its_plus() {
    let world = Arc::new(World::default());
    for from in ["491700000001", "%2B491700000001", "+491700000001", "%20491700000001"] {
        world.get(&format!("/messages?from={from}")).await;
    }
    let searched = world.searched.lock().unwrap();
    assert_eq!(searched.len(), 4);
    assert!(searched.iter().all(|filter| filter.from.as_deref() == Some("+491700000001")));
}

#[actix_web::test]
async fn bad_values_are_refused_by_field() {
    let world = Arc::new(World::default());
    let long = "x".repeat(10_000);
    let digits = "9".repeat(10_000);
    let cases = [
        ("limit", vec!["0", "101", "-1", "x", "", "1.5", "99999999999999999999999", "%00", "%ff", &digits]),
        ("offset", vec!["-1", "9223372036854775808", "18446744073709551616", "NaN", "%2B1", &digits]),
        ("since", vec!["", "yesterday", "2026-01-31", "1795000000", "2026-02-30T00:00:00Z", "%ff", "%00", &long]),
        ("from", vec!["", "+", "++49", "abc", "DE.1", "49%00", "%F0%9F%98%80", "49'--", &digits]),
        ("q", vec!["%00", "a%00b", "%ff", "%C3%28", "%", "%zz", &long]),
        ("tenant", vec!["", "Acme", "a.b", "%00", "../x", &long]),
    ];
    for (field, values) in cases {
        for value in values {
            let short: String = value.chars().take(40).collect();
            let answer = world.get(&format!("/messages?{field}={value}")).await;
            assert_eq!(answer.refused_fields(), [field], "{field}={short}");
            assert!(answer.body.len() < 500, "{field}={short} comes back");
        }
    }
    assert!(world.searched.lock().unwrap().is_empty());
}

#[actix_web::test]
async fn all_bad_fields_are_listed_together() {
    let world = Arc::new(World::default());
    let mut fields = world.refused("/messages?limit=0&offset=-1&since=x&from=x&tenant=X&limit=2").await;
    fields.sort();
    assert_eq!(fields, ["from", "limit", "offset", "since", "tenant"]);
}

#[actix_web::test]
async fn unknown_and_repeated_parameters_are_refused_and_unknown_names_not_repeated() {
    let world = Arc::new(World::default());
    assert_eq!(world.refused("/messages?limit=1&limit=1").await, ["limit"]);
    for bad in
        ["/messages?sinse=x", "/messages?LEAK", "/messages?%ff=1", "/messages?=1", "/stats?from=1", "/stats?LEAK"]
    {
        let answer = world.get(bad).await;
        assert_eq!(answer.refused_fields(), ["query"], "{bad}");
        assert!(!answer.text().contains("LEAK"));
    }
    let many = "LEAK&".repeat(2000);
    assert_eq!(world.refused(&format!("/messages?{many}")).await, ["query"]);
}

#[actix_web::test]
async fn stats_have_the_documented_shape() {
    let totals = MessageTotals {
        messages: 3,
        senders: 2,
        top_senders: vec![("+491700000002".to_owned(), 2), ("DE.9".to_owned(), 1)],
        first: Some(Timestamp::from_secs(0)),
        last: Some(Timestamp::from_millis(1_795_000_000_123)),
    };
    let world = Arc::new(World { totals, ..World::default() });
    let answer = world.get("/stats?tenant=acme").await;
    assert_eq!(
        answer.text(),
        r#"{"total_messages":3,"senders_count":2,"messages_per_sender":[{"from":"+491700000002","count":2},{"from":"DE.9","count":1}],"first_message_ts":"1970-01-01T00:00:00Z","last_message_ts":"2026-11-18T11:06:40.123Z"}"#
    );
    assert_eq!(*world.summed.lock().unwrap(), [Some(TenantId::new("acme").unwrap())]);
}

#[actix_web::test]
async fn stats_of_nothing_have_nulls() {
    let answer = Arc::new(World::default()).get("/stats").await;
    assert_eq!(
        answer.text(),
        r#"{"total_messages":0,"senders_count":0,"messages_per_sender":[],"first_message_ts":null,"last_message_ts":null}"#
    );
}
