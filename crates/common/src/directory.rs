//! The directory: which tenants, apps and numbers there are, with their secrets and keys, all wrapped.
//!
//! It is a set of entries, each the last value of its key, so that it can live in a database and on a
//! last-value-per-key stream alike. [`OpenDirectory`] is the same with everything unwrapped and indexed, as a process
//! uses it.

mod open;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::ids::{AppId, NumberId, TenantId, WabaId};
use crate::keys::{KeyBytes, KeyRing, UnwrapError, Wrapped};
use crate::update::Provider;

pub use open::{MAX_DEFAULT_APPS, OpenApp, OpenDirectory, OpenDirectoryError, Owner, TenantKeys};

/// Whether a tenant's traffic is handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantStatus {
    /// Normal.
    #[default]
    Active,
    /// What arrives is parked until the tenant is active again: its consumers are not to get anything now.
    Paused,
    /// The same, by decision of the operator.
    Suspended,
    /// It has left: it owns no number any more and its tokens are revoked. Its keys stay for what is stored.
    Offboarded,
}

impl TenantStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Active, Self::Paused, Self::Suspended, Self::Offboarded];

    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Offboarded => "offboarded",
        }
    }
}

/// A tenant's wrapped data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedDataKey {
    /// The id envelopes name.
    pub id: String,
    /// The key.
    pub key: Wrapped,
}

/// A tenant with its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its status.
    #[serde(default)]
    pub status: TenantStatus,
    /// Data keys, oldest first. The last one seals; all open.
    pub data_keys: Vec<WrappedDataKey>,
    /// The key of event keys. Never rotated.
    pub event_hash_key: Wrapped,
    /// The key of `senderHash`. Never rotated.
    pub sender_hash_key: Wrapped,
}

impl Tenant {
    /// A new tenant with fresh keys.
    pub fn create(id: TenantId, name: Option<String>, ring: &KeyRing) -> Self {
        let data_id = Uuid::now_v7().simple().to_string();
        let fresh = |purpose: &str| ring.wrap(&tenant_context(&id, purpose), &rand::random::<KeyBytes>());
        Self {
            data_keys: vec![WrappedDataKey { key: fresh(&data_purpose(&data_id)), id: data_id.clone() }],
            event_hash_key: fresh("event-hash"),
            sender_hash_key: fresh("sender-hash"),
            status: TenantStatus::Active,
            name,
            id,
        }
    }
}

/// An app (an account at a provider) whose secrets sign webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id, as in `/webhooks/meta/{app}`.
    pub id: AppId,
    /// Whose app it is.
    pub provider: Provider,
    /// Secrets that are accepted, newest first: several during a rotation.
    pub secrets: Vec<AppSecret>,
    /// Tokens accepted in the verification request.
    pub verify_tokens: Vec<Wrapped>,
    /// Whether paths without an app try this one's secrets.
    pub default: bool,
    /// The account that it stands for at a provider whose webhooks name one (Twilio's `AccountSid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Where the provider believes to send, without path: `https://hooks.example.com`. Twilio signs its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
}

/// A secret of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSecret {
    /// The secret.
    #[serde(flatten)]
    pub wrapped: Wrapped,
    /// From when on it is not accepted any more; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_until: Option<Timestamp>,
}

impl App {
    /// An app with its secrets wrapped.
    pub fn create(id: AppId, provider: Provider, secrets: &[&str], verify_tokens: &[&str], ring: &KeyRing) -> Self {
        let mut app = Self {
            secrets: Vec::new(),
            verify_tokens: Vec::new(),
            provider,
            default: true,
            account: None,
            public_url: None,
            id,
        };
        app.secrets = secrets.iter().map(|secret| app.secret(secret, ring)).collect();
        let context = app_context(&app.id, "verify-token");
        app.verify_tokens = verify_tokens.iter().map(|token| ring.wrap(&context, token.as_bytes())).collect();
        app
    }

    /// A secret for this app, accepted without end.
    pub fn secret(&self, secret: &str, ring: &KeyRing) -> AppSecret {
        let wrapped = ring.wrap(&app_context(&self.id, "secret"), secret.as_bytes());
        AppSecret { wrapped, accepted_until: None }
    }

    /// Makes a secret the newest one. Those before it are accepted until `overlap_ends`, or until their own end.
    pub fn rotate(&mut self, secret: &str, overlap_ends: Timestamp, now: Timestamp, ring: &KeyRing) {
        self.secrets.retain(|old| old.accepted_until.is_none_or(|end| now < end));
        for old in &mut self.secrets {
            old.accepted_until = Some(old.accepted_until.map_or(overlap_ends, |end| end.min(overlap_ends)));
        }
        self.secrets.insert(0, self.secret(secret, ring));
    }
}

/// From when on a number belongs to a tenant; until the next assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The owner; `None` is nobody.
    pub tenant: Option<TenantId>,
    /// The first moment it owns the number.
    pub valid_from: Timestamp,
}

/// A business number (or, without an id, every number of an app).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number {
    /// Meta's id; `None` stands for every number of the app that is not listed itself (single-tenant operation).
    pub id: Option<NumberId>,
    /// The WABA it belongs to.
    pub waba: Option<WabaId>,
    /// The app it is registered under.
    pub app: AppId,
    /// Its owners over time, by `valid_from`.
    pub assignments: Vec<Assignment>,
}

impl Number {
    /// The owner at a moment.
    pub fn owner_at(&self, at: Timestamp) -> Option<&TenantId> {
        self.assignment_at(at)?.tenant.as_ref()
    }

    /// The assignment that holds at a moment.
    pub fn assignment_at(&self, at: Timestamp) -> Option<&Assignment> {
        self.assignments.iter().rev().find(|each| each.valid_from <= at)
    }

    /// Adds an assignment, or changes the one that begins at the same moment.
    pub fn assign(&mut self, assignment: Assignment) {
        match self.assignments.binary_search_by_key(&assignment.valid_from, |each| each.valid_from) {
            Ok(index) => self.assignments[index] = assignment,
            Err(index) => self.assignments.insert(index, assignment),
        }
    }
}

/// One entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A tenant.
    Tenant(Tenant),
    /// An app.
    App(App),
    /// A number.
    Number(Number),
    /// Whether this is a single-tenant operation, stored once it was chosen.
    SingleTenant(bool),
}

impl Entry {
    /// The key of which this is the value.
    pub fn key(&self) -> String {
        match self {
            Self::Tenant(tenant) => format!("tenant/{}", tenant.id),
            Self::App(app) => format!("app/{}", app.id),
            Self::Number(Number { id: Some(id), .. }) => format!("number/{id}"),
            Self::Number(Number { id: None, app, .. }) => format!("numbers-of/{app}"),
            Self::SingleTenant(_) => "single-tenant".to_owned(),
        }
    }
}

/// The whole directory at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Grows with every write.
    pub revision: u64,
    /// All entries by key.
    pub entries: BTreeMap<String, Entry>,
}

impl Directory {
    /// The entry of a tenant.
    pub fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        match self.entries.get(&format!("tenant/{id}")) {
            Some(Entry::Tenant(tenant)) => Some(tenant),
            _ => None,
        }
    }

    /// The entry of an app.
    pub fn app(&self, id: &AppId) -> Option<&App> {
        match self.entries.get(&format!("app/{id}")) {
            Some(Entry::App(app)) => Some(app),
            _ => None,
        }
    }

    /// The entry of a number.
    pub fn number(&self, id: &NumberId) -> Option<&Number> {
        match self.entries.get(&format!("number/{id}")) {
            Some(Entry::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// The entries that change when everything is brought under the ring's active master key.
    pub fn rewrap(&self, ring: &KeyRing) -> Result<Vec<Entry>, UnwrapError> {
        let mut changed = Vec::new();
        for entry in self.entries.values() {
            let mut entry = entry.clone();
            let mut any = false;
            let mut again = |context: String, wrapped: &mut Wrapped| -> Result<(), UnwrapError> {
                if let Some(new) = ring.rewrap(&context, wrapped)? {
                    *wrapped = new;
                    any = true;
                }
                Ok(())
            };
            match &mut entry {
                Entry::Tenant(tenant) => {
                    for data in &mut tenant.data_keys {
                        again(tenant_context(&tenant.id, &data_purpose(&data.id)), &mut data.key)?;
                    }
                    again(tenant_context(&tenant.id, "event-hash"), &mut tenant.event_hash_key)?;
                    again(tenant_context(&tenant.id, "sender-hash"), &mut tenant.sender_hash_key)?;
                }
                Entry::App(app) => {
                    for secret in &mut app.secrets {
                        again(app_context(&app.id, "secret"), &mut secret.wrapped)?;
                    }
                    for token in &mut app.verify_tokens {
                        again(app_context(&app.id, "verify-token"), token)?;
                    }
                }
                Entry::Number(_) | Entry::SingleTenant(_) => {}
            }
            if any {
                changed.push(entry);
            }
        }
        Ok(changed)
    }
}

fn tenant_context(id: &TenantId, purpose: &str) -> String {
    format!("tenant/{id}/{purpose}")
}

fn data_purpose(key: &str) -> String {
    format!("data/{key}")
}

fn app_context(id: &AppId, purpose: &str) -> String {
    format!("app/{id}/{purpose}")
}

#[cfg(test)]
mod tests;
