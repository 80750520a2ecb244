//! Puts jobs together into processes.
//!
//! Jobs know ports, backends implement them, and neither knows the other. Here is where they meet: the configuration is
//! read, the configured backend is opened as far as the jobs of the process need it, the jobs are started on it, and
//! everything is stopped in reverse. The programs are a few lines each: `wharf up` runs every job, `gateway`,
//! `normalizer` and `api` one each.
//!
//! Nothing here knows a webhook, a query or a command other than running and migrating.

mod backend;
mod banner;
mod bootstrap;
pub mod checks;
pub mod config;
mod directory;
mod jobs;
mod listeners;
mod migrate;
mod probes;
mod process;
pub mod program;

pub use banner::program as program_name;
pub use config::Config;
pub use jobs::{Job, Jobs};
pub use migrate::migrate;
pub use process::{Addresses, Process};
pub use program::main;
