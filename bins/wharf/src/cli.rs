//! The commands and their flags.

use std::net::SocketAddr;
use std::process::ExitCode;

use assembly::Jobs;
use assembly::config::{DEFAULTS, Flag, Purpose};
use assembly::program::{self, ConfigArgs};
use clap::{Args, Parser, Subcommand};

use crate::{apps, check, demo, doctor, parked, raw, simulate, tenants, tokens};

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
    ///
    /// Embedded, with nothing else needed, unless WHARF__BACKEND__KIND=distributed. That needs WHARF__NATS__URL,
    /// WHARF__NATS__MONITOR_URL, WHARF__REDIS__URL, WHARF__POSTGRES__URL and, in production, WHARF_ADMIN_TOKEN; then
    /// each job can also be a process of its own: `gateway`, `normalizer`, `api`.
    Up(UpArgs),
    /// Like `up`, with invented secrets and signed traffic; prints the events as they come out
    Demo(demo::DemoArgs),
    /// Stand in for Meta
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Tenants and their numbers, in a running Wharf
    Tenants(tenants::TenantsArgs),
    /// Apps and their secrets, in a running Wharf
    Apps(apps::AppsArgs),
    /// Tokens of the API of a running Wharf
    Tokens(tokens::TokensArgs),
    /// What was done through the API of a running Wharf, and by whom
    Actions(tokens::ActionsArgs),
    /// Webhooks that are kept until released, in a running Wharf
    Parked(parked::ParkedArgs),
    /// Webhooks as they came in, of the last days: which one a message came with, and what was in it
    Raw(raw::RawArgs),
    /// What happened at the door of a running Wharf
    Security(parked::SecurityArgs),
    /// Create or update the databases, or the tables and streams on the servers of the distributed backend
    Migrate(ConfigArgs),
    /// Check everything an installation needs: configuration, keys, backend, secrets, the subscription at Meta
    ///
    /// One line for each check: ok, warning or FAILED, and what to do. Ends with 1 if one has failed. It asks Meta only
    /// if WHATSAPP_APP_ID and WHATSAPP_APP_SECRET are set.
    Doctor(ConfigArgs),
    /// Try a running Wharf from outside: verification, signatures, duplicates, limits, reading
    ///
    /// Sends real webhooks with the secrets of the environment; their messages stay. One line for each check. Ends with 1
    /// if one has failed.
    Check(check::CheckArgs),
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
    fn flags(&self) -> Vec<Flag> {
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

/// Runs a command.
#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(args) => {
            match program::load(args.config.config.as_deref(), &args.flags(), Purpose::Run(Jobs::All)) {
                Ok((config, notes)) => program::serve(&config, &notes, Jobs::All).await,
                Err(code) => Ok(code),
            }
        }
        Command::Demo(args) => demo::run(args).await,
        Command::Simulate(SimulateCommand::Send(args)) => simulate::run(args).await,
        Command::Tenants(args) => tenants::run(args).await,
        Command::Apps(args) => apps::run(args).await,
        Command::Tokens(args) => tokens::run(args).await,
        Command::Actions(args) => tokens::actions(args).await,
        Command::Parked(args) => parked::run(args).await,
        Command::Raw(args) => raw::run(args).await,
        Command::Security(args) => parked::security(args).await,
        Command::Migrate(args) => match program::load(args.config.as_deref(), &args.flags(), Purpose::Migrate) {
            Ok((config, _)) => {
                for line in assembly::migrate(&config).await? {
                    println!("{line}");
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(code) => Ok(code),
        },
        Command::Check(args) => Box::pin(check::run(args)).await,
        Command::Doctor(args) => Ok(Box::pin(doctor::run(&args)).await),
        Command::Config(ConfigCommand::Check(args)) => match check(&args) {
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

/// The configuration as `up` would read it.
fn check(args: &ConfigArgs) -> Result<(assembly::Config, Vec<String>), ExitCode> {
    program::load(args.config.as_deref(), &args.flags(), Purpose::Run(Jobs::All))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use clap::{CommandFactory as _, Parser as _};

    /// The help of a command, as `wharf <words> --help` prints it.
    fn help(words: &[&str]) -> String {
        let mut command = super::Cli::command();
        command.build();
        let found = words.iter().fold(&mut command, |command, word| command.find_subcommand_mut(word).unwrap());
        found.render_long_help().to_string()
    }

    #[test]
    fn every_address_has_a_name_in_the_environment() {
        for words in [&["tenants", "list"][..], &["tokens", "list"], &["apps", "list"], &["actions"], &["check"]] {
            assert!(help(words).contains("[env: WHARF_API_URL="), "{words:?}");
        }
        assert!(help(&["check"]).contains("[env: WHARF_GATEWAY_URL="));
        assert!(help(&["simulate", "send"]).contains("[env: WHARF_WEBHOOK_URL="));
    }

    /// An API with two pages of anything; it returns what it was asked.
    fn two_pages(listener: &TcpListener) -> Vec<String> {
        let bodies = [r#"{"data":[{"id":"a+"}],"next":"a+"}"#, r#"{"data":[{"id":"b"}]}"#];
        let answered = bodies.into_iter().map(|body| {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
            write!(connection, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8(request).unwrap().lines().next().unwrap().to_owned()
        });
        answered.collect()
    }

    #[test]
    fn lists_are_asked_for_to_their_end() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (words, path, on) in [
            (&["tenants", "list", "--status", "active"][..], "/api/tenants?limit=1000&status=active", "after"),
            (&["apps", "list"], "/api/apps?limit=1000", "after"),
            (&["tokens", "list", "--tenant", "acme"], "/api/tokens?limit=1000&tenant=acme", "before"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let api = std::thread::spawn(move || two_pages(&listener));
            let all = [&["wharf"], words, &["--api-url", &url, "--token", "t"]].concat();
            runtime.block_on(super::run(super::Cli::parse_from(all))).unwrap();
            let asked = api.join().unwrap();
            assert_eq!(asked, [format!("GET {path} HTTP/1.1"), format!("GET {path}&{on}=a%2B HTTP/1.1")]);
        }
    }

    #[test]
    fn only_commands_that_show_an_answer_offer_json() {
        assert!(help(&["tenants", "list"]).contains("--json"));
        assert!(!help(&["check"]).contains("--json"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
