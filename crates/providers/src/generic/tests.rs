//! One file per case in `fixtures/`: `about` says why it is there, `body` is the webhook exactly as received, `problems`
//! or `updates` what validation, peek and parse must make of it. A failure prints what they make of it today.

use common::Timestamp;
use common::update::Provider;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::message::{FieldProblem, validate};
use crate::fixtures::{self, RECEIVED_AT};
use crate::{cut, parse, peek};

/// A body with this member in place of its own.
fn with(field: &str, value: &Json) -> Vec<u8> {
    let mut body = json!({
        "message_id": "m1", "from": "+15550009999", "to": "+15550002222", "ts": "2026-11-18T11:06:40Z", "text": "x",
    });
    body[field] = value.clone();
    body.to_string().into_bytes()
}

fn problems(body: &[u8]) -> Vec<(&'static str, &'static str)> {
    let problems = validate(body).err().unwrap_or_default();
    problems.into_iter().map(|FieldProblem { field, message }| (field, message)).collect()
}

#[test]
fn every_fixture_is_read_as_written_down() {
    let fixtures = fixtures::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/generic/fixtures"));
    assert!(fixtures.len() >= 8);
    for (path, fixture) in fixtures {
        let body = fixture.body();
        let told = match validate(&body) {
            Ok(_) => fixtures::told(Provider::Generic, &body),
            Err(problems) => json!(problems),
        };
        fixture.compare(&path, &told);
    }
}

#[test]
fn limits_hold_to_the_character() {
    for (field, value, fine) in [
        ("message_id", json!("x"), true),
        ("message_id", json!("é".repeat(255)), true),
        ("message_id", json!("é".repeat(256)), false),
        ("message_id", json!(""), false),
        ("message_id", json!(7), false),
        ("from", json!("+1234567"), true),
        ("from", json!("+123456789012345"), true),
        ("from", json!("+123456"), false),
        ("from", json!("+1234567890123456"), false),
        ("from", json!("+0234567"), false),
        ("from", json!("1234567"), false),
        ("to", json!("+12 34567"), false),
        ("to", json!("+١٢٣٤٥٦٧"), false),
        ("to", json!(["+1234567"]), false),
        ("ts", json!("2026-11-18T11:06:40Z"), true),
        ("ts", json!("2026-11-18T11:06:40.123456+05:30"), true),
        ("ts", json!("1970-01-01T00:00:00Z"), true),
        ("ts", json!("1969-12-31T23:59:59Z"), false),
        ("ts", json!("2026-11-18T11:06:40"), false),
        ("ts", json!("2026-11-18"), false),
        ("ts", json!("yesterday"), false),
        ("ts", json!(1_795_000_000), false),
        ("text", json!(null), true),
        ("text", json!(""), true),
        ("text", json!("😀".repeat(4096)), true),
        ("text", json!("😀".repeat(4097)), false),
        ("text", json!({"body": "x"}), false),
        ("other", json!({"any": ["thing"]}), true),
    ] {
        let told = problems(&with(field, &value));
        let fields: Vec<_> = told.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, if fine { vec![] } else { vec![field] }, "{field} {value}: {told:?}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let body = br#"{"message_id":"","from":"x","from":"+15550009999","to":7,"text":"\ud800"}"#;
    assert_eq!(
        problems(body),
        [
            ("from", "must not come twice"),
            ("message_id", "must have 1 to 255 characters"),
            ("to", "must be a string"),
            ("ts", "is missing"),
            ("text", "must not have half a surrogate pair"),
        ]
    );
    assert_eq!(problems(b"{}").len(), 4);
}

#[test]
fn a_body_of_another_form_is_one_problem() {
    for (body, message) in [
        (&b""[..], "must be JSON"),
        (b"{", "must be JSON"),
        (b"message_id=m1", "must be JSON"),
        (b"[]", "must be a JSON object"),
        (b"{} {}", "must end after the JSON object"),
        (b"{\"text\":\"\xff\"}", "must be UTF-8"),
    ] {
        assert_eq!(problems(body), [("body", message)]);
        assert!(peek(Provider::Generic, body).is_err());
    }
}

#[test]
fn a_message_is_cut_whole_or_not_at_all() {
    let body = with("text", &json!("y"));
    let peeked = peek(Provider::Generic, &body).unwrap();
    assert_eq!(&*cut(&body, &peeked, &[true]), &*body);
    assert!(cut(&body, &peeked, &[]).is_empty());
    assert!(parse(b"{}", &peeked, 0, RECEIVED_AT).is_err());
    assert!(parse(&body, &peeked, 1, RECEIVED_AT).is_err());
}

#[test]
fn depth_does_not_matter() {
    let deep = format!(r#"{{"x":{}{},"#, "[".repeat(100_000), "]".repeat(100_000));
    let body = String::from_utf8(with("text", &json!(null))).unwrap().replacen('{', &deep, 1);
    let peeked = peek(Provider::Generic, body.as_bytes()).unwrap();
    assert!(parse(body.as_bytes(), &peeked, 0, RECEIVED_AT).unwrap().data.get().contains("[[["));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_valid_parses(id in "\\PC{1,255}", text in proptest::option::of("\\PC{0,40}"), at in 0..4_000_000_000_i64) {
        let mut body = json!({
            "message_id": id, "from": "+15550009999", "to": "+15550002222", "ts": Timestamp::from_secs(at).to_string(),
        });
        if let Some(text) = &text {
            body["text"] = json!(text);
        }
        let body = body.to_string();
        let peeked = peek(Provider::Generic, body.as_bytes()).unwrap();
        prop_assert_eq!(peeked.updates[0].id.as_deref(), Some(&*id));
        let parsed = parse(body.as_bytes(), &peeked, 0, RECEIVED_AT).unwrap();
        prop_assert_eq!(parsed.occurred_at, Timestamp::from_secs(at));
    }

    #[test]
    fn never_panics(body in prop::collection::vec(any::<u8>(), 0..200), json in r#"\{("(message_id|ts|to)":("[+0-9T:Zu\\]{0,12}"|null),?){0,4}\}"#) {
        for body in [&body[..], json.as_bytes()] {
            match peek(Provider::Generic, body) {
                Ok(peeked) => prop_assert!(parse(body, &peeked, 0, RECEIVED_AT).is_ok()),
                Err(_) => prop_assert!(!problems(body).is_empty()),
            }
        }
    }
}
