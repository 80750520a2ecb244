//! Webhooks of Twilio and of the generic provider, and the paths of earlier services.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::http::{Answer, exchange, get, post};
use crate::meta;
use crate::wharf::{Setup, Wharf};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const AUTH_TOKEN: &str = "e2e-auth-token-0123456789abcdef";
const SECRET: &str = "e2e-generic-secret-0123456789abcdef";
/// As Twilio has it; nothing of the address on the wire resembles it.
const PUBLIC: &str = "https://hooks.example.com";
pub(crate) const FORM: &str = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n";

pub(crate) fn setup() -> Setup {
    Setup::new()
        .set("TWILIO_ACCOUNT_SID", ACCOUNT)
        .set("TWILIO_AUTH_TOKEN", AUTH_TOKEN)
        .set("WEBHOOK_SECRET", SECRET)
        .set("WHARF__INGRESS__PUBLIC_URL", PUBLIC)
}

/// The header's line, as Twilio makes it: address, then names and values sorted by name.
pub(crate) fn twilio_signature(target: &str, parameters: &[(&str, &str)]) -> String {
    twilio_signature_at(PUBLIC, target, parameters)
}

fn twilio_signature_at(origin: &str, target: &str, parameters: &[(&str, &str)]) -> String {
    let mut sorted = parameters.to_vec();
    sorted.sort_unstable();
    let content: String = sorted.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, AUTH_TOKEN.as_bytes());
    let tag = hmac::sign(&key, format!("{origin}{target}{content}").as_bytes());
    format!("X-Twilio-Signature: {}\r\n", STANDARD.encode(tag))
}

pub(crate) fn encoded(parameters: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            match byte {
                b' ' => encoded.push('+'),
                byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
                byte => {
                    let _ = write!(encoded, "%{byte:02X}");
                }
            }
            encoded
        })
    };
    parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

pub(crate) fn message(id: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("MessageSid", id),
        ("AccountSid", ACCOUNT),
        ("From", "whatsapp:+351910000001"),
        ("To", "whatsapp:+15551230000"),
        ("WaId", "351910000001"),
        ("ProfileName", "Zoë Ünïcode"),
        ("Body", "héllo & 1+1=2 "),
        ("NumMedia", "0"),
        ("SmsStatus", "received"),
        ("MessageType", "text"),
        ("ApiVersion", "2010-04-01"),
    ]
}

fn send_twilio(wharf: &Wharf, target: &str, parameters: &[(&str, &str)]) -> Answer {
    let headers = format!("{FORM}{}", twilio_signature(target, parameters));
    exchange(wharf.public(), &post(target, &headers, encoded(parameters).as_bytes())).unwrap()
}

fn generic_signature(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("X-Signature: {}\r\n", hex::encode(hmac::sign(&key, body.as_bytes())))
}

fn send_generic(wharf: &Wharf, target: &str, body: &str) -> Answer {
    exchange(wharf.public(), &post(target, &generic_signature(body), body.as_bytes())).unwrap()
}

#[test]
fn messages_and_statuses_of_twilio_become_events_once() {
    let wharf = setup().start();
    let one = message("SM00000000000000000000000000000001");
    let answer = send_twilio(&wharf, "/webhooks/twilio", &one);
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (200, 0, None), "no TwiML: no reply");
    for target in ["/twilio/webhook", "/webhook", "/api/v1/whatsapp-hardened/twilio/webhook?a=b"] {
        assert_eq!(send_twilio(&wharf, target, &one).status, 200, "{target}");
    }
    let mut status: Vec<_> =
        one.iter().copied().filter(|(name, _)| !["Body", "SmsStatus", "NumMedia"].contains(name)).collect();
    status.extend([("MessageStatus", "delivered"), ("SmsStatus", "delivered")]);
    for parameter in &mut status {
        parameter.1 = match *parameter {
            ("From", _) => "whatsapp:+15551230000",
            ("To", _) => "whatsapp:+351910000001",
            (_, value) => value,
        };
    }
    assert_eq!(send_twilio(&wharf, "/webhooks/twilio/twilio", &status).status, 200);
    assert_eq!(send_twilio(&wharf, &format!("/webhooks/twilio/{ACCOUNT}"), &status).status, 200, "or by its account");
    wharf.wait_for_message("SM00000000000000000000000000000001");
    let events = wharf.events_when(2);
    let mut told: Vec<_> = events.iter().map(crate::feed::Event::name).collect();
    told.sort();
    let id = "SM00000000000000000000000000000001";
    assert_eq!(told, [format!("message.received {id}"), format!("message.status {id} delivered")]);
    let event = events.iter().find_map(|event| event.data.text.as_ref()).unwrap();
    assert_eq!(event.body, "héllo & 1+1=2 ");
    assert_eq!(wharf.ask_json("/messages?q=1%2B1")["data"][0]["from"], "+351910000001");
}

#[test]
fn a_body_of_twilio_that_is_no_form_needs_its_hash_in_the_address() {
    let wharf = setup().start();
    let body = format!(
        r#"{{"MessageSid":"SM2","AccountSid":"{ACCOUNT}","From":"whatsapp:+351910000001","To":"whatsapp:+15551230000","Body":"json","NumMedia":"0","SmsStatus":"received"}}"#
    );
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, body.as_bytes()));
    let send = |target: &str| {
        let headers = format!("Content-Type: application/json\r\n{}", twilio_signature(target, &[]));
        exchange(wharf.public(), &post(target, &headers, body.as_bytes())).unwrap().status
    };
    assert_eq!(send(&format!("/webhooks/twilio?bodySHA256={hash}")), 200);
    assert_eq!(send("/webhooks/twilio"), 403);
    assert_eq!(send(&format!("/webhooks/twilio?bodySHA256={}", "0".repeat(64))), 403);
    wharf.wait_for_message("SM2");
}

#[test]
fn a_signature_of_twilio_holds_for_its_address_parameters_and_token() {
    let wharf = setup().start();
    let one = message("SM3");
    let headers = format!("{FORM}{}", twilio_signature("/webhooks/twilio", &one));
    let send = |target: &str, headers: &str, body: &str| {
        exchange(wharf.public(), &post(target, headers, body.as_bytes())).unwrap().status
    };
    assert_eq!(send("/webhooks/twilio?x=1", &headers, &encoded(&one)), 403);
    assert_eq!(send("/twilio/webhook", &headers, &encoded(&one)), 403);
    assert_eq!(send("/webhooks/twilio", &headers, &format!("{}&More=1", encoded(&one))), 403);
    assert_eq!(send("/webhooks/twilio", FORM, &encoded(&one)), 403);
    assert_eq!(send("/webhooks/twilio/nobody", &headers, &encoded(&one)), 403);
    assert_eq!(send("/webhooks/twilio", &headers, &encoded(&one)), 200);
    // Signed by the account's token, but for another account: kept, and handed to nobody.
    let mut foreign = message("SM4");
    foreign[1].1 = "AC00000000000000000000000000000002";
    assert_eq!(send_twilio(&wharf, "/webhooks/twilio", &foreign).status, 200);
    wharf.wait_for_message("SM3");
    assert_eq!(wharf.settled_events().len(), 1);
    assert_eq!(wharf.metrics().count("wharf_ingress_envelopes_total", &["disposition=\"foreign-app\""]), 1);
}

#[test]
fn what_twilio_signed_for_the_host_of_a_request_counts_in_development_only() {
    for (mode, expected) in [("production", 403), ("development", 200)] {
        let wharf = setup().set("WHARF__INGRESS__PUBLIC_URL", "").set("WHARF_MODE", mode).start();
        let one = message("SM5");
        let signature = twilio_signature_at("http://wharf", "/webhooks/twilio", &one);
        let request = post("/webhooks/twilio", &format!("{FORM}{signature}"), encoded(&one).as_bytes());
        assert_eq!(exchange(wharf.public(), &request).unwrap().status, expected, "{mode}");
    }
}

#[test]
fn the_generic_provider_is_validated_field_by_field_after_its_signature() {
    let wharf = setup().start();
    let good =
        r#"{"message_id":"m1","from":"+919876543210","to":"+14155550100","ts":"2025-01-15T10:00:00Z","text":"Hello"}"#;
    for target in ["/webhook", "/webhooks/generic", "/webhooks/generic/generic", "/api/v1/whatsapp-hardened/webhook"] {
        let answer = send_generic(&wharf, target, good);
        assert_eq!((answer.status, answer.text()), (200, r#"{"status":"ok"}"#), "{target}");
    }
    let bad = r#"{"message_id":"","from":"919876543210","to":"+1","ts":"yesterday"}"#;
    let answer = send_generic(&wharf, "/webhook", bad);
    assert_eq!((answer.status, answer.header("content-type")), (422, Some("application/problem+json")));
    let fields: Vec<_> =
        answer.json()["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["message_id", "from", "to", "ts"]);
    assert!(!answer.text().contains("919876543210"));
    let unsigned = exchange(wharf.public(), &post("/webhook", "", bad.as_bytes())).unwrap();
    assert_eq!(unsigned.status, 403, "the signature comes first");
    wharf.wait_for_message("m1");
    let found = wharf.ask_json("/messages?from=%2B919876543210");
    assert_eq!(
        (&found["total"], &found["data"][0]["text"], &found["data"][0]["ts"]),
        (&1.into(), &"Hello".into(), &"2025-01-15T10:00:00Z".into())
    );
}

#[test]
fn one_signature_says_whose_webhook_it_is() {
    let wharf = setup().start();
    let body = meta::messages(&[meta::text("wamid.ONE", "hello")]);
    let text = std::str::from_utf8(&body).unwrap();
    let both = format!("{}{}", meta::signature(meta::SECRET, &body), generic_signature(text));
    let send = |target: &str, headers: &str| exchange(wharf.public(), &post(target, headers, &body)).unwrap().status;
    assert_eq!(send("/webhook", &both), 403);
    assert_eq!(send("/webhooks/meta", &both), 403);
    assert_eq!(send("/webhooks/meta", &generic_signature(text)), 403);
    assert_eq!(send("/webhooks/generic", &meta::signature(meta::SECRET, &body)), 403);
    for target in ["/webhook", "/whatsapp/webhook", "/webhooks/meta", "/api/v1/whatsapp-hardened/webhook"] {
        assert_eq!(send(target, &meta::signature(meta::SECRET, &body)), 200, "{target}");
    }
    assert_eq!(send("/api/v1/whatsapp-hardened/webhooks/meta", &meta::signature(meta::SECRET, &body)), 404);
    let handshake = format!("?hub.mode=subscribe&hub.verify_token={}&hub.challenge=42", meta::VERIFY_TOKEN);
    for path in ["/webhook", "/whatsapp/webhook", "/webhooks/meta", "/webhooks/meta/default"] {
        assert_eq!(get(wharf.public(), &format!("{path}{handshake}"), "").text(), "42", "{path}");
    }
    assert_eq!(get(wharf.public(), &format!("/webhooks/generic{handshake}"), "").status, 405);
}

#[test]
fn a_provider_without_a_secret_is_not_there() {
    let wharf = Setup::new().start();
    let body = r#"{"message_id":"m1"}"#;
    for target in ["/webhooks/twilio", "/webhooks/generic", "/twilio/webhook", "/webhook"] {
        let answer = exchange(wharf.public(), &post(target, &generic_signature(body), body.as_bytes())).unwrap();
        assert_eq!(answer.status, 404, "{target}");
        assert_eq!(answer.json()["code"], "provider", "{target}");
    }
}

#[test]
fn the_sandbox_switch_takes_what_nobody_signed_and_says_so() {
    let one = message("SM5");
    let wharf = setup().set("WHARF_MODE", "development").set("TWILIO_SKIP_VALIDATION", "true").start();
    for target in ["/webhook", "/webhooks/twilio"] {
        let answer = exchange(wharf.public(), &post(target, FORM, encoded(&one).as_bytes())).unwrap();
        assert_eq!(answer.status, 200, "{target}");
    }
    // The switch is Twilio's alone.
    let body = meta::messages(&[meta::text("wamid.X", "hello")]);
    assert_eq!(exchange(wharf.public(), &post("/webhook", "", &body)).unwrap().status, 403);
    wharf.wait_for_message("SM5");
}

#[test]
fn forms_and_generic_messages_are_bounded() {
    let wharf = setup().without_limits().start();
    let long = "x".repeat(64 << 10);
    let large = [message("SM00000000000000000000000000000002"), vec![("More", long.as_str())]].concat();
    assert_eq!(send_twilio(&wharf, "/webhooks/twilio", &large).status, 413, "a form over 64 KiB, well signed");
    let names: Vec<String> = (0..1001).map(|index| format!("P{index}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(send_twilio(&wharf, "/webhooks/twilio", &many).status, 403, "more parameters than are looked at");
    // The longest that are looked at, and nothing fits: each takes its time from nobody else.
    let worst = vec![("AccountSid", "AC99999999999999999999999999999999"), ("Body", &long[..60 << 10])];
    let forged = format!("{FORM}X-Twilio-Signature: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n");
    let forged = post("/webhooks/twilio", &forged, encoded(&worst).as_bytes());
    for _ in 0..50 {
        assert_eq!(exchange(wharf.public(), &forged).unwrap().status, 403);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(send_generic(&wharf, "/webhooks/generic", &deep).status, 422, "a bomb of brackets");
    let wide = format!("{{{}}}", (0..20_000).map(|index| format!("\"k{index}\":0")).collect::<Vec<_>>().join(","));
    assert_eq!(send_generic(&wharf, "/webhooks/generic", &wide).status, 422);
    assert_eq!(send_generic(&wharf, "/webhooks/generic", &format!("{wide}{}", " ".repeat(256 << 10))).status, 413);
    for compressed in ["gzip", "deflate", "br", "zstd"] {
        for path in ["/webhooks/twilio", "/webhooks/generic"] {
            let headers = format!("Content-Encoding: {compressed}\r\n");
            assert_eq!(exchange(wharf.public(), &post(path, &headers, b"x")).unwrap().status, 415);
        }
    }
    let one = message("SM00000000000000000000000000000003");
    assert_eq!(send_twilio(&wharf, "/webhooks/twilio", &one).status, 200);
    wharf.wait_for_message("SM00000000000000000000000000000003");
    assert_eq!(wharf.events_when(1).len(), 1);
}

#[test]
fn a_retry_of_what_has_no_id_is_told_by_its_delivery() {
    let wharf = setup().without_limits().start();
    let parameters = [("AccountSid", ACCOUNT), ("OptOutType", "STOP")];
    let signed = twilio_signature("/webhooks/twilio", &parameters);
    for delivery in ["one", "one", "one", "two", "two"] {
        let headers = format!("{FORM}{signed}I-Twilio-Idempotency-Token: {delivery}\r\n");
        let request = post("/webhooks/twilio", &headers, encoded(&parameters).as_bytes());
        assert_eq!(exchange(wharf.public(), &request).unwrap().status, 200);
    }
    assert_eq!(send_twilio(&wharf, "/webhooks/twilio", &message("SM00000000000000000000000000000009")).status, 200);
    wharf.wait_for_message("SM00000000000000000000000000000009");
    assert_eq!(wharf.events_when(3).len(), 3);
}
