//! One file per case in `fixtures/`: `about` says why it is there, `body` is the webhook exactly as received, `updates`
//! is what peek and parse must make of it. A failure prints what they make of it
//! today.

use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;
use crate::meta::generate::{bodies, damaged};
use crate::meta::peek::peek;

/// 2026-11-20T12:00:00Z
const RECEIVED_AT: Timestamp = Timestamp::from_secs(1_795_176_000);

#[derive(Deserialize)]
struct Fixture {
    about: String,
    body: Box<RawValue>,
    updates: Json,
}

fn fixtures() -> Vec<(PathBuf, Fixture)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/meta/fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// All that peek and parse tell of a body, without what is absent.
fn told(body: &[u8]) -> Json {
    let peek = peek(body).unwrap();
    let updates = peek.updates.iter().enumerate().map(|(index, update)| {
        let change = &peek.changes[update.change];
        let parsed = match parse(body, &peek, index, RECEIVED_AT) {
            Err(error) => json!({"error": error.reason}),
            Ok(parsed) => json!({
                "type": parsed.event_type.as_str(),
                "occurredAt": parsed.occurred_at.to_string(),
                "party": parsed.party,
                "group": parsed.group_id,
                "data": parsed.data,
                "content": content(&parsed.content),
            }),
        };
        without_nulls(json!({
            "kind": update.kind,
            "id": update.id,
            "status": update.status,
            "participant": update.participant,
            "sender": update.sender,
            "type": update.r#type,
            "timestamp": update.timestamp.map(Timestamp::as_secs),
            "hasIdentity": update.identity(&peek.changes).is_some(),
            "waba": change.waba_id,
            "number": change.phone_number_id,
            "field": change.field,
            "parsed": parsed,
        }))
    });
    updates.collect()
}

fn content(content: &ParsedContent) -> Json {
    match content {
        ParsedContent::Message { id, r#type, text } => json!({"message": {"id": id, "type": r#type, "text": text}}),
        ParsedContent::Status { id, state, participant, conversation, pricing, errors, biz_opaque_callback_data } => {
            json!({"status": {
                "id": id, "state": state, "participant": participant, "conversation": conversation, "pricing": pricing,
                "errors": errors, "callbackData": biz_opaque_callback_data,
            }})
        }
        ParsedContent::Other { field, kind, r#type, id } => {
            json!({"other": {"field": field, "kind": kind, "type": r#type, "id": id}})
        }
    }
}

fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Json::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn every_fixture_is_read_as_written_down() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 25);
    for (path, fixture) in fixtures {
        let told = told(fixture.body.get().as_bytes());
        let shown = serde_json::to_string_pretty(&told).unwrap();
        assert_eq!(told, fixture.updates, "{}: {}\ntoday: {shown}", path.display(), fixture.about);
    }
}

#[test]
fn deep_content_is_embedded_whole() {
    let depth = 200_000;
    let deep = "[".repeat(depth) + &"]".repeat(depth);
    let body =
        format!(r#"{{"entry":[{{"changes":[{{"value":{{"messages":[{{"id":"a","type":"x","x":{deep}}}]}}}}]}}]}}"#);
    let peek = peek(body.as_bytes()).unwrap();
    let parsed = parse(body.as_bytes(), &peek, 0, RECEIVED_AT).unwrap();
    assert!(parsed.data.get().contains(&deep));
}

#[test]
fn a_peek_of_another_body_is_refused() {
    let body = r#"{"entry":[{"changes":[{"value":{"messages":[{"id":"a"}]}}]}]}"#;
    let peek = peek(body.as_bytes()).unwrap();
    assert!(parse(b"{}", &peek, 0, RECEIVED_AT).is_err());
    assert!(parse(body.as_bytes(), &peek, 1, RECEIVED_AT).is_err());
    assert!(parse(&body.replace('i', "é").into_bytes(), &peek, 0, RECEIVED_AT).is_err());
}

/// Parses every update and holds the result against the peek.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    let Ok(peek) = peek(body) else { return Ok(()) };
    for (index, update) in peek.updates.iter().enumerate() {
        let Ok(parsed) = parse(body, &peek, index, RECEIVED_AT) else { continue };
        prop_assert_ne!(update.kind, UpdateKind::Malformed);
        prop_assert_eq!(parsed.occurred_at, update.timestamp.unwrap_or(RECEIVED_AT));
        let data: Json = serde_json::from_str(parsed.data.get()).unwrap_or_default();
        let unsupported = parsed.event_type == EventType::Unsupported;
        let id = match &parsed.content {
            ParsedContent::Message { id, r#type, text } => {
                prop_assert_eq!(update.kind, UpdateKind::Message);
                prop_assert_eq!(text.is_none(), unsupported);
                prop_assert!(update.r#type.as_deref().is_none_or(|named| named == r#type));
                Some(id)
            }
            ParsedContent::Status { id, state, participant, .. } => {
                prop_assert_eq!(update.kind, UpdateKind::Status);
                prop_assert!(!unsupported);
                prop_assert_eq!(Some(state.as_str()), update.status.as_deref());
                prop_assert_eq!(participant.as_deref(), update.participant.as_deref());
                Some(id)
            }
            ParsedContent::Other { kind, id, r#type, .. } => {
                prop_assert!(unsupported);
                prop_assert_eq!(*kind, update.kind);
                prop_assert_eq!(r#type.as_deref(), update.r#type.as_deref());
                id.as_ref()
            }
        };
        prop_assert_eq!(id.map(String::as_str), update.id.as_deref());
        if unsupported && data != Json::Null {
            prop_assert_eq!(&data["raw"], &serde_json::from_slice::<Json>(&body[update.range.clone()]).unwrap());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parse_agrees_with_the_peek(body in bodies()) {
        check(body.text.as_bytes())?;
    }

    #[test]
    fn parse_never_panics_on_damaged_bodies(body in damaged()) {
        check(&body)?;
    }
}
