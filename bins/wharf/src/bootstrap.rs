//! What must be there before the jobs start: keys, the admin token, the reserved tenant, the single tenant.

use std::path::Path;

use anyhow::Context as _;
use common::directory::{App, Assignment, Directory, Entry, Number, Tenant};
use common::keys::KeyRing;
use common::update::Provider;
use common::{AppId, TenantId, Timestamp};
use ports::directory::DirectoryStore;
use secrecy::{ExposeSecret as _, SecretString};
use service::keys::KeyFile;

use crate::config::Config;

/// The admin token: as configured, or from a file that is made on the first start. Returns the file's path if it is
/// used, and whether it is new.
pub(crate) fn admin_token(
    config: &Config,
    folder: &Path,
) -> anyhow::Result<(SecretString, Option<std::path::PathBuf>)> {
    let configured = config.api.admin_token.expose_secret();
    if !configured.is_empty() {
        return Ok((SecretString::from(configured), None));
    }
    let path = folder.join("admin.token");
    service::keys::write_private(&path, &format!("{}\n", hex::encode(rand::random::<[u8; 32]>())))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty; delete it to have a new token made", path.display());
    Ok((SecretString::from(text.trim()), Some(path)))
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

/// The master keys. A missing file is made only as long as nothing is sealed: a new key opens nothing that an old one
/// sealed.
pub(crate) async fn keys(path: &Path, store: &dyn DirectoryStore) -> anyhow::Result<(KeyFile, bool)> {
    let directory = store.snapshot().await.context("cannot read the directory")?;
    if !path.exists() && !directory.entries.is_empty() {
        anyhow::bail!(
            "the key file {} is missing, but the data folder holds data that is sealed under its keys; put it back \
             (or name it with WHARF__KEYS__FILE)",
            path.display()
        );
    }
    Ok(KeyFile::open_or_create(path)?)
}

/// Brings the directory to what the configuration says, and everything in it under the active master key.
pub(crate) async fn directory(
    store: &dyn DirectoryStore,
    ring: &KeyRing,
    config: &Config,
    now: Timestamp,
) -> anyhow::Result<()> {
    let current = store.snapshot().await.context("cannot read the directory")?;
    let mut entries = current.rewrap(ring).context("cannot bring the directory under the active master key")?;
    let unassigned = TenantId::unassigned();
    if current.tenant(&unassigned).is_none() {
        entries.push(Entry::Tenant(Tenant::create(unassigned, None, ring)));
    }
    entries.extend(single_tenant(&current, ring, config, now)?);
    if !entries.is_empty() {
        store.write(entries).await.context("cannot write the directory")?;
    }
    Ok(())
}

/// The entries of single-tenant operation, if it is configured: tenant and app `default`, and every number of the app.
fn single_tenant(current: &Directory, ring: &KeyRing, config: &Config, now: Timestamp) -> anyhow::Result<Vec<Entry>> {
    let secrets = config.meta.secrets();
    if secrets.is_empty() {
        return Ok(Vec::new());
    }
    let app = AppId::new("default")?;
    let tenant = TenantId::default();
    let tokens = [config.meta.verify_token.expose_secret()];
    let mut entries = vec![Entry::App(App::create(app.clone(), Provider::Meta, &secrets, &tokens, ring))];
    if current.tenant(&tenant).is_none() {
        entries.push(Entry::Tenant(Tenant::create(tenant.clone(), None, ring)));
    }
    let single = Entry::SingleTenant(true);
    if current.entries.get(&single.key()) != Some(&single) {
        let owner = Assignment { tenant, valid_from: Timestamp::from_millis(now.as_millis().min(0)) };
        entries.push(Entry::Number(Number { id: None, waba: None, app, assignments: vec![owner] }));
        entries.push(single);
    }
    Ok(entries)
}
