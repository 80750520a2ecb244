//! Names that other software uses for the same settings.
//!
//! They stand between the file and `WHARF__SECTION__KEY`: what an operator already has in the environment works, and
//! what is set for Wharf wins.

use std::collections::BTreeMap;

use service::config::Layers;

use super::Purpose;
use crate::jobs::{Job, Jobs};

/// Names and the keys they stand for.
const SOURCE_NAMES: [(&str, &str); 20] = [
    ("WHARF_MODE", "mode"),
    ("WHARF_DATA_DIR", "data_dir"),
    ("WHARF_ADMIN_TOKEN", "api.admin_token"),
    ("DATABASE_URL", "database_url"),
    ("APP_NAME", "app.name"),
    ("APP_VERSION", "app.version"),
    ("WHATSAPP_APP_ID", "meta.app_id"),
    ("WHATSAPP_VERIFY_TOKEN", "meta.verify_token"),
    ("WHATSAPP_APP_SECRET", "meta.app_secret"),
    ("META_APP_SECRET", "meta.app_secret_2"),
    ("WHATSAPP_ACCESS_TOKEN", "meta.access_token"),
    ("WHATSAPP_TOKEN", "meta.access_token"),
    ("WHATSAPP_PHONE_NUMBER_ID", "meta.phone_number_id"),
    ("TWILIO_ACCOUNT_SID", "twilio.account_sid"),
    ("TWILIO_AUTH_TOKEN", "twilio.auth_token"),
    ("TWILIO_WHATSAPP_NUMBER", "twilio.number"),
    ("TWILIO_SKIP_VALIDATION", "twilio.unsafe_skip_validation"),
    ("WEBHOOK_SECRET", "generic.secret"),
    ("WEBHOOK_RATE_LIMIT_MAX", "ingress.sender_limit_max"),
    ("WEBHOOK_RATE_LIMIT_WINDOW", "ingress.sender_limit_window_minutes"),
];

/// Names that begin like ours and have no section.
const FIXED: [&str; 4] = ["WHARF_MODE", "WHARF_DATA_DIR", "WHARF_ADMIN_TOKEN", "WHARF_CONFIG"];

/// Lays the names over what there is; flags and `WHARF__…` come after and win. Returns what is worth knowing.
pub(super) fn lay(layers: &mut Layers, environment: &BTreeMap<String, String>, purpose: Purpose) -> Vec<String> {
    let get = |name: &str| environment.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let has = |job| !matches!(purpose, Purpose::Run(jobs) if !jobs.has(job));
    for (name, path) in SOURCE_NAMES {
        if let Some(text) = get(name) {
            layers.text(name, path, text);
        }
    }
    if let (Some(one), Some(other)) = (get("WHATSAPP_ACCESS_TOKEN"), get("WHATSAPP_TOKEN"))
        && one != other
        && has(Job::Api)
    {
        layers.problem("WHATSAPP_ACCESS_TOKEN, WHATSAPP_TOKEN", "both are set and differ; set one");
    }
    if has(Job::Gateway) && (get("HOST").is_some() || get("PORT").is_some()) {
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
    if is_true(environment, "DEBUG") {
        layers.text("DEBUG", "log.level", "debug");
    }
    for name in environment.keys().filter(|name| name.starts_with("WHARF_") && !name.starts_with("WHARF__")) {
        if !FIXED.contains(&name.as_str()) {
            layers.problem(name, "unknown name; keys are set as WHARF__SECTION__KEY, with two underscores");
        }
    }
    let mut notes = Vec::new();
    if purpose == Purpose::Run(Jobs::Only(Job::Gateway)) {
        let elsewhere =
            ["WHATSAPP_APP_SECRET", "META_APP_SECRET", "WHATSAPP_VERIFY_TOKEN", "TWILIO_AUTH_TOKEN", "WEBHOOK_SECRET"];
        let unread = elsewhere.into_iter().filter(|name| get(name).is_some());
        notes
            .extend(unread.map(|name| {
                format!("{name} is set, but the gateway takes secrets from the directory; `api` reads it")
            }));
    }
    notes
}

/// The names that are set although only development knows them.
pub(super) fn development_only(environment: &BTreeMap<String, String>) -> Vec<&'static str> {
    ["DEBUG"].into_iter().filter(|name| is_true(environment, name)).collect()
}

fn is_true(environment: &BTreeMap<String, String>, name: &str) -> bool {
    environment.get(name).is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"))
}
