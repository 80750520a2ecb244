//! The event store: everything a normalised batch writes, in one transaction.
//!
//! An update exists once per tenant and [`EventKey`]. The store alone decides that: what the gateway lets through twice
//! is folded here.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::envelope::ParkReason;
use common::event::{EventType, PartitionKey};
use common::identity::Address;
use common::message::{BillingConversation, Party, Pricing, ProviderError};
use common::status::DeliveryState;
use common::update::Provider;
use common::{EnvelopeId, EventKey, NumberId, TenantId, Timestamp};
use uuid::Uuid;

use crate::Unavailable;

/// A normalised update, ready to be stored with its event.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event's type.
    pub event_type: EventType,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The business number.
    pub number: Option<NumberId>,
    /// The business number as displayed.
    pub display_number: Option<String>,
    /// The WABA.
    pub waba: Option<String>,
    /// The person on the other side; the identity and the conversation are looked up or made in the transaction.
    pub party: Party,
    /// The group, whose conversation it belongs to instead.
    pub group: Option<String>,
    /// The event's `data`, JSON.
    pub data: Bytes,
    /// What else is kept of it.
    pub detail: Detail,
}

/// The rows beside the event.
#[derive(Clone, Debug)]
pub enum Detail {
    /// An inbound message.
    Message {
        /// The provider's id.
        id: String,
        /// The provider's type.
        kind: String,
        /// The text, if it is one.
        text: Option<String>,
    },
    /// A status.
    Status(StatusDetail),
    /// Nothing but the event.
    None,
}

/// A status of an outbound message.
#[derive(Clone, Debug)]
pub struct StatusDetail {
    /// The outbound message's id.
    pub message_id: String,
    /// What happened.
    pub state: DeliveryState,
    /// The group participant it is about.
    pub participant: Option<String>,
    /// The billing conversation.
    pub conversation: Option<BillingConversation>,
    /// The price category.
    pub pricing: Option<Pricing>,
    /// Why it failed.
    pub errors: Vec<ProviderError>,
    /// What the sender asked to have echoed.
    pub biz_opaque_callback_data: Option<String>,
}

/// An envelope that is kept until released.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The envelope; the row's key.
    pub envelope: EnvelopeId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Whose webhook it came in.
    pub provider: Provider,
    /// Why.
    pub reason: ParkReason,
    /// The number, if it names one.
    pub number: Option<NumberId>,
    /// When it was received.
    pub received_at: Timestamp,
    /// How many updates are inside.
    pub updates: u32,
    /// The envelope's bytes, sealed.
    pub sealed: Bytes,
    /// When it is to be looked at; `None` is when the directory changes, or somebody asks for it. With a pace not before
    /// its turn.
    pub due_at: Option<Timestamp>,
    /// How fast its sender's envelopes are let go.
    pub pace: Option<Pace>,
    /// The inbound messages inside, if they are throttled, by their sender's phone number (E.164) where it is known:
    /// they count as blocked. In the clear, since the table of the senders' limits is for those who may read messages;
    /// a keyed hash could not be read there.
    pub throttled: Vec<Option<String>>,
}

/// The pace at which throttled envelopes of one sender are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The sender's keyed hash.
    pub sender: EventKey,
    /// Envelopes in a window.
    pub max: u32,
    /// The window; the first ones wait for one.
    pub window: Duration,
}

/// An update (or a whole envelope) that could not be normalised.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Whose it is.
    pub tenant: TenantId,
    /// Whose webhook it came in.
    pub provider: Provider,
    /// The update's key, or the positional key of a whole envelope; the row's key with the tenant.
    pub key: EventKey,
    /// The envelope it came in.
    pub envelope: EnvelopeId,
    /// When it was received.
    pub received_at: Timestamp,
    /// Why, in fixed words.
    pub reason: String,
    /// An envelope that holds just this, sealed.
    pub sealed: Bytes,
    /// If it is an inbound message whose id could be read: the id and the sender's phone number.
    pub message: Option<(String, Option<String>)>,
}

/// An update of a batch.
#[derive(Clone, Debug)]
pub struct NewUpdate {
    /// Whose it is.
    pub tenant: TenantId,
    /// Whose webhook it came in.
    pub provider: Provider,
    /// Its key.
    pub key: EventKey,
    /// The envelope it came in.
    pub envelope: EnvelopeId,
    /// When it was received.
    pub received_at: Timestamp,
    /// What is stored.
    pub event: NewEvent,
}

impl NewUpdate {
    /// The longest provider id that is stored, in characters.
    pub const MAX_MESSAGE_ID: usize = 255;

    /// Why it cannot be stored, as far as can be told without the database.
    pub fn refusal(&self) -> Option<&'static str> {
        let id = match &self.event.detail {
            Detail::Message { id, .. } => id,
            Detail::Status(status) => &status.message_id,
            Detail::None => return None,
        };
        (id.chars().count() > Self::MAX_MESSAGE_ID).then_some("its message id is longer than 255 characters")
    }

    /// Whom it is about; `None` if it names no number or nobody.
    pub fn address(&self) -> Option<Address> {
        let event = &self.event;
        Address::of(&self.tenant, event.number.as_ref(), &event.party, event.group.as_ref())
    }

    /// Its partition, once its conversation is known.
    pub fn partition(&self, conversation: Option<Uuid>) -> u16 {
        let key = match (conversation, &self.event.number, &self.event.waba) {
            (Some(id), ..) => PartitionKey::Conversation(id),
            (None, Some(number), _) => PartitionKey::Text(number.as_str()),
            (None, None, Some(waba)) => PartitionKey::Text(waba),
            (None, None, None) => PartitionKey::Text(self.tenant.as_str()),
        };
        key.partition()
    }
}

/// Where an archived envelope lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawObject {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// The object's path in the blob store.
    pub object: String,
    /// Where in the object it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// A sealed envelope that is not archived yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPending {
    /// The envelope.
    pub envelope: EnvelopeId,
    /// Its bytes, sealed.
    pub sealed: Bytes,
}

/// What one transaction writes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Normalised updates.
    pub updates: Vec<NewUpdate>,
    /// Envelopes to keep.
    pub parked: Vec<Parked>,
    /// What could not be normalised.
    pub dead_letters: Vec<DeadLetter>,
    /// Envelopes whose bytes are in the blob store.
    pub raw_objects: Vec<RawObject>,
    /// Envelopes whose bytes are not.
    pub raw_pending: Vec<RawPending>,
    /// Envelopes that are done: their attempt counters are cleared.
    pub finished: Vec<EnvelopeId>,
    /// Parked envelopes whose updates are in this batch: they are parked no more.
    pub released: Vec<EnvelopeId>,
}

/// What became of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Stored, with an event in the outbox.
    New,
    /// Known already: counted, no event.
    Duplicate,
    /// The database refuses its data, for this reason; nothing of it is stored, its neighbours are.
    Refused(String),
}

/// A committed batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// One for each update of the batch, in order.
    pub outcomes: Vec<CommitOutcome>,
}

/// See the module's documentation.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Writes a batch in one transaction: all of it (but for refused updates) or, on an error, nothing.
    ///
    /// Idempotent: updates by tenant and key, parked envelopes by envelope, dead letters by tenant and key, raw
    /// objects by envelope. An envelope that is committed again is not counted as a duplicate of itself.
    async fn commit(&self, batch: Batch) -> Result<Committed, Unavailable>;

    /// Counts an attempt to handle an envelope before it begins, durably, and returns how many there were, this one
    /// included.
    async fn begin_attempt(&self, envelope: EnvelopeId) -> Result<u32, Unavailable>;

    /// Takes back an attempt that failed for reasons outside the envelope.
    async fn take_back_attempt(&self, envelope: EnvelopeId) -> Result<(), Unavailable>;

    /// The oldest envelopes whose bytes wait for the blob store, at most 8 MiB and one more.
    async fn raw_pending(&self, max: usize) -> Result<Vec<RawPending>, Unavailable>;

    /// Records that bytes which were pending are archived now.
    async fn raw_archived(&self, objects: Vec<RawObject>) -> Result<(), Unavailable>;
}
