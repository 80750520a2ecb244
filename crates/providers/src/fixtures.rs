//! Fixtures: one file per case, with the webhook exactly as received and what is to be made of it.

use std::path::{Path, PathBuf};

use common::Timestamp;
use common::update::Provider;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::parse::ParsedContent;
use crate::{parse, peek};

/// 2026-11-20T12:00:00Z
pub(crate) const RECEIVED_AT: Timestamp = Timestamp::from_secs(1_795_176_000);

/// A case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixture {
    about: String,
    /// A body that is JSON.
    body: Option<Box<RawValue>>,
    /// A body that is a form, piece by piece.
    #[serde(default)]
    form: Vec<String>,
    #[serde(alias = "problems")]
    updates: Json,
}

/// The cases of a folder.
pub(crate) fn read(folder: &str) -> Vec<(PathBuf, Fixture)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

impl Fixture {
    /// The bytes of the webhook.
    pub(crate) fn body(&self) -> Vec<u8> {
        match &self.body {
            Some(json) => json.get().as_bytes().to_vec(),
            None => self.form.join("&").into_bytes(),
        }
    }

    /// Compares with what is written down.
    pub(crate) fn compare(&self, path: &Path, told: &Json) {
        let shown = serde_json::to_string_pretty(told).unwrap();
        assert_eq!(*told, self.updates, "{}: {}\ntoday: {shown}", path.display(), self.about);
    }
}

/// All that peek and parse tell of a body, without what is absent.
pub(crate) fn told(provider: Provider, body: &[u8]) -> Json {
    let peek = peek(provider, body).unwrap();
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
            "hasIdentity": update.identity(&peek).is_some(),
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
