//! `wharf tenants`: who there is, and what becomes of their webhooks.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::remote::{PAGE, Remote, filtered, part, table, text};

#[derive(Debug, Args)]
pub(crate) struct TenantsArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: TenantsCommand,
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// List tenants, or find the one of a number or a WABA
    List {
        /// Only the one that has this WABA
        #[arg(long)]
        waba: Option<String>,
        /// Only the one that has this number
        #[arg(long)]
        number: Option<String>,
        /// Only those that are active, paused, suspended or offboarded
        #[arg(long)]
        status: Option<String>,
    },
    /// Show a tenant with its numbers
    Show { tenant: String },
    /// Register a tenant
    Create {
        /// 1 to 48 of a-z, 0-9 and -
        tenant: String,
        /// Its name, for people
        #[arg(long)]
        name: Option<String>,
    },
    /// Hold back what arrives for a tenant, sealed, until it is resumed
    Pause { tenant: String },
    /// The same, by decision of the operator
    Suspend { tenant: String },
    /// Hand out again what arrives, and what was held back
    Resume { tenant: String },
    /// Give a tenant a number, also from another tenant
    Assign {
        tenant: String,
        /// Meta's phone number id, or the number itself (+15551230000) with Twilio and the generic provider
        number: String,
        /// The app it is registered under
        #[arg(long, default_value = "default")]
        app: String,
        /// Its WhatsApp business account
        #[arg(long)]
        waba: Option<String>,
        /// The first moment, RFC 3339; without it always if nobody had it before, else now
        #[arg(long)]
        valid_from: Option<String>,
    },
    /// Take a number from a tenant; what comes for it from now on is parked
    Release { tenant: String, number: String },
    /// End a tenant: it loses its numbers and its tokens. What is stored stays until its retention ends
    Offboard {
        tenant: String,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
    /// Register tenants, apps with their secrets, and numbers from a TOML or JSON file
    Import {
        /// The file
        file: PathBuf,
    },
}

/// The command.
pub(crate) async fn run(args: TenantsArgs) -> anyhow::Result<ExitCode> {
    let remote = args.remote;
    let of = |tenant: &str| format!("/api/tenants/{}", part(tenant));
    let status = async |tenant: String, status: &str| {
        remote.run(Method::PUT, &of(&tenant), Some(json!({ "status": status })), shown).await
    };
    match args.command {
        TenantsCommand::List { waba, number, status } => {
            let path = filtered("/api/tenants", PAGE, [("waba", waba), ("number", number), ("status", status)]);
            remote.list(&path, "after", listed).await
        }
        TenantsCommand::Show { tenant } => remote.run(Method::GET, &of(&tenant), None, shown).await,
        TenantsCommand::Create { tenant, name } => {
            let body = json!({ "id": tenant, "name": name });
            remote.run(Method::POST, "/api/tenants", Some(body), shown).await
        }
        TenantsCommand::Pause { tenant } => status(tenant, "paused").await,
        TenantsCommand::Suspend { tenant } => status(tenant, "suspended").await,
        TenantsCommand::Resume { tenant } => status(tenant, "active").await,
        TenantsCommand::Assign { tenant, number, app, waba, valid_from } => {
            let body = json!({ "app": app, "waba_id": waba, "valid_from": valid_from });
            let path = format!("{}/numbers/{}", of(&tenant), part(&number));
            remote.run(Method::PUT, &path, Some(body), shown).await
        }
        TenantsCommand::Release { tenant, number } => {
            let path = format!("{}/numbers/{}", of(&tenant), part(&number));
            remote.run(Method::DELETE, &path, None, shown).await
        }
        TenantsCommand::Offboard { tenant, yes } => {
            anyhow::ensure!(yes, "this takes its numbers and tokens and cannot be undone; say --yes if it is meant");
            let shown = |answer: &Value| {
                let (numbers, tokens) = (text(&answer["numbers_released"]), text(&answer["tokens_revoked"]));
                format!("{} has left: {numbers} numbers released, {tokens} tokens revoked", text(&answer["id"]))
            };
            remote.run(Method::DELETE, &of(&tenant), None, shown).await
        }
        TenantsCommand::Import { file } => import(&remote, file).await,
    }
}

async fn import(remote: &Remote, file: PathBuf) -> anyhow::Result<ExitCode> {
    let name = file.display();
    let content = std::fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
    let import: api::Import = if file.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&content).with_context(|| format!("{name} is not an import file"))?
    } else {
        toml::from_str(&content).with_context(|| format!("{name} is not an import file"))?
    };
    let shown = |answer: &Value| {
        format!("{} entries changed (revision {})", text(&answer["changed"]), text(&answer["revision"]))
    };
    remote.run(Method::POST, "/v1/directory/import", Some(serde_json::to_value(import)?), shown).await
}

fn listed(answer: &Value) -> String {
    let row = |tenant: &Value| {
        let numbers = tenant["numbers"].as_array().map_or(0, Vec::len);
        vec![text(&tenant["id"]), text(&tenant["status"]), numbers.to_string(), text(&tenant["name"])]
    };
    let rows: Vec<_> = answer["data"].as_array().into_iter().flatten().map(row).collect();
    table(&["TENANT", "STATUS", "NUMBERS", "NAME"], &rows)
}

fn shown(tenant: &Value) -> String {
    let row = |number: &Value| {
        let id = number["phone_number_id"].as_str().unwrap_or("all others of the app");
        vec![id.to_owned(), text(&number["waba_id"]), text(&number["app"]), text(&number["valid_from"])]
    };
    let rows: Vec<_> = tenant["numbers"].as_array().into_iter().flatten().map(row).collect();
    format!(
        "{}  {}  {}\nnumbers:\n{}",
        text(&tenant["id"]),
        text(&tenant["status"]),
        text(&tenant["name"]),
        table(&["NUMBER", "WABA", "APP", "SINCE"], &rows)
    )
}
