//! On NATS, Redis and PostgreSQL: each process connects to what its jobs need, and to nothing else.
//!
//! A server that does not answer at the start is waited for, since everything may be starting at once. One that is not
//! as it must be ends the start: waiting would only hide it. Redis may be down at any moment, also at this one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backend_distributed::OpenError;
use backend_distributed::directory::PublishedDirectory;
use backend_distributed::nats::Nats;
use backend_distributed::postgres::Postgres;
use backend_distributed::redis::RedisAdmission;
use backend_embedded::{InProcessAdmission, InProcessAdmissionConfig};
use common::Clock;
use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use service::Tasks;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{ApiPorts, Backend, GatewayPorts, NormalizerPorts, Opened};
use crate::config::{Config, Mode};
use crate::jobs::{Job, Jobs};
use crate::probes::Probe;

/// Between two tries to reach a server at the start.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what the stream of the directory lacks.
const PUBLISH_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the partitions of the tables, and between two tries if they cannot be made.
const PARTITIONS_EVERY: Duration = Duration::from_hours(1);
const PARTITIONS_AGAIN: Duration = Duration::from_mins(1);

/// The connections of a process.
pub(crate) struct Servers {
    pub(crate) nats: Nats,
    pub(crate) postgres: Option<Postgres>,
    published: Option<Arc<PublishedDirectory>>,
}

impl Servers {
    /// Connects to NATS, and to PostgreSQL if a database is needed.
    pub(crate) async fn connect(config: &Config, client: &'static str, database: bool) -> anyhow::Result<Self> {
        let wait = config.startup_wait();
        let nats = until_available("NATS", wait, || Nats::connect(config.nats(client))).await?;
        let postgres = if database {
            Some(until_available("PostgreSQL", wait, || Postgres::connect(config.postgres())).await?)
        } else {
            None
        };
        Ok(Self { nats, postgres, published: None })
    }

    /// Makes or updates streams and tables. Returns what was done.
    pub(crate) async fn migrate(&self, wait: Duration) -> anyhow::Result<Vec<String>> {
        let mut done = Vec::new();
        if let Some(postgres) = &self.postgres {
            done.extend(until_available("PostgreSQL", wait, || postgres.migrate()).await?);
        }
        done.extend(until_available("NATS", wait, || self.nats.migrate()).await?);
        Ok(done)
    }

    /// Checks that the servers are as they must be.
    pub(crate) async fn verify(&self, wait: Duration) -> anyhow::Result<()> {
        until_available("NATS", wait, || self.nats.verify()).await?;
        if let Some(postgres) = &self.postgres {
            until_available("PostgreSQL", wait, || postgres.verify()).await?;
        }
        Ok(())
    }

    /// Keeps the directory's stream complete if this process writes it, and partitions and the bell if it normalises.
    pub(super) async fn start_upkeep(&self, bell: Option<Arc<Notify>>, tasks: &Tasks) {
        if let Some(published) = &self.published {
            publish_missing(published).await;
            let (published, stopping) = (published.clone(), tasks.clone());
            tasks.spawn("publish-directory", async move {
                loop {
                    tokio::select! {
                        () = stopping.stopping() => return,
                        () = tokio::time::sleep(PUBLISH_EVERY) => publish_missing(&published).await,
                    }
                }
            });
        }
        if let (Some(bell), Some(postgres)) = (bell, &self.postgres) {
            let first = make_partitions(postgres).await;
            let (own, stopping) = (postgres.clone(), tasks.clone());
            tasks.spawn("partitions", async move {
                let mut wait = first;
                loop {
                    tokio::select! {
                        () = stopping.stopping() => return,
                        () = tokio::time::sleep(wait) => wait = make_partitions(&own).await,
                    }
                }
            });
            let (own, stopping) = (postgres.clone(), tasks.clone());
            tasks.spawn("commit-bell", async move {
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = own.ring_on_commit(bell) => {}
                }
            });
        }
    }

    pub(crate) async fn close(self) {
        self.nats.close().await;
        if let Some(postgres) = self.postgres {
            postgres.close().await;
        }
    }
}

pub(super) async fn open(config: &Config, jobs: Jobs, clock: &Arc<dyn Clock>) -> anyhow::Result<Opened> {
    if config.is_lazy_sync_allowed() {
        tracing::warn!(
            "nats.unsafe_lazy_sync is set: webhooks that were answered 200 can be lost for good when a machine of NATS \
             loses power or crashes, since the provider does not send again what was answered"
        );
    }
    let database = jobs.has(Job::Normalizer) || jobs.has(Job::Api);
    let servers = Servers::connect(config, jobs.name(), database).await?;
    match prepare(config, jobs, clock, &servers).await {
        Ok(redis) => Ok(ports(servers, jobs, clock, redis)),
        Err(error) => {
            servers.close().await;
            Err(error)
        }
    }
}

/// Sees to it that the servers are as they must be; returns admission if the gateway is among the jobs.
async fn prepare(
    config: &Config,
    jobs: Jobs,
    clock: &Arc<dyn Clock>,
    servers: &Servers,
) -> anyhow::Result<Option<Arc<RedisAdmission>>> {
    // For a machine of one's own. Elsewhere streams and tables change when an operator says so, before anything starts.
    if jobs == Jobs::All && config.mode == Mode::Development {
        for line in servers.migrate(config.startup_wait()).await? {
            tracing::info!("migrated: {line}");
        }
    }
    servers.verify(config.startup_wait()).await?;
    if !jobs.has(Job::Gateway) {
        return Ok(None);
    }
    let local = Arc::new(InProcessAdmission::new(InProcessAdmissionConfig::default(), clock.clone()));
    Ok(Some(RedisAdmission::new(config.redis_url(), local).context("cannot use redis.url")?))
}

fn ports(mut servers: Servers, jobs: Jobs, clock: &Arc<dyn Clock>, redis: Option<Arc<RedisAdmission>>) -> Opened {
    let bus: Arc<dyn EventBus> = servers.nats.bus();
    let mut directory: Arc<dyn DirectoryStore> = servers.nats.directory();
    let mut probes = Vec::new();
    let mut opened_normalizer = None;
    let mut opened_api = None;
    if let Some(postgres) = &servers.postgres {
        let asked = postgres.clone();
        // In one process with the gateway it is only shown: webhooks are taken without it.
        let required = !jobs.has(Job::Gateway);
        probes.push(Probe::new("database", required, true, Duration::from_secs(1), move || {
            let postgres = asked.clone();
            async move { postgres.ping().await }
        }));
        if jobs.has(Job::Normalizer) {
            opened_normalizer = Some(NormalizerPorts {
                store: postgres.event_store(clock.clone()),
                outbox: postgres.outbox(),
                parking: postgres.parking(),
                raw: postgres.parking(),
                request_log: postgres.request_log(clock.clone()),
                bell: Arc::new(Notify::new()),
            });
        }
        if jobs.has(Job::Api) {
            let published = PublishedDirectory::new(postgres, &servers.nats);
            if jobs == Jobs::Only(Job::Api) {
                directory = published.clone();
            }
            servers.published = Some(published.clone());
            opened_api = Some(ApiPorts {
                feed: postgres.feed(),
                messages: postgres.message_log(),
                directory: published,
                parking: postgres.parking(),
                raw: postgres.parking(),
                access: postgres.access(),
                statistics: postgres.statistics(),
            });
        }
    }
    if let Some(redis) = redis.clone() {
        probes.push(Probe::new("redis", false, false, Duration::from_millis(500), move || {
            let redis = redis.clone();
            async move { redis.ping().await }
        }));
    }
    Opened {
        bus,
        directory,
        gateway: redis.map(|admission| GatewayPorts { admission }),
        normalizer: opened_normalizer,
        api: opened_api,
        probes,
        backend: Backend::Distributed(Box::new(servers)),
    }
}

/// What the stream lacks is written at the next look; until then its readers keep what they have.
async fn publish_missing(published: &PublishedDirectory) {
    match published.publish_missing().await {
        Ok(0) => {}
        Ok(entries) => tracing::info!(entries, "the stream of the directory is complete again"),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot complete the stream of the directory");
        }
    }
}

/// Makes the partitions that will be needed soon; returns when to look again.
async fn make_partitions(postgres: &Postgres) -> Duration {
    match postgres.make_partitions().await {
        Ok(0) => PARTITIONS_EVERY,
        Ok(made) => {
            tracing::info!(made, "partitions made");
            PARTITIONS_EVERY
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot make partitions");
            PARTITIONS_AGAIN
        }
    }
}

/// Tries until the server is there, for about so long: a try that has begun is not broken off. One that says what is wrong
/// ends it.
pub(crate) async fn until_available<T, F>(what: &str, wait: Duration, attempt: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, OpenError>>,
{
    let begun = Instant::now();
    let mut said = false;
    loop {
        let error = match attempt().await {
            Ok(value) => {
                if said {
                    tracing::info!("{what} is there, after {} s", begun.elapsed().as_secs());
                }
                return Ok(value);
            }
            Err(OpenError::Unavailable(error)) => error,
            Err(unsuitable) => return Err(anyhow::Error::new(unsuitable).context(format!("cannot begin with {what}"))),
        };
        if begun.elapsed() + TRY_EVERY > wait {
            tracing::error!("{what} was not there within {} s; giving up", wait.as_secs());
            return Err(anyhow::Error::new(error).context(format!("{what} does not answer")));
        }
        if !said {
            said = true;
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "{what} does not answer; trying again for up to {} s", wait.as_secs());
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use ports::Unavailable;

    use super::*;

    fn gone() -> OpenError {
        Unavailable::new("the server", "nobody listens").into()
    }

    async fn try_until(wait: u64, there_after: u32) -> (u32, anyhow::Result<()>) {
        let tries = AtomicU32::new(0);
        let result = until_available("a server", Duration::from_secs(wait), || async {
            if tries.fetch_add(1, Ordering::Relaxed) < there_after { Err(gone()) } else { Ok(()) }
        })
        .await;
        (tries.into_inner(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_up_late_is_waited_for() {
        let (tries, result) = try_until(30, 4).await;
        assert!(result.is_ok());
        assert_eq!(tries, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends() {
        let begun = Instant::now();
        let (_, result) = try_until(3, u32::MAX).await;
        assert_eq!(result.unwrap_err().to_string(), "a server does not answer");
        assert!(begun.elapsed() <= Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unsuitable_server_ends_it_at_once() {
        let begun = Instant::now();
        let attempt = || async { Err::<(), _>(OpenError::Unsuitable("too old".to_owned())) };
        let error = until_available("a server", Duration::from_secs(30), attempt).await.unwrap_err();
        assert_eq!(error.root_cause().to_string(), "too old");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
