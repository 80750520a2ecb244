//! `wharf`: every job in one process, and the command line.

mod bootstrap;
mod cli;
mod config;
mod demo;
mod progress;
mod simulate;
mod tenants;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

/// Steadier than the system's allocator under many small short-lived buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a configuration that cannot be used (EX_USAGE).
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
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
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let code = runtime.block_on(cli::run(cli)).unwrap_or_else(|error| failed(&error));
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
