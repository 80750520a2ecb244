//! `wharf demo`: everything at work, with invented secrets and simulated people.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use assembly::config::{self, Purpose};
use assembly::{Jobs, Process, program_name};
use clap::Args;
use common::Clock as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use simulator::{Delivery, Generator, Mix, Progress, Report, RetrySchedule, Traffic, UpdateKind, UpdateRef};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::simulate::default_number;

/// Webhooks of the demo, duplicates and forgeries included.
const COUNT: u64 = 200;
/// Webhooks per second: below the limit for one address.
const RATE: f64 = 45.0;
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Events printed before the rest is only counted.
const SHOWN: usize = 12;

/// Flags of `wharf demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// End after the traffic: with 0 only if every event came out exactly once
    #[arg(long)]
    once: bool,
    /// Keep the demo's data here; a folder that is deleted at the end without it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The command.
#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let secret = hex::encode(rand::random::<[u8; 16]>());
    let verify_token = hex::encode(rand::random::<[u8; 8]>());
    let temporary = args.data_dir.is_none();
    let folder =
        args.data_dir.unwrap_or_else(|| std::env::temp_dir().join(format!("wharf-demo-{:08x}", rand::random::<u32>())));
    let environment = BTreeMap::from(
        [
            ("WHARF_MODE", "development"),
            ("WHATSAPP_APP_SECRET", secret.as_str()),
            ("WHATSAPP_VERIFY_TOKEN", verify_token.as_str()),
            ("LOG_LEVEL", "error"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let flags = [
        ("--data-dir", "data_dir", folder.display().to_string()),
        ("demo", "listen.public", free_address(8080).to_string()),
        ("demo", "listen.api", free_address(8081).to_string()),
        ("demo", "listen.admin", free_address(8082).to_string()),
    ];
    let config = config::load(None, &environment, &flags, Purpose::Run(Jobs::All)).config.map_err(|problems| {
        anyhow::anyhow!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    service::telemetry::start_logs(config.log_level(), service::telemetry::LogFormat::Text);
    let started = match Process::start(&config, Jobs::All).await {
        Ok(process) => Running::new(process),
        Err(error) => Err(error),
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            if temporary {
                let _ = std::fs::remove_dir_all(&folder);
            }
            return Err(error);
        }
    };
    println!(
        "Wharf is up with invented secrets. {COUNT} webhooks go through the real HTTP door, signed as Meta signs,"
    );
    println!("some repeated, some forged. These are the first of the events that come out:\n");
    let outcome = tokio::select! {
        outcome = traffic(&running, &secret) => outcome,
        () = service::stop::wait_for_signal() => Err(anyhow::anyhow!("interrupted")),
    };
    let code = match &outcome {
        Ok(true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    if !args.once && matches!(outcome, Ok(true)) {
        println!("\nIt goes on running; stop it with Ctrl-C. Try in another terminal:");
        println!("  export WHATSAPP_APP_SECRET={secret}");
        println!("  {} simulate send --url http://{}/webhooks/meta --count 5", program_name(), running.public);
        let token = running.token.expose_secret();
        println!("  curl -H 'Authorization: Bearer {token}' 'http://{}/v1/events?limit=5'", running.api);
        println!("  curl -H 'Authorization: Bearer {token}' 'http://{}/messages?limit=5'", running.api);
        println!(
            "  curl 'http://{}/webhooks/meta?hub.mode=subscribe&hub.verify_token={verify_token}&hub.challenge=42'",
            running.public
        );
        println!("  curl http://{}/metrics", running.admin);
        tokio::select! {
            () = service::stop::wait_for_signal() => {}
            () = running.process.failed() => {}
        }
    }
    running.process.stop().await;
    if temporary {
        let _ = std::fs::remove_dir_all(&folder);
    }
    outcome.map(|_| code)
}

/// The demo's own Wharf, and where its doors are.
struct Running {
    process: Process,
    public: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
    token: SecretString,
}

impl Running {
    fn new(process: Process) -> anyhow::Result<Self> {
        let addresses = process.addresses();
        let public = addresses.public.context("no public listener")?;
        let api = addresses.api.context("no API listener")?;
        let token = process.token().context("no admin token")?.clone();
        Ok(Self { process, public, api, admin: addresses.admin, token })
    }
}

/// The usual address if it is free, else one that the system chooses.
fn free_address(port: u16) -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    if TcpListener::bind(usual).is_ok() { usual } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
}

/// Sends the traffic, reads the feed, compares. True if every acknowledged update came out exactly once.
async fn traffic(running: &Running, secret: &str) -> anyhow::Result<bool> {
    let plan = Traffic {
        seed: rand::random(),
        count: COUNT,
        batch: 2,
        mix: Mix { messages: 40, statuses: 45, other: 15 },
        duplicates: 0.05,
        forged: 0.03,
        numbers: vec![default_number()],
        senders: 40,
        mixed_numbers: false,
        start_time: common::SystemClock.now().as_secs(),
    };
    let delivery = Delivery {
        url: format!("http://{}/webhooks/meta", running.public),
        connections: 4,
        rate: Some(RATE),
        timeout: Duration::from_secs(5),
        retry: RetrySchedule::meta().scaled(0.01),
        local_addresses: Vec::new(),
        acknowledged_log: None,
        keep_acknowledged: true,
        headers: Vec::new(),
    };
    let (progress, _shown) = watch::channel(Progress::default());
    let sending = simulator::deliver(Generator::new(plan, secret), delivery, progress, CancellationToken::new());
    let mut reader = FeedReader::new(running)?;
    tokio::pin!(sending);
    let report = loop {
        tokio::select! {
            report = &mut sending => break report?,
            () = tokio::time::sleep(Duration::from_millis(100)) => reader.read().await?,
        }
    };
    let expected: BTreeMap<String, UpdateRef> =
        report.acknowledged.iter().map(|update| (name_of(update), update.clone())).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while reader.total < expected.len() as u64 && tokio::time::Instant::now() < deadline {
        reader.read().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    reader.read().await?;
    Ok(verdict(&report, &expected, &reader))
}

#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
fn verdict(report: &Report, expected: &BTreeMap<String, UpdateRef>, reader: &FeedReader) -> bool {
    let missing = expected.keys().filter(|name| !reader.seen.contains_key(*name)).count();
    // An update of the account has no id of its own that makes it the same again: its repetition is another event.
    let has_identity = |name: &String| expected.get(name).is_none_or(|update| !update.phone_number_id.is_empty());
    let repeated = reader.seen.iter().filter(|(name, count)| **count > 1 && has_identity(name)).count();
    let foreign = reader.seen.keys().filter(|name| !expected.contains_key(*name)).count();
    let sent = crate::progress::succeeded(report);
    println!("\n{}", crate::progress::report(report));
    println!(
        "events: {} expected, {} came out, {missing} missing, {repeated} more than once, {foreign} unexpected",
        expected.len(),
        reader.total
    );
    let good = sent && missing == 0 && repeated == 0 && foreign == 0;
    println!("{}", if good { "Every event came out exactly once." } else { "This is not as it should be." });
    good
}

/// What names an update on both sides.
fn name_of(update: &UpdateRef) -> String {
    match update.kind {
        UpdateKind::Message => format!("message {}", update.id),
        UpdateKind::Status => format!("status {} {}", update.id, update.status.as_deref().unwrap_or_default()),
        UpdateKind::Other => format!("other {}", update.id),
    }
}

/// Reads the feed through the API, as a consumer would.
struct FeedReader {
    client: reqwest::Client,
    url: String,
    token: String,
    cursor: String,
    seen: BTreeMap<String, u32>,
    total: u64,
}

impl FeedReader {
    fn new(running: &Running) -> anyhow::Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().build().context("cannot make an HTTP client")?,
            url: format!("http://{}/v1/events", running.api),
            token: running.token.expose_secret().to_owned(),
            cursor: String::new(),
            seen: BTreeMap::new(),
            total: 0,
        })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        loop {
            let mut query = vec![("limit", "500")];
            if !self.cursor.is_empty() {
                query.push(("after", self.cursor.as_str()));
            }
            let response = self.client.get(&self.url).query(&query).bearer_auth(&self.token).send().await?;
            let page: Value = response.error_for_status()?.json().await?;
            let events = page["events"].as_array().cloned().unwrap_or_default();
            page["next"].as_str().unwrap_or_default().clone_into(&mut self.cursor);
            for event in &events {
                self.take(event);
            }
            if events.len() < 500 {
                return Ok(());
            }
        }
    }

    #[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
    fn take(&mut self, event: &Value) {
        let data = &event["data"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, line) = match event["type"].as_str() {
            Some("wharf.message.received") => {
                let body: String = text(&data["text"]["body"]).chars().filter(|c| !c.is_control()).take(60).collect();
                (format!("message {}", text(&data["messageId"])), format!("{}: {body}", text(&data["sender"]["name"])))
            }
            Some("wharf.message.status") => {
                let status = text(&data["status"]);
                (format!("status {} {status}", text(&data["messageId"])), status)
            }
            _ => {
                let id = unsupported_id(data);
                (format!("other {id}"), format!("{} {}", text(&data["field"]), text(&data["type"])))
            }
        };
        self.total += 1;
        *self.seen.entry(name).or_insert(0) += 1;
        if self.seen.len() <= SHOWN {
            println!("  {:<24} {line}", text(&event["type"]));
        }
    }
}

/// The simulator's id of an update that this version does not type: its own, or the one unique id in its value.
fn unsupported_id(data: &Value) -> String {
    let value = &data["raw"]["value"];
    let text = |value: &Value| value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|id| id.to_string()));
    [&data["id"], &data["raw"]["id"], &value["message_template_id"], &value["waba_info"]["ad_account_linked"]]
        .into_iter()
        .find_map(text)
        .unwrap_or_default()
}
