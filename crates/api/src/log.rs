//! What is written down of a request beside its route, its path and how it ended: to what it was done, what was changed,
//! and whose it is.
//!
//! It is collected while the request is handled; whoever handles it adds what he knows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use common::TenantId;
use common::directory::{App, Directory, Entry, Number, Tenant};
use ports::access::Done;

/// The longest text about changes that is kept, in characters.
const MAX_DETAILS: usize = 2000;
/// Characters of a name that are kept.
const MAX_NAME: usize = 64;

tokio::task_local! {
    static LOG: RefCell<Log>;
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Log {
    done: Done,
    changes: Vec<Change>,
}

/// One entry of the directory, changed.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    text: String,
    /// Whether the entry is new. Where not all is told, that something was added matters least.
    is_new: bool,
    /// Whose it is, and whose it was.
    tenants: BTreeSet<TenantId>,
}

/// Handles a request; what came of it, and what was noted meanwhile.
pub(crate) async fn collect<T>(handled: impl Future<Output = T>) -> (T, Log) {
    let handled = async {
        let answer = handled.await;
        (answer, LOG.with(RefCell::take))
    };
    LOG.scope(RefCell::default(), handled).await
}

fn note(add: impl FnOnce(&mut Log)) {
    // What is not written down has nobody who collects.
    let _ = LOG.try_with(|log| add(&mut log.borrow_mut()));
}

/// Notes what the request is done to, where its path does not say so.
pub(crate) fn target(text: impl Into<String>) {
    note(|log| log.done.target = Some(text.into()));
}

/// Notes whose data it concerns.
pub(crate) fn tenant(id: &TenantId) {
    note(|log| log.done.tenant = Some(id.clone()));
}

/// Notes what was done, if it is no change of the directory.
pub(crate) fn details(text: impl Into<String>) {
    note(|log| log.done.details = Some(text.into()));
}

/// What is noted of changes of the directory, before they are made.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    pub(crate) fn of(before: &Directory, entries: &[Entry]) -> Self {
        Self(entries.iter().map(|entry| described(before.entries.get(&entry.key()), entry)).collect())
    }

    /// Notes them: they were made.
    pub(crate) fn note(self) {
        note(|log| log.changes.extend(self.0));
    }
}

impl Log {
    /// What is known of the request that concerns this tenant, or nobody's.
    pub(crate) fn done(&self) -> Done {
        let (new, changed): (Vec<_>, Vec<_>) = self.changes.iter().partition(|change| change.is_new);
        let details = joined(changed.into_iter().chain(new).map(|change| change.text.as_str()));
        Done { details: details.or_else(|| self.done.details.clone()), ..self.done.clone() }
    }

    /// What other tenants must find among what concerns them.
    pub(crate) fn others(&self, own: Option<&TenantId>) -> Vec<(TenantId, Option<String>)> {
        let mut all: BTreeMap<&TenantId, Vec<&str>> = BTreeMap::new();
        for change in &self.changes {
            for tenant in change.tenants.iter().filter(|tenant| Some(*tenant) != own) {
                all.entry(tenant).or_default().push(&change.text);
            }
        }
        all.into_iter().map(|(tenant, texts)| (tenant.clone(), joined(texts.into_iter()))).collect()
    }
}

/// One text of several, cut where it is too long.
fn joined<'t>(texts: impl Iterator<Item = &'t str>) -> Option<String> {
    let (mut all, mut left) = (String::new(), 0_usize);
    for text in texts {
        if all.is_empty() && text.chars().count() > MAX_DETAILS {
            all.extend(text.chars().take(MAX_DETAILS).chain(['…']));
            continue;
        }
        if left > 0 || all.chars().count() + text.chars().count() > MAX_DETAILS {
            left += 1;
            continue;
        }
        if !all.is_empty() {
            all.push_str("; ");
        }
        all.push_str(text);
    }
    if left > 0 {
        let _ = write!(all, "; and {left} more");
    }
    (!all.is_empty()).then_some(all)
}

fn described(before: Option<&Entry>, after: &Entry) -> Change {
    let is_new = before.is_none();
    let registered = || vec!["registered".to_owned()];
    let (what, parts, tenants) = match (before, after) {
        (before, Entry::Tenant(after)) => {
            let parts = if let Some(Entry::Tenant(before)) = before { of_tenant(before, after) } else { registered() };
            (format!("tenant {}", after.id), parts, BTreeSet::from([after.id.clone()]))
        }
        (before, Entry::App(after)) => {
            let parts = if let Some(Entry::App(before)) = before { of_app(before, after) } else { registered() };
            (format!("app {}", after.id), parts, BTreeSet::new())
        }
        (before, Entry::Number(after)) => {
            let before = if let Some(Entry::Number(before)) = before { Some(before) } else { None };
            let (parts, tenants) = of_number(before, after);
            (number(after), parts, tenants)
        }
        (_, Entry::SingleTenant(is)) => ("single-tenant operation".to_owned(), vec![is.to_string()], BTreeSet::new()),
    };
    Change { text: format!("{what}: {}", parts.join(", ")), is_new, tenants }
}

fn of_tenant(before: &Tenant, after: &Tenant) -> Vec<String> {
    let mut parts = Vec::new();
    if before.status != after.status {
        parts.push(format!("{} -> {}", before.status.as_str(), after.status.as_str()));
    }
    if before.name != after.name {
        parts.push(format!("renamed {} -> {}", quoted(before.name.as_deref()), quoted(after.name.as_deref())));
    }
    if before.data_keys != after.data_keys {
        parts.push("keys".to_owned());
    }
    parts
}

/// A name, or its beginning. What it holds can be taken for nothing else of the text.
fn quoted(name: Option<&str>) -> String {
    let Some(name) = name else { return "none".to_owned() };
    let cut = if name.chars().nth(MAX_NAME).is_some() { "…" } else { "" };
    format!("{:?}{cut}", name.chars().take(MAX_NAME).collect::<String>())
}

fn of_app(before: &App, after: &App) -> Vec<String> {
    let mut parts = Vec::new();
    if before.secrets != after.secrets {
        let accepted = after.secrets.len();
        parts.push(match after.secrets.iter().filter_map(|secret| secret.accepted_until).max() {
            Some(until) => format!("secrets, {accepted} accepted, old ones until {until}"),
            None => format!("secrets, {accepted} accepted"),
        });
    }
    if before.verify_tokens != after.verify_tokens {
        parts.push("verification tokens".to_owned());
    }
    if before.default != after.default {
        parts.push(format!("default {} -> {}", before.default, after.default));
    }
    if before.account != after.account {
        parts.push(format!("account {}", after.account.as_deref().unwrap_or("none")));
    }
    if before.public_url != after.public_url {
        parts.push("public_url".to_owned());
    }
    parts
}

fn number(number: &Number) -> String {
    let id = number.id.as_ref();
    id.map_or_else(|| format!("every other number of app {}", number.app), |id| format!("number {id}"))
}

fn of_number(before: Option<&Number>, after: &Number) -> (Vec<String>, BTreeSet<TenantId>) {
    let (mut parts, mut tenants) = (Vec::new(), BTreeSet::new());
    let name = |tenant: Option<&TenantId>| tenant.map_or("nobody", TenantId::as_str).to_owned();
    for new in &after.assignments {
        if before.is_some_and(|before| before.assignments.contains(new)) {
            continue;
        }
        let (old, from) = (before.and_then(|before| before.owner_at(new.valid_from)), new.valid_from);
        parts.push(format!("{} -> {} from {from}", name(old), name(new.tenant.as_ref())));
        tenants.extend(old.into_iter().chain(new.tenant.as_ref()).cloned());
    }
    if before.is_some_and(|before| before.app != after.app) {
        parts.push(format!("app {}", after.app));
    }
    if before.is_some_and(|before| before.waba != after.waba) {
        parts.push(format!("account {}", after.waba.as_ref().map_or("none", common::ids::WabaId::as_str)));
    }
    if tenants.is_empty() {
        tenants.extend(after.assignments.last().and_then(|last| last.tenant.clone()));
    }
    (parts, tenants)
}
