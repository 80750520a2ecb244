//! `api`: this job as a process of its own, on the distributed backend.

use std::process::ExitCode;

/// Steadier than the system's allocator under many small short-lived buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    assembly::main(assembly::Job::Api)
}
