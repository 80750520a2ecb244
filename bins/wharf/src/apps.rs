//! `wharf apps`: whose signatures count. Secrets are read from a file or the standard input, so that no shell history
//! keeps them.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::remote::{PAGE, Remote, filtered, part, table, text};

#[derive(Debug, Args)]
pub(crate) struct AppsArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: AppsCommand,
}

#[derive(Debug, Subcommand)]
enum AppsCommand {
    /// List apps
    List,
    /// Register an app; its secret is read from --secret-file, or from the standard input
    Create {
        /// As in /webhooks/meta/APP: 1 to 48 of a-z, 0-9 and -
        app: String,
        /// meta, twilio or generic
        #[arg(long, default_value = "meta")]
        provider: String,
        #[command(flatten)]
        secret: SecretFrom,
        /// The token of Meta's verification request
        #[arg(long)]
        verify_token: Option<String>,
        /// Try its secrets on its own path only, not on those without an app
        #[arg(long)]
        own_path_only: bool,
        /// The account it stands for: Twilio's AccountSid
        #[arg(long)]
        account: Option<String>,
        /// Where the provider believes to send: scheme and host
        #[arg(long)]
        public_url: Option<String>,
    },
    /// Make a new secret the first one; those before it are accepted for a while
    Rotate {
        app: String,
        #[command(flatten)]
        secret: SecretFrom,
        /// How long the earlier secrets are accepted too; 0 ends them now [default: 192]
        #[arg(long, value_name = "HOURS")]
        overlap_hours: Option<u32>,
    },
    /// Accept nothing for an app any more
    Retire { app: String },
}

#[derive(Debug, Args)]
struct SecretFrom {
    /// The file with the secret; `-` is the standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    secret_file: PathBuf,
}

impl SecretFrom {
    fn read(&self) -> anyhow::Result<String> {
        let mut secret = String::new();
        if self.secret_file.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut secret).context("cannot read the secret from the standard input")?;
        } else {
            let name = self.secret_file.display();
            secret = std::fs::read_to_string(&self.secret_file).with_context(|| format!("cannot read {name}"))?;
        }
        Ok(secret.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// The command.
pub(crate) async fn run(args: AppsArgs) -> anyhow::Result<ExitCode> {
    let remote = args.remote;
    let of = |app: &str| format!("/api/apps/{}", part(app));
    match args.command {
        AppsCommand::List => remote.list(&filtered("/api/apps", PAGE, []), "after", listed).await,
        AppsCommand::Create { app, provider, secret, verify_token, own_path_only, account, public_url } => {
            let mut body = json!({
                "id": app,
                "provider": provider,
                "secrets": [secret.read()?],
                "verify_tokens": verify_token.into_iter().collect::<Vec<_>>(),
                "default": !own_path_only,
            });
            for (key, value) in [("account", account), ("public_url", public_url)] {
                if let Some(value) = value {
                    body[key] = value.into();
                }
            }
            remote.run(Method::POST, "/api/apps", Some(body), shown).await
        }
        AppsCommand::Rotate { app, secret, overlap_hours } => {
            let body = json!({ "secret": secret.read()?, "overlap_hours": overlap_hours });
            remote.run(Method::POST, &format!("{}/secrets", of(&app)), Some(body), shown).await
        }
        AppsCommand::Retire { app } => remote.run(Method::DELETE, &of(&app), None, shown).await,
    }
}

fn row(app: &Value) -> Vec<String> {
    let secrets = app["secrets"].as_array().into_iter().flatten();
    let ends = secrets.map(|secret| match secret["accepted_until"].as_str() {
        Some(end) => format!("until {end}"),
        None => "current".to_owned(),
    });
    let secrets = ends.collect::<Vec<_>>().join(", ");
    let paths = if app["default"] == true { "all" } else { "own" };
    let secrets = if secrets.is_empty() { "retired".to_owned() } else { secrets };
    vec![text(&app["id"]), text(&app["provider"]), paths.to_owned(), text(&app["numbers"]), secrets]
}

const HEAD: [&str; 5] = ["APP", "PROVIDER", "PATHS", "NUMBERS", "SECRETS"];

fn listed(answer: &Value) -> String {
    table(&HEAD, &answer["data"].as_array().into_iter().flatten().map(row).collect::<Vec<_>>())
}

fn shown(app: &Value) -> String {
    table(&HEAD, &[row(app)])
}
