//! Webhook bodies for property tests: mostly of the documented shape, often odd somewhere, written in many styles.

use std::fmt::Write;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

/// A body, as a tree and as text.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) tree: Value,
    /// Whether the keys of every object are written in falling order, not rising.
    pub(crate) reverse: bool,
    pub(crate) text: String,
}

pub(crate) const LISTS: [&str; 11] = [
    "messages",
    "statuses",
    "message_echoes",
    "calls",
    "errors",
    "user_actions",
    "user_preferences",
    "groups",
    "automatic_events",
    "state_sync",
    "history",
];

/// Something of the wrong type, or nothing.
fn odd() -> BoxedStrategy<Value> {
    let values = [json!(null), json!(true), json!(7), json!(""), json!("x"), json!([]), json!({}), json!([{"id": 1}])];
    prop_oneof![select(values.to_vec()), Just(json!("é".repeat(300)))].boxed()
}

fn mostly(usual: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
    prop_oneof![12 => usual, 1 => odd()].boxed()
}

fn word(words: &[&str]) -> BoxedStrategy<Value> {
    mostly(select(words.iter().map(|word| json!(word)).collect::<Vec<_>>()))
}

fn id() -> BoxedStrategy<Value> {
    mostly(prop_oneof![
        "wamid\\.[A-Z/=+]{1,8}".prop_map(Value::from),
        "\\PC{1,6}".prop_map(Value::from),
        any::<u32>().prop_map(Value::from)
    ])
}

fn person() -> BoxedStrategy<Value> {
    word(&["351910000001", "+49 151 00000002", "PT.70010002000300", "DE.2", ""])
}

fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let members: Vec<_> = members
        .into_iter()
        .map(|(name, value)| (prop::bool::weighted(0.7), value).prop_map(move |(there, value)| (there, name, value)))
        .collect();
    let build = |members: Vec<(bool, &str, Value)>| {
        members
            .into_iter()
            .filter(|member| member.0)
            .map(|(_, name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>()
    };
    mostly(members.prop_map(move |members| Value::Object(build(members))))
}

fn list(element: BoxedStrategy<Value>, longest: usize) -> BoxedStrategy<Value> {
    mostly(prop::collection::vec(element, 0..=longest).prop_map(Value::from))
}

fn update() -> BoxedStrategy<Value> {
    let inner = |names: [(&'static str, BoxedStrategy<Value>); 4]| object(names.into());
    object(vec![
        ("id", id()),
        ("type", word(&["text", "image", "message", "payment", "ü\"\\\n"])),
        (
            "timestamp",
            mostly(select(vec![json!("1795000000"), json!(1_795_000_001), json!(-5), json!("1e3"), json!(u64::MAX)])),
        ),
        ("from", person()),
        ("from_user_id", person()),
        ("status", word(&["sent", "delivered", "read", "played", "failed", "warning"])),
        ("event", word(&["connect", "terminate"])),
        ("recipient_id", person()),
        ("recipient_user_id", person()),
        ("recipient_type", word(&["group", "individual"])),
        ("recipient_participant_id", person()),
        ("participant_recipient_id", person()),
        ("text", object(vec![("body", word(&["hello", "\0 😀 \u{2028}", ""]))])),
        ("context", object(vec![("id", id())])),
        ("pricing", inner([("billable", odd()), ("pricing_model", id()), ("type", id()), ("category", id())])),
        (
            "conversation",
            inner([
                ("id", id()),
                ("origin", object(vec![("type", id())])),
                ("expiration_timestamp", id()),
                ("x", odd()),
            ]),
        ),
        (
            "errors",
            list(
                inner([
                    ("code", id()),
                    ("title", id()),
                    ("message", id()),
                    ("error_data", object(vec![("details", id())])),
                ]),
                2,
            ),
        ),
        ("extra", odd()),
    ])
}

fn value() -> BoxedStrategy<Value> {
    let contact = object(vec![
        ("wa_id", person()),
        ("user_id", person()),
        ("profile", object(vec![("name", id()), ("username", word(&["@ada", "ada", "@"]))])),
    ]);
    let metadata = object(vec![("phone_number_id", id()), ("display_phone_number", id())]);
    let lists = prop::collection::vec((select(LISTS.to_vec()), list(update(), 3)), 0..3);
    let around = object(vec![("metadata", metadata), ("contacts", list(contact, 3)), ("other", odd())]);
    let whole = (around, lists).prop_map(|(mut around, lists)| {
        if let Value::Object(map) = &mut around {
            map.extend(lists.into_iter().map(|(name, list)| (name.to_owned(), list)));
        }
        around
    });
    mostly(whole)
}

fn tree() -> impl Strategy<Value = Value> {
    let change = object(vec![("field", id()), ("value", value()), ("x", odd())]);
    let entry = object(vec![
        ("id", id()),
        ("time", mostly(select(vec![json!(1_795_000_000), json!("7")]))),
        ("changes", list(change, 3)),
        ("x", odd()),
    ]);
    prop::collection::vec(entry, 0..4).prop_map(|entries| json!({"object": "x", "entry": entries, "z": []}))
}

/// A readable body.
pub(crate) fn bodies() -> impl Strategy<Value = Body> {
    (tree(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(tree, reverse, noise)| {
        let mut text = String::new();
        print(&mut text, &tree, reverse, &mut noise.into_iter().cycle());
        Body { tree, reverse, text }
    })
}

/// Bytes that are no longer a body, or one again by chance: cut off, doubled or overwritten somewhere.
pub(crate) fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let with = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3),
        r#"[\[\]{},:"0a\\]{1,2}"#.prop_map(String::into_bytes),
        Just(br#""id":1,"#.to_vec()),
        Just(br#""text":{"body":"\ud800"},"#.to_vec()),
    ];
    (bodies(), any::<Index>(), 0..4_usize, with, any::<bool>()).prop_map(|(body, at, drop, with, after_bracket)| {
        let mut bytes = body.text.into_bytes();
        let mut at = at.index(bytes.len());
        if after_bracket {
            at = bytes[at..].iter().position(|byte| *byte == b'{').map_or(at, |found| at + found + 1);
        }
        let drop = if after_bracket { 0 } else { drop };
        let end = bytes.len().min(at + drop);
        bytes.splice(at..end, with);
        bytes
    })
}

/// Members in the order of the text.
pub(crate) fn ordered(map: &Map<String, Value>, reverse: bool) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    members.sort_by_key(|(key, _)| *key);
    if reverse {
        members.reverse();
    }
    members
}

fn print(out: &mut String, value: &Value, reverse: bool, noise: &mut impl Iterator<Item = u8>) {
    space(out, noise);
    match value {
        Value::Object(map) => {
            out.push('{');
            for (index, (key, value)) in ordered(map, reverse).into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                space(out, noise);
                string(out, key, noise);
                space(out, noise);
                out.push(':');
                print(out, value, reverse, noise);
            }
            space(out, noise);
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print(out, value, reverse, noise);
            }
            space(out, noise);
            out.push(']');
        }
        Value::String(text) => string(out, text, noise),
        other => *out += &other.to_string(),
    }
    space(out, noise);
}

fn space(out: &mut String, noise: &mut impl Iterator<Item = u8>) {
    *out += match noise.next() {
        Some(0..20) => " ",
        Some(20..30) => "\n\t",
        Some(30..35) => "\r  ",
        _ => "",
    };
}

fn string(out: &mut String, text: &str, noise: &mut impl Iterator<Item = u8>) {
    out.push('"');
    for char in text.chars() {
        match noise.next() {
            Some(0..30) if char == '/' => *out += "\\/",
            Some(byte) if byte < 30 || char < ' ' || char == '"' || char == '\\' => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let _ = if byte % 2 == 0 { write!(out, "\\u{unit:04x}") } else { write!(out, "\\u{unit:04X}") };
                }
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}
