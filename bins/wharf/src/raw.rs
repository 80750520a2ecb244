//! `wharf raw`: which webhook a message came with, and what was in it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use crate::remote::{Remote, filtered, part, rows, table, text};

#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: RawCommand,
}

#[derive(Debug, Subcommand)]
enum RawCommand {
    /// List the webhooks that messages came with, oldest message first
    List {
        /// Only that of this message, by the provider's id
        #[arg(long, value_name = "ID")]
        message: Option<String>,
        /// Only those of messages from this phone number
        #[arg(long, value_name = "NUMBER")]
        from: Option<String>,
        /// Only those of messages that were sent at this time or later (2026-01-31T12:00:00Z) [default: 7 days ago]
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// As many, up to 100
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show a webhook as it came in; the look is written down
    Show {
        /// wharf:raw/… or the envelope's id
        reference: String,
    },
}

/// `wharf raw`
pub(crate) async fn run(args: RawArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        RawCommand::List { message, from, since, tenant, limit } => {
            let filters = [("message_id", message), ("from", from), ("since", since), ("tenant", tenant)];
            args.remote.run(Method::GET, &filtered("/api/webhooks", limit, filters), None, listed).await
        }
        RawCommand::Show { reference } => {
            let id = reference.strip_prefix("wharf:raw/").unwrap_or(&reference);
            anyhow::ensure!(!id.is_empty(), "a reference looks like wharf:raw/<envelope id>");
            args.remote.run(Method::GET, &format!("/api/raw/{}", part(id)), None, shown).await
        }
    }
}

fn listed(answer: &Value) -> String {
    let rows = rows(answer, &["rawPayloadRef", "receivedAt", "tenant", "messageId"]);
    let mut shown = table(&["REFERENCE", "RECEIVED", "TENANT", "MESSAGE"], &rows);
    if answer["total"].as_u64().is_some_and(|total| total > rows.len() as u64) {
        shown.push_str("\n… and more");
    }
    shown
}

fn shown(raw: &Value) -> String {
    let head = ["received_at", "provider", "app", "tenant", "number", "disposition", "source_ip", "body_sha256"];
    let lines = head.map(|key| format!("{key:<12} {}", text(&raw[key])));
    let payload = if raw["payload"].is_null() { &raw["payload_base64"] } else { &raw["payload"] };
    format!("{}\n\n{}", lines.join("\n"), text(payload))
}
