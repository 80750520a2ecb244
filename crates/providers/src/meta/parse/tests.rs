//! One file per case in `fixtures/`: `about` says why it is there, `body` is the webhook exactly as received, `updates`
//! is what peek and parse must make of it.

use common::event::EventType;
use common::update::Provider;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::fixtures::{self, RECEIVED_AT};
use crate::meta::generate::{bodies, damaged};
use crate::meta::peek::peek;

#[test]
fn every_fixture_is_read_as_written_down() {
    let fixtures = fixtures::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/meta/fixtures"));
    assert!(fixtures.len() >= 25);
    for (path, fixture) in fixtures {
        fixture.compare(&path, &fixtures::told(Provider::Meta, &fixture.body()));
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
