//! An update: the smallest thing a provider tells us about, one element of a webhook's body.
//!
//! What identifies an update is decided here, once, so that the gateway (which only peeks) and the normalizer (which
//! parses) compute the same [`EventKey`] and request records join to rows.

use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

use crate::ids::{EnvelopeId, EventKey, Fingerprint};

/// Who sent a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Meta's WhatsApp Cloud API.
    Meta,
    /// Twilio's messaging webhooks.
    Twilio,
    /// Any software that signs one message with HMAC-SHA256.
    Generic,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 3] = [Self::Meta, Self::Twilio, Self::Generic];

    /// The provider with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }

    /// The stable name used in keys, headers and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Twilio => "twilio",
            Self::Generic => "generic",
        }
    }

    /// The provider with this value of `webhook_source`.
    pub fn from_webhook_source(source: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.webhook_source() == source)
    }

    /// The value of `webhook_source` in the tables of the statistics.
    pub const fn webhook_source(self) -> &'static str {
        match self {
            Self::Meta => "whatsapp",
            Self::Twilio => "twilio",
            Self::Generic => "generic",
        }
    }
}

/// What an update is about, as far as its place in the body tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateKind {
    /// An inbound message (Meta's `value.messages[]`).
    Message,
    /// A delivery status of an outbound message (Meta's `value.statuses[]`).
    Status,
    /// A message that the business sent by other means (`value.message_echoes[]`).
    Echo,
    /// A call event (`value.calls[]`).
    Call,
    /// An error about the app or the account (`value.errors[]`).
    Error,
    /// An element of any other list that Meta documents (user actions, preferences, groups, history …).
    Item,
    /// A whole change whose content is not a list of updates (account and template fields).
    Change,
    /// A part of the body that has not the documented shape; kept whole.
    Malformed,
}

impl UpdateKind {
    /// The stable name used in keys and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Status => "status",
            Self::Echo => "echo",
            Self::Call => "call",
            Self::Error => "error",
            Self::Item => "item",
            Self::Change => "change",
            Self::Malformed => "malformed",
        }
    }
}

/// All that makes an update the same update when it arrives again.
#[derive(Clone, Copy, Debug)]
pub struct UpdateIdentity<'a> {
    /// Who sent it.
    pub provider: Provider,
    /// The business number it is addressed to, if it names one.
    pub number: Option<&'a str>,
    /// What it is.
    pub kind: UpdateKind,
    /// The provider's id (Meta: a wamid for messages and statuses; Twilio: the message's SID).
    pub id: &'a str,
    /// The status, for statuses.
    pub status: Option<&'a str>,
    /// The group participant a status is about.
    pub participant: Option<&'a str>,
}

/// A tenant's key for event keys. Never rotated: the same event must keep its key for ever.
#[derive(Clone)]
pub struct EventHashKey(hmac::Key);

impl EventHashKey {
    /// Makes the key of 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key of an update that carries an id.
    ///
    /// Fields are length-prefixed, so no two identities share an encoding.
    pub fn event_key(&self, identity: &UpdateIdentity<'_>) -> EventKey {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"wharf/event/v1");
        for field in [
            Some(identity.provider.as_str()),
            identity.number,
            Some(identity.kind.as_str()),
            Some(identity.id),
            identity.status,
            identity.participant,
        ] {
            update_field(&mut context, field);
        }
        truncate(context.sign().as_ref())
    }

    /// The key of the `index`th update of an envelope, for updates without an id: they are never duplicates of others.
    pub fn positional_key(&self, envelope: EnvelopeId, index: u32) -> EventKey {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"wharf/event/position/v1");
        context.update(envelope.0.as_bytes());
        context.update(&index.to_be_bytes());
        truncate(context.sign().as_ref())
    }

    /// A keyed hash of a person's id for limits and logs, distinct from every event key.
    pub fn sender_limit_key(&self, provider: Provider, number: Option<&str>, sender: &str) -> EventKey {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"wharf/limit/v1");
        for field in [Some(provider.as_str()), number, Some(sender)] {
            update_field(&mut context, field);
        }
        truncate(context.sign().as_ref())
    }
}

impl std::fmt::Debug for EventHashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventHashKey(REDACTED)")
    }
}

/// The fingerprint of an update's bytes as they arrived.
pub fn fingerprint(bytes: &[u8]) -> Fingerprint {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 16];
    out.copy_from_slice(&digest.as_ref()[..16]);
    Fingerprint(out)
}

/// `None` and the empty text differ: the length prefix of `None` is one that no text can have.
fn update_field(context: &mut hmac::Context, field: Option<&str>) {
    match field {
        None => context.update(&u64::MAX.to_be_bytes()),
        Some(text) => {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
    }
}

fn truncate(tag: &[u8]) -> EventKey {
    let mut out = [0; 16];
    out.copy_from_slice(&tag[..16]);
    EventKey(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity<'a>(id: &'a str, status: Option<&'a str>) -> UpdateIdentity<'a> {
        UpdateIdentity {
            provider: Provider::Meta,
            number: Some("777"),
            kind: UpdateKind::Status,
            id,
            status,
            participant: None,
        }
    }

    /// Frozen: a change of these values would make every stored event new again.
    #[test]
    fn event_keys_never_change() {
        let key = EventHashKey::new(&[7; 32]);
        assert_eq!(key.event_key(&identity("wamid.A", Some("read"))).to_string(), "bf5746926a5f3c540429ba2ee046e5b9");
        let envelope = EnvelopeId(uuid::Uuid::from_u128(1));
        assert_eq!(key.positional_key(envelope, 3).to_string(), "82d1b50388e8547ccaa44657dbf818dd");
    }

    /// Frozen for the same reason: the provider's name is part of the key.
    #[test]
    fn each_provider_has_keys_of_its_own_that_never_change() {
        let key = EventHashKey::new(&[7; 32]);
        let keys = Provider::ALL.map(|provider| {
            let message = UpdateIdentity { provider, kind: UpdateKind::Message, ..identity("m1", None) };
            (key.event_key(&message).to_string(), key.sender_limit_key(provider, Some("777"), "+1555").to_string())
        });
        assert_eq!(
            keys.each_ref().map(|(event, sender)| (event.as_str(), sender.as_str())),
            [
                ("be4126f6242033ab4e5ca078b65cbad0", "e7e2cc840ca4bcca1f1d9c1e9817b6ac"),
                ("1915b7e47b4c239cc7e24139273a81fb", "4563b53a20d2e00e5bc3d28a16963edf"),
                ("58ee8ab755e756245d52a50ab9da06a5", "aa65327c4c28d25ee304d6325d3fc00f")
            ]
        );
    }

    #[test]
    fn providers_have_stable_names() {
        assert_eq!(Provider::ALL.map(Provider::as_str), ["meta", "twilio", "generic"]);
        assert_eq!(Provider::ALL.map(Provider::webhook_source), ["whatsapp", "twilio", "generic"]);
        for provider in Provider::ALL {
            assert_eq!(Provider::from_name(provider.as_str()), Some(provider));
            assert_eq!(Provider::from_webhook_source(provider.webhook_source()), Some(provider));
            assert_eq!(serde_json::to_string(&provider).unwrap(), format!("\"{}\"", provider.as_str()));
        }
        assert_eq!(Provider::from_name("Meta"), None);
    }

    #[test]
    fn fields_cannot_run_into_each_other() {
        let key = EventHashKey::new(&[7; 32]);
        let keys = [
            key.event_key(&identity("a", Some("b"))),
            key.event_key(&identity("ab", None)),
            key.event_key(&identity("ab", Some(""))),
            key.event_key(&identity("", Some("ab"))),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
    }
}
