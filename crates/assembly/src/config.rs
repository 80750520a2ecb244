//! The configuration of every process: its sections, and how they are read.
//!
//! One file can serve all processes. Each reads the sections that its jobs need ([`Purpose`]); a mistake in another one
//! is that other process's to report.

mod check;
mod sources;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::update::Provider;
use ingress::Front;
use ports::admission::{SenderLimit, SenderLimits};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use service::Tasks;
use service::config::{Layers, Problem};
use service::networks::{Networks, NetworksFile};
use service::telemetry::LogFormat;
use service::tls::TlsFiles;

use crate::jobs::{Job, Jobs};
use crate::listeners::{Allowance, places};

/// The documented defaults, which are also the schema.
pub const DEFAULTS: &str = include_str!("config/defaults.toml");

/// Addresses that may come, the newest of them.
type Allowed = Arc<dyn Fn() -> Arc<Networks> + Send + Sync>;

/// A flag: how it is spelled, the key it stands for, its value.
pub type Flag = (&'static str, &'static str, String);

/// What a configuration is read for: it decides what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run jobs.
    Run(Jobs),
    /// To make or update what the jobs need on the servers or in the data folder.
    Migrate,
}

/// Whether the machine serves others or only its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Others.
    Production,
    /// Its owner.
    Development,
}

/// Where everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// In this process and its data folder.
    Embedded,
    /// On NATS, Redis and PostgreSQL.
    Distributed,
}

/// The configuration of a process. What its purpose does not need has the defaults.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Production or development.
    pub mode: Mode,
    /// Where embedded data, keys and the admin token live.
    pub data_dir: PathBuf,
    database_url: SecretString,
    pub(crate) backend: Backend,
    pub(crate) app: App,
    pub(crate) listen: Listen,
    pub(crate) log: Log,
    keys: Keys,
    pub(crate) api: Api,
    nats: Nats,
    redis: Redis,
    postgres: Postgres,
    blobs: Blobs,
    startup: Startup,
    pub(crate) ingress: Ingress,
    pub(crate) normalizer: Normalizer,
    retention: Retention,
    /// Single-tenant operation: the app at Meta.
    pub meta: Meta,
    twilio: Twilio,
    generic: Generic,
    /// Meta's Graph API.
    pub graph: Graph,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Backend {
    pub(crate) kind: BackendKind,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listen {
    pub(crate) public: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) drain_pause_ms: u64,
    keep_alive_seconds: u64,
    tls: Tls,
}

#[derive(Clone, Debug, Deserialize)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
    client_names: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Log {
    level: String,
    format: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Keys {
    file: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Api {
    pub(crate) admin_token: SecretString,
}

#[derive(Clone, Debug, Deserialize)]
struct Nats {
    url: SecretString,
    monitor_url: SecretString,
    replicas: usize,
    unsafe_lazy_sync: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Redis {
    url: SecretString,
}

#[derive(Clone, Debug, Deserialize)]
struct Postgres {
    url: SecretString,
    max_connections: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Blobs {
    folder: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Startup {
    wait_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ingress {
    max_body_bytes: usize,
    body_timeout_ms: u64,
    deadline_ms: u64,
    global_limit_per_second: u32,
    per_ip_limit_per_second: u32,
    connections_per_ip: usize,
    tenant_limit_per_second: u32,
    keep_refused_per_minute: u32,
    sender_limit_max: u32,
    sender_limit_max_twilio: u32,
    sender_limit_max_generic: u32,
    sender_limit_window_minutes: u64,
    max_event_age_hours: u64,
    prefix: String,
    public_url: String,
    trusted_proxies: String,
    allow_list_file: PathBuf,
    client_name_header: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Normalizer {
    batch: usize,
    pub(crate) ack_wait_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Retention {
    raw_days: u32,
    parked_days: u32,
}

/// The one app of single-tenant operation.
#[derive(Clone, Debug, Deserialize)]
pub struct Meta {
    /// Its id at Meta; may be empty.
    pub app_id: String,
    app_secret: SecretString,
    app_secret_2: SecretString,
    /// The token of the verification request.
    pub verify_token: SecretString,
    access_token: SecretString,
    phone_number_id: String,
}

/// The one account at Twilio of single-tenant operation.
#[derive(Clone, Debug, Deserialize)]
struct Twilio {
    account_sid: String,
    auth_token: SecretString,
    auth_token_2: SecretString,
    number: String,
    unsafe_skip_validation: bool,
}

/// The generic provider of single-tenant operation.
#[derive(Clone, Debug, Deserialize)]
struct Generic {
    secret: SecretString,
    secret_2: SecretString,
}

/// Secrets and tokens of an app that the configuration has.
pub(crate) struct ConfiguredApp<'c> {
    pub(crate) id: &'static str,
    pub(crate) provider: Provider,
    pub(crate) secrets: Vec<&'c str>,
    pub(crate) verify_tokens: Vec<&'c str>,
    pub(crate) account: Option<&'c str>,
}

/// Meta's Graph API.
#[derive(Clone, Debug, Deserialize)]
pub struct Graph {
    /// Where it is.
    pub base_url: String,
}

/// A configuration, or all that is wrong with it, and what is worth knowing in either case.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Result<Config, Vec<Problem>>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Reads defaults, file, environment and flags.
pub fn load(file: Option<&Path>, environment: &BTreeMap<String, String>, flags: &[Flag], purpose: Purpose) -> Loaded {
    let mut layers = Layers::new(DEFAULTS);
    if let Purpose::Run(Jobs::Only(job)) = purpose {
        layers.default("backend.kind", "distributed");
        layers.default("listen.admin", admin_default(job));
        layers.skip(foreign_sections(job));
    }
    if let Some(path) = file {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => layers.file(&name, &text),
            Err(error) => layers.problem(name, format!("cannot be read: {error}")),
        }
    }
    let notes = sources::lay(&mut layers, environment, purpose);
    layers.environment(environment);
    for (flag, path, value) in flags {
        layers.text(flag, path, value);
    }
    let development_only = sources::development_only(environment);
    let config = layers.finish(|config: &Config, problems| {
        check::check(config, purpose, problems);
        if config.mode == Mode::Production {
            problems.extend(development_only.iter().map(|name| Problem {
                source: (*name).to_owned(),
                message: "is refused in production; set WHARF_MODE=development or take it away".to_owned(),
            }));
        }
    });
    Loaded { config, notes }
}

/// Where a job's health and metrics are, so that all jobs start side by side on one machine.
const fn admin_default(job: Job) -> &'static str {
    match job {
        Job::Gateway => "127.0.0.1:8082",
        Job::Normalizer => "127.0.0.1:8083",
        Job::Api => "127.0.0.1:8084",
    }
}

/// What a job does not read. `database_url` is a key, all others are sections.
const fn foreign_sections(job: Job) -> &'static [&'static str] {
    match job {
        Job::Gateway => {
            &["database_url", "postgres", "blobs", "api", "normalizer", "retention", "meta", "generic", "graph"]
        }
        Job::Normalizer => &["redis", "api", "meta", "twilio", "generic", "graph"],
        Job::Api => &["redis", "normalizer", "retention", "graph"],
    }
}

impl Meta {
    /// The secrets that are set.
    pub fn secrets(&self) -> Vec<&str> {
        set(&[&self.app_secret, &self.app_secret_2])
    }
}

/// Those that are set, each once.
fn set<'s>(secrets: &[&'s SecretString]) -> Vec<&'s str> {
    let all = secrets.iter().map(|secret| secret.expose_secret());
    let mut set: Vec<&str> = all.filter(|secret| !secret.is_empty()).collect();
    set.dedup();
    set
}

fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter_map(given).map(str::to_owned).collect()
}

impl Config {
    /// The apps of single-tenant operation.
    pub(crate) fn apps(&self) -> Vec<ConfiguredApp<'_>> {
        let meta = ConfiguredApp {
            id: "default",
            provider: Provider::Meta,
            secrets: self.meta.secrets(),
            verify_tokens: set(&[&self.meta.verify_token]),
            account: None,
        };
        let twilio = ConfiguredApp {
            id: "twilio",
            provider: Provider::Twilio,
            secrets: set(&[&self.twilio.auth_token, &self.twilio.auth_token_2]),
            verify_tokens: Vec::new(),
            account: given(&self.twilio.account_sid),
        };
        let generic = ConfiguredApp {
            id: "generic",
            provider: Provider::Generic,
            secrets: set(&[&self.generic.secret, &self.generic.secret_2]),
            verify_tokens: Vec::new(),
            account: None,
        };
        [meta, twilio, generic].into_iter().filter(|app| !app.secrets.is_empty()).collect()
    }

    /// Whether webhooks are taken that nobody signed.
    pub(crate) const fn takes_unsigned(&self) -> bool {
        self.twilio.unsafe_skip_validation
    }

    /// Whether Twilio's signatures cannot be checked in single-tenant operation: they are of an address that nobody told.
    pub(crate) fn lacks_public_url(&self) -> bool {
        let is_told = given(&self.ingress.public_url).is_some() || given(&self.ingress.trusted_proxies).is_some();
        self.mode == Mode::Production && !is_told && self.apps().iter().any(|app| app.provider == Provider::Twilio)
    }

    /// Whether there are settings of the outbound side, which is still to come.
    pub(crate) fn has_outbound_settings(&self) -> bool {
        let meta = !self.meta.access_token.expose_secret().is_empty() || !self.meta.phone_number_id.is_empty();
        meta || !self.twilio.number.is_empty()
    }

    /// The files of the public listener's TLS, if it ends TLS.
    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        let tls = &self.listen.tls;
        let there = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        Some(TlsFiles {
            certificate: there(&tls.certificate)?,
            key: there(&tls.key)?,
            client_ca: there(&tls.client_ca),
            // With a header the names are asked for there.
            client_names: if given(&self.ingress.client_name_header).is_none() {
                list(&tls.client_names)
            } else {
                Vec::new()
            },
        })
    }

    /// What stands in front of the paths of earlier services.
    pub(crate) fn prefix(&self) -> &str {
        &self.ingress.prefix
    }

    /// Proxies whose word on clients counts.
    pub(crate) fn trusted_proxies(&self) -> anyhow::Result<Networks> {
        self.ingress.trusted_proxies.parse().context("ingress.trusted_proxies")
    }

    /// Who may come to the public listener, and how. Starts to watch the allow-list's file.
    pub(crate) fn front(&self, tasks: &Tasks) -> anyhow::Result<Front> {
        let section = &self.ingress;
        let trusted_proxies = self.trusted_proxies()?;
        let allowed: Option<Allowed> = if section.allow_list_file.as_os_str().is_empty() {
            None
        } else {
            let file = NetworksFile::start(&section.allow_list_file, tasks).context("ingress.allow_list_file")?;
            Some(Arc::new(move || file.current()))
        };
        let header = given(&section.client_name_header).map(str::to_ascii_lowercase);
        let is_tls = self.tls().is_some();
        Ok(Front {
            needs_tls_proxy: self.mode == Mode::Production && !is_tls && !trusted_proxies.is_empty(),
            trusted_proxies,
            allowed,
            client_name: header.map(|header| (header, list(&self.listen.tls.client_names))),
            is_tls,
            trusts_host: self.mode == Mode::Development,
        })
    }

    /// What clients may take up of each listener. One address never has more than half of the connections that there can be.
    pub(crate) fn allowance(&self) -> anyhow::Result<Allowance> {
        Ok(Allowance {
            keep_alive: Duration::from_secs(self.listen.keep_alive_seconds),
            connections: self.ingress.connections_per_ip.min(places() / 2),
            handshakes: self.ingress.per_ip_limit_per_second.saturating_mul(2),
            proxies: self.trusted_proxies()?,
        })
    }

    /// The gateway's part, but who may come.
    pub(crate) fn ingress(&self) -> ingress::Config {
        let section = &self.ingress;
        ingress::Config {
            max_body_bytes: section.max_body_bytes,
            body_timeout: Duration::from_millis(section.body_timeout_ms),
            deadline: Duration::from_millis(section.deadline_ms),
            global_limit_per_second: section.global_limit_per_second,
            per_ip_limit_per_second: section.per_ip_limit_per_second,
            tenant_limit_per_second: std::num::NonZero::new(section.tenant_limit_per_second),
            keep_refused_per_minute: section.keep_refused_per_minute,
            sender_limits: self.sender_limits(),
            max_event_age: Duration::from_secs(section.max_event_age_hours.saturating_mul(3600)),
            prefix: section.prefix.clone(),
            public_url: given(&section.public_url).map(str::to_owned),
            unsigned: if self.twilio.unsafe_skip_validation { vec![Provider::Twilio] } else { Vec::new() },
            ..ingress::Config::default()
        }
    }

    fn sender_limits(&self) -> SenderLimits {
        let section = &self.ingress;
        let window = Duration::from_secs(section.sender_limit_window_minutes.saturating_mul(60));
        // Those that are not set are as the first.
        let limit = |max| SenderLimit { max: if max == 0 { section.sender_limit_max } else { max }, window };
        SenderLimits {
            meta: limit(section.sender_limit_max),
            twilio: limit(section.sender_limit_max_twilio),
            generic: limit(section.sender_limit_max_generic),
        }
    }

    /// The normalizer's part.
    pub(crate) fn normalizer(&self) -> normalizer::Config {
        let held = Duration::from_secs(self.normalizer.ack_wait_seconds);
        let days = |days: u32| Duration::from_hours(24 * u64::from(days));
        normalizer::Config {
            batch: self.normalizer.batch,
            ack_wait: held,
            publish_lease: held,
            sequencer_ttl: (held / 10).max(Duration::from_secs(1)),
            throttle: self.sender_limits(),
            keep_raw: days(self.retention.raw_days),
            keep_parked: days(self.retention.parked_days),
            ..normalizer::Config::default()
        }
    }

    /// How to reach NATS.
    pub(crate) fn nats(&self, client: &'static str) -> backend_distributed::nats::NatsConfig {
        let monitor_url = self.nats.monitor_url.expose_secret();
        backend_distributed::nats::NatsConfig {
            url: self.nats.url.clone(),
            monitor_url: (!monitor_url.is_empty()).then(|| monitor_url.to_owned()),
            client,
            replicas: self.nats.replicas,
            allow_lazy_sync: self.nats.unsafe_lazy_sync,
        }
    }

    /// Replicas of each stream.
    pub(crate) fn replicas(&self) -> usize {
        self.nats.replicas
    }

    /// Whether a server that may lose what it acknowledged is taken on purpose.
    pub(crate) fn is_lazy_sync_allowed(&self) -> bool {
        self.nats.unsafe_lazy_sync
    }

    /// How to reach Redis.
    pub(crate) fn redis_url(&self) -> &SecretString {
        &self.redis.url
    }

    /// How to reach PostgreSQL.
    pub(crate) fn postgres(&self) -> backend_distributed::postgres::PostgresConfig {
        let url = if self.postgres.url.expose_secret().is_empty() { &self.database_url } else { &self.postgres.url };
        backend_distributed::postgres::PostgresConfig {
            url: url.clone(),
            max_connections: self.postgres.max_connections,
        }
    }

    /// The folder of sealed raw webhooks.
    pub(crate) fn blobs_folder(&self) -> PathBuf {
        let folder = &self.blobs.folder;
        if folder.as_os_str().is_empty() { self.data_dir.join("blobs") } else { folder.clone() }
    }

    /// How long a start waits for servers.
    pub(crate) fn startup_wait(&self) -> Duration {
        Duration::from_secs(self.startup.wait_seconds)
    }

    /// Where everything is kept.
    pub fn backend_kind(&self) -> BackendKind {
        self.backend.kind
    }

    /// How logs look.
    pub(crate) fn log_format(&self) -> Option<LogFormat> {
        match self.log.format.as_str() {
            "json" => Some(LogFormat::Json),
            "text" => Some(LogFormat::Text),
            "auto" => Some(LogFormat::Auto),
            _ => None,
        }
    }

    /// The level or filter of logs.
    pub fn log_level(&self) -> &str {
        &self.log.level
    }

    /// The file of master keys.
    pub fn key_file(&self) -> PathBuf {
        if self.keys.file.as_os_str().is_empty() { self.data_dir.join("master.keys") } else { self.keys.file.clone() }
    }

    /// The file of the embedded database.
    pub(crate) fn data_file(&self) -> Result<PathBuf, String> {
        let url = self.database_url.expose_secret();
        if url.is_empty() {
            return Ok(self.data_dir.join("messages.db"));
        }
        match url.split_once(':') {
            // Three slashes and a relative path, or four and an absolute one, as SQLAlchemy writes it.
            Some(("sqlite", rest)) => {
                let path = rest.strip_prefix("///").or_else(|| rest.strip_prefix("//")).unwrap_or(rest);
                if path.is_empty() || path == ":memory:" {
                    return Err("must name a file: messages must survive a restart".to_owned());
                }
                Ok(PathBuf::from(path.split('?').next().unwrap_or(path)))
            }
            Some((scheme, rest)) if rest.starts_with("//") => Err(format!(
                "has the scheme `{scheme}`, but the embedded backend keeps its data in SQLite (sqlite:///…)"
            )),
            _ => Ok(PathBuf::from(url)),
        }
    }
}

#[cfg(test)]
mod tests;
