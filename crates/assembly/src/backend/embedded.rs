//! Everything in this process and its data folder.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backend_embedded::{DataFolder, Embedded};
use common::Clock;
use ports::outbox::Outbox as _;
use tokio::sync::Notify;

use super::{ApiPorts, Backend, GatewayPorts, NormalizerPorts, Opened};
use crate::bootstrap;
use crate::config::Config;
use crate::probes::Probe;

/// The databases, and the lock that goes with the process.
pub(super) struct Kept {
    databases: Embedded,
    _folder: DataFolder,
}

impl Kept {
    pub(super) async fn close(self) {
        self.databases.close().await;
    }
}

pub(super) async fn open(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Opened> {
    let folder = DataFolder::lock(&config.data_dir)?;
    let data_file = config.data_file().map_err(anyhow::Error::msg)?;
    if let Some(parent) = data_file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    bootstrap::complete(folder.path(), &data_file)?;
    let databases = Embedded::open(&folder, &data_file, clock.clone()).await.context("cannot open the databases")?;
    let outbox = databases.outbox.clone();
    let database = Probe::new("database", false, true, Duration::from_secs(1), move || {
        let outbox = outbox.clone();
        async move { outbox.unpublished().await.is_ok() }
    });
    Ok(Opened {
        bus: databases.bus.clone(),
        directory: databases.directory.clone(),
        gateway: Some(GatewayPorts { admission: databases.admission.clone() }),
        normalizer: Some(NormalizerPorts {
            store: databases.store.clone(),
            outbox: databases.outbox.clone(),
            parking: databases.parking.clone(),
            raw: databases.parking.clone(),
            request_log: databases.request_log.clone(),
            bell: Arc::new(Notify::new()),
        }),
        api: Some(ApiPorts {
            feed: databases.feed.clone(),
            messages: databases.message_log.clone(),
            directory: databases.directory.clone(),
            parking: databases.parking.clone(),
            raw: databases.parking.clone(),
            access: databases.access.clone(),
            statistics: databases.statistics.clone(),
        }),
        probes: vec![database],
        backend: Backend::Embedded(Kept { databases, _folder: folder }),
    })
}
