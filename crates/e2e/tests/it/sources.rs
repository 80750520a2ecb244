//! What the documents of earlier services print to be typed: the same paths, headers and bodies, and what comes of them.
//!
//! A printed webhook that carries no signature is refused as it stands, and taken once it is signed. What is printed
//! without a token needs one here. `docs/commands.md` lists all of it.

use serde_json::{Value, json};

use crate::http::{Answer, exchange, get, post};
use crate::meta;
use crate::providers;
use crate::wait;
use crate::wharf::{Setup, Wharf};

const JSON: &str = "Content-Type: application/json\r\n";
const META_PATH: &str = "/api/v1/whatsapp-hardened/webhook";
const TWILIO_PATH: &str = "/api/v1/whatsapp-hardened/twilio/webhook";
/// Neither time nor number stands in it: it is the default tenant's, and as old as its receipt.
const MESSAGE: &str = r#"{
    "object": "whatsapp_business_account",
    "entry": [{
      "changes": [{
        "value": {
          "messages": [{
            "from": "+1234567890",
            "id": "test-msg-123",
            "text": { "body": "Test message" },
            "type": "text"
          }]
        }
      }]
    }]
  }"#;
const GENERIC: &str =
    r#"{"message_id":"m1","from":"+919876543210","to":"+14155550100","ts":"2025-01-15T10:00:00Z","text":"Hello"}"#;
const GENERIC_SECRET: &str = "your-webhook-secret";
/// Of the body under the secret, by `openssl dgst`.
const GENERIC_SIGNATURE: &str = "X-Signature: ab075f607e066b73b2ee75bf21e13dd8f14586b96fc43fc7c46b9eb63300fc0a\r\n";

/// A webhook as it is printed.
struct Printed<'a> {
    path: &'a str,
    headers: &'a str,
    body: &'a str,
}

impl Printed<'_> {
    /// Sends it with a further header line.
    fn with(&self, wharf: &Wharf, signature: &str) -> Answer {
        let request = post(self.path, &format!("{}{signature}", self.headers), self.body.as_bytes());
        exchange(wharf.public(), &request).unwrap()
    }

    /// Refused as it stands; signed, it is taken as often as it comes, with this body as the answer.
    fn is_taken_signed_only(&self, wharf: &Wharf, signature: &str, answered: &str) {
        let unsigned = self.with(wharf, "");
        assert_eq!((unsigned.status, &unsigned.json()["code"]), (403, &json!("signature")), "{}", self.body);
        for _ in 0..2 {
            let signed = self.with(wharf, signature);
            assert_eq!((signed.status, signed.text()), (200, answered), "{}", self.body);
        }
    }
}

/// All messages of a source, and what came again of them, once so many of its requests are recorded.
fn messages_and_duplicates(wharf: &Wharf, source: &str, requests: u64) -> (u64, u64) {
    let target = format!("/api/v1/whatsapp-hardened/stats?source={source}&hours=24");
    assert_eq!(get(wharf.api(), &target, "").status, 401, "it is printed without a token");
    let sum = |table: &str, column: &str| -> u64 {
        let stats = wharf.ask_json(&target);
        stats["data"][table].as_array().unwrap().iter().map(|row| row[column].as_u64().unwrap()).sum()
    };
    wait::until("all requests are recorded", || (sum("security", "total_requests") == requests).then_some(()));
    // A table of the same answer may be a moment older than another.
    (sum("processing", "message_count"), sum("processing", "total_duplicates"))
}

#[test]
fn a_printed_webhook_of_meta_is_taken_once_it_is_signed() {
    let wharf = Setup::new().start();
    let id = format!("test-duplicate-{}", meta::now());
    let short = format!(
        r#"{{"entry":[{{"changes":[{{"value":{{"messages":[{{"id":"{id}","from":"+1234567890","text":{{"body":"Test"}}}}]}}}}]}}]}}"#
    );
    for (number, (id, body)) in [("test-msg-123", MESSAGE), (&id, &short)].into_iter().enumerate() {
        let printed = Printed { path: META_PATH, headers: JSON, body };
        printed.is_taken_signed_only(&wharf, &meta::signature(meta::SECRET, body.as_bytes()), "OK");
        wharf.wait_for_message(id);
        let so_far = number as u64 + 1;
        assert_eq!(messages_and_duplicates(&wharf, "whatsapp", 3 * so_far), (so_far, so_far));
    }
    assert_eq!(wharf.events().len(), 2);
    let found = wharf.ask_json("/messages?from=%2B1234567890&q=test%20message");
    let message = &found["data"][0];
    assert_eq!((&found["total"], &message["message_id"]), (&json!(1), &json!("test-msg-123")));
    assert_eq!(message["text"], "Test message");
}

/// Only the address is printed; the message is one of Twilio's.
#[test]
fn the_printed_address_for_twilio_takes_what_twilio_signed() {
    let wharf = providers::setup().start();
    let message = providers::message("SM00000000000000000000000000000009");
    let printed = Printed { path: TWILIO_PATH, headers: providers::FORM, body: &providers::encoded(&message) };
    printed.is_taken_signed_only(&wharf, &providers::twilio_signature(TWILIO_PATH, &message), "");
    wharf.wait_for_message("SM00000000000000000000000000000009");
    assert_eq!(messages_and_duplicates(&wharf, "twilio", 3), (1, 1));
}

#[test]
fn the_printed_walk_through_the_generic_service_holds() {
    // In production so short a secret is refused.
    let wharf = Setup::new().set("WHARF_MODE", "development").set("WEBHOOK_SECRET", GENERIC_SECRET).start();
    for (target, status) in [("/health/live", "ok"), ("/health/ready", "ready")] {
        let answer = get(wharf.public(), target, "");
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(status)), "{target}");
    }
    let printed = Printed { path: "/webhook", headers: JSON, body: GENERIC };
    printed.is_taken_signed_only(&wharf, GENERIC_SIGNATURE, r#"{"status":"ok"}"#);
    wharf.wait_for_message("m1");
    // Without a signature nobody can tell that it is not Meta's, at a path of them all.
    assert_eq!(messages_and_duplicates(&wharf, "generic", 2), (1, 1));

    let messages = "/messages?limit=10&from=%2B919876543210&since=2025-01-01T00:00:00Z";
    let sent: Value = serde_json::from_str(GENERIC).unwrap();
    assert_eq!(wharf.ask_json(messages), json!({"data": [sent], "total": 1, "limit": 10, "offset": 0}));
    assert_eq!(
        wharf.ask_json("/stats"),
        json!({
            "total_messages": 1,
            "senders_count": 1,
            "messages_per_sender": [{"from": "+919876543210", "count": 1}],
            "first_message_ts": "2025-01-15T10:00:00Z",
            "last_message_ts": "2025-01-15T10:00:00Z",
        })
    );
    for target in [messages, "/stats", "/metrics"] {
        assert_eq!(get(wharf.api(), target, "").status, 401, "{target}: it is printed without a token");
        assert_eq!(get(wharf.public(), target, "").status, 404, "{target}: not where webhooks go");
    }
    assert_eq!(wharf.ask("/metrics").status, 200);
}
