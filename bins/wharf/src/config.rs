//! The configuration of `wharf`: the sections, the sources' names, and what must hold between values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ports::admission::SenderLimit;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use service::config::{Layers, Problem};
use service::telemetry::LogFormat;

/// The documented defaults, which are also the schema.
pub(crate) const DEFAULTS: &str = include_str!("defaults.toml");

/// Names that other software uses for the same things, and the keys they stand for.
const SOURCE_NAMES: [(&str, &str); 14] = [
    ("WHARF_MODE", "mode"),
    ("WHARF_DATA_DIR", "data_dir"),
    ("WHARF_ADMIN_TOKEN", "api.admin_token"),
    ("DATABASE_URL", "database_url"),
    ("APP_NAME", "app.name"),
    ("APP_VERSION", "app.version"),
    ("WHATSAPP_VERIFY_TOKEN", "meta.verify_token"),
    ("WHATSAPP_APP_SECRET", "meta.app_secret"),
    ("META_APP_SECRET", "meta.app_secret_2"),
    ("WHATSAPP_ACCESS_TOKEN", "meta.access_token"),
    ("WHATSAPP_TOKEN", "meta.access_token"),
    ("WHATSAPP_PHONE_NUMBER_ID", "meta.phone_number_id"),
    ("WEBHOOK_RATE_LIMIT_MAX", "ingress.sender_limit_max"),
    ("WEBHOOK_RATE_LIMIT_WINDOW", "ingress.sender_limit_window_minutes"),
];

/// Names of the sources that belong to providers this version does not have.
const NOT_YET: [&str; 4] = ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_WHATSAPP_NUMBER", "WEBHOOK_SECRET"];

/// The shortest admin token that production accepts, in characters.
const MIN_ADMIN_TOKEN: usize = 16;

/// Whether the machine serves others or only its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Production,
    Development,
}

/// Where everything is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackendKind {
    Embedded,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) data_dir: PathBuf,
    database_url: String,
    pub(crate) backend: Backend,
    pub(crate) app: App,
    pub(crate) listen: Listen,
    log: Log,
    keys: Keys,
    pub(crate) api: Api,
    ingress: Ingress,
    normalizer: Normalizer,
    pub(crate) meta: Meta,
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
}

#[derive(Clone, Debug, Deserialize)]
struct Log {
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
struct Ingress {
    max_body_bytes: usize,
    body_timeout_ms: u64,
    deadline_ms: u64,
    global_limit_per_second: u32,
    per_ip_limit_per_second: u32,
    sender_limit_max: u32,
    sender_limit_window_minutes: u64,
    max_event_age_hours: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Normalizer {
    batch: usize,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Meta {
    pub(crate) app_secret: SecretString,
    pub(crate) app_secret_2: SecretString,
    pub(crate) verify_token: SecretString,
    access_token: SecretString,
    phone_number_id: String,
}

/// A configuration, or all that is wrong with it, and what is worth knowing in either case.
pub(crate) struct Loaded {
    pub(crate) config: Result<Config, Vec<Problem>>,
    pub(crate) notes: Vec<String>,
}

/// Reads defaults, file, environment and flags.
pub(crate) fn load(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(&'static str, &'static str, String)],
) -> Loaded {
    let mut layers = Layers::new(DEFAULTS);
    if let Some(path) = file {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => layers.file(&name, &text),
            Err(error) => layers.problem(name, format!("cannot be read: {error}")),
        }
    }
    let notes = source_names(&mut layers, environment);
    let fixed = ["WHARF_MODE", "WHARF_DATA_DIR", "WHARF_ADMIN_TOKEN", "WHARF_CONFIG"];
    for name in environment.keys().filter(|name| name.starts_with("WHARF_") && !name.starts_with("WHARF__")) {
        if !fixed.contains(&name.as_str()) {
            layers.problem(name, "unknown name; keys are set as WHARF__SECTION__KEY, with two underscores");
        }
    }
    layers.environment(environment);
    for (flag, path, value) in flags {
        layers.text(flag, path, value);
    }
    let is_true = |name: &str| {
        environment
            .get(name)
            .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"))
    };
    let development_only: Vec<&str> =
        ["DEBUG", "TWILIO_SKIP_VALIDATION"].into_iter().filter(|name| is_true(name)).collect();
    let config = layers.finish(|config: &Config, problems| {
        check(config, problems);
        if config.mode == Mode::Production {
            problems.extend(development_only.iter().map(|name| Problem {
                source: (*name).to_owned(),
                message: "is refused in production; set WHARF_MODE=development or take it away".to_owned(),
            }));
        }
    });
    Loaded { config, notes }
}

/// Lays the sources' names over what there is; flags and `WHARF__…` come after and win.
fn source_names(layers: &mut Layers, environment: &BTreeMap<String, String>) -> Vec<String> {
    let get = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
    for (name, path) in SOURCE_NAMES {
        if let Some(text) = get(name) {
            layers.text(name, path, text);
        }
    }
    if let (Some(one), Some(other)) = (get("WHATSAPP_ACCESS_TOKEN"), get("WHATSAPP_TOKEN"))
        && one != other
    {
        layers.problem("WHATSAPP_ACCESS_TOKEN, WHATSAPP_TOKEN", "both are set and differ; set one");
    }
    if get("HOST").is_some() || get("PORT").is_some() {
        let address = format!(
            "{}:{}",
            get("HOST").map_or("127.0.0.1", |host| if host == "localhost" { "127.0.0.1" } else { host }),
            get("PORT").unwrap_or("8080")
        );
        layers.text("HOST, PORT", "listen.public", &address);
    }
    if let Some(level) = get("LOG_LEVEL") {
        let level = match level.to_ascii_lowercase().as_str() {
            "warning" => "warn".to_owned(),
            "critical" | "fatal" => "error".to_owned(),
            other => other.to_owned(),
        };
        layers.text("LOG_LEVEL", "log.level", &level);
    }
    if let Some(format) = get("LOG_FORMAT") {
        layers.text("LOG_FORMAT", "log.format", &format.to_ascii_lowercase());
    }
    if get("DEBUG").is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")) {
        layers.text("DEBUG", "log.level", "debug");
    }
    let unused = NOT_YET.into_iter().filter(|name| get(name).is_some());
    unused.map(|name| format!("{name} is set, but this version has no provider that uses it")).collect()
}

fn check(config: &Config, problems: &mut Vec<Problem>) {
    let mut problem =
        |source: &str, message: &str| problems.push(Problem { source: source.to_owned(), message: message.to_owned() });
    let positive = [
        ("ingress.max_body_bytes", config.ingress.max_body_bytes as u64),
        ("ingress.body_timeout_ms", config.ingress.body_timeout_ms),
        ("ingress.deadline_ms", config.ingress.deadline_ms),
        ("ingress.global_limit_per_second", config.ingress.global_limit_per_second.into()),
        ("ingress.per_ip_limit_per_second", config.ingress.per_ip_limit_per_second.into()),
        ("ingress.sender_limit_max", config.ingress.sender_limit_max.into()),
        ("ingress.sender_limit_window_minutes", config.ingress.sender_limit_window_minutes),
        ("ingress.max_event_age_hours", config.ingress.max_event_age_hours),
        ("normalizer.batch", config.normalizer.batch as u64),
    ];
    for (key, value) in positive {
        if value == 0 {
            problem(key, "must be at least 1");
        }
    }
    if config.ingress.max_body_bytes > 4 << 20 {
        problem("ingress.max_body_bytes", "must be at most 4194304: larger envelopes do not fit the bus");
    }
    if config.ingress.deadline_ms > 1800 {
        problem("ingress.deadline_ms", "must be at most 1800: providers give up soon after");
    }
    if config.ingress.max_event_age_hours < 168 {
        problem("ingress.max_event_age_hours", "must be at least 168: Meta retries for 7 days");
    }
    if !(1..=4096).contains(&config.normalizer.batch) {
        problem("normalizer.batch", "must be between 1 and 4096");
    }
    if !service::telemetry::is_log_filter(&config.log.level) {
        problem("log.level", "must be error, warn, info, debug or trace, or a filter such as info,ingress=debug");
    }
    if config.log_format().is_none() {
        problem("log.format", "must be json, text or auto");
    }
    if config.meta.verify_token.expose_secret().is_empty() != config.meta.secrets().is_empty() {
        problem(
            "meta",
            "app_secret (WHATSAPP_APP_SECRET) and verify_token (WHATSAPP_VERIFY_TOKEN) are set together or not at all",
        );
    }
    if let Err(message) = config.data_file() {
        problem("database_url", &message);
    }
    let token = config.api.admin_token.expose_secret();
    if config.mode == Mode::Production && !token.is_empty() && token.len() < MIN_ADMIN_TOKEN {
        problem("api.admin_token", "must have at least 16 characters in production; `wharf secret new` prints one");
    }
    if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        problem("api.admin_token", "must not contain white space");
    }
    if config.mode == Mode::Development && !config.listen.api.ip().is_loopback() {
        problem("listen.api", "must be a loopback address in development");
    }
}

impl Meta {
    /// The secrets that are set.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        let both = [self.app_secret.expose_secret(), self.app_secret_2.expose_secret()];
        let mut set: Vec<&str> = both.into_iter().filter(|secret| !secret.is_empty()).collect();
        set.dedup();
        set
    }

    /// Settings of the outbound side, which is still to come.
    pub(crate) fn has_outbound_settings(&self) -> bool {
        !self.access_token.expose_secret().is_empty() || !self.phone_number_id.is_empty()
    }
}

impl Config {
    /// The gateway's part.
    pub(crate) fn ingress(&self) -> ingress::Config {
        let section = &self.ingress;
        ingress::Config {
            max_body_bytes: section.max_body_bytes,
            body_timeout: Duration::from_millis(section.body_timeout_ms),
            deadline: Duration::from_millis(section.deadline_ms),
            global_limit_per_second: section.global_limit_per_second,
            per_ip_limit_per_second: section.per_ip_limit_per_second,
            sender_limit: SenderLimit {
                max: section.sender_limit_max,
                window: Duration::from_secs(section.sender_limit_window_minutes.saturating_mul(60)),
            },
            max_event_age: Duration::from_secs(section.max_event_age_hours.saturating_mul(3600)),
            ..ingress::Config::default()
        }
    }

    /// The normalizer's part.
    pub(crate) fn normalizer(&self) -> normalizer::Config {
        normalizer::Config { batch: self.normalizer.batch, ..normalizer::Config::default() }
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
    pub(crate) fn log_level(&self) -> &str {
        &self.log.level
    }

    /// The file of master keys.
    pub(crate) fn key_file(&self) -> PathBuf {
        if self.keys.file.as_os_str().is_empty() { self.data_dir.join("master.keys") } else { self.keys.file.clone() }
    }

    /// The file of the database.
    pub(crate) fn data_file(&self) -> Result<PathBuf, String> {
        let url = self.database_url.as_str();
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
#[path = "config_tests.rs"]
mod tests;
