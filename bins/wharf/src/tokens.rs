//! `wharf tokens` and `wharf actions`: who may use the API, and what they did.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::remote::{PAGE, Remote, filtered, part, rows, table, text};

#[derive(Debug, Args)]
pub(crate) struct TokensArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// List tokens, of all or of one tenant
    List {
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Make a token and print it, this once
    Create {
        /// A name, for people
        name: String,
        /// admin, operator, tenant-reader or tenant-sender
        #[arg(long)]
        scope: String,
        /// Whose it is, for the scopes of tenants
        #[arg(long)]
        tenant: Option<String>,
        /// When it ends by itself
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
    },
    /// Revoke a token, by its id; it opens nothing a few seconds later
    Revoke { id: String },
}

/// `wharf tokens`
pub(crate) async fn run(args: TokensArgs) -> anyhow::Result<ExitCode> {
    let remote = args.remote;
    match args.command {
        TokensCommand::List { tenant } => {
            remote.list(&filtered("/api/tokens", PAGE, [("tenant", tenant)]), "before", listed).await
        }
        TokensCommand::Create { name, scope, tenant, expires_in_days } => {
            let body = json!({ "name": name, "scope": scope, "tenant": tenant, "expires_in_days": expires_in_days });
            remote.run(Method::POST, "/api/tokens", Some(body), |made| text(&made["token"])).await
        }
        TokensCommand::Revoke { id } => {
            remote.run(Method::DELETE, &format!("/api/tokens/{}", part(&id)), None, |_| "revoked".to_owned()).await
        }
    }
}

fn listed(answer: &Value) -> String {
    let row = |token: &Value| {
        let state = if !token["revoked_at"].is_null() {
            format!("revoked {}", text(&token["revoked_at"]))
        } else if token["expires_at"].is_null() {
            "valid".to_owned()
        } else {
            format!("until {}", text(&token["expires_at"]))
        };
        vec![text(&token["id"]), text(&token["scope"]), text(&token["tenant"]), state, text(&token["name"])]
    };
    let rows: Vec<_> = answer["data"].as_array().into_iter().flatten().map(row).collect();
    table(&["ID", "SCOPE", "TENANT", "STATE", "NAME"], &rows)
}

#[derive(Debug, Args)]
pub(crate) struct ActionsArgs {
    #[command(flatten)]
    remote: Remote,
    /// Only what concerns this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// As many, newest first
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

/// `wharf actions`
pub(crate) async fn actions(args: ActionsArgs) -> anyhow::Result<ExitCode> {
    let path = filtered("/api/actions", args.limit, [("tenant", args.tenant)]);
    let listed = |answer: &Value| {
        let rows = rows(answer, &["at", "actor", "action", "target", "tenant", "status", "source_ip", "details"]);
        table(&["AT", "WHO", "ACTION", "WHAT", "TENANT", "STATUS", "FROM", "DETAILS"], &rows)
    };
    args.remote.run(Method::GET, &path, None, listed).await
}
