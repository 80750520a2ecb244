//! `wharf parked` and `wharf security`: what is kept until released, and what happened at the door.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::remote::{Remote, filtered, rows, table, text};

#[derive(Debug, Args)]
pub(crate) struct ParkedArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: ParkedCommand,
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    /// List parked webhooks, oldest first, or sum them up
    List {
        #[command(flatten)]
        which: Which,
        /// As many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// One line for all that are parked alike
        #[arg(long)]
        groups: bool,
    },
    /// Hand out parked webhooks within seconds; what has no owner stays
    Release {
        /// One, by its envelope's id
        envelope: Option<String>,
        #[command(flatten)]
        which: Which,
        /// All that are parked
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Only of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only for this reason: unknown-tenant, foreign-app, throttled, too-old, unreadable, suspended, paused
    #[arg(long)]
    reason: Option<String>,
    /// Only for this number
    #[arg(long)]
    number: Option<String>,
}

/// `wharf parked`
pub(crate) async fn run(args: ParkedArgs) -> anyhow::Result<ExitCode> {
    let remote = args.remote;
    match args.command {
        ParkedCommand::List { groups: true, .. } => {
            remote.run(Method::GET, "/api/parked/groups", None, summed_up).await
        }
        ParkedCommand::List { which, limit, .. } => {
            let filters = [("tenant", which.tenant), ("reason", which.reason), ("number", which.number)];
            let path = filtered("/api/parked", limit, filters);
            remote.run(Method::GET, &path, None, listed).await
        }
        ParkedCommand::Release { envelope, which, all } => {
            let body = json!({
                "envelope": envelope,
                "tenant": which.tenant,
                "reason": which.reason,
                "number": which.number,
                "all": all,
            });
            let shown = |answer: &Value| format!("{} are looked at within seconds", text(&answer["due"]));
            remote.run(Method::POST, "/api/parked/release", Some(body), shown).await
        }
    }
}

fn listed(answer: &Value) -> String {
    let rows = rows(answer, &["received_at", "tenant", "reason", "number", "updates", "envelope"]);
    let mut shown = table(&["RECEIVED", "TENANT", "REASON", "NUMBER", "UPDATES", "ENVELOPE"], &rows);
    if !answer["next"].is_null() {
        shown.push_str("\n… and more");
    }
    shown
}

fn summed_up(answer: &Value) -> String {
    let rows = rows(answer, &["tenant", "reason", "number", "envelopes", "updates", "oldest"]);
    table(&["TENANT", "REASON", "NUMBER", "WEBHOOKS", "UPDATES", "OLDEST"], &rows)
}

#[derive(Debug, Args)]
pub(crate) struct SecurityArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: SecurityCommand,
}

#[derive(Debug, Subcommand)]
enum SecurityCommand {
    /// Invalid signatures, suspicious requests, replays, and who went over a limit
    Report {
        /// Of the last so many hours, up to 720
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
}

/// `wharf security`
pub(crate) async fn security(args: SecurityArgs) -> anyhow::Result<ExitCode> {
    let SecurityCommand::Report { hours } = args.command;
    args.remote.run(Method::GET, &format!("/api/security?hours={hours}"), None, report).await
}

fn report(report: &Value) -> String {
    let mut shown =
        format!("{} to {}: {} requests\n", text(&report["since"]), text(&report["until"]), text(&report["requests"]));
    for (title, key) in [
        ("invalid signatures", "invalid_signatures"),
        ("suspicious requests", "suspicious"),
        ("refused requests by address", "top_addresses"),
    ] {
        let rows: Vec<Vec<String>> = report[key]
            .as_array()
            .into_iter()
            .flatten()
            .map(|each| vec![text(&each["requests"]), text(&each["what"])])
            .collect();
        let _ = write!(shown, "\n{title}:\n{}\n", table(&["REQUESTS", "WHAT"], &rows));
    }
    let (replays, violations) = (&report["replays"], &report["violations"]);
    for (what, value) in [
        ("replays: requests with updates that are too old", &replays["too_old"]),
        ("replays: messages that came again after a day", &replays["late_duplicates"]),
        ("limits: messages parked, sender over his limit", &violations["throttled_messages"]),
        ("limits: requests answered 429", &violations["over_limit"]),
        ("limits: requests from addresses not on the list", &violations["not_on_list"]),
    ] {
        let _ = write!(shown, "\n{what:<52} {}", text(value));
    }
    shown
}
