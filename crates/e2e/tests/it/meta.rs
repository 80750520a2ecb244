//! Webhooks written by hand, for scenarios that need to know every byte. Everybody in them is invented.

use std::fmt::Write as _;
use std::net::SocketAddr;

use common::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::http::{self, Answer};

/// The secret of the default app.
pub(crate) const SECRET: &str = "e2e-app-secret-0123456789abcdef";
/// The token of its handshake.
pub(crate) const VERIFY_TOKEN: &str = "e2e-verify-token-fedcba9876543210";
pub(crate) const PATH: &str = "/webhooks/meta";
pub(crate) const WABA: &str = "300111222333444";
pub(crate) const NUMBER: &str = "777000111222333";
pub(crate) const DISPLAY: &str = "4915155500011";
pub(crate) const SENDER: &str = "351910000001";

/// Unix seconds of now.
pub(crate) fn now() -> i64 {
    SystemClock.now().as_secs()
}

/// A text message of the usual sender.
pub(crate) fn text(id: &str, body: &str) -> Value {
    text_from(SENDER, id, body, now())
}

pub(crate) fn text_from(sender: &str, id: &str, body: &str, at: i64) -> Value {
    json!({"from": sender, "id": id, "timestamp": at.to_string(), "type": "text", "text": {"body": body}})
}

/// A status of an outbound message.
pub(crate) fn status(id: &str, word: &str) -> Value {
    json!({"id": id, "status": word, "timestamp": now().to_string(), "recipient_id": SENDER})
}

/// A change that addresses a number.
pub(crate) fn change(number: &str, lists: Value) -> Value {
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": DISPLAY, "phone_number_id": number},
    });
    let Value::Object(lists) = lists else { panic!("lists are an object") };
    value.as_object_mut().unwrap().extend(lists);
    json!({"field": "messages", "value": value})
}

pub(crate) fn entry(waba: &str, changes: &[Value]) -> Value {
    json!({"id": waba, "changes": changes})
}

pub(crate) fn body(entries: &[Value]) -> Vec<u8> {
    json!({"object": "whatsapp_business_account", "entry": entries}).to_string().into_bytes()
}

/// A webhook of messages to a number.
pub(crate) fn messages_to(number: &str, messages: &[Value]) -> Vec<u8> {
    body(&[entry(WABA, &[change(number, json!({"messages": messages}))])])
}

/// A webhook of messages to the usual number.
pub(crate) fn messages(messages: &[Value]) -> Vec<u8> {
    messages_to(NUMBER, messages)
}

/// A webhook whose `messages` are this text, as it stands.
pub(crate) fn messages_as(list: &str) -> Vec<u8> {
    value_as(&format!(r#""messages":{list}"#))
}

/// A webhook whose value has these further members, as they stand.
pub(crate) fn value_as(members: &str) -> Vec<u8> {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{WABA}","changes":[{{"field":"messages","value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"{DISPLAY}","phone_number_id":"{NUMBER}"}},{members}}}}}]}}]}}"#
    )
    .into_bytes()
}

/// The header line of a signature.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    format!("X-Hub-Signature-256: {}\r\n", simulator::sign(secret, body))
}

/// A complete signed request.
pub(crate) fn signed(body: &[u8]) -> Vec<u8> {
    signed_to(PATH, SECRET, body)
}

pub(crate) fn signed_to(path: &str, secret: &str, body: &[u8]) -> Vec<u8> {
    let headers = format!("Content-Type: application/json\r\n{}", signature(secret, body));
    http::post(path, &headers, body)
}

/// Posts a signed body.
pub(crate) fn deliver(to: SocketAddr, body: &[u8]) -> Answer {
    deliver_to(to, PATH, SECRET, body)
}

pub(crate) fn deliver_to(to: SocketAddr, path: &str, secret: &str, body: &[u8]) -> Answer {
    http::exchange(to, &signed_to(path, secret, body)).expect("an answer")
}

/// Posts a signed body that must be taken.
pub(crate) fn accepted(to: SocketAddr, body: &[u8]) {
    let answer = deliver(to, body);
    assert_eq!((answer.status, answer.text()), (200, "OK"), "{answer:?}");
}

/// A body in chunks.
pub(crate) fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        let mut line = String::new();
        let _ = write!(line, "{:x}\r\n", chunk.len());
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}
