//! What must be there before the jobs start: keys, the admin token, the reserved tenant, the single tenant.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::{Import, ImportApp};
use common::directory::{Assignment, Directory, Entry, Number, Tenant};
use common::keys::KeyRing;
use common::{AppId, TenantId, Timestamp};
use ports::directory::{DirectoryStore, update};
use secrecy::{ExposeSecret as _, SecretString};
use service::keys::KeyFile;

use crate::config::{BackendKind, Config};
use crate::jobs::Jobs;

/// The token of the API.
pub(crate) struct AdminToken {
    pub(crate) secret: SecretString,
    /// Where it is kept, if it is not configured.
    pub(crate) file: Option<PathBuf>,
}

/// The admin token: as configured, or from a file that is made on the first start.
pub(crate) fn admin_token(config: &Config) -> anyhow::Result<AdminToken> {
    let configured = config.api.admin_token.expose_secret();
    if !configured.is_empty() {
        return Ok(AdminToken { secret: SecretString::from(configured), file: None });
    }
    let path = config.data_dir.join("admin.token");
    make_folder_of(&path)?;
    service::keys::write_private(&path, &format!("{}\n", hex::encode(rand::random::<[u8; 32]>())))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty; delete it to have a new token made", path.display());
    Ok(AdminToken { secret: SecretString::from(text.trim()), file: Some(path) })
}

fn make_folder_of(path: &Path) -> anyhow::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))
}

/// Refuses a folder of which a database is missing: a new one beside the others would look like a good start and be a
/// loss.
pub(crate) fn complete(folder: &Path, data_file: &Path) -> anyhow::Result<()> {
    let (inbound, bus) = (folder.join("inbound.db"), folder.join("bus.db"));
    for (there, missing) in [(data_file, &*inbound), (data_file, &*bus), (&*inbound, data_file)] {
        anyhow::ensure!(
            !there.exists() || missing.exists(),
            "{} is there, but {} is missing; restore it, or begin with an empty data folder",
            there.display(),
            missing.display()
        );
    }
    Ok(())
}

/// The master keys of a process. `wharf up` makes a missing file; a job of its own does not: each of its kind would make
/// other keys than the rest.
pub(crate) async fn keys(config: &Config, jobs: Jobs, store: &dyn DirectoryStore) -> anyhow::Result<(KeyFile, bool)> {
    let path = config.key_file();
    if jobs != Jobs::All {
        anyhow::ensure!(
            path.exists(),
            "the key file {} is missing; `wharf migrate` makes one, and each process needs a copy of it (name it with \
             WHARF__KEYS__FILE)",
            path.display()
        );
        return Ok((KeyFile::open(&path)?, false));
    }
    open_or_make_keys(config, store).await
}

/// The master keys. A missing file is made only as long as nothing is sealed: a new key opens nothing that an old one
/// sealed. True if it was made.
pub(crate) async fn open_or_make_keys(config: &Config, store: &dyn DirectoryStore) -> anyhow::Result<(KeyFile, bool)> {
    let path = config.key_file();
    let directory = store.snapshot().await.context("cannot read the directory")?;
    if !path.exists() && !directory.entries.is_empty() {
        let place = match config.backend.kind {
            BackendKind::Embedded => "data folder",
            BackendKind::Distributed => "database",
        };
        anyhow::bail!(
            "the key file {} is missing, but the {place} holds data that is sealed under its keys; put it back \
             (or name it with WHARF__KEYS__FILE)",
            path.display()
        );
    }
    make_folder_of(&path)?;
    Ok(KeyFile::open_or_create(&path)?)
}

/// Brings the directory to what the configuration says, and everything in it under the active master key.
pub(crate) async fn directory(
    store: &dyn DirectoryStore,
    ring: &KeyRing,
    config: &Config,
    now: Timestamp,
) -> anyhow::Result<()> {
    let planned = |current: &Directory| {
        let mut entries = current.rewrap(ring).context("cannot bring the directory under the active master key")?;
        let unassigned = TenantId::unassigned();
        if current.tenant(&unassigned).is_none() {
            entries.push(Entry::Tenant(Tenant::create(unassigned, None, ring)));
        }
        entries.extend(single_tenant(current, ring, config, now)?);
        anyhow::Ok(entries)
    };
    update(store, planned).await.context("cannot bring the directory up to date")?;
    Ok(())
}

/// The entries of single-tenant operation, if it is configured: the tenant `default`, an app for each provider that has a
/// secret, and every number of those apps.
fn single_tenant(current: &Directory, ring: &KeyRing, config: &Config, now: Timestamp) -> anyhow::Result<Vec<Entry>> {
    let apps = config.apps();
    if apps.is_empty() {
        return Ok(Vec::new());
    }
    let tenant = TenantId::default();
    let mut entries = Vec::new();
    if current.tenant(&tenant).is_none() {
        entries.push(Entry::Tenant(Tenant::create(tenant.clone(), None, ring)));
    }
    let texts = |values: &[&str]| values.iter().copied().map(str::to_owned).collect::<BTreeSet<_>>();
    let mut import = Import::default();
    for configured in apps {
        let id = AppId::new(configured.id)?;
        // What is said of an app otherwise stays as it is, and nothing is written that is there already.
        import.apps.push(ImportApp {
            id: configured.id.to_owned(),
            provider: configured.provider,
            secrets: configured.secrets.iter().copied().map(str::to_owned).collect(),
            verify_tokens: texts(&configured.verify_tokens).into_iter().collect(),
            default: current.app(&id).is_none_or(|known| known.default),
            account: configured.account.map(str::to_owned),
            public_url: None,
        });
        let owner =
            Assignment { tenant: Some(tenant.clone()), valid_from: Timestamp::from_millis(now.as_millis().min(0)) };
        let numbers = Entry::Number(Number { id: None, waba: None, app: id, assignments: vec![owner] });
        if !current.entries.contains_key(&numbers.key()) {
            entries.push(numbers);
        }
    }
    let changed = api::apply_import(&import, current, ring);
    entries.extend(changed.map_err(|problems| anyhow::anyhow!("the configured secrets: {}", problems.join("; ")))?);
    let single = Entry::SingleTenant(true);
    if current.entries.get(&single.key()) != Some(&single) {
        entries.push(single);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::directory::App;

    use super::*;
    use crate::config::{Purpose, load};

    fn config(pairs: &[(&str, &str)]) -> Config {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(None, &environment, &[], Purpose::Run(Jobs::All)).config.unwrap()
    }

    fn started(directory: &mut Directory, ring: &KeyRing, config: &Config) -> usize {
        let entries = single_tenant(directory, ring, config, Timestamp::default()).unwrap();
        let count = entries.len();
        directory.entries.extend(entries.into_iter().map(|entry| (entry.key(), entry)));
        count
    }

    #[test]
    fn another_start_leaves_what_is_there_and_other_secrets_replace_the_old() {
        let ring = KeyRing::parse(&format!("k1 {}", "07".repeat(32))).unwrap();
        let first = [
            ("WHATSAPP_APP_SECRET", "first-app-secret"),
            ("WHATSAPP_VERIFY_TOKEN", "token"),
            ("TWILIO_AUTH_TOKEN", "twilio-auth-token"),
            ("TWILIO_ACCOUNT_SID", "AC0123456789"),
        ];
        let mut directory = Directory { revision: 0, entries: BTreeMap::new() };
        assert_eq!(started(&mut directory, &ring, &config(&first)), 6, "tenant, two apps, their numbers, the mark");
        let id = AppId::new("default").unwrap();
        let app = directory.app(&id).unwrap().clone();
        let public_url = Some("https://hooks.example.com".to_owned());
        let changed = Entry::App(App { public_url: public_url.clone(), default: false, ..app });
        directory.entries.insert(changed.key(), changed);
        assert_eq!(started(&mut directory, &ring, &config(&first)), 0);
        let second = [("WHATSAPP_APP_SECRET", "second-app-secret"), ("WHATSAPP_VERIFY_TOKEN", "token")];
        assert_eq!(started(&mut directory, &ring, &config(&second)), 1);
        let app = directory.app(&id).unwrap();
        assert_eq!((&app.public_url, app.default, app.secrets.len()), (&public_url, false, 1));
    }
}
