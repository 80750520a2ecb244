//! `/messages` and `/stats`.

use std::sync::Arc;

use common::{TenantId, Timestamp};
use ports::message_log::{LoggedMessage, MessagePage, MessageTotals};

use crate::world::World;

#[actix_web::test]
async fn messages_have_the_documented_shape() {
    let full = LoggedMessage {
        message_id: "wamid.1".to_owned(),
        from: Some("+491700000001".to_owned()),
        to: Some("+15550000777".to_owned()),
        at: Timestamp::from_secs(1_795_000_000),
        text: Some("hello \u{1f600} \"x\"".to_owned()),
    };
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
