//! Events as a consumer reads them: the members that scenarios look at, and nothing built from the rest, however large
//! or deep it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use simulator::{UpdateKind, UpdateRef};

/// A page of the feed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) events: Vec<Event>,
    pub(crate) next: String,
}

/// An event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) specversion: String,
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) r#type: String,
    pub(crate) time: String,
    pub(crate) datacontenttype: String,
    pub(crate) dataschema: String,
    pub(crate) tenant: String,
    #[expect(dead_code, reason = "internal, and absent for most kinds")]
    conversation: Option<String>,
    pub(crate) partition: u16,
    pub(crate) revision: u32,
    pub(crate) data: Data,
}

/// What scenarios read of an event's data.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Data {
    pub(crate) message_id: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) number: Number,
    pub(crate) text: Option<Text>,
    raw: Option<Box<RawValue>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Number {
    pub(crate) phone_number_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Text {
    pub(crate) body: String,
}

impl Event {
    /// The simulator's name of the update that this is the event of.
    pub(crate) fn update(&self) -> UpdateRef {
        let Data { message_id, status, number, .. } = &self.data;
        let (kind, id) = match self.r#type.as_str() {
            "wharf.message.received" => (UpdateKind::Message, message_id.clone().unwrap()),
            "wharf.message.status" => (UpdateKind::Status, message_id.clone().unwrap()),
            "wharf.unsupported" => (UpdateKind::Other, self.unsupported_id()),
            other => panic!("an event of the type {other}"),
        };
        let phone_number_id = number.phone_number_id.clone().unwrap_or_default();
        UpdateRef { kind, phone_number_id, id, status: status.clone() }
    }

    /// Its own id, or the one unique id in its value.
    fn unsupported_id(&self) -> String {
        if let Some(id) = &self.data.id {
            return id.clone();
        }
        let raw: Value = serde_json::from_str(self.data.raw.as_ref().unwrap().get()).unwrap();
        let value = &raw["value"];
        let id = [&value["message_template_id"], &value["waba_info"]["ad_account_linked"]];
        let id = id.into_iter().find(|id| !id.is_null()).unwrap_or_else(|| panic!("no id in {raw}"));
        id.as_str().map_or_else(|| id.to_string(), str::to_owned)
    }

    /// A short name: type and id, and the status.
    pub(crate) fn name(&self) -> String {
        let id = self.data.message_id.as_deref().or(self.data.id.as_deref()).unwrap_or("-");
        let status = self.data.status.as_deref().map(|word| format!(" {word}")).unwrap_or_default();
        format!("{} {id}{status}", self.r#type.trim_start_matches("wharf."))
    }
}

/// The updates of the events, each with the number of times it came out.
pub(crate) fn updates(events: &[Event]) -> BTreeMap<UpdateRef, usize> {
    let mut updates = BTreeMap::new();
    for event in events {
        *updates.entry(event.update()).or_insert(0) += 1;
    }
    updates
}

/// Whether Meta gives the update an id by which a repetition is known. Account-level fields have none, and come out as
/// often as they are taken.
fn has_identity(update: &UpdateRef) -> bool {
    !update.phone_number_id.is_empty()
}

/// How many events come of what was acknowledged, repetitions included, if every answer arrived.
pub(crate) fn expected_events(acknowledged: &[UpdateRef]) -> usize {
    let (known, nameless): (Vec<_>, Vec<_>) = acknowledged.iter().partition(|update| has_identity(update));
    known.into_iter().collect::<BTreeSet<_>>().len() + nameless.len()
}

/// Asserts that every acknowledged update came out, exactly once (without identity: as often as it was acknowledged, or
/// more), and nothing that was never sent.
///
/// An answer can be lost, so more may be stored than was acknowledged, but never less.
pub(crate) fn assert_exactly_once(events: &[Event], acknowledged: &[UpdateRef], sent: &BTreeSet<UpdateRef>) {
    let out = updates(events);
    let repeated: Vec<_> = out.iter().filter(|(update, count)| has_identity(update) && **count > 1).collect();
    assert!(repeated.is_empty(), "came out more than once: {repeated:?}");
    let mut expected: BTreeMap<&UpdateRef, usize> = BTreeMap::new();
    for update in acknowledged {
        let count = expected.entry(update).or_insert(0);
        *count = if has_identity(update) { 1 } else { *count + 1 };
    }
    let missing = |(update, count): &(&UpdateRef, usize)| out.get(update).is_none_or(|found| found < count);
    let missing: Vec<_> = expected.into_iter().filter(missing).collect();
    assert!(missing.is_empty(), "{} acknowledged and lost, such as {:?}", missing.len(), missing[0]);
    let foreign: Vec<_> = out.keys().filter(|update| !sent.contains(update)).collect();
    assert!(foreign.is_empty(), "{} never sent, such as {:?}", foreign.len(), foreign[0]);
}
