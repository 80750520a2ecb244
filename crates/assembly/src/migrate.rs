//! `wharf migrate`: makes or updates databases, tables and streams, and once the master keys.

use anyhow::Context as _;
use backend_embedded::{DataFolder, Embedded};

use crate::backend::Servers;
use crate::bootstrap;
use crate::config::{BackendKind, Config, Mode};

/// Brings everything up to date. Returns what was done, a line each; a second run finds nothing to do.
pub async fn migrate(config: &Config) -> anyhow::Result<Vec<String>> {
    match config.backend.kind {
        BackendKind::Embedded => embedded(config).await,
        BackendKind::Distributed => {
            let servers = Servers::connect(config, "wharf", true).await?;
            let migrated = distributed(config, &servers).await;
            servers.close().await;
            migrated
        }
    }
}

async fn embedded(config: &Config) -> anyhow::Result<Vec<String>> {
    let folder = DataFolder::lock(&config.data_dir)?;
    let data_file = config.data_file().map_err(anyhow::Error::msg)?;
    Embedded::migrate(&folder, &data_file).await.context("cannot migrate the databases")?;
    Ok(vec![format!("the databases in {} are up to date", config.data_dir.display())])
}

async fn distributed(config: &Config, servers: &Servers) -> anyhow::Result<Vec<String>> {
    let mut done = servers.migrate(config.startup_wait()).await?;
    if config.mode == Mode::Production && config.replicas() == 1 {
        done.push("note: streams have one replica; in production three are advised (nats.replicas = 3)".to_owned());
    }
    let postgres = servers.postgres.as_ref().context("migrating needs PostgreSQL")?;
    let (_, is_new) = bootstrap::open_or_make_keys(config, &*postgres.directory()).await?;
    let path = config.key_file();
    done.push(if is_new {
        format!("made the master keys: {}; keep a copy, and give one to each process", path.display())
    } else {
        format!("the master keys are in {}", path.display())
    });
    Ok(done)
}
