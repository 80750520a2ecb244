//! `wharf simulate send`: signed webhooks to a URL, as Meta would send them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use common::Clock as _;
use simulator::{Delivery, Generator, Mix, Number, Progress, RetrySchedule, Traffic};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::progress;

/// Flags of `wharf simulate send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Where to send
    #[arg(long, env = "WHARF_WEBHOOK_URL", default_value = "http://127.0.0.1:8080/webhooks/meta")]
    url: String,
    /// The app secret to sign with
    #[arg(long, env = "WHATSAPP_APP_SECRET", hide_env_values = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    secret: String,
    /// Webhooks to send, duplicates and forgeries included
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Webhooks per second; as fast as answers come without it
    #[arg(long)]
    rate: Option<f64>,
    /// Connections at once
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Updates in each webhook, up to 1000
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Weight of text messages in the mix
    #[arg(long, default_value_t = 25)]
    messages: u32,
    /// Weight of statuses in the mix
    #[arg(long, default_value_t = 75)]
    statuses: u32,
    /// Weight of everything else in the mix
    #[arg(long, default_value_t = 0)]
    other: u32,
    /// Share of webhooks that repeat an earlier one, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    duplicates: f64,
    /// Share of webhooks signed with a wrong secret, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    forged: f64,
    /// A business number as WABA_ID:PHONE_NUMBER_ID; may be repeated
    #[arg(long = "number", value_name = "WABA:NUMBER")]
    numbers: Vec<Number>,
    /// Distinct people
    #[arg(long, default_value_t = 1000)]
    senders: u32,
    /// Let one webhook carry several numbers
    #[arg(long)]
    mixed_numbers: bool,
    /// The same seed sends the same webhooks; another for each run without it
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds to wait for an answer
    #[arg(long, default_value_t = 10)]
    timeout: u64,
    /// Retry as Meta does, with its pauses multiplied by this (0.001: a week takes ten minutes); 0 = no retries
    #[arg(long, default_value_t = 0.01)]
    retry_scale: f64,
    /// Append each acknowledged id to this file, as kind, number, id and status
    #[arg(long, value_name = "FILE")]
    acknowledged_log: Option<PathBuf>,
    /// Send from this address; may be repeated, connections are spread over them
    #[arg(long, value_name = "ADDRESS")]
    from: Vec<IpAddr>,
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("must be between 0 and 1".to_owned()) }
}

/// The number that is used when none is named.
pub(crate) fn default_number() -> Number {
    Number {
        waba_id: "300111222333444".into(),
        phone_number_id: "777000111222333".into(),
        display_phone_number: "4915155500011".into(),
    }
}

/// The command.
#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
pub(crate) async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let traffic = Traffic {
        seed,
        count: args.count,
        batch: args.batch.into(),
        mix: Mix { messages: args.messages, statuses: args.statuses, other: args.other },
        duplicates: args.duplicates,
        forged: args.forged,
        numbers: if args.numbers.is_empty() { vec![default_number()] } else { args.numbers },
        senders: args.senders,
        mixed_numbers: args.mixed_numbers,
        start_time: common::SystemClock.now().as_secs(),
    };
    let retry =
        if args.retry_scale > 0.0 { RetrySchedule::meta().scaled(args.retry_scale) } else { RetrySchedule::none() };
    let delivery = Delivery {
        url: args.url,
        connections: args.connections,
        rate: args.rate,
        timeout: Duration::from_secs(args.timeout),
        retry,
        local_addresses: args.from,
        acknowledged_log: args.acknowledged_log,
        keep_acknowledged: false,
        headers: Vec::new(),
    };
    let (sender, receiver) = watch::channel(Progress::default());
    let stop = CancellationToken::new();
    let shown = progress::show(receiver, args.count);
    let generator = Generator::new(traffic, &args.secret);
    let sent = simulator::deliver(generator, delivery, sender, stop.clone());
    let interrupted = async {
        service::stop::wait_for_signal().await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let (report, ()) = tokio::select! {
        both = async { tokio::join!(sent, shown) } => both,
        () = interrupted => unreachable!("it only passes the signal on"),
    };
    let report = report?;
    println!("seed {seed}\n{}", progress::report(&report));
    Ok(if progress::succeeded(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
