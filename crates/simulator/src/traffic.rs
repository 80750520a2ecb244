//! What to send and what was made of it: the description of a run and one finished webhook. Plain data;
//! how bodies come about is the generator's business.

use std::str::FromStr;

use bytes::Bytes;

use crate::UpdateRef;

/// One business number webhooks are addressed to.
#[derive(Clone, Debug)]
pub struct Number {
    /// The WhatsApp Business Account the number belongs to; `entry[].id` of its webhooks.
    pub waba_id: String,
    /// Meta's id of the number, by which webhooks are routed.
    pub phone_number_id: String,
    /// The number itself, digits without `+`; only shown.
    pub display_phone_number: String,
}

/// `WABA_ID:PHONE_NUMBER_ID`, as on command lines; the number that is shown is invented.
impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (waba, id) = text.split_once(':').ok_or("must be WABA_ID:PHONE_NUMBER_ID")?;
        Ok(Self { waba_id: waba.into(), phone_number_id: id.into(), display_phone_number: "4915155500011".into() })
    }
}

/// The mix of updates, as weights: `{1, 3, 0}` is one message to three statuses. All zero means
/// messages only.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Inbound text messages.
    pub messages: u32,
    /// Statuses of messages the business is supposed to have sent.
    pub statuses: u32,
    /// Everything else: messages of other types (image, audio, document, location, contacts,
    /// interactive, reaction, unsupported) and, one in four of them, account-level fields
    /// (`account_update`, `message_template_status_update`).
    pub other: u32,
}

/// A run of webhooks. Equal traffic and an equal app secret give equal bytes.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Where all chance comes from, the ids included: another seed gives other people and other ids.
    pub seed: u64,
    /// How many POSTs, repeats and forgeries included.
    pub count: u64,
    /// Updates in each POST, from 1 to Meta's limit of 1000; other values are brought into that range.
    /// A body that nears Meta's 3 MB is closed early.
    pub batch: usize,
    /// What the updates are.
    pub mix: Mix,
    /// Fraction of POSTs, 0 to 1, that repeat an earlier one byte for byte. The earlier one is among
    /// the last 512 genuine ones (fewer if they exceed 16 MiB together).
    pub duplicates: f64,
    /// Fraction of POSTs, 0 to 1, that are signed with a wrong secret. Where this and `duplicates`
    /// exceed 1 together, forgeries come first.
    pub forged: f64,
    /// The numbers addressed, each equally often, in random order. Empty means one invented number.
    pub numbers: Vec<Number>,
    /// How many distinct people take part, from 1 to 1,000,000,000; other values are brought into that
    /// range. One in eight has adopted a username and withholds the phone number.
    pub senders: u32,
    /// Whether one POST may carry several numbers, in several entries and changes.
    pub mixed_numbers: bool,
    /// Unix seconds of the first event. Time then passes by 100 µs for each update, so that a long run
    /// does not drift into the future.
    pub start_time: i64,
}

/// One update in each POST, one message to three statuses, nothing repeated, nothing forged.
impl Default for Traffic {
    fn default() -> Self {
        Self {
            seed: 1,
            count: 1,
            batch: 1,
            mix: Mix { messages: 1, statuses: 3, other: 0 },
            duplicates: 0.0,
            forged: 0.0,
            numbers: Vec::new(),
            senders: 1000,
            mixed_numbers: false,
            start_time: 0,
        }
    }
}

/// One POST, ready to be sent, and what a receiver should find in it.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The JSON in Meta's escaping; at most 3 MB.
    pub body: Bytes,
    /// The value of `X-Hub-Signature-256`.
    pub signature: String,
    /// The updates of the body, in the order in which they stand there.
    pub updates: Vec<UpdateRef>,
    /// Signed with a wrong secret; must be refused.
    pub forged: bool,
    /// The same bytes as an earlier webhook of this run.
    pub repeat: bool,
}
