//! The commands and their flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, DEFAULTS};
use crate::{EXIT_CONFIG, demo, simulate, tenants, up};

/// Wharf: WhatsApp webhooks, verified, durable, ordered.
///
/// Start with `wharf demo`. For real traffic set WHATSAPP_APP_SECRET and WHATSAPP_VERIFY_TOKEN and run `wharf up`.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every job in this process: gateway, normalizer, API
    Up(UpArgs),
    /// Like `up`, with invented secrets and signed traffic; prints the events as they come out
    Demo(demo::DemoArgs),
    /// Stand in for Meta
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Tenants, apps and numbers of a running Wharf
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Create or update the databases
    Migrate(ConfigArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make secrets
    #[command(subcommand)]
    Secret(SecretCommand),
}

#[derive(Debug, Subcommand)]
enum SimulateCommand {
    /// Send signed webhooks to a URL, with Meta's retries
    Send(simulate::SendArgs),
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// Register tenants, apps with their secrets, and numbers from a TOML or JSON file
    Import(tenants::ImportArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration as `up` would read it; lists every problem and ends with 64 if there is one
    Check(ConfigArgs),
    /// Print all keys with their defaults and what they mean
    PrintDefaults,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Print 32 random bytes in hex
    New,
}

/// What every command that reads the configuration takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// A TOML file laid over the defaults
    #[arg(long, env = "WHARF_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where data, keys and the admin token live
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The public listener [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The API listener [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api_listen: Option<SocketAddr>,
    /// Health and metrics [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

impl UpArgs {
    fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut flags = self.config.flags();
        let addresses = [
            ("--listen", "listen.public", self.listen),
            ("--api-listen", "listen.api", self.api_listen),
            ("--admin-listen", "listen.admin", self.admin_listen),
        ];
        for (flag, path, address) in addresses {
            flags.extend(address.map(|address| (flag, path, address.to_string())));
        }
        flags
    }
}

impl ConfigArgs {
    fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        self.data_dir.iter().map(|dir| ("--data-dir", "data_dir", dir.display().to_string())).collect()
    }
}

/// The environment, read in this one place.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Loads the configuration, or prints all that is wrong with it.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
fn load(args: &ConfigArgs, flags: &[(&'static str, &'static str, String)]) -> Result<(Config, Vec<String>), ExitCode> {
    let loaded = config::load(args.config.as_deref(), &environment(), flags);
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

/// Runs a command.
#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(args) => match load(&args.config, &args.flags()) {
            Ok((config, notes)) => up::run(config, notes).await,
            Err(code) => Ok(code),
        },
        Command::Demo(args) => demo::run(args).await,
        Command::Simulate(SimulateCommand::Send(args)) => simulate::run(args).await,
        Command::Tenants(TenantsCommand::Import(args)) => tenants::import(args).await,
        Command::Migrate(args) => match load(&args, &args.flags()) {
            Ok((config, _)) => up::migrate(&config).await,
            Err(code) => Ok(code),
        },
        Command::Config(ConfigCommand::Check(args)) => match load(&args, &args.flags()) {
            Ok((_, notes)) => {
                for note in notes {
                    println!("note: {note}");
                }
                println!("the configuration is valid");
                Ok(ExitCode::SUCCESS)
            }
            Err(code) => Ok(code),
        },
        Command::Config(ConfigCommand::PrintDefaults) => {
            print!("{DEFAULTS}");
            Ok(ExitCode::SUCCESS)
        }
        Command::Secret(SecretCommand::New) => {
            println!("{}", hex::encode(rand::random::<[u8; 32]>()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
