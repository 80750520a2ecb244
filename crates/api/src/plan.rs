//! What an import changes: a document and a directory in, the entries that change or all problems out.
//!
//! A pure function, so that the command line can tell before it sends. Problems name places, never values: a secret in
//! the wrong place must not come back. Nothing is removed, and a number never moves to another app, because that would
//! make the updates on their way foreign; its tenant may change at any moment of time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use actix_web::http::Uri;
use common::directory::{
    App, Assignment, Directory, Entry, MAX_DEFAULT_APPS, Number, OpenDirectory, Tenant, TenantStatus,
};
use common::ids::WabaId;
use common::keys::KeyRing;
use common::update::Provider;
use common::{AppId, NumberId, TenantId, Timestamp};
use ring::hmac;

use crate::import::{Import, ImportApp, ImportNumber, ImportTenant};
use crate::problem::FieldError;

pub(crate) const MAX_NAME_CHARS: usize = 200;
const MAX_ACCOUNT: usize = 64;

/// The entries of `current` that change when `import` is written, with secrets and new keys wrapped under the ring's
/// first key; or everything that is wrong with it, each as `<place>: <what>`.
pub fn apply_import(import: &Import, current: &Directory, ring: &KeyRing) -> Result<Vec<Entry>, Vec<String>> {
    plan(import, current, ring).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

pub(crate) fn plan(import: &Import, current: &Directory, ring: &KeyRing) -> Result<Vec<Entry>, Vec<FieldError>> {
    let mut plan = Plan {
        current,
        ring,
        tenants: BTreeSet::new(),
        apps: BTreeSet::new(),
        numbers: BTreeMap::new(),
        starts: BTreeSet::new(),
        wabas: BTreeMap::new(),
        changed: Vec::new(),
        problems: Vec::new(),
    };
    for (index, tenant) in import.tenants.iter().enumerate() {
        plan.tenant(&format!("tenants[{index}]"), tenant);
    }
    for (index, app) in import.apps.iter().enumerate() {
        plan.app(&format!("apps[{index}]"), app);
    }
    for (index, number) in import.numbers.iter().enumerate() {
        plan.number(&format!("numbers[{index}]"), number);
    }
    plan.finish()
}

struct Plan<'a> {
    current: &'a Directory,
    ring: &'a KeyRing,
    /// Ids of tenants in the document so far, valid or not.
    tenants: BTreeSet<&'a str>,
    /// Ids of apps in the document so far, valid or not.
    apps: BTreeSet<&'a str>,
    /// Numbers of the document so far, as they shall be.
    numbers: BTreeMap<NumberId, Number>,
    /// Which numbers have an owner from when on, in the document so far.
    starts: BTreeSet<(NumberId, Timestamp)>,
    /// The WABAs of numbers in the document so far.
    wabas: BTreeMap<NumberId, WabaId>,
    changed: Vec<Entry>,
    problems: Vec<FieldError>,
}

impl<'a> Plan<'a> {
    fn problem(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.problems.push(FieldError::new(place, message));
    }

    fn id<T: FromStr<Err: fmt::Display>>(&mut self, place: String, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.problem(place, error.to_string())).ok()
    }

    fn tenant_id(&mut self, place: String, text: &str) -> Option<TenantId> {
        let id: TenantId = self.id(place.clone(), text)?;
        if id.is_unassigned() {
            self.problem(place, "is reserved for what belongs to nobody");
            return None;
        }
        Some(id)
    }

    fn tenant(&mut self, place: &str, tenant: &'a ImportTenant) {
        let id = self.tenant_id(format!("{place}.id"), &tenant.id);
        let fresh = self.tenants.insert(&tenant.id);
        if !fresh {
            self.problem(format!("{place}.id"), "is in the document more than once");
        }
        let name = tenant.name.as_deref();
        if name.is_some_and(|name| !is_name(name)) {
            let rule = format!("must be 1 to {MAX_NAME_CHARS} characters, not all white space, without control codes");
            self.problem(format!("{place}.name"), rule);
        }
        let Some(id) = id.filter(|_| fresh) else { return };
        match self.current.tenant(&id) {
            None => self.changed.push(Entry::Tenant(Tenant::create(id, tenant.name.clone(), self.ring))),
            Some(known) if name.is_some() && name != known.name.as_deref() => {
                self.changed.push(Entry::Tenant(Tenant { name: tenant.name.clone(), ..known.clone() }));
            }
            Some(_) => {}
        }
    }

    fn app(&mut self, place: &str, app: &'a ImportApp) {
        let id = self.id::<AppId>(format!("{place}.id"), &app.id);
        let fresh = self.apps.insert(&app.id);
        if !fresh {
            self.problem(format!("{place}.id"), "is in the document more than once");
        }
        if app.secrets.is_empty() {
            self.problem(format!("{place}.secrets"), "must hold at least one secret");
        }
        self.secrets(&format!("{place}.secrets"), &app.secrets);
        if app.verify_tokens.are_left_out() && app.provider == Provider::Meta {
            self.problem(format!("{place}.verify_tokens"), "is missing; an app of Meta must say them, `[]` for none");
        }
        self.secrets(&format!("{place}.verify_tokens"), app.verify_tokens.as_slice());
        for problem in addresses(app.account.as_deref(), app.public_url.as_deref()) {
            self.problem(format!("{place}.{}", problem.field), problem.message);
        }
        let Some(id) = id.filter(|_| fresh) else { return };
        if self.current.app(&id).is_some_and(|known| is_same(known, app, self.ring)) {
            return;
        }
        let texts = |values: &'a [String]| values.iter().map(String::as_str).collect::<Vec<_>>();
        let (secrets, tokens) = (texts(&app.secrets), texts(app.verify_tokens.as_slice()));
        let new = App::create(id, app.provider, &secrets, &tokens, self.ring);
        let known = self.current.app(&new.id);
        let account = app.account.clone().or_else(|| known.and_then(|it| it.account.clone()));
        let public_url = app.public_url.clone().or_else(|| known.and_then(|it| it.public_url.clone()));
        self.changed.push(Entry::App(App { default: app.default, account, public_url, ..new }));
    }

    fn secrets(&mut self, place: &str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            let place = format!("{place}[{index}]");
            if let Err(error) = check_secret(&place, value) {
                self.problems.push(error);
            } else if values[..index].contains(value) {
                self.problem(place, "repeats an earlier one");
            }
        }
    }

    fn number(&mut self, place: &str, row: &'a ImportNumber) {
        let id = self.id::<NumberId>(format!("{place}.phone_number_id"), &row.phone_number_id);
        let waba = row.waba_id.as_deref().map(|text| self.id::<WabaId>(format!("{place}.waba_id"), text));
        let app = self.known_app(format!("{place}.app"), &row.app);
        let tenant = self.known_tenant(format!("{place}.tenant"), &row.tenant);
        let (Some(id), Some(app), Some(tenant)) = (id, app, tenant) else { return };

        let known = self.numbers.get(&id).or_else(|| self.current.number(&id)).cloned();
        let mut number = known.unwrap_or_else(|| Number {
            id: Some(id.clone()),
            waba: None,
            app: app.clone(),
            assignments: Vec::new(),
        });
        if number.app != app {
            self.problem(format!("{place}.app"), "the number is registered under another app");
        }
        if !self.starts.insert((id.clone(), row.valid_from)) {
            self.problem(place, "this number with this `valid_from` is in the document more than once");
        }
        if let Some(waba) = waba.flatten() {
            if self.wabas.insert(id.clone(), waba.clone()).is_some_and(|earlier| earlier != waba) {
                self.problem(format!("{place}.waba_id"), "differs from an earlier one of this number");
            }
            number.waba = Some(waba);
        }
        number.assign(Assignment { tenant: Some(tenant), valid_from: row.valid_from });
        self.numbers.insert(id, number);
    }

    fn known_app(&mut self, place: String, text: &str) -> Option<AppId> {
        let id: AppId = self.id(place.clone(), text)?;
        if !self.apps.contains(text) && self.current.app(&id).is_none() {
            self.problem(place, "is neither in the document nor in the directory");
            return None;
        }
        Some(id)
    }

    fn known_tenant(&mut self, place: String, text: &str) -> Option<TenantId> {
        let id = self.tenant_id(place.clone(), text)?;
        match self.current.tenant(&id) {
            None if !self.tenants.contains(text) => {
                self.problem(place, "is neither in the document nor in the directory");
                None
            }
            // What came for it would be parked for ever.
            Some(tenant) if tenant.status == TenantStatus::Offboarded => {
                self.problem(place, "has left");
                None
            }
            _ => Some(id),
        }
    }

    fn finish(mut self) -> Result<Vec<Entry>, Vec<FieldError>> {
        let changed = self.changed.iter().filter_map(app_of);
        if let Err(error) = check_defaults("apps", self.current, changed) {
            self.problems.push(error);
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let moved = self.numbers.into_iter().filter(|(id, number)| self.current.number(id) != Some(number));
        self.changed.extend(moved.map(|(_, number)| Entry::Number(number)));
        Ok(self.changed)
    }
}

/// What is wrong with an app that was changed, its new verification tokens included.
pub(crate) fn check_app(app: &App, tokens: Option<&[String]>, current: &Directory) -> Result<(), Vec<FieldError>> {
    let mut problems = addresses(app.account.as_deref(), app.public_url.as_deref());
    for (index, token) in tokens.unwrap_or_default().iter().enumerate() {
        problems.extend(check_secret(&format!("verify_tokens[{index}]"), token).err());
    }
    problems.extend(check_defaults("default", current, std::iter::once(app)).err());
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What cannot be a secret, because it was surely pasted wrong.
pub(crate) fn check_secret(place: &str, value: &str) -> Result<(), FieldError> {
    if value.trim().is_empty() {
        return Err(FieldError::new(place, "is blank"));
    }
    if value.trim() != value || value.chars().any(char::is_control) {
        return Err(FieldError::new(place, "begins or ends with white space, or holds control codes"));
    }
    Ok(())
}

fn addresses(account: Option<&str>, public_url: Option<&str>) -> Vec<FieldError> {
    let mut problems = Vec::new();
    let is_account =
        |text: &str| (1..=MAX_ACCOUNT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if account.is_some_and(|text| !is_account(text)) {
        problems.push(FieldError::new("account", format!("must be 1 to {MAX_ACCOUNT} letters and digits")));
    }
    if public_url.is_some_and(|text| !is_origin(text)) {
        problems.push(FieldError::new("public_url", "must be like https://hooks.example.com, without a path"));
    }
    problems
}

/// Whether it is scheme, host and maybe a port, and nothing else.
fn is_origin(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    uri.is_some_and(|uri| {
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_bare = text.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?', '#', '@']));
        is_web && is_bare && uri.host().is_some_and(|host| !host.is_empty())
    })
}

fn app_of(entry: &Entry) -> Option<&App> {
    if let Entry::App(app) = entry { Some(app) } else { None }
}

/// Paths without an app try the default apps' secrets, so there may be only few of each provider.
fn check_defaults<'a>(
    place: &str,
    current: &'a Directory,
    changed: impl Iterator<Item = &'a App>,
) -> Result<(), FieldError> {
    let mut defaults: BTreeMap<&AppId, (Provider, bool)> = BTreeMap::new();
    for app in current.entries.values().filter_map(app_of).chain(changed) {
        defaults.insert(&app.id, (app.provider, app.default));
    }
    let mut of_provider: BTreeMap<Provider, usize> = BTreeMap::new();
    for (provider, _) in defaults.values().filter(|(_, default)| *default) {
        *of_provider.entry(*provider).or_default() += 1;
    }
    if of_provider.values().all(|count| *count <= MAX_DEFAULT_APPS) {
        return Ok(());
    }
    let message = format!(
        "at most {MAX_DEFAULT_APPS} apps can be `default`; set `default = false` for others and use their own paths"
    );
    Err(FieldError::new(place, message))
}

pub(crate) fn is_name(name: &str) -> bool {
    name.chars().count() <= MAX_NAME_CHARS && !name.trim().is_empty() && !name.chars().any(deceives)
}

/// Whether a character could make a list show something else than what is in it: it moves the cursor, breaks the line or
/// turns the direction of what follows.
fn deceives(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether an app already is what the document says. Wrapped secrets differ each time, so it is opened and asked. One
/// that does not open is not the same: the import brings it back.
fn is_same(known: &App, wanted: &ImportApp, ring: &KeyRing) -> bool {
    const PROBE: &[u8] = b"wharf/import/probe";
    let entry = Entry::App(known.clone());
    let alone = Directory { revision: 0, entries: BTreeMap::from([(entry.key(), entry)]) };
    let Ok(open) = OpenDirectory::open(&alone, ring) else { return false };
    let Some(open) = open.app(known.id.as_str()) else { return false };
    let signs_alike = |(secret, key): (&String, &hmac::Key)| {
        let tag = hmac::sign(&hmac::Key::new(key.algorithm(), secret.as_bytes()), PROBE);
        hmac::verify(key, PROBE, tag.as_ref()).is_ok()
    };
    // The document's tokens all differ, so as many as are known, all accepted, are the same tokens.
    known.provider == wanted.provider
        && (wanted.account.is_none() || wanted.account == known.account)
        && (wanted.public_url.is_none() || wanted.public_url == known.public_url)
        && known.default == wanted.default
        && known.secrets.len() == wanted.secrets.len()
        && known.verify_tokens.len() == wanted.verify_tokens.as_slice().len()
        && known.secrets.iter().all(|secret| secret.accepted_until.is_none())
        && wanted.secrets.iter().zip(open.signature_keys(Timestamp::default())).all(signs_alike)
        && wanted.verify_tokens.as_slice().iter().all(|token| open.accepts_verify_token(token))
}

#[cfg(test)]
mod tests;
