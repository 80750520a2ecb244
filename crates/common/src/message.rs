//! Messages and statuses in the provider-neutral form that events carry as their `data`.
//!
//! Field names are the public vocabulary: a change here is a change of `dataschema`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::{Timestamp, rfc3339};
use crate::ids::NumberId;
use crate::status::DeliveryState;

/// The business number an event belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BusinessNumber {
    /// Meta's id of the number; where the provider has none, the number itself with `+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_number_id: Option<NumberId>,
    /// The number as it is shown; for people, not for keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_phone_number: Option<String>,
    /// The account at the provider: Meta's WhatsApp business account, Twilio's `AccountSid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waba_id: Option<String>,
}

/// The person on the other side. Every field may be absent: people can keep their phone number to themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// E.164 with `+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Meta's business-scoped user id: the primary identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The id in the parent portfolio, where one is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_user_id: Option<String>,
    /// The user name, without a leading `@`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The profile's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Party {
    /// Whether nothing identifies the person.
    pub fn is_anonymous(&self) -> bool {
        self.phone.is_none() && self.user_id.is_none()
    }
}

/// Data of `wharf.message.received`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    /// The provider's id (a wamid, Twilio's `MessageSid`).
    pub message_id: &'a str,
    /// The number it was sent to.
    pub number: &'a BusinessNumber,
    /// Who sent it.
    pub sender: &'a Party,
    /// The group it was sent in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<&'a str>,
    /// The sender's time; when it was received, where the provider sends none (Twilio).
    #[serde(with = "rfc3339")]
    pub timestamp: Timestamp,
    /// When the gateway received it.
    #[serde(with = "rfc3339")]
    pub received_at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub content: Content,
    /// What it answers or where it was forwarded from: as received from Meta, of Twilio under the same names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<&'a RawValue>,
    /// The advertisement it came from: as received from Meta, of Twilio under the same names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referral: Option<&'a RawValue>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Plain text.
    Text {
        /// The text object, as Meta nests it.
        text: Text,
    },
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The text itself. Lone surrogates of the original are U+FFFD.
    pub body: String,
}

/// Data of `wharf.message.status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus<'a> {
    /// The outbound message's id (a wamid, Twilio's `MessageSid`).
    pub message_id: &'a str,
    /// The number it was sent from.
    pub number: &'a BusinessNumber,
    /// Who it was sent to.
    pub recipient: &'a Party,
    /// The group it was sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<&'a str>,
    /// The group participant this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<&'a str>,
    /// What happened.
    pub status: DeliveryState,
    /// When it happened.
    #[serde(with = "rfc3339")]
    pub timestamp: Timestamp,
    /// When the gateway received it.
    #[serde(with = "rfc3339")]
    pub received_at: Timestamp,
    /// The billing conversation (absent in webhooks of version 24 and later, but for free entry points).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<BillingConversation>,
    /// What it costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProviderError>,
    /// What the sender of the message asked to have echoed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub biz_opaque_callback_data: Option<&'a str>,
}

/// A billing conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BillingConversation {
    /// Meta's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its origin (`marketing`, `utility`, `service` …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Unix seconds of its end; only with `sent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// The price category of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pricing {
    /// Whether it is billed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billable: Option<bool>,
    /// `CBP` (per conversation) or `PMP` (per message).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `regular`, `free_customer_service`, `free_entry_point` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// `service`, `utility`, `marketing`, `authentication` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// An error as the provider reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderError {
    /// The provider's code; 0 if it gave none.
    pub code: i64,
    /// What the provider calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The useful explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// Data of `wharf.unsupported`: kept whole, because nothing signed is ever dropped.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsupported<'a> {
    /// The number it is addressed to.
    pub number: &'a BusinessNumber,
    /// The webhook field (`messages`, `account_update` …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
    /// Where in the body it stood.
    pub kind: &'static str,
    /// Its own `type`, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'a str>,
    /// The provider's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Who it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<&'a Party>,
    /// When the gateway received it.
    #[serde(with = "rfc3339")]
    pub received_at: Timestamp,
    /// The whole JSON as received; a form as an object of its texts.
    pub raw: &'a RawValue,
}
