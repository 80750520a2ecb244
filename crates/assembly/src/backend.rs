//! The opened backend of a process: what its jobs need of it, as ports.
//!
//! From here on nothing knows which backend it is. A job that the process does not do is not provided for: a gateway
//! has no way to reach a database.

mod distributed;
mod embedded;

use std::sync::Arc;

use anyhow::Context as _;
use common::Clock;
use object_store::local::LocalFileSystem;
use ports::access::Access;
use ports::admission::Admission;
use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use ports::event_store::EventStore;
use ports::feed::Feed;
use ports::message_log::MessageLog;
use ports::outbox::Outbox;
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::request_log::RequestLog;
use ports::statistics::Statistics;
use service::Tasks;
use tokio::sync::Notify;

use crate::config::{BackendKind, Config};
use crate::jobs::Jobs;
use crate::probes::Probe;

pub(crate) use distributed::Servers;

/// See the module's documentation.
pub(crate) struct Opened {
    pub(crate) bus: Arc<dyn EventBus>,
    /// The directory as this process reads it.
    pub(crate) directory: Arc<dyn DirectoryStore>,
    /// What the gateway needs further.
    pub(crate) gateway: Option<GatewayPorts>,
    /// What the normalizer needs further.
    pub(crate) normalizer: Option<NormalizerPorts>,
    /// What the API needs further.
    pub(crate) api: Option<ApiPorts>,
    /// What of the backend readiness shows beside the bus.
    pub(crate) probes: Vec<Probe>,
    backend: Backend,
}

pub(crate) struct GatewayPorts {
    pub(crate) admission: Arc<dyn Admission>,
}

pub(crate) struct NormalizerPorts {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) parking: Arc<dyn Parking>,
    pub(crate) raw: Arc<dyn RawIndex>,
    pub(crate) request_log: Arc<dyn RequestLog>,
    /// Rung when events were committed, by this process or, where there are several, by another.
    pub(crate) bell: Arc<Notify>,
}

pub(crate) struct ApiPorts {
    pub(crate) feed: Arc<dyn Feed>,
    pub(crate) messages: Arc<dyn MessageLog>,
    /// The directory as it is written.
    pub(crate) directory: Arc<dyn DirectoryStore>,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) parking: Arc<dyn Parking>,
    pub(crate) raw: Arc<dyn RawIndex>,
    pub(crate) statistics: Arc<dyn Statistics>,
}

enum Backend {
    Embedded(embedded::Kept),
    Distributed(Box<Servers>),
}

impl Opened {
    /// Opens what the jobs need. Whatever was opened is closed again if it fails.
    pub(crate) async fn open(config: &Config, jobs: Jobs, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        match config.backend.kind {
            BackendKind::Embedded => embedded::open(config, clock).await,
            BackendKind::Distributed => distributed::open(config, jobs, clock).await,
        }
    }

    /// Starts what the backend has to do in the background. Once the directory is written.
    pub(crate) async fn start_upkeep(&self, tasks: &Tasks) {
        if let Backend::Distributed(servers) = &self.backend {
            let bell = self.normalizer.as_ref().map(|ports| ports.bell.clone());
            servers.start_upkeep(bell, tasks).await;
        }
    }

    /// Closes everything. What was acknowledged is safe with or without it.
    pub(crate) async fn close(self) {
        match self.backend {
            Backend::Embedded(kept) => kept.close().await,
            Backend::Distributed(servers) => servers.close().await,
        }
    }
}

/// The folder of blobs.
pub(crate) fn blobs(config: &Config) -> anyhow::Result<LocalFileSystem> {
    let folder = config.blobs_folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(LocalFileSystem::new_with_prefix(folder).context("cannot use the folder of blobs")?.with_fsync(true))
}
