//! The read side against traffic of which everything is known.

use serde_json::{Value, json};

use crate::meta::{self, NUMBER, WABA, text_from};
use crate::wharf::{Setup, Wharf};

const ANNA: &str = "491511111111";
const BEN: &str = "491522222222";

/// 30 messages of two people, a minute apart, and 12 statuses.
fn with_traffic() -> (Wharf, i64) {
    let wharf = Setup::new().without_limits().start();
    let begin = meta::now() - 3600;
    for index in 0..30_u32 {
        let sender = if index % 3 == 0 { BEN } else { ANNA };
        let id = format!("wamid.M{index:02}");
        let body = match index {
            7 => "50% off_now".to_owned(),
            8 => "500 off now".to_owned(),
            _ => format!("Text number {index}"),
        };
        let message = text_from(sender, &id, &body, begin + i64::from(index) * 60);
        meta::accepted(wharf.public(), &meta::messages(&[message]));
    }
    for index in 0..12 {
        let statuses = json!({"statuses": [meta::status(&format!("wamid.S{index:02}"), "sent")]});
        meta::accepted(wharf.public(), &meta::body(&[meta::entry(WABA, &[meta::change(NUMBER, statuses)])]));
    }
    wharf.events_when(42);
    (wharf, begin)
}

fn rfc3339(at: i64) -> String {
    common::Timestamp::from_secs(at).to_string()
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|message| message["message_id"].as_str().unwrap()).collect()
}

#[test]
fn messages_are_listed_paged_and_filtered() {
    let (wharf, begin) = with_traffic();
    let first = wharf.ask_json("/messages?limit=1");
    assert_eq!(
        first,
        json!({
            "data": [{
                "message_id": "wamid.M00", "from": format!("+{BEN}"), "to": format!("+{}", meta::DISPLAY),
                "ts": rfc3339(begin), "text": "Text number 0",
            }],
            "total": 30, "limit": 1, "offset": 0,
        })
    );
    let all: Vec<String> = (0..30).map(|index| format!("wamid.M{index:02}")).collect();
    let mut paged = Vec::new();
    for offset in (0..35).step_by(7) {
        let page = wharf.ask_json(&format!("/messages?limit=7&offset={offset}"));
        assert_eq!((&page["total"], &page["offset"]), (&json!(30), &json!(offset)));
        paged.extend(ids(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(paged, all, "in the order of their time, each once");
    assert_eq!(wharf.ask_json("/messages?offset=30")["data"], json!([]));
    assert_eq!(wharf.ask_json("/messages")["limit"], 50);

    for (query, total) in [
        (format!("from={BEN}"), 10),
        (format!("from=%2B{ANNA}"), 20),
        (format!("from={ANNA}&q=off"), 2),
        ("from=4900000".to_owned(), 0),
        ("q=TEXT%20NUMBER".to_owned(), 28),
        ("q=50%25".to_owned(), 1),
        ("q=off_now".to_owned(), 1),
        (format!("since={}", rfc3339(begin + 29 * 60)), 1),
        (format!("since={}", rfc3339(begin + 29 * 60 + 1)), 0),
        ("tenant=default".to_owned(), 30),
        ("tenant=other".to_owned(), 0),
    ] {
        assert_eq!(wharf.ask_json(&format!("/messages?{query}"))["total"], total, "{query}");
    }
    for query in
        ["limit=0", "limit=101", "limit=x", "offset=-1", "since=yesterday", "from=anna", "unknown=1", "limit=1&limit=2"]
    {
        let answer = wharf.ask(&format!("/messages?{query}"));
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["errors"].as_array().unwrap().len(), 1, "{query}");
    }
    let both = wharf.ask("/messages?limit=0&offset=-1").json();
    assert_eq!(both["errors"].as_array().unwrap().len(), 2, "all that is wrong at once: {both}");
}

#[test]
fn statistics_count_inbound_messages() {
    let (wharf, begin) = with_traffic();
    assert_eq!(
        wharf.ask_json("/stats"),
        json!({
            "total_messages": 30,
            "senders_count": 2,
            "messages_per_sender":
                [{"from": format!("+{ANNA}"), "count": 20}, {"from": format!("+{BEN}"), "count": 10}],
            "first_message_ts": rfc3339(begin),
            "last_message_ts": rfc3339(begin + 29 * 60),
        })
    );
    // A repetition changes nothing.
    let again = text_from(BEN, "wamid.M00", "Text number 0", begin);
    meta::accepted(wharf.public(), &meta::messages(&[again]));
    meta::accepted(wharf.public(), &meta::messages(&[text_from("491533333333", "wamid.NEW", "hi", meta::now())]));
    wharf.wait_for_message("wamid.NEW");
    let stats = wharf.ask_json("/stats");
    assert_eq!((&stats["total_messages"], &stats["senders_count"]), (&json!(31), &json!(3)));
}

#[test]
fn before_the_first_message_everything_is_empty_and_nothing_is_missing() {
    let wharf = Setup::new().start();
    let empty = json!({
        "total_messages": 0, "senders_count": 0, "messages_per_sender": [],
        "first_message_ts": null, "last_message_ts": null,
    });
    assert_eq!(wharf.ask_json("/stats"), empty);
    assert_eq!(wharf.ask_json("/messages"), json!({"data": [], "total": 0, "limit": 50, "offset": 0}));
    let page = wharf.ask_json("/v1/events");
    assert_eq!(page["events"], json!([]));
    assert_eq!(wharf.ask_json(&format!("/v1/events?after={}", page["next"].as_str().unwrap()))["events"], json!([]));
}

#[test]
fn the_feed_is_complete_in_pages_of_any_size_and_by_type() {
    let (wharf, begin) = with_traffic();
    let all = wharf.events();
    for limit in [1, 5, 42, 43, 1000] {
        let (mut paged, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let page = wharf.page(&format!("limit={limit}&after={cursor}"));
            assert!(page.events.len() <= limit);
            if page.events.is_empty() {
                break;
            }
            paged.extend(page.events.into_iter().map(|event| event.id));
            cursor = page.next;
        }
        assert_eq!(paged, all.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), "pages of {limit}");
    }
    assert_eq!(wharf.page("type=wharf.message.received&limit=1000").events.len(), 30);
    assert_eq!(wharf.page("type=wharf.message.status&limit=1000").events.len(), 12);
    assert_eq!(wharf.page("type=wharf.unsupported").events.len(), 0);
    assert_eq!(wharf.page("tenant=default&limit=1000").events.len(), 42);
    assert_eq!(wharf.page("").events.len(), 42, "100 by default");
    assert_eq!(wharf.page("after=&limit=5").events[0].id, all[0].id, "no cursor yet is the beginning");

    let first = &all[0];
    assert_eq!((first.specversion.as_str(), first.datacontenttype.as_str()), ("1.0", "application/json"));
    assert_eq!(first.r#type, "wharf.message.received");
    assert_eq!(first.dataschema, "wharf:schema/message.received/v1");
    assert_eq!(first.source, format!("//wharf/tenants/default/numbers/{NUMBER}"));
    assert_eq!((first.tenant.as_str(), first.revision), ("default", 1));
    assert_eq!(first.time, rfc3339(begin));
    assert_eq!(first.data.text.as_ref().unwrap().body, "Text number 0");
    let of_ben: std::collections::BTreeSet<u16> = all[..30].iter().step_by(3).map(|event| event.partition).collect();
    assert_eq!(of_ben.len(), 1, "a conversation stays in its partition");
    assert!(all.iter().all(|event| event.partition < 64));

    for query in ["after=x", "after=-1", "limit=0", "limit=1001", "type=UPPER", "tenant=Not+One", "more=1"] {
        assert_eq!(wharf.ask(&format!("/v1/events?{query}")).status, 422, "{query}");
    }
}
