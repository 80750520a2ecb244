//! One body after another: chooses numbers, kinds and people, puts them into entries and changes, and
//! notes what a receiver should find. It neither signs nor repeats.
//!
//! A body is made of runs of up to sixteen updates for one number. A run is of one kind, as Meta's
//! usually are; one time in eight it is a mixture, so that messages and statuses share a `value`.

use bytes::Bytes;

use crate::{Mix, Number, Traffic, UpdateKind, UpdateRef};

use super::{
    dice::{Dice, scatter},
    fields,
    json::Json,
    messages::Inbound,
    people::{People, Person},
    phrases::Phrases,
    statuses::{Outbox, StatusUpdate},
};

const MAX_UPDATES: usize = 1000;
const MAX_RUN: u32 = 16;
/// A body this long takes no further run, which keeps it below Meta's 3 MB.
const FULL: usize = 2_500_000;
const MICROSECONDS_PER_UPDATE: i64 = 100;

pub(super) struct Composer {
    numbers: Vec<Number>,
    outboxes: Vec<Outbox>,
    mix: Mix,
    batch: usize,
    mixed_numbers: bool,
    people: People,
    phrases: Phrases,
    dice: Dice,
    ids: Ids,
    start_time: i64,
    composed: i64,
    run: Run,
    last_len: usize,
}

/// What stands in the next change.
#[derive(Default)]
struct Run {
    messages: Vec<Inbound>,
    statuses: Vec<StatusUpdate>,
    fields: u32,
}

impl Run {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.statuses.is_empty()
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.statuses.clear();
        self.fields = 0;
    }
}

/// Numbers that do not repeat within a run of the generator.
struct Ids {
    key: u64,
    used: u64,
}

impl Ids {
    /// Looks arbitrary.
    fn serial(&mut self) -> u64 {
        self.used += 1;
        scatter(self.key.wrapping_add(self.used))
    }

    /// Sixteen digits, small enough to survive a reader that takes numbers for floats.
    fn decimal(&mut self) -> u64 {
        self.used += 1;
        1_000_000_000_000_000 + self.key % 1_000_000 * 1_000_000_000 + self.used
    }
}

impl Composer {
    pub(super) fn new(traffic: Traffic) -> Self {
        let mut numbers = traffic.numbers;
        if numbers.is_empty() {
            numbers.push(Number {
                waba_id: "300111222333444".into(),
                phone_number_id: "777000111222333".into(),
                display_phone_number: "4915155500011".into(),
            });
        }
        Self {
            outboxes: numbers.iter().map(|_| Outbox::default()).collect(),
            numbers,
            mix: traffic.mix,
            batch: traffic.batch.clamp(1, MAX_UPDATES),
            mixed_numbers: traffic.mixed_numbers,
            people: People::new(traffic.seed, traffic.senders),
            phrases: Phrases::new(),
            dice: Dice::new(traffic.seed),
            ids: Ids { key: scatter(traffic.seed ^ 0x69_6473), used: 0 },
            start_time: traffic.start_time,
            composed: 0,
            run: Run::default(),
            last_len: 1024,
        }
    }

    /// The next body and its updates.
    pub(super) fn compose(&mut self) -> (Bytes, Vec<UpdateRef>) {
        let mut json = Json::with_capacity(self.last_len + self.last_len / 4);
        let mut updates = Vec::with_capacity(self.batch);
        let mut open: Option<usize> = None;
        let mut number = self.dice.index(self.numbers.len());
        json.raw(r#"{"object":"whatsapp_business_account","entry":["#);
        while updates.len() < self.batch && json.len() < FULL {
            if self.mixed_numbers {
                number = self.dice.index(self.numbers.len());
            }
            self.plan(self.batch - updates.len(), number);
            if !self.run.is_empty() {
                match open {
                    Some(other) if self.numbers[other].waba_id == self.numbers[number].waba_id => {
                        json.raw(",");
                    }
                    _ => {
                        begin_entry(&mut json, open, &updates);
                        json.raw(r#"{"id":""#).text(&self.numbers[number].waba_id).raw(r#"","changes":["#);
                    }
                }
                open = Some(number);
                self.write_change(&mut json, number, &mut updates);
            }
            for _ in 0..self.run.fields {
                begin_entry(&mut json, open.take(), &updates);
                let id = self.ids.decimal();
                let now = self.now();
                fields::write(&mut json, &mut self.dice, &self.numbers[number].waba_id, id, now);
                updates.push(UpdateRef {
                    kind: UpdateKind::Other,
                    phone_number_id: String::new(),
                    id: id.to_string(),
                    status: None,
                });
            }
        }
        json.raw(if open.is_some() { "]}]}" } else { "]}" });
        self.last_len = json.len();
        (Bytes::from(json.into_bytes()), updates)
    }

    /// Unix seconds of the event being composed; time passes with each.
    fn now(&mut self) -> i64 {
        let now = self.start_time + self.composed * MICROSECONDS_PER_UPDATE / 1_000_000;
        self.composed += 1;
        now
    }

    fn plan(&mut self, most: usize, number: usize) {
        self.run.clear();
        let most = u32::try_from(most).unwrap_or(MAX_RUN).min(MAX_RUN);
        let length = 1 + self.dice.below(most);
        let mixture = self.dice.one_in(8);
        let mut kind = self.kind();
        for _ in 0..length {
            if mixture {
                kind = self.kind();
            }
            match kind {
                UpdateKind::Message => self.plan_message(true),
                UpdateKind::Status => self.plan_status(number),
                UpdateKind::Other if self.dice.one_in(4) => self.run.fields += 1,
                UpdateKind::Other => self.plan_message(false),
            }
        }
    }

    fn kind(&mut self) -> UpdateKind {
        let Mix { messages, statuses, other } = self.mix;
        let total = u64::from(messages) + u64::from(statuses) + u64::from(other);
        if total == 0 {
            return UpdateKind::Message;
        }
        let lot = self.dice.next() % total;
        if lot < u64::from(messages) {
            UpdateKind::Message
        } else if lot < u64::from(messages) + u64::from(statuses) {
            UpdateKind::Status
        } else {
            UpdateKind::Other
        }
    }

    fn plan_message(&mut self, text: bool) {
        let from = self.people.person(self.dice.below(self.people.count()));
        self.run.messages.push(Inbound::new(from, self.ids.serial(), text));
    }

    fn plan_status(&mut self, number: usize) {
        let serial = self.ids.serial();
        let now = self.now();
        let status = self.outboxes[number].next(&mut self.dice, &self.people, serial, now);
        self.run.statuses.push(status);
    }

    /// The change of the field `messages` for what is planned.
    fn write_change(&mut self, json: &mut Json, number: usize, updates: &mut Vec<UpdateRef>) {
        let run = std::mem::take(&mut self.run);
        let Number { display_phone_number, phone_number_id, .. } = &self.numbers[number];
        let (display, phone_number_id) = (display_phone_number.clone(), phone_number_id.clone());
        json.raw(r#"{"value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":""#);
        json.text(&display).raw(r#"","phone_number_id":""#).text(&phone_number_id).raw("\"}");
        write_contacts(json, &run);
        list(json, "messages", &run.messages, |json, message| {
            let now = self.now();
            message.write(json, &mut self.dice, &self.phrases, &display, now);
        });
        list(json, "statuses", &run.statuses, |json, status| status.write(json));
        json.raw(r#"},"field":"messages"}"#);

        updates.extend(run.messages.iter().map(|message| UpdateRef {
            kind: if message.text { UpdateKind::Message } else { UpdateKind::Other },
            phone_number_id: phone_number_id.clone(),
            id: message.id.clone(),
            status: None,
        }));
        updates.extend(run.statuses.iter().map(|status| UpdateRef {
            kind: UpdateKind::Status,
            phone_number_id: phone_number_id.clone(),
            id: status.id.clone(),
            status: Some(status.name().to_owned()),
        }));
        self.run = run;
    }
}

/// Closes the open entry, if there is one, and separates the next from what was before.
fn begin_entry(json: &mut Json, open: Option<usize>, updates: &[UpdateRef]) {
    if open.is_some() {
        json.raw("]}");
    }
    if !updates.is_empty() {
        json.raw(",");
    }
}

/// Everybody once and in the opposite order, so that nobody pairs them with messages by position.
fn write_contacts(json: &mut Json, run: &Run) {
    let senders = run.messages.iter().map(|message| (&message.from, true, true));
    let recipients = run.statuses.iter().filter(|status| status.has_contact());
    let recipients = recipients.map(|status| (&status.recipient, false, status.has_username()));
    let mut contacts: Vec<(&Person, bool, bool)> = Vec::with_capacity(run.messages.len() + run.statuses.len());
    for contact in senders.chain(recipients) {
        if !contacts.iter().any(|(person, ..)| person.user_id == contact.0.user_id) {
            contacts.push(contact);
        }
    }
    contacts.reverse();
    list(json, "contacts", &contacts, |json, &(person, named, username)| person.contact(json, named, username));
}

/// `,"key":[...]`, or nothing where there is nothing.
fn list<T>(json: &mut Json, key: &str, items: &[T], mut write: impl FnMut(&mut Json, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index == 0 {
            json.raw(",\"").raw(key).raw("\":[");
        } else {
            json.raw(",");
        }
        write(json, item);
    }
    if !items.is_empty() {
        json.raw("]");
    }
}
