//! The directory: which tenants, apps and numbers there are, with their secrets and keys, all wrapped.
//!
//! It is a set of entries, each the last value of its key, so that it can live in a database and on a
//! last-value-per-key stream alike. [`OpenDirectory`] is the same with everything unwrapped and indexed, as a process
//! uses it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::ids::{AppId, NumberId, TenantId, WabaId};
use crate::keys::{DataKey, KeyBytes, KeyRing, UnwrapError, Wrapped};
use crate::update::{EventHashKey, Provider};

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

/// A tenant's keys, unwrapped.
#[derive(Debug)]
pub struct TenantKeys {
    /// The tenant.
    pub tenant: TenantId,
    /// Its status.
    pub status: TenantStatus,
    /// The key of event keys.
    pub event_hash: EventHashKey,
    sender_hash: ring::hmac::Key,
    data: Vec<DataKey>,
}

impl TenantKeys {
    /// The key that seals.
    pub fn sealing(&self) -> &DataKey {
        // Opening a directory refuses a tenant without data keys.
        &self.data[self.data.len() - 1]
    }

    /// The key of this id.
    pub fn data_key(&self, id: &str) -> Option<&DataKey> {
        self.data.iter().find(|key| key.id() == id)
    }

    /// `senderHash`: hex HMAC-SHA256 of a person's id under the tenant's key.
    pub fn sender_hash(&self, sender: &str) -> String {
        hex::encode(ring::hmac::sign(&self.sender_hash, sender.as_bytes()))
    }
}

/// An app's secrets, unwrapped.
#[derive(Debug)]
pub struct OpenApp {
    /// The app.
    pub id: AppId,
    /// Whose it is.
    pub provider: Provider,
    /// Newest first: HMAC-SHA1 for Twilio, HMAC-SHA256 for the others.
    signature_keys: Vec<SignatureKey>,
    /// Verification tokens, each kept as a keyed tag so that comparing takes the same time for every input.
    verify_tokens: Vec<ring::hmac::Tag>,
    verify_key: ring::hmac::Key,
    /// Whether paths without an app try it.
    pub default: bool,
    /// See [`App::account`].
    pub account: Option<String>,
    /// See [`App::public_url`].
    pub public_url: Option<String>,
}

/// A secret, ready to check signatures with.
#[derive(Debug)]
struct SignatureKey {
    key: ring::hmac::Key,
    accepted_until: Option<Timestamp>,
}

impl OpenApp {
    /// The keys of signatures that are accepted at a moment, newest first.
    pub fn signature_keys(&self, at: Timestamp) -> impl Iterator<Item = &ring::hmac::Key> {
        let accepted = self.signature_keys.iter().filter(move |each| each.accepted_until.is_none_or(|end| at < end));
        accepted.map(|each| &each.key)
    }

    /// Whether the token is one of the app's, compared in constant time.
    pub fn accepts_verify_token(&self, token: &str) -> bool {
        self.verify_tokens.iter().fold(false, |found, tag| {
            ring::hmac::verify(&self.verify_key, token.as_bytes(), tag.as_ref()).is_ok() | found
        })
    }

    /// Whether it has any verification token.
    pub fn has_verify_token(&self) -> bool {
        !self.verify_tokens.is_empty()
    }
}

/// To whom an update belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This tenant.
    Tenant(TenantId),
    /// The number is registered under another app than the one that signed.
    ForeignApp,
    /// Nobody known.
    Unknown,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirectoryError {
    /// A key does not unwrap.
    #[error("cannot open the keys of {entry}: {source}")]
    Unwrap {
        /// Whose keys.
        entry: String,
        /// Why.
        source: UnwrapError,
    },
    /// A tenant has no data key.
    #[error("tenant {0} has no data key")]
    NoDataKey(TenantId),
}

/// Apps that a path without an app tries at most; one more is refused when it is registered.
pub const MAX_DEFAULT_APPS: usize = 8;

/// The directory, unwrapped and indexed.
#[derive(Debug, Default)]
pub struct OpenDirectory {
    /// The revision it was made from.
    pub revision: u64,
    tenants: HashMap<TenantId, std::sync::Arc<TenantKeys>>,
    apps: BTreeMap<AppId, OpenApp>,
    /// Those that paths without an app try, in order of id.
    default_apps: Vec<AppId>,
    /// By provider's account, in order of id.
    accounts: HashMap<String, Vec<AppId>>,
    /// Providers of which an app has a secret.
    providers: BTreeSet<Provider>,
    numbers: HashMap<NumberId, Number>,
    wabas: HashMap<WabaId, Vec<NumberId>>,
    wildcards: HashMap<AppId, Number>,
}

impl OpenDirectory {
    /// Unwraps and indexes. Fails as a whole: a process with half a directory would park what it should deliver.
    pub fn open(directory: &Directory, ring: &KeyRing) -> Result<Self, OpenDirectoryError> {
        let mut open = Self { revision: directory.revision, ..Self::default() };
        for (key, entry) in &directory.entries {
            let failed = |source| OpenDirectoryError::Unwrap { entry: key.clone(), source };
            match entry {
                Entry::Tenant(tenant) => {
                    let keys = open_tenant(tenant, ring).map_err(failed)?;
                    if keys.data.is_empty() {
                        return Err(OpenDirectoryError::NoDataKey(tenant.id.clone()));
                    }
                    open.tenants.insert(tenant.id.clone(), std::sync::Arc::new(keys));
                }
                Entry::App(app) => {
                    let opened = open_app(app, ring).map_err(failed)?;
                    if !opened.signature_keys.is_empty() {
                        open.providers.insert(app.provider);
                    }
                    open.apps.insert(app.id.clone(), opened);
                }
                Entry::Number(number) => match &number.id {
                    Some(id) => {
                        if let Some(waba) = &number.waba {
                            open.wabas.entry(waba.clone()).or_default().push(id.clone());
                        }
                        open.numbers.insert(id.clone(), number.clone());
                    }
                    None => {
                        open.wildcards.insert(number.app.clone(), number.clone());
                    }
                },
                Entry::SingleTenant(_) => {}
            }
        }
        for app in open.apps.values() {
            if app.default {
                open.default_apps.push(app.id.clone());
            }
            if let Some(account) = &app.account {
                open.accounts.entry(account.clone()).or_default().push(app.id.clone());
            }
        }
        Ok(open)
    }

    /// Whether a number has an entry of its own.
    pub fn lists(&self, number: &NumberId) -> bool {
        self.numbers.contains_key(number)
    }

    /// Whether numbers without an entry may have an owner: by their account, or by their app.
    pub fn owns_more_than_it_lists(&self) -> bool {
        !self.wildcards.is_empty() || !self.wabas.is_empty()
    }

    /// A tenant's keys.
    pub fn tenant(&self, id: &TenantId) -> Option<&std::sync::Arc<TenantKeys>> {
        self.tenants.get(id)
    }

    /// An app of a provider by id.
    pub fn app(&self, id: &str) -> Option<&OpenApp> {
        self.apps.get(&AppId::new(id).ok()?)
    }

    /// The apps that paths without an app try, in order of id.
    pub fn default_apps(&self, provider: Provider) -> impl Iterator<Item = &OpenApp> {
        self.default_apps.iter().filter_map(|id| self.apps.get(id)).filter(move |app| app.provider == provider)
    }

    /// The apps of a provider that a path names: by the app's id, or by the account that several may stand for.
    pub fn named_apps(&self, provider: Provider, name: &str) -> impl Iterator<Item = &OpenApp> {
        let of_account = self.accounts.get(name).into_iter().flatten().filter_map(|id| self.apps.get(id));
        self.app(name).into_iter().chain(of_account).filter(move |app| app.provider == provider)
    }

    /// Whether any app of any provider has a secret.
    pub fn has_any_secrets(&self) -> bool {
        !self.providers.is_empty()
    }

    /// Whether any app of the provider has a secret.
    pub fn has_secrets(&self, provider: Provider) -> bool {
        self.providers.contains(&provider)
    }

    /// The owner of what app `app` signed for this number and WABA, as of `at`.
    ///
    /// A listed number decides; an unlisted number of a WABA whose numbers all belong to one tenant is that tenant's
    /// too; then the app's wildcard.
    ///
    /// An app that stands for an account signs for that account only.
    pub fn owner(&self, app: &AppId, number: Option<&str>, waba: Option<&str>, at: Timestamp) -> Owner {
        let account = self.apps.get(app).and_then(|app| app.account.as_deref());
        if account.is_some_and(|own| waba.is_some_and(|named| named != own)) {
            return Owner::ForeignApp;
        }
        if let Some(listed) = number.and_then(|id| NumberId::new(id).ok()).and_then(|id| self.numbers.get(&id)) {
            if listed.app != *app {
                return Owner::ForeignApp;
            }
            return listed.owner_at(at).map_or(Owner::Unknown, |tenant| Owner::Tenant(tenant.clone()));
        }
        if let Some(ids) = waba.and_then(|id| WabaId::new(id).ok()).and_then(|id| self.wabas.get(&id)) {
            let listed = ids.iter().filter_map(|id| self.numbers.get(id));
            let (own, foreign): (Vec<_>, Vec<_>) = listed.partition(|number| number.app == *app);
            let mut owners = own.iter().filter_map(|number| number.owner_at(at));
            if let Some(first) = owners.next()
                && owners.all(|other| other == first)
            {
                return Owner::Tenant(first.clone());
            }
            if own.is_empty() && !foreign.is_empty() {
                return Owner::ForeignApp;
            }
            if !own.is_empty() {
                return Owner::Unknown;
            }
        }
        let wildcard = self.wildcards.get(app).and_then(|number| number.owner_at(at));
        wildcard.map_or(Owner::Unknown, |tenant| Owner::Tenant(tenant.clone()))
    }
}

fn open_tenant(tenant: &Tenant, ring: &KeyRing) -> Result<TenantKeys, UnwrapError> {
    let mut data = Vec::with_capacity(tenant.data_keys.len());
    for key in &tenant.data_keys {
        let secret = ring.unwrap_key(&tenant_context(&tenant.id, &data_purpose(&key.id)), &key.key)?;
        data.push(DataKey::from_secret(&key.id, secret));
    }
    let event_hash = ring.unwrap_key(&tenant_context(&tenant.id, "event-hash"), &tenant.event_hash_key)?;
    let sender_hash = ring.unwrap_key(&tenant_context(&tenant.id, "sender-hash"), &tenant.sender_hash_key)?;
    Ok(TenantKeys {
        tenant: tenant.id.clone(),
        status: tenant.status,
        event_hash: EventHashKey::new(&event_hash),
        sender_hash: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &sender_hash),
        data,
    })
}

fn open_app(app: &App, ring: &KeyRing) -> Result<OpenApp, UnwrapError> {
    let verify_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &rand::random::<KeyBytes>());
    let algorithm = match app.provider {
        Provider::Meta | Provider::Generic => ring::hmac::HMAC_SHA256,
        Provider::Twilio => ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    };
    let signature_key = |secret: &AppSecret| {
        let opened = ring.unwrap(&app_context(&app.id, "secret"), &secret.wrapped)?;
        let key = ring::hmac::Key::new(algorithm, &opened);
        Ok(SignatureKey { key, accepted_until: secret.accepted_until })
    };
    let verify_tag = |token: &Wrapped| {
        let opened = ring.unwrap(&app_context(&app.id, "verify-token"), token)?;
        Ok(ring::hmac::sign(&verify_key, &opened))
    };
    Ok(OpenApp {
        id: app.id.clone(),
        provider: app.provider,
        signature_keys: app.secrets.iter().map(signature_key).collect::<Result<_, _>>()?,
        verify_tokens: app.verify_tokens.iter().map(verify_tag).collect::<Result<_, _>>()?,
        verify_key: verify_key.clone(),
        default: app.default,
        account: app.account.clone(),
        public_url: app.public_url.clone(),
    })
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
