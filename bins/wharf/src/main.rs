//! `wharf`: every job in one process, and the command line.

mod apps;
mod check;
mod cli;
mod demo;
mod doctor;
mod parked;
mod progress;
mod raw;
mod remote;
mod simulate;
mod subscription;
mod tenants;
mod tokens;

use std::process::ExitCode;

use clap::Parser as _;

/// Steadier than the system's allocator under many small short-lived buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    assembly::program::run(cli::run(cli::Cli::parse()))
}
