//! What must hold between the values of a configuration. Every problem is listed, not the first.

use secrecy::{ExposeSecret as _, SecretString};
use service::config::Problem;

use super::{BackendKind, Config, Mode, Purpose};
use crate::jobs::{Job, Jobs};

/// The shortest admin token that production accepts, in characters.
const MIN_ADMIN_TOKEN: usize = 16;

/// The shortest secret of the generic provider that production accepts, in bytes.
const MIN_GENERIC_SECRET: usize = 32;

/// Problems as they are found.
struct Found<'p>(&'p mut Vec<Problem>);

impl Found<'_> {
    fn add(&mut self, source: &str, message: &str) {
        self.0.push(Problem { source: source.to_owned(), message: message.to_owned() });
    }
}

pub(super) fn check(config: &Config, purpose: Purpose, problems: &mut Vec<Problem>) {
    let mut found = Found(problems);
    numbers(config, &mut found);
    if !service::telemetry::is_log_filter(&config.log.level) {
        found.add("log.level", "must be error, warn, info, debug or trace, or a filter such as info,ingress=debug");
    }
    if config.log_format().is_none() {
        found.add("log.format", "must be json, text or auto");
    }
    if config.meta.verify_token.expose_secret().is_empty() != config.meta.secrets().is_empty() {
        found.add(
            "meta",
            "app_secret (WHATSAPP_APP_SECRET) and verify_token (WHATSAPP_VERIFY_TOKEN) are set together or not at all",
        );
    }
    public(config, purpose, &mut found);
    signatures(config, &mut found);
    match config.backend.kind {
        BackendKind::Embedded => embedded(config, purpose, &mut found),
        BackendKind::Distributed => distributed(config, purpose, &mut found),
    }
    api(config, &mut found);
}

/// What concerns the listener that the whole internet may reach.
fn public(config: &Config, purpose: Purpose, found: &mut Found<'_>) {
    if !matches!(purpose, Purpose::Run(jobs) if jobs.has(Job::Gateway)) {
        return;
    }
    let (tls, section) = (&config.listen.tls, &config.ingress);
    let is_set = |path: &std::path::Path| !path.as_os_str().is_empty();
    if is_set(&tls.certificate) != is_set(&tls.key) {
        found.add("listen.tls", "certificate and key are set together or not at all");
    }
    if is_set(&tls.client_ca) && !is_set(&tls.certificate) {
        found.add("listen.tls.client_ca", "needs a certificate and a key of the listener");
    }
    let has_header = !section.client_name_header.trim().is_empty();
    if !tls.client_names.trim().is_empty() && !is_set(&tls.client_ca) && !has_header {
        found.add("listen.tls.client_names", "needs listen.tls.client_ca or ingress.client_name_header");
    }
    if has_header && (tls.client_names.trim().is_empty() || section.trusted_proxies.trim().is_empty()) {
        found.add("ingress.client_name_header", "needs listen.tls.client_names and ingress.trusted_proxies");
    }
    if let Err(error) = section.trusted_proxies.parse::<service::networks::Networks>() {
        found.add("ingress.trusted_proxies", &error.to_string());
    }
    if !section.prefix.is_empty() && (section.prefix == "/" || !section.prefix.starts_with('/')) {
        found.add("ingress.prefix", "must begin with / or be empty");
    }
    if !section.public_url.is_empty() && !has_scheme(&section.public_url, &["https", "http"]) {
        found.add("ingress.public_url", "must begin with https://");
    }
    if config.mode == Mode::Production
        && !config.listen.public.ip().is_loopback()
        && !is_set(&tls.certificate)
        && section.trusted_proxies.trim().is_empty()
    {
        found.add(
            "listen.public",
            "is open to others without TLS: set listen.tls.certificate and key, or name the proxies that end TLS in \
             ingress.trusted_proxies",
        );
    }
}

/// What makes signatures worth less. The gateway reads the switch, `api` the secrets.
fn signatures(config: &Config, found: &mut Found<'_>) {
    if config.mode != Mode::Production {
        return;
    }
    if config.twilio.unsafe_skip_validation {
        found.add("twilio.unsafe_skip_validation", "is refused in production");
    }
    let secrets = [("generic.secret", &config.generic.secret), ("generic.secret_2", &config.generic.secret_2)];
    for (key, secret) in secrets {
        if (1..MIN_GENERIC_SECRET).contains(&secret.expose_secret().len()) {
            found.add(key, "must have at least 32 bytes in production; `wharf secret new` prints 64 characters");
        }
    }
}

fn numbers(config: &Config, found: &mut Found<'_>) {
    let positive = [
        ("ingress.max_body_bytes", config.ingress.max_body_bytes as u64),
        ("ingress.body_timeout_ms", config.ingress.body_timeout_ms),
        ("ingress.deadline_ms", config.ingress.deadline_ms),
        ("ingress.global_limit_per_second", config.ingress.global_limit_per_second.into()),
        ("ingress.per_ip_limit_per_second", config.ingress.per_ip_limit_per_second.into()),
        ("listen.keep_alive_seconds", config.listen.keep_alive_seconds),
        ("ingress.connections_per_ip", config.ingress.connections_per_ip as u64),
        ("ingress.sender_limit_max", config.ingress.sender_limit_max.into()),
        ("ingress.sender_limit_window_minutes", config.ingress.sender_limit_window_minutes),
        ("ingress.max_event_age_hours", config.ingress.max_event_age_hours),
        ("normalizer.batch", config.normalizer.batch as u64),
    ];
    for (key, value) in positive {
        if value == 0 {
            found.add(key, "must be at least 1");
        }
    }
    if !(1..=7).contains(&config.retention.raw_days) {
        found.add("retention.raw_days", "must be from 1 to 7: raw webhooks are for mishaps of the last days");
    }
    if !(1..=3650).contains(&config.retention.parked_days) {
        found.add("retention.parked_days", "must be from 1 to 3650");
    }
    if config.ingress.max_body_bytes > 4 << 20 {
        found.add("ingress.max_body_bytes", "must be at most 4194304: larger envelopes do not fit the bus");
    }
    if config.ingress.keep_refused_per_minute > 600 {
        found.add("ingress.keep_refused_per_minute", "must be at most 600: it is for finding out, not for keeping all");
    }
    if config.ingress.deadline_ms > 1800 {
        found.add("ingress.deadline_ms", "must be at most 1800: providers give up soon after");
    }
    if config.ingress.max_event_age_hours < 168 {
        found.add("ingress.max_event_age_hours", "must be at least 168: Meta retries for 7 days");
    }
    if !(1..=4096).contains(&config.normalizer.batch) {
        found.add("normalizer.batch", "must be between 1 and 4096");
    }
    if !(2..=600).contains(&config.normalizer.ack_wait_seconds) {
        found.add("normalizer.ack_wait_seconds", "must be between 2 and 600");
    }
    if !matches!(config.nats.replicas, 1 | 3 | 5) {
        found.add("nats.replicas", "must be 1, 3 or 5");
    }
    if !(2..=1000).contains(&config.postgres.max_connections) {
        found.add("postgres.max_connections", "must be between 2 and 1000");
    }
    if config.startup.wait_seconds > 3600 {
        found.add("startup.wait_seconds", "must be at most 3600");
    }
}

fn api(config: &Config, found: &mut Found<'_>) {
    let token = config.api.admin_token.expose_secret();
    if config.mode == Mode::Production && !token.is_empty() && token.len() < MIN_ADMIN_TOKEN {
        found.add("api.admin_token", "must have at least 16 characters in production; `wharf secret new` prints one");
    }
    if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        found.add("api.admin_token", "must not contain white space");
    }
    if config.mode == Mode::Development && !config.listen.api.ip().is_loopback() {
        found.add("listen.api", "must be a loopback address in development");
    }
    if !has_scheme(&config.graph.base_url, &["https", "http"]) {
        found.add("graph.base_url", "must begin with https:// (or http://, for a stand-in)");
    }
    if !config.meta.app_id.bytes().all(|byte| byte.is_ascii_digit()) {
        found.add("meta.app_id", "must be the number that Meta shows as the app's id (WHATSAPP_APP_ID)");
    }
}

fn embedded(config: &Config, purpose: Purpose, found: &mut Found<'_>) {
    if let Purpose::Run(Jobs::Only(job)) = purpose {
        let name = job.name();
        found.add(
            "backend.kind",
            &format!(
                "`embedded` keeps everything in one process, so `{name}` cannot run beside it; run `wharf up`, or set \
                 WHARF__BACKEND__KIND=distributed"
            ),
        );
        return;
    }
    if let Err(message) = config.data_file() {
        found.add("database_url", &message);
    }
}

fn distributed(config: &Config, purpose: Purpose, found: &mut Found<'_>) {
    let runs = |job| matches!(purpose, Purpose::Run(jobs) if jobs.has(job));
    let nats = config.nats.url.expose_secret();
    if nats.is_empty() {
        found.add("nats.url", "is missing; set WHARF__NATS__URL, such as nats://host:4222");
    } else if !nats.split(',').all(|url| has_scheme(url.trim(), &["nats", "tls"])) {
        found.add("nats.url", "must begin with nats:// or tls:// (several are separated by commas)");
    }
    let monitor = config.nats.monitor_url.expose_secret();
    if !monitor.is_empty() && !monitor.split(',').all(|url| has_scheme(url.trim(), &["http", "https"])) {
        found.add("nats.monitor_url", "must begin with http:// or https:// (several are separated by commas)");
    }
    if monitor.is_empty() && !config.nats.unsafe_lazy_sync && matches!(purpose, Purpose::Run(_)) {
        found.add(
            "nats.monitor_url",
            "is required: only there the server says whether what it acknowledged survives a power cut; set \
             WHARF__NATS__MONITOR_URL, such as http://host:8222, or, for development only, nats.unsafe_lazy_sync = true",
        );
    }
    if config.nats.unsafe_lazy_sync && config.mode == Mode::Production {
        found.add(
            "nats.unsafe_lazy_sync",
            "is refused in production: a power cut would lose what was answered 200; set `sync_interval: always` at the server",
        );
    }
    if runs(Job::Gateway) {
        url(&config.redis.url, "redis.url", "WHARF__REDIS__URL", &["redis", "rediss"], "redis://host:6379", found);
    }
    if runs(Job::Normalizer) || runs(Job::Api) || !matches!(purpose, Purpose::Run(_)) {
        postgres(config, found);
    }
    let has_token = !config.api.admin_token.expose_secret().is_empty();
    if runs(Job::Api) && !has_token && config.mode == Mode::Production {
        found.add(
            "api.admin_token",
            "is required on the distributed backend, the same for every replica; set WHARF_ADMIN_TOKEN (`wharf secret \
             new` prints one)",
        );
    }
}

/// `database_url` is another name of `postgres.url` here, and must not contradict it.
fn postgres(config: &Config, found: &mut Found<'_>) {
    const SCHEMES: [&str; 2] = ["postgres", "postgresql"];
    let (own, other) = (config.postgres.url.expose_secret(), config.database_url.expose_secret());
    if !other.is_empty() && !has_scheme(other, &SCHEMES) {
        found.add(
            "database_url",
            "must begin with postgres:// or postgresql://: the distributed backend keeps its data in PostgreSQL \
             (DATABASE_URL does not choose the backend)",
        );
        if own.is_empty() {
            return;
        }
    } else if !other.is_empty() && !own.is_empty() && without_scheme(own) != without_scheme(other) {
        found.add("database_url", "differs from postgres.url (WHARF__POSTGRES__URL); set one of the two");
    }
    if own.is_empty() && !other.is_empty() {
        return;
    }
    let names = "WHARF__POSTGRES__URL (or DATABASE_URL)";
    url(&config.postgres.url, "postgres.url", names, &SCHEMES, "postgres://host:5432/wharf", found);
}

fn url(value: &SecretString, key: &str, names: &str, schemes: &[&str], example: &str, found: &mut Found<'_>) {
    let value = value.expose_secret();
    if value.is_empty() {
        found.add(key, &format!("is missing; set {names}, such as {example}"));
    } else if !has_scheme(value, schemes) {
        found.add(key, &format!("must begin with {}://", schemes.join(":// or ")));
    }
}

fn has_scheme(url: &str, schemes: &[&str]) -> bool {
    url.split_once("://").is_some_and(|(scheme, rest)| {
        schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) && !rest.is_empty()
    })
}

fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}
