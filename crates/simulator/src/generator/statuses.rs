//! The statuses of messages that a business is supposed to have sent: which comes next, and how it is
//! written. Each outbound message has a plan (read, played, failed, ...) and each (id, status) comes once,
//! mostly in order, one time in sixteen not. There is no sending side behind it.

use super::{
    dice::{Dice, scatter},
    json::Json,
    people::{People, Person},
    wamid::{Direction, wamid},
};

/// Messages of one number that still have statuses to come.
const OPEN: usize = 64;

/// The names, in the order of the life cycle; a plan is a set of bits in this order.
const NAMES: [&str; 5] = ["sent", "delivered", "read", "played", "failed"];
const SENT: u8 = 1;
const DELIVERED: u8 = 2;
const READ: u8 = 4;
const PLAYED: u8 = 8;
const FAILED: u8 = 16;

/// Plans by weight. `delivered` is skipped when it coincides with `read`.
const PLANS: [u8; 16] = {
    let mut plans = [SENT | DELIVERED | READ; 16];
    plans[0] = SENT | DELIVERED | READ | PLAYED;
    plans[1] = SENT | FAILED;
    plans[2] = FAILED;
    plans[3] = SENT | READ;
    plans[4] = SENT | DELIVERED;
    plans[5] = SENT | DELIVERED;
    plans[6] = SENT | DELIVERED;
    plans
};

/// Code and title of failures.
const FAILURES: [(u32, &str, &str); 4] = [
    (131_047, "Re-engagement message", "More than 24 hours have passed since the recipient last replied"),
    (131_026, "Message undeliverable", "Message Undeliverable."),
    (131_049, "Meta chose not to deliver.", "In order to maintain a healthy ecosystem engagement, the message failed."),
    (130_472, "User's number is part of an experiment", "Failed to send: the user's number is part of an experiment"),
];

struct Outbound {
    serial: u64,
    person: u32,
    sent_at: i64,
    left: u8,
}

/// The outbound messages of one number.
#[derive(Default)]
pub(super) struct Outbox(Vec<Outbound>);

/// One status to be written.
pub(super) struct StatusUpdate {
    /// Id of the outbound message.
    pub(super) id: String,
    /// Its recipient.
    pub(super) recipient: Person,
    serial: u64,
    bit: usize,
    sent_at: i64,
}

impl Outbox {
    /// The next status: of an open message, or the first of a new one with `serial`.
    pub(super) fn next(&mut self, dice: &mut Dice, people: &People, serial: u64, now: i64) -> StatusUpdate {
        let fresh = self.0.is_empty() || (self.0.len() < OPEN && dice.one_in(3));
        let index = if fresh {
            let person = dice.below(people.count());
            self.0.push(Outbound { serial, person, sent_at: now, left: *dice.pick(&PLANS) });
            self.0.len() - 1
        } else {
            dice.index(self.0.len())
        };
        let message = &mut self.0[index];
        let late = message.left & (message.left - 1);
        let from = if late != 0 && dice.one_in(16) { late } else { message.left };
        let bit = from.trailing_zeros() as usize;
        message.left &= !(1 << bit);
        let recipient = people.person(message.person);
        let update = StatusUpdate {
            id: wamid(Direction::Outbound, recipient.address(), message.serial),
            recipient,
            serial: message.serial,
            bit,
            sent_at: message.sent_at,
        };
        if message.left == 0 {
            self.0.swap_remove(index);
        }
        update
    }
}

impl StatusUpdate {
    pub(super) fn name(&self) -> &'static str {
        NAMES[self.bit]
    }

    /// Whether the contact stands in `contacts[]`.
    pub(super) fn has_contact(&self) -> bool {
        self.is(SENT | DELIVERED | READ | PLAYED)
    }

    /// Whether the contact shows a username.
    pub(super) fn has_username(&self) -> bool {
        self.is(DELIVERED | READ | PLAYED)
    }

    fn is(&self, statuses: u8) -> bool {
        statuses >> self.bit & 1 == 1
    }

    /// The element of `statuses[]`.
    pub(super) fn write(&self, json: &mut Json) {
        let traits = scatter(self.serial);
        // Seconds after the first, growing along the life cycle; slower for some than for others.
        let slowness = 1 + (traits & 31).cast_signed();
        let timestamp = self.sent_at + [0, 1, 5, 9, 3][self.bit] * slowness;
        json.raw(r#"{"id":""#).text(&self.id).raw(r#"","status":""#).raw(self.name());
        json.raw(r#"","timestamp":""#).number(timestamp).raw("\"");
        if let Some(phone) = &self.recipient.phone {
            json.raw(r#","recipient_id":""#).raw(phone).raw("\"");
        }
        if !self.is(FAILED) || self.recipient.phone.is_none() {
            json.raw(r#","recipient_user_id":""#).raw(&self.recipient.user_id).raw("\"");
        }
        if (traits >> 8).is_multiple_of(4) {
            json.raw(r#","biz_opaque_callback_data":"order-"#).number(traits >> 40).raw("\"");
        }
        if self.is(SENT | DELIVERED) {
            self.conversation(json, traits);
            Self::pricing(json, traits);
        }
        if self.is(FAILED) {
            let (code, title, details) = FAILURES[(traits >> 16 & 3) as usize];
            json.raw(r#","errors":[{"code":"#).number(code).raw(r#","title":""#).text(title);
            json.raw(r#"","message":""#).text(title).raw(r#"","error_data":{"details":""#).text(details);
            json.raw(r#""},"href":""#);
            json.text("https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/");
            json.raw("\"}]");
        }
        json.raw("}");
    }

    /// Left out by the newer webhook versions, so only in half of the messages.
    fn conversation(&self, json: &mut Json, traits: u64) {
        if (traits >> 24).is_multiple_of(2) && !conversation_based(traits) {
            return;
        }
        json.raw(r#","conversation":{"id":""#).number(scatter(traits)).raw("\"");
        if self.is(SENT) {
            json.raw(r#","expiration_timestamp":""#).number(self.sent_at + 86_400).raw("\"");
        }
        json.raw(r#","origin":{"type":""#).raw(category(traits)).raw("\"}}");
    }

    fn pricing(json: &mut Json, traits: u64) {
        if conversation_based(traits) {
            json.raw(r#","pricing":{"billable":true,"pricing_model":"CBP","category":""#);
        } else if category(traits) == "service" {
            json.raw(
                r#","pricing":{"billable":false,"pricing_model":"PMP","type":"free_customer_service","category":""#,
            );
        } else {
            json.raw(r#","pricing":{"billable":true,"pricing_model":"PMP","type":"regular","category":""#);
        }
        json.raw(category(traits)).raw("\"}");
    }
}

/// One message in eight is priced by conversation, as all were before July 2025.
fn conversation_based(traits: u64) -> bool {
    (traits >> 32).is_multiple_of(8)
}

fn category(traits: u64) -> &'static str {
    ["service", "utility", "marketing", "authentication"][(traits >> 20 & 3) as usize]
}
