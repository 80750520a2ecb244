//! The directory with everything unwrapped and indexed, as a process uses it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ring::hmac;

use super::{
    App, AppSecret, Directory, Entry, Number, Tenant, TenantStatus, app_context, data_purpose, tenant_context,
};
use crate::clock::Timestamp;
use crate::ids::{AppId, NumberId, TenantId, WabaId};
use crate::keys::{DataKey, KeyBytes, KeyRing, UnwrapError, Wrapped};
use crate::update::{EventHashKey, Provider};

/// A tenant's keys, unwrapped.
#[derive(Debug)]
pub struct TenantKeys {
    /// The tenant.
    pub tenant: TenantId,
    /// Its status.
    pub status: TenantStatus,
    /// The key of event keys.
    pub event_hash: EventHashKey,
    sender_hash: hmac::Key,
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
        hex::encode(hmac::sign(&self.sender_hash, sender.as_bytes()))
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
    pub(super) signature_keys: Vec<SignatureKey>,
    /// Verification tokens, each kept as a keyed tag so that comparing takes the same time for every input.
    verify_tokens: Vec<hmac::Tag>,
    verify_key: hmac::Key,
    /// Whether paths without an app try it.
    pub default: bool,
    /// See [`App::account`].
    pub account: Option<String>,
    /// See [`App::public_url`].
    pub public_url: Option<String>,
}

/// A secret, ready to check signatures with.
#[derive(Debug)]
pub(super) struct SignatureKey {
    pub(super) key: hmac::Key,
    accepted_until: Option<Timestamp>,
}

impl OpenApp {
    /// The keys of signatures that are accepted at a moment, newest first.
    pub fn signature_keys(&self, at: Timestamp) -> impl Iterator<Item = &hmac::Key> {
        let accepted = self.signature_keys.iter().filter(move |each| each.accepted_until.is_none_or(|end| at < end));
        accepted.map(|each| &each.key)
    }

    /// Whether the token is one of the app's, compared in constant time.
    pub fn accepts_verify_token(&self, token: &str) -> bool {
        self.verify_tokens
            .iter()
            .fold(false, |found, tag| hmac::verify(&self.verify_key, token.as_bytes(), tag.as_ref()).is_ok() | found)
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
    tenants: HashMap<TenantId, Arc<TenantKeys>>,
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
                    open.tenants.insert(tenant.id.clone(), Arc::new(keys));
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
    pub fn tenant(&self, id: &TenantId) -> Option<&Arc<TenantKeys>> {
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
        sender_hash: hmac::Key::new(hmac::HMAC_SHA256, &sender_hash),
        data,
    })
}

fn open_app(app: &App, ring: &KeyRing) -> Result<OpenApp, UnwrapError> {
    let verify_key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<KeyBytes>());
    let algorithm = match app.provider {
        Provider::Meta | Provider::Generic => hmac::HMAC_SHA256,
        Provider::Twilio => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    };
    let signature_key = |secret: &AppSecret| {
        let opened = ring.unwrap(&app_context(&app.id, "secret"), &secret.wrapped)?;
        let key = hmac::Key::new(algorithm, &opened);
        Ok(SignatureKey { key, accepted_until: secret.accepted_until })
    };
    let verify_tag = |token: &Wrapped| {
        let opened = ring.unwrap(&app_context(&app.id, "verify-token"), token)?;
        Ok(hmac::sign(&verify_key, &opened))
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
