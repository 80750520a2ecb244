//! `wharf tenants import`: registers tenants, apps and numbers through the API of a running Wharf.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

/// Flags of `wharf tenants import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A TOML or JSON file with tenants, apps and numbers
    file: PathBuf,
    /// The API of the running Wharf
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    api_url: String,
    /// The API's token; without it the file admin.token in the data folder is read
    #[arg(long, env = "WHARF_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The data folder of the running Wharf, for its token
    #[arg(long, env = "WHARF_DATA_DIR", default_value = "wharf-data")]
    data_dir: PathBuf,
}

/// The command.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the command line speaks to a person")]
pub(crate) async fn import(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {name}"))?;
    let import: api::Import = if args.file.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).with_context(|| format!("{name} is not an import file"))?
    } else {
        toml::from_str(&text).with_context(|| format!("{name} is not an import file"))?
    };
    let token = if let Some(token) = args.token.filter(|token| !token.is_empty()) {
        token
    } else {
        let path = args.data_dir.join("admin.token");
        let read = std::fs::read_to_string(&path);
        read.with_context(|| format!("no --token, and {} cannot be read", path.display()))?.trim().to_owned()
    };
    let client = reqwest::Client::builder().build().context("cannot make an HTTP client")?;
    let url = format!("{}/v1/directory/import", args.api_url.trim_end_matches('/'));
    let response = client
        .post(&url)
        .bearer_auth(token)
        .json(&import)
        .send()
        .await
        .with_context(|| format!("cannot reach {url}; is `wharf up` running?"))?;
    let status = response.status();
    let body: serde_json::Value = response.json().await.unwrap_or_default();
    if status.is_success() {
        println!("{} entries changed (revision {})", body["changed"], body["revision"]);
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: refused with {status}");
    for problem in body["errors"].as_array().into_iter().flatten() {
        let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        eprintln!("  {}: {}", text("field"), text("message"));
    }
    if body["errors"].is_null() {
        eprintln!("  {}", body["detail"].as_str().or(body["title"].as_str()).unwrap_or("no explanation"));
    }
    Ok(ExitCode::FAILURE)
}
