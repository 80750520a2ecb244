//! One file per case in `fixtures/`: `about` says why it is there, `form` (joined by `&`) or `body` is the webhook exactly
//! as received, `updates` is what peek and parse must make of it.

use common::event::EventType;
use common::update::{EventHashKey, Provider, UpdateKind};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::fixtures::{self, RECEIVED_AT};
use crate::{cut, parse, peek};

fn kind(body: &str) -> UpdateKind {
    peek(Provider::Twilio, body.as_bytes()).unwrap().updates[0].kind
}

#[test]
fn every_fixture_is_read_as_written_down() {
    let fixtures = fixtures::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/twilio/fixtures"));
    assert!(fixtures.len() >= 25);
    for (path, fixture) in fixtures {
        fixture.compare(&path, &fixtures::told(Provider::Twilio, &fixture.body()));
    }
}

#[test]
fn what_it_is_follows_from_the_parameters() {
    use UpdateKind::{Change, Malformed, Message, Status};
    for (form, expected) in [
        ("MessageSid=SM1&SmsStatus=received", Message),
        ("SmsSid=SM1&SmsStatus=receiving&Body=x", Message),
        ("SmsMessageSid=SM1&Body=", Message),
        ("MessageSid=SM1&NumMedia=0", Message),
        ("MessageSid=SM1&MessageStatus=sent&Body=x", Status),
        ("MessageSid=SM1&SmsStatus=sent", Status),
        ("MessageSid=SM1&MessageStatus=received", Message),
        ("MessageSid=SM1&MessageStatus=anything", Status),
        ("MessageSid=SM1", Change),
        ("MessageSid=&Body=x", Change),
        ("Body=x&SmsStatus=received", Change),
        ("MessageStatus=sent", Change),
        ("not%20a%20form", Change),
        (r#"{"MessageSid":"SM1","SmsStatus":"received"}"#, Message),
        (r#" {"MessageSid":"SM1","MessageStatus":"read"}"#, Status),
        (r#"{"MessageSid":["SM1"],"MessageStatus":"read"}"#, Malformed),
        ("MessageSid=SM1&MessageSid=SM1&Body=x", Message),
        ("MessageSid=SM1&MessageSid=SM2&Body=x", Malformed),
        ("MessageSid=SM1&From=a&From=b&Body=x", Malformed),
        ("MessageSid=%ff&Body=x", Malformed),
        ("MessageSid=SM1&Body=x&Body=y", Message),
    ] {
        assert_eq!(kind(form), expected, "{form}");
    }
    for name in ["AccountSid", "To", "MessageStatus", "SmsStatus", "SmsSid", "MessageType"] {
        assert_eq!(kind(&format!("MessageSid=SM1&Body=x&{name}=1&{name}=2")), Malformed, "{name}");
        let twice = format!(r#"{{"MessageSid":"SM1","Body":"x","{name}":"1","{name}":2}}"#);
        assert_eq!(kind(&twice), Malformed, "{name}");
    }
    assert_eq!(kind(&format!("MessageSid={}&Body=x", "x".repeat(512))), Message);
    assert_eq!(kind(&format!("MessageSid={}&Body=x", "x".repeat(513))), Malformed);
}

#[test]
fn a_request_without_parameters_holds_no_update() {
    for body in ["", "&&", " {} "] {
        assert!(peek(Provider::Twilio, body.as_bytes()).unwrap().updates.is_empty());
    }
}

#[test]
fn a_body_that_cannot_be_read_says_why() {
    for (body, reason) in [
        (b"{".to_vec(), "the body is not JSON"),
        (b"{\"a\":\"\xff\"}".to_vec(), "the body is not UTF-8"),
        (b"{} x".to_vec(), "the body goes on after the JSON object"),
        (b"a&".repeat(1001), "the body has more than 1000 parameters"),
        (format!("{{{}\"a\":1}}", "\"a\":1,".repeat(1000)).into_bytes(), "the body has more than 1000 parameters"),
    ] {
        assert_eq!(peek(Provider::Twilio, &body).unwrap_err().reason, reason);
    }
}

#[test]
fn addresses_are_read_however_they_are_written() {
    for (written, read) in [
        ("whatsapp%3A%2B15550009999", Some("+15550009999")),
        ("whatsapp:+15550009999", Some("+15550009999")),
        ("WhatsApp%3A15550009999", Some("+15550009999")),
        ("%2B15550009999", Some("+15550009999")),
        ("whatsapp%3ABR.70010002000300", Some("BR.70010002000300")),
        ("whatsapp%3A", None),
        ("", None),
        ("%ff", None),
    ] {
        let body = format!("MessageSid=SM1&Body=x&From={written}&To={written}");
        let peeked = peek(Provider::Twilio, body.as_bytes()).unwrap();
        assert_eq!(peeked.updates[0].sender.as_deref(), read, "{written}");
        assert_eq!(peeked.changes[0].phone_number_id.as_deref(), read, "{written}");
    }
}

#[test]
fn a_form_and_its_json_have_one_key_and_two_statuses_have_two() {
    let key = EventHashKey::new(&[1; 32]);
    let keys = |body: &str| {
        let peeked = peek(Provider::Twilio, body.as_bytes()).unwrap();
        key.event_key(&peeked.updates[0].identity(&peeked).unwrap())
    };
    let form = keys("MessageSid=SM1&From=whatsapp%3A%2B15550001111&MessageStatus=sent");
    assert_eq!(form, keys(r#"{"MessageStatus":"sent","From":"whatsapp:\u002b15550001111","MessageSid":"SM1"}"#));
    assert_ne!(form, keys("MessageSid=SM1&From=whatsapp%3A%2B15550001111&MessageStatus=read"));
}

#[test]
fn what_has_no_id_is_told_by_its_delivery_and_nothing_else_is() {
    let key = EventHashKey::new(&[1; 32]);
    let keys = |delivery: Option<&str>, body: &str| {
        let peeked = peek(Provider::Twilio, body.as_bytes()).unwrap().named(delivery, body.as_bytes());
        peeked.updates[0].identity(&peeked).map(|identity| key.event_key(&identity))
    };
    let (without, other) = ("AccountSid=AC1&OptOutType=STOP", "AccountSid=AC1&OptOutType=START");
    assert_eq!(keys(None, without), None);
    assert!(keys(Some("one"), without).is_some());
    assert_eq!(keys(Some("one"), without), keys(Some("one"), without));
    assert_ne!(keys(Some("one"), without), keys(Some("two"), without));
    assert_ne!(keys(Some("one"), without), keys(Some("one"), other));
    let with = "MessageSid=SM1&Body=x";
    assert_eq!(keys(Some("one"), with), keys(Some("two"), with));
    assert_eq!(keys(Some("one"), "MessageSid=SM1&MessageSid=SM2"), None, "malformed");
}

#[test]
fn the_name_of_a_delivery_is_short_and_plain() {
    assert_eq!(super::delivery(b"6b0f9a1e-0000-4000-8000-000000000000"), Some("6b0f9a1e-0000-4000-8000-000000000000"));
    for value in [&b""[..], b"a b", b"caf\xe9", b"a\n", &[b'a'; 129]] {
        assert_eq!(super::delivery(value), None);
    }
}

#[test]
fn a_request_is_cut_whole_or_not_at_all() {
    let body = b"MessageSid=SM1&Body=x";
    let peeked = peek(Provider::Twilio, body).unwrap();
    assert_eq!(&*cut(body, &peeked, &[true]), body);
    assert!(cut(body, &peeked, &[]).is_empty());
    assert!(parse(b"", &peeked, 0, RECEIVED_AT).is_err());
    assert!(parse(body, &peeked, 1, RECEIVED_AT).is_err());
}

#[test]
fn every_word_of_a_status_has_its_state() {
    for (word, state) in [
        ("accepted", "accepted"),
        ("scheduled", "accepted"),
        ("queued", "accepted"),
        ("sending", "accepted"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "read"),
        ("undelivered", "failed"),
        ("failed", "failed"),
        ("canceled", "failed"),
    ] {
        let told = fixtures::told(Provider::Twilio, format!("MessageSid=SM1&MessageStatus={word}").as_bytes());
        assert_eq!(told[0]["parsed"]["data"]["status"], json!(state), "{word}");
    }
}

#[test]
fn the_type_follows_from_the_content_where_none_is_named() {
    for (parameters, r#type) in [
        ("Body=x", "text"),
        ("Body=", "unknown"),
        ("Body=x&MessageType=text&NumMedia=1&MediaContentType0=image/jpeg", "image"),
        ("NumMedia=1&MediaContentType0=audio/ogg", "audio"),
        ("NumMedia=1&MediaContentType0=video/mp4", "video"),
        ("NumMedia=1&MediaContentType0=text/vcard", "document"),
        ("NumMedia=1", "unknown"),
        ("Body=&Latitude=1&Longitude=2", "location"),
        ("Body=Yes&ButtonText=Yes", "button"),
        ("Body=x&ListId=1", "interactive"),
        ("Body=x&InteractiveData=%7B%7D", "interactive"),
        ("Body=x&MessageType=reaction", "reaction"),
        ("Body=&MessageType=text", "text"),
    ] {
        let told =
            fixtures::told(Provider::Twilio, format!("MessageSid=SM1&SmsStatus=received&{parameters}").as_bytes());
        let content = &told[0]["parsed"]["content"]["message"];
        assert_eq!(content["type"], json!(r#type), "{parameters}");
        assert_eq!(content["text"].is_string(), r#type == "text", "{parameters}");
    }
}

/// Parameters that mean something, with values that are often odd.
fn parameters() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = [
        "MessageSid",
        "SmsSid",
        "AccountSid",
        "From",
        "To",
        "Body",
        "NumMedia",
        "MessageStatus",
        "SmsStatus",
        "MessageType",
        "MediaContentType0",
        "Latitude",
        "ProfileName",
        "WaId",
        "ErrorCode",
        "Forwarded",
        "Other",
    ];
    let values =
        ["", "SM1", "whatsapp:+15550009999", "whatsapp:BR.1", "received", "sent", "failed", "text", "0", "true"];
    let value = prop_oneof![4 => prop::sample::select(values.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    prop::collection::vec((prop::sample::select(names.to_vec()).prop_map(str::to_owned), value), 0..12)
}

fn form(parameters: &[(String, String)]) -> String {
    let escaped = |text: &str| text.bytes().flat_map(|byte| ['%', hex(byte >> 4), hex(byte & 15)]).collect::<String>();
    let pieces: Vec<_> =
        parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pieces.join("&")
}

fn hex(half: u8) -> char {
    char::from_digit(half.into(), 16).unwrap()
}

/// Parses what the peek finds and holds both against each other.
fn check(body: &[u8]) -> Result<(), TestCaseError> {
    let Ok(peeked) = peek(Provider::Twilio, body) else { return Ok(()) };
    prop_assert!(peeked.updates.len() <= 1);
    for (index, update) in peeked.updates.iter().enumerate() {
        prop_assert_eq!(&update.range, &(0..body.len()));
        let parsed = parse(body, &peeked, index, RECEIVED_AT);
        prop_assert_eq!(parsed.is_err(), update.kind == UpdateKind::Malformed);
        let Ok(parsed) = parsed else { continue };
        let data: Json = serde_json::from_str(parsed.data.get()).unwrap();
        prop_assert_eq!(data["raw"].is_object(), parsed.event_type == EventType::Unsupported);
        prop_assert_eq!(update.identity(&peeked).is_some(), update.kind != UpdateKind::Change);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parse_agrees_with_the_peek(parameters in parameters()) {
        check(form(&parameters).as_bytes())?;
        let json: serde_json::Map<_, _> = parameters.into_iter().map(|(name, value)| (name, json!(value))).collect();
        check(Json::Object(json).to_string().as_bytes())?;
    }

    #[test]
    fn a_form_and_its_json_tell_the_same(parameters in parameters()) {
        let json: serde_json::Map<_, _> = parameters.into_iter().map(|(name, value)| (name, json!(value))).collect();
        let single: Vec<_> = json.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        prop_assume!(!single.is_empty());
        let json = Json::Object(json).to_string();
        prop_assert_eq!(
            fixtures::told(Provider::Twilio, form(&single).as_bytes()),
            fixtures::told(Provider::Twilio, json.as_bytes())
        );
    }

    #[test]
    fn never_panics(body in prop::collection::vec(any::<u8>(), 0..200), near in r#"(MessageSid|Body|From|[{}"=&%:+a1]){0,30}"#) {
        check(&body)?;
        check(near.as_bytes())?;
    }
}
