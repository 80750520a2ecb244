use std::borrow::Cow;

use common::Timestamp;
use common::update::{EventHashKey, UpdateKind};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::meta::generate::{Body, LISTS, bodies, damaged, ordered};

/// A body with this value in its one change.
fn with_value(value: &str) -> String {
    format!(r#"{{"entry":[{{"id":"1","changes":[{{"field":"messages","value":{value}}}]}}]}}"#)
}

fn kinds(body: &str) -> Vec<UpdateKind> {
    peek(body.as_bytes()).unwrap().updates.iter().map(|update| update.kind).collect()
}

#[test]
fn a_body_without_updates_is_readable() {
    for body in [
        "{}",
        " {\"object\":\"x\"} ",
        r#"{"entry":[]}"#,
        r#"{"entry":null}"#,
        r#"{"entry":[{}]}"#,
        r#"{"entry":[{"id":"1","changes":[]},{"changes":null}]}"#,
    ] {
        assert_eq!(peek(body.as_bytes()).map(|peek| (peek.changes.len(), peek.updates.len())), Ok((0, 0)), "{body}");
    }
}

#[test]
fn a_body_that_cannot_be_read_says_why() {
    let twice = |value: &str| peek(with_value(value).as_bytes()).unwrap_err().reason;
    for (body, reason) in [
        ("", "the body is not JSON"),
        ("{", "the body is not JSON"),
        (r#"{"entry":[{"changes":[{"value":{"messages":[{"id":"a}]}}]}]}"#, "the body is not JSON"),
        ("\u{feff}{}", "the body is not JSON"),
        ("[]", "the body is not a JSON object"),
        ("null", "the body is not a JSON object"),
        ("{} {}", "the body goes on after the JSON object"),
        (r#"{"entry":{}}"#, "`entry` is not a list"),
        (r#"{"entry":[],"\u0065ntry":[]}"#, "the body has two `entry`"),
        (r#"{"object":1,"object":1}"#, "the body has two `object`"),
        (r#"{"entry":[{"id":1,"id":2}]}"#, "an entry has two `id`"),
        (r#"{"entry":[{"time":1,"time":2}]}"#, "an entry has two `time`"),
        (r#"{"entry":[{"changes":[],"changes":[]}]}"#, "an entry has two `changes`"),
        (r#"{"entry":[{"changes":[{"field":1,"field":2}]}]}"#, "a change has two `field`"),
        (r#"{"entry":[{"changes":[{"value":1,"value":2}]}]}"#, "a change has two `value`"),
    ] {
        assert_eq!(peek(body.as_bytes()).unwrap_err().reason, reason, "{body}");
    }
    assert_eq!(peek(b"{\"a\":\"\xff\"}").unwrap_err().reason, "the body is not UTF-8");
    assert_eq!(twice(r#"{"metadata":1,"metadata":2}"#), "a value has two `metadata`");
    assert_eq!(twice(r#"{"contacts":[],"contacts":[]}"#), "a value has two `contacts`");
    assert_eq!(twice(r#"{"metadata":{"phone_number_id":1,"phone_number_id":2}}"#), "a `metadata` has an id twice");
    for list in LISTS {
        assert_eq!(twice(&format!(r#"{{"{list}":[],"{list}":[]}}"#)), "a value has a list of updates twice");
    }
}

#[test]
fn each_list_has_its_kind() {
    use UpdateKind::{Call, Change, Echo, Error, Item, Malformed, Message, Status};
    for (list, kind) in LISTS.iter().zip([Message, Status, Echo, Call, Error, Item, Item, Item, Item, Item, Item]) {
        assert_eq!(kinds(&with_value(&format!(r#"{{"{list}":[{{}},{{}}]}}"#))), [kind, kind], "{list}");
        assert_eq!(kinds(&with_value(&format!(r#"{{"{list}":[]}}"#))), [Change], "{list}");
        assert_eq!(kinds(&with_value(&format!(r#"{{"{list}":null}}"#))), [Change], "{list}");
        assert_eq!(kinds(&with_value(&format!(r#"{{"{list}":"x"}}"#))), [Malformed], "{list}");
    }
    assert_eq!(kinds(&with_value(r#"{"event":"x","standby":{"messages":[{}]}}"#)), [Change]);
    assert_eq!(kinds(&with_value("[]")), [Malformed]);
}

#[test]
fn ids_are_the_same_however_they_are_written() {
    let key = EventHashKey::new(&[1; 32]);
    let keys = |value: &str| {
        let body = with_value(value);
        let peek = peek(body.as_bytes()).unwrap();
        peek.updates.iter().map(|update| key.event_key(&update.identity(&peek).unwrap())).collect::<Vec<_>>()
    };
    let plain = keys(r#"{"metadata":{"phone_number_id":"77"},"messages":[{"id":"wamid.A/B=="},{"id":"5"}]}"#);
    let other =
        keys(r#"{"messages":[{"\u0069d":"wamid.\u0041\/B=\u003d"},{"id":5}],"metadata":{"phone_number_id":77}}"#);
    assert_eq!(plain, other);
    assert_ne!(plain[0], plain[1]);
}

#[test]
fn an_id_that_cannot_be_read_makes_its_update_malformed_and_no_other() {
    let long = "x".repeat(513);
    for bad in ["{}", "[1]", "true", r#""\ud800""#, &format!("\"{long}\"")] {
        let body = with_value(&format!(r#"{{"messages":[{{"id":"a"}},{{"id":{bad}}},{{"id":"b"}}]}}"#));
        let peek = peek(body.as_bytes()).unwrap();
        let ids: Vec<_> = peek.updates.iter().map(|update| (update.kind, update.id.as_deref())).collect();
        let message = UpdateKind::Message;
        assert_eq!(ids, [(message, Some("a")), (UpdateKind::Malformed, None), (message, Some("b"))], "{bad}");
    }
    for none in ["null", "\"\""] {
        let body = with_value(&format!(r#"{{"messages":[{{"id":{none}}}]}}"#));
        let peek = peek(body.as_bytes()).unwrap();
        assert_eq!((peek.updates[0].kind, &peek.updates[0].id), (UpdateKind::Message, &None));
        assert!(peek.updates[0].identity(&peek).is_none());
    }
    assert_eq!(kinds(&with_value(&format!(r#"{{"messages":[{{"id":"{}"}}]}}"#, &long[1..]))), [UpdateKind::Message]);
}

#[test]
fn only_repeated_keys_that_are_read_here_matter() {
    for key in ["id", "type", "timestamp", "from", "from_user_id"] {
        let update = |key: &str| with_value(&format!(r#"{{"messages":[{{"{key}":"1","{key}":"1"}}]}}"#));
        assert_eq!(kinds(&update(key)), [UpdateKind::Malformed], "{key}");
        assert_eq!(kinds(&update("text")), [UpdateKind::Message]);
    }
    assert_eq!(kinds(&with_value(r#"{"statuses":[{"status":"a","status":"a"}]}"#)), [UpdateKind::Malformed]);
    assert_eq!(kinds(&with_value(r#"{"statuses":[{"recipient_participant_id":{}}]}"#)), [UpdateKind::Malformed]);
}

#[test]
fn times_outside_the_calendar_are_no_times() {
    for (time, expected) in [
        ("\"1795000000\"", Some(1_795_000_000)),
        ("1795000000", Some(1_795_000_000)),
        ("0", Some(0)),
        ("253402300799", Some(253_402_300_799)),
        ("253402300800", None),
        ("1795000000000", None),
        ("-1", None),
        ("\"soon\"", None),
        ("99999999999999999999", None),
        ("1.5", None),
        ("{}", None),
        ("null", None),
    ] {
        let body = with_value(&format!(r#"{{"messages":[{{"timestamp":{time}}}]}}"#));
        let found = peek(body.as_bytes()).unwrap().updates[0].timestamp;
        assert_eq!(found, expected.map(Timestamp::from_secs), "{time}");
    }
}

#[test]
fn the_sender_is_the_number_else_the_user_id() {
    let sender = |fields: &str| {
        let body = with_value(&format!(r#"{{"messages":[{{{fields}}}],"statuses":[{{{fields}}}]}}"#));
        let peek = peek(body.as_bytes()).unwrap();
        assert_eq!(peek.updates[1].sender, None);
        peek.updates[0].sender.as_deref().map(str::to_owned)
    };
    assert_eq!(sender(r#""from":"1","from_user_id":"PT.1""#).as_deref(), Some("1"));
    assert_eq!(sender(r#""from_user_id":"PT.1""#).as_deref(), Some("PT.1"));
    assert_eq!(sender(r#""from":[],"from_user_id":"PT.1""#).as_deref(), Some("PT.1"));
    assert_eq!(sender(""), None);
}

#[test]
fn the_events_of_one_call_are_two_updates() {
    let body =
        with_value(r#"{"calls":[{"id":"w","event":"connect"},{"id":"w","event":"terminate","status":"FAILED"}]}"#);
    let peek = peek(body.as_bytes()).unwrap();
    let statuses: Vec<_> = peek.updates.iter().map(|update| update.status.as_deref().unwrap()).collect();
    assert_eq!(statuses, ["connect", "terminate"]);
}

#[test]
fn a_failed_payment_is_not_a_failed_delivery() {
    let status = |r#type: &str| format!(r#"{{"id":"w","status":"failed"{type}}}"#);
    let list = [status(""), status(r#","type":"message""#), status(r#","type":"payment""#)].join(",");
    let body = with_value(&format!(r#"{{"statuses":[{list}]}}"#));
    let peek = peek(body.as_bytes()).unwrap();
    let key = EventHashKey::new(&[1; 32]);
    let keys: Vec<_> = peek.updates.iter().map(|update| key.event_key(&update.identity(&peek).unwrap())).collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
}

#[test]
fn the_dashboard_s_test_is_told_from_the_rest() {
    let body = |waba: &str, number: &str| {
        let value = format!(r#"{{"metadata":{{"phone_number_id":{number}}},"messages":[{{"id":"ABGGFlA5Fpa"}}]}}"#);
        with_value(&value).replace(r#""id":"1""#, &format!(r#""id":"{waba}""#))
    };
    let test = |body: &str| peek(body.as_bytes()).unwrap().is_dashboard_test();
    assert!(test(&body("0", r#""123456123""#)));
    assert!(test(r#"{"entry":[{"id":"0","time":1,"changes":[{"field":"account_update","value":{}}]}]}"#));
    assert!(!test(&body("1", r#""123456123""#)));
    assert!(!test(&body("0", r#""777""#)));
    assert!(!test("{}"));
}

#[test]
fn depth_does_not_matter() {
    for (open, close) in [("[", "]"), ("{\"id\":", "}")] {
        let deep = open.repeat(100_000) + "1" + &close.repeat(100_000);
        let body = with_value(&format!(r#"{{"messages":[{{"id":"a","x":{deep}}},{{"id":"b"}}],"y":{deep}}}"#));
        assert_eq!(kinds(&body), [UpdateKind::Message, UpdateKind::Message]);
    }
}

#[test]
fn a_body_of_nothing_but_updates_is_read() {
    let body = with_value(&format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(300_000)));
    assert_eq!(peek(body.as_bytes()).unwrap().updates.len(), 300_001);
}

/// What is compared of an update: kind, id, status, participant, sender, type, time, JSON, WABA, number, field.
type Told = (UpdateKind, [Option<String>; 5], Option<i64>, Value, [Option<String>; 3]);

/// The plain reading of the same rules, on a tree.
fn expected(body: &Body) -> Vec<Told> {
    let mut told = Vec::new();
    let entries = body.tree["entry"].as_array().unwrap();
    for entry in entries {
        let waba = text(&entry["id"]).unwrap_or_default();
        let time = seconds(&entry["time"]);
        let mut push = |kind, ids: [Option<String>; 5], time, json: &Value, number, field| {
            told.push((kind, ids, time, json.clone(), [waba.clone(), number, field]));
        };
        let nothing = || [const { None }; 5];
        let malformed_entry = !entry.is_object() || !(entry["changes"].is_array() || entry["changes"].is_null());
        if malformed_entry {
            push(UpdateKind::Malformed, nothing(), None, entry, None, None);
            continue;
        }
        for change in entry["changes"].as_array().into_iter().flatten() {
            let field = text(&change["field"]).unwrap_or_default();
            let Some(value) = change["value"].as_object() else {
                push(UpdateKind::Malformed, nothing(), None, change, None, field);
                continue;
            };
            let number = text(&change["value"]["metadata"]["phone_number_id"]).unwrap_or_default();
            let mut any = false;
            for (name, list) in ordered(value, body.reverse) {
                let Some(index) = LISTS.iter().position(|list| list == name) else { continue };
                let elements = match list {
                    Value::Null => continue,
                    Value::Array(elements) => elements.clone(),
                    other => {
                        any = true;
                        push(UpdateKind::Malformed, nothing(), None, other, number.clone(), field.clone());
                        continue;
                    }
                };
                for element in elements {
                    any = true;
                    let (kind, ids, time) = element.as_object().and_then(|map| of_element(index, map)).unwrap_or((
                        UpdateKind::Malformed,
                        nothing(),
                        None,
                    ));
                    push(kind, ids, time, &element, number.clone(), field.clone());
                }
            }
            if !any {
                push(UpdateKind::Change, nothing(), time, change, number, field);
            }
        }
    }
    told
}

fn of_element(list: usize, map: &Map<String, Value>) -> Option<(UpdateKind, [Option<String>; 5], Option<i64>)> {
    use UpdateKind::{Call, Echo, Error, Item, Message, Status};
    let kind = [Message, Status, Echo, Call, Error].get(list).copied().unwrap_or(Item);
    let get = |name: &str| map.get(name).unwrap_or(&Value::Null);
    let id = text(get("id"))?;
    let (mut status, mut participant, mut sender) = (None, None, None);
    match kind {
        Message => sender = text(get("from")).flatten().or(text(get("from_user_id")).flatten()),
        Status => {
            status = text(get("status"))?;
            participant = text(get("recipient_participant_id"))?.or(text(get("participant_recipient_id"))?);
        }
        Call => status = text(get("event"))?,
        _ => {}
    }
    Some((kind, [id, status, participant, sender, text(get("type")).flatten()], seconds(get("timestamp"))))
}

/// `None` is a value that is no text, `Some(None)` no value.
#[expect(clippy::option_option, reason = "three outcomes, in a test")]
fn text(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) if text.len() <= 512 => Some(Some(text.clone()).filter(|text| !text.is_empty())),
        Value::Number(number) => Some(Some(number.to_string())),
        _ => None,
    }
}

fn seconds(value: &Value) -> Option<i64> {
    text(value)??.parse().ok().filter(|seconds| (0..=253_402_300_799).contains(seconds))
}

fn found(body: &str) -> Vec<Told> {
    let peek = peek(body.as_bytes()).unwrap();
    let own = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
    let told = peek.updates.iter().map(|update| {
        let change = &peek.changes[update.change];
        let ids = [&update.id, &update.status, &update.participant, &update.sender, &update.r#type].map(own);
        let json = serde_json::from_str(&body[update.range.clone()]).unwrap();
        let around = [&change.waba_id, &change.phone_number_id, &change.field].map(own);
        (update.kind, ids, update.timestamp.map(Timestamp::as_secs), json, around)
    });
    told.collect()
}

#[test]
fn the_plain_reading_is_not_empty() {
    let tree = json!({"entry": [{"id": 1, "changes": [{"value": {"messages": [{"id": "a", "from": 5}, 7]}}]}]});
    let told = expected(&Body { text: tree.to_string(), tree, reverse: false });
    assert_eq!((told[0].0, told[1].0, told.len()), (UpdateKind::Message, UpdateKind::Malformed, 2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_plain_walk_over_a_tree(body in bodies()) {
        prop_assert_eq!(found(&body.text), expected(&body), "{}", body.text);
    }

    #[test]
    fn never_panics_and_never_reads_what_is_not_json(body in damaged()) {
        if peek(&body).is_ok() {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
        }
    }

    #[test]
    fn never_panics_on_bytes(body in prop::collection::vec(any::<u8>(), 0..200), json in r#"[\[\]{},:"a1 \\]{0,60}"#) {
        assert!(peek(&body).is_err() || serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
        let _ = peek(json.as_bytes());
    }
}
