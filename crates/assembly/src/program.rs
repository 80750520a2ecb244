//! What every program does around its work: the process' surroundings, its flags, its configuration, its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use service::stop::Signals;
use service::telemetry::{self, LogFormat};

use crate::banner::banner;
use crate::config::{self, Config, Flag, Mode, Purpose};
use crate::jobs::{Job, Jobs};
use crate::process::Process;

/// The exit code for a configuration that cannot be used (EX_USAGE).
pub const EXIT_CONFIG: u8 = 64;

/// What every command that reads the configuration takes.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A TOML file laid over the defaults
    #[arg(long, env = "WHARF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where data, keys and the admin token live
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl ConfigArgs {
    /// As flags of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        self.data_dir.iter().map(|dir| ("--data-dir", "data_dir", dir.display().to_string())).collect()
    }
}

/// Runs a program: prepares the process, runs the command, and makes an exit code of how it ended.
pub fn run(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    // Whatever this process creates (databases, keys, blobs, locks) is its owner's alone.
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Connections are files: as many as the system lets this process have.
    #[cfg(unix)]
    {
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = limit.maximum;
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let code = runtime.block_on(command).unwrap_or_else(|error| failed(&error));
    // A stop has waited for what matters; the rest must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// Prints an error with its causes.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    ExitCode::FAILURE
}

/// Where commands of `wharf` find a running one, if a flag does not say it. They begin like settings and are none, so a
/// process that finds them in its environment must not take them for a misspelled one.
const ADDRESSES_OF_COMMANDS: [&str; 3] = ["WHARF_API_URL", "WHARF_GATEWAY_URL", "WHARF_WEBHOOK_URL"];

fn is_configuration(name: &str) -> bool {
    !ADDRESSES_OF_COMMANDS.contains(&name)
}

/// The environment, read in this one place.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| is_configuration(name))
        .collect()
}

/// Loads the configuration, or prints all that is wrong with it.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
pub fn load(file: Option<&Path>, flags: &[Flag], purpose: Purpose) -> Result<(Config, Vec<String>), ExitCode> {
    let loaded = config::load(file, &environment(), flags, purpose);
    match loaded.config {
        Ok(config) => Ok((config, loaded.notes)),
        Err(problems) => {
            eprintln!("error: the configuration has {} problem(s):", problems.len());
            for problem in problems {
                eprintln!("  {problem}");
            }
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

/// Runs jobs until a signal ends them; a second signal ends them at once.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
pub async fn serve(config: &Config, notes: &[String], jobs: Jobs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(config.log_level(), config.log_format().unwrap_or(LogFormat::Auto));
    let version = if config.app.version.is_empty() { env!("CARGO_PKG_VERSION") } else { &config.app.version };
    tracing::info!(app = config.app.name, process = jobs.name(), version, mode = ?config.mode, "starting");
    for note in notes {
        tracing::warn!("{note}");
    }
    if config.has_outbound_settings() {
        tracing::warn!("settings for sending messages are understood, but this version does not send");
    }
    if config.takes_unsigned() && jobs.has(Job::Gateway) {
        tracing::error!(
            "UNSAFE: webhooks without a signature are taken as Twilio's (twilio.unsafe_skip_validation); never in production"
        );
    }
    if config.lacks_public_url() && jobs.has(Job::Gateway) {
        tracing::warn!(
            "Twilio signs the address that it sends to: without ingress.public_url (or the app's own) its webhooks are refused"
        );
    }
    let is_public = jobs.has(Job::Gateway) && !config.listen.public.ip().is_loopback();
    if config.mode == Mode::Production && is_public && config.tls().is_none() {
        tracing::warn!("the public listener speaks plain HTTP; put a TLS proxy in front of it");
    }
    if config.mode == Mode::Production && jobs.has(Job::Api) && !config.listen.api.ip().is_loopback() {
        tracing::warn!("the API speaks plain HTTP and others can reach it: its tokens need a TLS proxy in front of it");
    }
    // Before anybody is told that it runs.
    let mut signals = Signals::listen();
    let process = tokio::select! {
        started = Process::start(config, jobs) => started?,
        () = signals.next() => {
            tracing::info!("stopped before it was ready");
            return Ok(ExitCode::SUCCESS);
        }
    };
    eprintln!("{}", banner(&process, config).await);
    tokio::select! {
        () = signals.next() => tracing::info!("stopping; a second signal stops at once"),
        () = process.failed() => {
            process.stop().await;
            anyhow::bail!("a job ended unexpectedly; the log says which");
        }
    }
    tokio::select! {
        complete = process.stop() => {
            if !complete {
                tracing::warn!("some work did not end in time; it will be done after the next start");
            }
            Ok(ExitCode::SUCCESS)
        }
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}

/// The `main` of a job that is a process of its own.
pub fn main(job: Job) -> ExitCode {
    let matches = command_line(job).get_matches();
    run(async move {
        let (config, flags) = match job {
            Job::Normalizer => {
                let arguments = NormalizerArgs::from_arg_matches(&matches)?;
                (arguments.config.config.clone(), arguments.flags())
            }
            Job::Gateway | Job::Api => {
                let arguments = ListeningArgs::from_arg_matches(&matches)?;
                let listen = if job == Job::Gateway { "listen.public" } else { "listen.api" };
                (arguments.rest.config.config.clone(), arguments.flags(listen))
            }
        };
        let jobs = Jobs::Only(job);
        match load(config.as_deref(), &flags, Purpose::Run(jobs)) {
            Ok((config, notes)) => serve(&config, &notes, jobs).await,
            Err(code) => Ok(code),
        }
    })
}

/// The flags of a job without a listener of its own.
#[derive(Debug, Parser)]
struct NormalizerArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Health and metrics
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
}

/// The flags of a job with a listener of its own.
#[derive(Debug, Parser)]
struct ListeningArgs {
    /// The job's listener
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    rest: NormalizerArgs,
}

impl NormalizerArgs {
    fn flags(&self) -> Vec<Flag> {
        let mut flags = self.config.flags();
        flags.extend(self.admin_listen.map(|address| ("--admin-listen", "listen.admin", address.to_string())));
        flags
    }
}

impl ListeningArgs {
    fn flags(&self, listen: &'static str) -> Vec<Flag> {
        let mut flags = self.rest.flags();
        flags.extend(self.listen.map(|address| ("--listen", listen, address.to_string())));
        flags
    }
}

/// A job's command line: what differs between them is what they need and where they listen.
fn command_line(job: Job) -> clap::Command {
    let (command, about, listen, admin, needs) = match job {
        Job::Gateway => (
            ListeningArgs::command(),
            "Takes webhooks in: verifies them, makes them durable on NATS, answers",
            "The public listener, for providers; HOST and PORT too [default: 127.0.0.1:8080]",
            "Health and metrics [default: 127.0.0.1:8082]",
            GATEWAY_NEEDS,
        ),
        Job::Normalizer => (
            NormalizerArgs::command(),
            "Turns stored webhooks into rows and events, publishes the events, records requests",
            "",
            "Health and metrics [default: 127.0.0.1:8083]",
            NORMALIZER_NEEDS,
        ),
        Job::Api => (
            ListeningArgs::command(),
            "Serves the API, and writes the directory of tenants, apps and numbers",
            "The API listener [default: 127.0.0.1:8081]",
            "Health and metrics [default: 127.0.0.1:8084]",
            API_NEEDS,
        ),
    };
    let command = command.name(job.name()).version(env!("CARGO_PKG_VERSION")).about(about).after_help(needs);
    let command = command.mut_arg("admin_listen", |argument| argument.help(admin));
    if listen.is_empty() { command } else { command.mut_arg("listen", |argument| argument.help(listen)) }
}

const GATEWAY_NEEDS: &str = "\
Needs, from the environment or the file of --config:
  WHARF__NATS__URL          nats://host:4222
  WHARF__NATS__MONITOR_URL  http://host:8222; says whether NATS syncs. Only in development, and with
                            WHARF__NATS__UNSAFE_LAZY_SYNC=true, does it start without
  WHARF__REDIS__URL         redis://host:6379
  WHARF__KEYS__FILE         the master keys, a copy of what `wharf migrate` made

Secrets of providers come from the directory, which `api` writes. It never opens a database.
`wharf config print-defaults` lists all settings; all are WHARF__SECTION__KEY in the environment.";

const NORMALIZER_NEEDS: &str = "\
Needs, from the environment or the file of --config:
  WHARF__NATS__URL          nats://host:4222
  WHARF__NATS__MONITOR_URL  http://host:8222; says whether NATS syncs. Only in development, and with
                            WHARF__NATS__UNSAFE_LAZY_SYNC=true, does it start without
  WHARF__POSTGRES__URL      postgres://host:5432/wharf; DATABASE_URL too
  WHARF__BLOBS__FOLDER      where sealed raw webhooks go, the same for every normalizer
  WHARF__KEYS__FILE         the master keys, a copy of what `wharf migrate` made

`wharf config print-defaults` lists all settings; all are WHARF__SECTION__KEY in the environment.";

const API_NEEDS: &str = "\
Needs, from the environment or the file of --config:
  WHARF__NATS__URL          nats://host:4222
  WHARF__NATS__MONITOR_URL  http://host:8222; says whether NATS syncs. Only in development, and with
                            WHARF__NATS__UNSAFE_LAZY_SYNC=true, does it start without
  WHARF__POSTGRES__URL      postgres://host:5432/wharf; DATABASE_URL too
  WHARF__BLOBS__FOLDER      where sealed raw webhooks are, the same as the normalizers', for `wharf raw show`
  WHARF__KEYS__FILE         the master keys, a copy of what `wharf migrate` made
  WHARF_ADMIN_TOKEN         opens the API, the same for every replica
For single-tenant operation also WHATSAPP_APP_SECRET and WHATSAPP_VERIFY_TOKEN.

`wharf config print-defaults` lists all settings; all are WHARF__SECTION__KEY in the environment.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_is_consistent() {
        for job in [Job::Gateway, Job::Normalizer, Job::Api] {
            let mut command = command_line(job);
            command.clone().debug_assert();
            let help = command.render_long_help().to_string();
            assert!(help.contains("WHARF__NATS__URL") && help.contains("--admin-listen"), "{help}");
            assert_eq!(help.contains("--listen <"), job != Job::Normalizer, "{help}");
            assert_eq!(help.contains("WHARF__BLOBS__FOLDER"), job != Job::Gateway, "{help}");
            assert!(help.contains("WHARF__NATS__UNSAFE_LAZY_SYNC"), "{help}");
        }
    }

    #[test]
    fn addresses_for_commands_are_not_configuration() {
        for name in ADDRESSES_OF_COMMANDS {
            assert!(!is_configuration(name));
        }
        assert!(is_configuration("WHARF_MODE") && is_configuration("WHARF_API_URI"));
    }
}
