//! The one pass over a body that fills a [`Peek`], level by level: body, entry, change, value, list, update.
//!
//! It decides shape only. Each level passes over what it does not know, and reports what has another shape than
//! documented as one malformed update of the smallest piece around it.

use common::Timestamp;
use common::update::{Provider, UpdateKind};

use crate::json::{NotJson, Scanner, Value};
use crate::peek::{
    Ambiguous, Change, ChangeLayout, Contact, EntryLayout, Layout, ListLayout, Peek, Unreadable, Update, context,
    identifying,
};

/// The lists of updates in a value. An element of the last six is something Meta documents and Wharf has no kind for.
const LISTS: [(&str, UpdateKind); 11] = [
    ("messages", UpdateKind::Message),
    ("statuses", UpdateKind::Status),
    ("message_echoes", UpdateKind::Echo),
    ("calls", UpdateKind::Call),
    ("errors", UpdateKind::Error),
    ("user_actions", UpdateKind::Item),
    ("user_preferences", UpdateKind::Item),
    ("groups", UpdateKind::Item),
    ("automatic_events", UpdateKind::Item),
    ("state_sync", UpdateKind::Item),
    ("history", UpdateKind::Item),
];

/// The members that are read of an update, by kind.
const MESSAGE: [&str; 5] = ["id", "type", "timestamp", "from", "from_user_id"];
const STATUS: [&str; 6] = ["id", "type", "timestamp", "status", "recipient_participant_id", "participant_recipient_id"];
const OTHER: [&str; 4] = ["id", "type", "timestamp", "event"];

/// The last second of the year 9999: the end of what RFC 3339 can show.
const LAST_SECOND: i64 = 253_402_300_799;

struct Walk<'a> {
    scan: Scanner<'a>,
    changes: Vec<Change<'a>>,
    updates: Vec<Update<'a>>,
    layout: Layout,
}

/// Fills `seen`, and refuses a key that was there before.
fn once(seen: &mut bool, reason: &'static str) -> Result<(), Unreadable> {
    if std::mem::replace(seen, true) { Err(Unreadable { reason }) } else { Ok(()) }
}

pub(super) fn walk(body: &[u8]) -> Result<Peek<'_>, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable { reason: "the body is not UTF-8" })?;
    let (changes, updates, layout) = (Vec::new(), Vec::new(), Layout::default());
    let mut walk = Walk { scan: Scanner::new(text), changes, updates, layout };
    walk.body()?;
    let Walk { changes, updates, layout, .. } = walk;
    Ok(Peek { provider: Provider::Meta, changes, updates, delivery: None, layout })
}

impl<'a> Walk<'a> {
    fn body(&mut self) -> Result<(), Unreadable> {
        if !self.scan.enter(b'{') {
            self.scan.skip()?;
            return Err(Unreadable { reason: "the body is not a JSON object" });
        }
        let (mut object, mut entry) = (false, false);
        let mut first = true;
        while let Some(key) = self.scan.key(&mut first)? {
            match &*key.lossy() {
                "object" => {
                    once(&mut object, "the body has two `object`")?;
                    self.scan.skip()?;
                }
                "entry" => {
                    once(&mut entry, "the body has two `entry`")?;
                    self.entries()?;
                }
                _ => self.scan.skip()?,
            }
        }
        if self.scan.next().is_some() {
            return Err(Unreadable { reason: "the body goes on after the JSON object" });
        }
        Ok(())
    }

    fn entries(&mut self) -> Result<(), Unreadable> {
        if !self.scan.enter(b'[') {
            return match self.scan.value()? {
                Value::Null => Ok(()),
                _ => Err(Unreadable { reason: "`entry` is not a list" }),
            };
        }
        let start = self.scan.at();
        let mut first = true;
        while self.scan.element(&mut first)? {
            self.entry()?;
        }
        self.layout.inside = start..self.scan.at() - 1;
        Ok(())
    }

    fn entry(&mut self) -> Result<(), Unreadable> {
        self.scan.next();
        let start = self.scan.at();
        let (first_change, first_update) = (self.changes.len(), self.updates.len());
        let (mut waba_id, mut entry_time, mut inside) = (None, None, start..start);
        let mut malformed = !self.scan.enter(b'{');
        if malformed {
            self.scan.skip()?;
        } else {
            let (mut id, mut time, mut changes) = (false, false, false);
            let mut first = true;
            while let Some(key) = self.scan.key(&mut first)? {
                match &*key.lossy() {
                    "id" => {
                        once(&mut id, "an entry has two `id`")?;
                        waba_id = context(self.scan.value()?);
                    }
                    "time" => {
                        once(&mut time, "an entry has two `time`")?;
                        entry_time = seconds(self.scan.value()?);
                    }
                    "changes" => {
                        once(&mut changes, "an entry has two `changes`")?;
                        if self.scan.enter(b'[') {
                            inside.start = self.scan.at();
                            self.changes()?;
                            inside.end = self.scan.at() - 1;
                        } else {
                            malformed = !matches!(self.scan.value()?, Value::Null);
                        }
                    }
                    _ => self.scan.skip()?,
                }
            }
        }
        let range = start..self.scan.at();
        if malformed {
            self.whole_change(Change { range: range.clone(), ..Change::default() }, UpdateKind::Malformed);
        }
        for change in &mut self.changes[first_change..] {
            change.waba_id.clone_from(&waba_id);
            change.entry_time = entry_time;
        }
        for update in &mut self.updates[first_update..] {
            if update.kind == UpdateKind::Change {
                update.timestamp = entry_time.map(Timestamp::from_secs);
            }
        }
        let (changes, updates) = (first_change..self.changes.len(), first_update..self.updates.len());
        if !updates.is_empty() {
            self.layout.entries.push(EntryLayout { range, inside, changes, updates });
        }
        Ok(())
    }

    fn changes(&mut self) -> Result<(), Unreadable> {
        let mut first = true;
        while self.scan.element(&mut first)? {
            self.change()?;
        }
        Ok(())
    }

    fn change(&mut self) -> Result<(), Unreadable> {
        self.scan.next();
        let start = self.scan.at();
        let (first_update, first_list) = (self.updates.len(), self.layout.lists.len());
        let mut change = Change::default();
        let (mut field, mut value, mut readable) = (false, false, false);
        if self.scan.enter(b'{') {
            let mut first = true;
            while let Some(key) = self.scan.key(&mut first)? {
                match &*key.lossy() {
                    "field" => {
                        once(&mut field, "a change has two `field`")?;
                        change.field = context(self.scan.value()?);
                    }
                    "value" => {
                        once(&mut value, "a change has two `value`")?;
                        readable = self.scan.enter(b'{');
                        if readable { self.value(&mut change)? } else { self.scan.skip()? }
                    }
                    _ => self.scan.skip()?,
                }
            }
        } else {
            self.scan.skip()?;
        }
        change.range = start..self.scan.at();
        if self.updates.len() == first_update {
            self.whole_change(change, if readable { UpdateKind::Change } else { UpdateKind::Malformed });
        } else {
            let (lists, updates) = (first_list..self.layout.lists.len(), first_update..self.updates.len());
            self.layout.changes.push(ChangeLayout { lists, updates });
            self.changes.push(change);
        }
        Ok(())
    }

    /// Reads a value that was entered.
    fn value(&mut self, change: &mut Change<'a>) -> Result<(), Unreadable> {
        let (mut metadata, mut contacts, mut lists) = (false, false, [false; LISTS.len()]);
        let mut first = true;
        while let Some(key) = self.scan.key(&mut first)? {
            match &*key.lossy() {
                "metadata" => {
                    once(&mut metadata, "a value has two `metadata`")?;
                    if let Some(members) = self.scan.members(&["phone_number_id", "display_phone_number"])? {
                        if members.repeated() {
                            return Err(Unreadable { reason: "a `metadata` has an id twice" });
                        }
                        [change.phone_number_id, change.display_phone_number] = members.values.map(context);
                    }
                }
                "contacts" => {
                    once(&mut contacts, "a value has two `contacts`")?;
                    change.contacts = self.contacts()?;
                }
                name => match LISTS.iter().position(|(list, _)| *list == name) {
                    Some(index) => {
                        once(&mut lists[index], "a value has a list of updates twice")?;
                        self.list(LISTS[index].1)?;
                    }
                    None => self.scan.skip()?,
                },
            }
        }
        Ok(())
    }

    fn contacts(&mut self) -> Result<Vec<Contact<'a>>, NotJson> {
        let mut contacts = Vec::new();
        if !self.scan.enter(b'[') {
            self.scan.skip()?;
            return Ok(contacts);
        }
        let mut first = true;
        while self.scan.element(&mut first)? {
            self.scan.next();
            let start = self.scan.at();
            let Some(members) = self.scan.members(&["wa_id", "user_id"])? else { continue };
            let [wa_id, user_id] = members.values.map(context);
            if !members.repeated() && (wa_id.is_some() || user_id.is_some()) {
                contacts.push(Contact { wa_id, user_id, range: start..self.scan.at() });
            }
        }
        Ok(contacts)
    }

    fn list(&mut self, kind: UpdateKind) -> Result<(), NotJson> {
        let first_update = self.updates.len();
        let bare = !self.scan.enter(b'[');
        let start = self.scan.at();
        let inside = if bare {
            if matches!(self.scan.value()?, Value::Null) {
                return Ok(());
            }
            let range = start..self.scan.at();
            self.updates.push(Update::blank(self.changes.len(), UpdateKind::Malformed, range.clone()));
            range
        } else {
            let mut first = true;
            while self.scan.element(&mut first)? {
                self.update(kind)?;
            }
            start..self.scan.at() - 1
        };
        let updates = first_update..self.updates.len();
        if !updates.is_empty() {
            self.layout.lists.push(ListLayout { inside, bare, updates });
        }
        Ok(())
    }

    fn update(&mut self, kind: UpdateKind) -> Result<(), NotJson> {
        self.scan.next();
        let start = self.scan.at();
        let mut update = Update::blank(self.changes.len(), kind, start..start);
        let read = match kind {
            UpdateKind::Message => self.unambiguous(&MESSAGE)?.and_then(|values| update.message(values)),
            UpdateKind::Status => self.unambiguous(&STATUS)?.and_then(|values| update.status(values)),
            _ => self.unambiguous(&OTHER)?.and_then(|values| update.other(values)),
        };
        let range = start..self.scan.at();
        match read {
            Ok(()) => update.range = range,
            Err(Ambiguous) => update = Update::blank(update.change, UpdateKind::Malformed, range),
        }
        self.updates.push(update);
        Ok(())
    }

    /// The named members of the object that follows; malformed if it is no object or one of them comes twice.
    fn unambiguous<const N: usize>(&mut self, names: &[&str; N]) -> Result<Result<[Value<'a>; N], Ambiguous>, NotJson> {
        let members = self.scan.members(names)?.filter(|members| !members.repeated());
        Ok(members.map(|members| members.values).ok_or(Ambiguous))
    }

    /// Records a change that is itself an update.
    fn whole_change(&mut self, change: Change<'a>, kind: UpdateKind) {
        let update = self.updates.len();
        self.updates.push(Update::blank(self.changes.len(), kind, change.range.clone()));
        let lists = self.layout.lists.len();
        self.layout.changes.push(ChangeLayout { lists: lists..lists, updates: update..update + 1 });
        self.changes.push(change);
    }
}

impl<'a> Update<'a> {
    fn message(&mut self, values: [Value<'a>; MESSAGE.len()]) -> Result<(), Ambiguous> {
        let [id, r#type, timestamp, from, from_user_id] = values;
        self.sender = context(from).or_else(|| context(from_user_id));
        self.identify(id, r#type, timestamp)
    }

    fn status(&mut self, values: [Value<'a>; STATUS.len()]) -> Result<(), Ambiguous> {
        let [id, r#type, timestamp, status, participant, other_spelling] = values;
        self.status = identifying(status)?;
        self.participant = identifying(participant)?.or(identifying(other_spelling)?);
        self.identify(id, r#type, timestamp)
    }

    fn other(&mut self, values: [Value<'a>; OTHER.len()]) -> Result<(), Ambiguous> {
        let [id, r#type, timestamp, event] = values;
        if self.kind == UpdateKind::Call {
            self.status = identifying(event)?;
        }
        self.identify(id, r#type, timestamp)
    }

    /// Fills what every kind has.
    fn identify(&mut self, id: Value<'a>, r#type: Value<'a>, timestamp: Value<'a>) -> Result<(), Ambiguous> {
        self.id = identifying(id)?;
        self.r#type = context(r#type);
        self.timestamp = seconds(timestamp).map(Timestamp::from_secs);
        Ok(())
    }
}

fn seconds(value: Value<'_>) -> Option<i64> {
    value.integer().filter(|seconds| (0..=LAST_SECOND).contains(seconds))
}
