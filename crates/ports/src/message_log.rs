//! The message log: inbound messages as people search them.

use async_trait::async_trait;
use common::{EnvelopeId, TenantId, Timestamp};

use crate::Unavailable;

/// Which messages to find.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only with this id of the provider. Databases look for it among all that are not before `since`.
    pub message_id: Option<String>,
    /// Only from this number, E.164 with `+`.
    pub from: Option<String>,
    /// Not before this moment, by the sender's time.
    pub since: Option<Timestamp>,
    /// Only with this text, as a case-insensitive literal substring.
    pub text: Option<String>,
    /// At most this many.
    pub limit: u32,
    /// After this many.
    pub offset: u64,
}

/// A found message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedMessage {
    /// Whose it is.
    pub tenant: TenantId,
    /// The envelope that it came in first.
    pub envelope: EnvelopeId,
    /// When that was received.
    pub received_at: Timestamp,
    /// The provider's id.
    pub message_id: String,
    /// Who sent it: the phone number, or the user id where the number is withheld.
    pub from: Option<String>,
    /// The business number.
    pub to: Option<String>,
    /// The sender's time.
    pub at: Timestamp,
    /// The text, if it is one.
    pub text: Option<String>,
}

/// A page of messages, ordered by time and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagePage {
    /// The messages.
    pub messages: Vec<LoggedMessage>,
    /// How many there are in all.
    pub total: u64,
}

/// Figures over all messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageTotals {
    /// All messages.
    pub messages: u64,
    /// Different senders.
    pub senders: u64,
    /// The ten with the most messages, most first.
    pub top_senders: Vec<(String, u64)>,
    /// The first message's time.
    pub first: Option<Timestamp>,
    /// The last message's time.
    pub last: Option<Timestamp>,
}

/// See the module's documentation.
#[async_trait]
pub trait MessageLog: Send + Sync {
    /// Finds messages.
    async fn search(&self, filter: &MessageFilter) -> Result<MessagePage, Unavailable>;

    /// Sums up messages, of one tenant or all.
    async fn totals(&self, tenant: Option<&TenantId>) -> Result<MessageTotals, Unavailable>;
}
