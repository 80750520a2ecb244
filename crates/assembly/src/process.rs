//! A process: its jobs on its backend, started in order and stopped in reverse.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use anyhow::Context as _;
use common::{Clock, SystemClock};
use ingress::Front;
use secrecy::SecretString;
use service::Tasks;
use service::directory::DirectoryWatch;
use service::health::{Readiness, health_routes, metrics_route};
use service::telemetry::Metrics;
use service::tls::Tls;

use crate::backend::{self, Opened};
use crate::bootstrap::{self, AdminToken};
use crate::config::Config;
use crate::directory;
use crate::jobs::{Job, Jobs};
use crate::listeners::{DRAIN, Listener, Listeners};
use crate::probes::Probe;

/// A running process.
pub struct Process {
    jobs: Jobs,
    begun: Begun,
    listeners: Listeners,
    drain_pause: Duration,
    tasks: Tasks,
    opened: Opened,
}

/// What came of a start, as far as it is to be shown and stopped.
struct Begun {
    addresses: Addresses,
    token: Option<AdminToken>,
    key_file: PathBuf,
    key_file_is_new: bool,
    readiness: Readiness,
    directory: Arc<DirectoryWatch>,
}

/// Where the listeners are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For providers, if the gateway is among the jobs.
    pub public: Option<SocketAddr>,
    /// The API, if it is among the jobs.
    pub api: Option<SocketAddr>,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Process {
    /// Starts the jobs. When it returns, the listeners are open. What was started is stopped again if something fails.
    pub async fn start(config: &Config, jobs: Jobs) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let allowance = config.allowance()?;
        let metrics = Metrics::install().context("cannot install the metrics recorder")?;
        let mut opened = Opened::open(config, jobs, &clock).await?;
        let tasks = Tasks::new();
        let mut listeners = Listeners::new(allowance, &tasks);
        match begin(config, jobs, &clock, metrics, &mut opened, &tasks, &mut listeners).await {
            Ok(begun) => {
                let drain_pause = Duration::from_millis(config.listen.drain_pause_ms);
                Ok(Self { jobs, begun, listeners, drain_pause, tasks, opened })
            }
            Err(error) => {
                listeners.stop().await;
                tasks.stop();
                tasks.wait(DRAIN).await;
                opened.close().await;
                Err(error)
            }
        }
    }

    /// Its jobs.
    pub fn jobs(&self) -> Jobs {
        self.jobs
    }

    /// Where its listeners are.
    pub fn addresses(&self) -> Addresses {
        self.begun.addresses
    }

    /// The API's token, if there is an API.
    pub fn token(&self) -> Option<&SecretString> {
        self.begun.token.as_ref().map(|token| &token.secret)
    }

    /// Where the token is kept, if in a file.
    pub(crate) fn token_file(&self) -> Option<&PathBuf> {
        self.begun.token.as_ref().and_then(|token| token.file.as_ref())
    }

    /// The file of master keys, and whether this start made it.
    pub(crate) fn key_file(&self) -> (&PathBuf, bool) {
        (&self.begun.key_file, self.begun.key_file_is_new)
    }

    /// Resolves when a task of the process has ended unexpectedly.
    pub async fn failed(&self) {
        self.tasks.failed().await;
    }

    /// Whether a provider has a secret.
    pub(crate) async fn has_secrets(&self) -> bool {
        // The first load is under way while the listeners start.
        let loaded = tokio::time::timeout(Duration::from_secs(5), self.begun.directory.loaded()).await;
        loaded.is_ok_and(|directory| directory.has_any_secrets())
    }

    /// Stops in order: readiness, listeners with their running requests, workers, backend. False if something took
    /// too long and was cut off.
    pub async fn stop(self) -> bool {
        self.begun.readiness.drain();
        tokio::time::sleep(self.drain_pause).await;
        self.listeners.stop().await;
        self.tasks.stop();
        let complete = self.tasks.wait(DRAIN).await;
        self.opened.close().await;
        complete
    }
}

/// Everything between an opened backend and open listeners.
async fn begin(
    config: &Config,
    jobs: Jobs,
    clock: &Arc<dyn Clock>,
    metrics: Metrics,
    opened: &mut Opened,
    tasks: &Tasks,
    listeners: &mut Listeners,
) -> anyhow::Result<Begun> {
    let token = if opened.api.is_some() { Some(bootstrap::admin_token(config)?) } else { None };
    let written = opened.api.as_ref().map_or(&opened.directory, |ports| &ports.directory);
    let (keys, key_file_is_new) = bootstrap::keys(config, jobs, &**written).await?;
    let keys = Arc::new(keys);
    if let Some(ports) = &opened.api {
        bootstrap::directory(&*ports.directory, &keys.ring(), config, clock.now()).await?;
    }
    opened.start_upkeep(tasks).await;

    let readiness = Readiness::new();
    metrics.keep_up(tasks);
    let watch = directory::watch(&opened.directory, &keys, jobs.has(Job::Gateway), &readiness, tasks);
    let current = directory::current(&watch);
    if let Some(ports) = &opened.normalizer {
        let deps = normalizer::Deps {
            bus: opened.bus.clone(),
            store: ports.store.clone(),
            outbox: ports.outbox.clone(),
            parking: ports.parking.clone(),
            raw: ports.raw.clone(),
            request_log: ports.request_log.clone(),
            directory: current.clone(),
            blobs: Arc::new(backend::blobs(config)?),
            clock: clock.clone(),
        };
        normalizer::start(config.normalizer(), deps, tasks, ports.bell.clone());
    }
    let front = if opened.gateway.is_some() { config.front(tasks)? } else { Front::default() };
    let gateway = opened.gateway.as_ref().map(|ports| {
        let deps = ingress::Deps {
            bus: opened.bus.clone(),
            admission: ports.admission.clone(),
            directory: current.clone(),
            clock: clock.clone(),
        };
        ingress::Gateway::start(ingress::Config { front, ..config.ingress() }, deps, tasks)
    });
    bus_probe(opened, gateway.clone(), jobs).watch(&readiness, tasks);
    for probe in std::mem::take(&mut opened.probes) {
        probe.watch(&readiness, tasks);
    }

    let health = health_routes(readiness.clone());
    let mut addresses = Addresses { public: None, api: None, admin: config.listen.admin };
    if let Some(gateway) = gateway {
        let (routes, health) = (ingress::routes(gateway), health.clone());
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let tls = config.tls().map(|files| Tls::start(files, tasks)).transpose().context("cannot use TLS")?;
        let listener = Listener { name: "public", address: config.listen.public, workers, tls: tls.as_deref() };
        let serve = listeners.serve(&listener, move |app| {
            routes(app);
            health(app);
            app.default_service(web::to(ingress::not_found));
        });
        addresses.public = Some(serve?);
    }
    if let (Some(ports), Some(token)) = (&opened.api, &token) {
        directory::rewrap_on_change(&ports.directory, &keys, tasks);
        let routes = api::routes(api::Deps {
            feed: ports.feed.clone(),
            messages: ports.messages.clone(),
            directory: ports.directory.clone(),
            access: ports.access.clone(),
            parking: ports.parking.clone(),
            raw: ports.raw.clone(),
            blobs: Arc::new(backend::blobs(config)?),
            prefix: config.prefix().to_owned(),
            statistics: ports.statistics.clone(),
            keys: {
                let keys = keys.clone();
                Arc::new(move || keys.ring())
            },
            clock: clock.clone(),
            trusted_proxies: config.trusted_proxies()?,
            configured_apps: config.apps().iter().map(|app| app.id.to_owned()).collect(),
            admin_token: token.secret.clone(),
            metrics: Some(metrics.clone()),
            readiness: readiness.clone(),
        });
        addresses.api = Some(listeners.serve(&inner("API", config.listen.api), routes)?);
    }
    let metrics = metrics_route(metrics);
    addresses.admin = listeners.serve(&inner("admin", config.listen.admin), move |app| {
        health(app);
        metrics(app);
    })?;
    Ok(Begun { addresses, token, key_file: config.key_file(), key_file_is_new, readiness, directory: watch })
}

/// A listener that few reach.
fn inner(name: &'static str, address: SocketAddr) -> Listener<'static> {
    Listener { name, address, workers: 1, tls: None }
}

/// Whether the bus does its work: as the gateway finds it, else whether it is connected. The API runs without it.
fn bus_probe(opened: &Opened, gateway: Option<Arc<ingress::Gateway>>, jobs: Jobs) -> Probe {
    let bus = opened.bus.clone();
    let required = jobs != Jobs::Only(Job::Api);
    Probe::new("bus", required, true, Duration::from_secs(1), move || {
        let up = gateway.as_ref().map_or_else(|| bus.is_connected(), |gateway| gateway.is_bus_up());
        std::future::ready(up)
    })
}
