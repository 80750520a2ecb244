//! Scenarios against the real programs, as an operator, a provider or an attacker meets them.
//!
//! All of it is in `tests`; there is nothing to use here. A scenario starts what it needs, with a data folder of its own
//! and on ports that the system chooses, talks to it over sockets only, and ends it. What is inside a process is not
//! looked at: events are read through the API, figures through `/metrics`.
//!
//! # Two targets, one list
//! `it` runs `wharf up`, embedded. `distributed` runs `gateway`, `normalizer` and `api` as processes of their own, on a
//! nats-server, a redis-server and a PostgreSQL that the scenario has for itself. The scenarios are the same files; each
//! target has its own harness, `wharf.rs`, with the same surface (`Setup`, `Wharf`). A distributed `Setup` owns the servers:
//! they are started and migrated at the first start and outlive `kill` and `stop`, which mean all three processes.
//!
//! What differs, and why:
//! - `command_line` (only `it`): help, secrets, checking a configuration and the demo start nothing, or always embedded.
//! - `folder` (only `it`): the lock on the data folder is the embedded backend's.
//! - `health`, a missing secret: the advice in the banner is for the person who has started `wharf up`.
//! - `health`, the list of checks: each process shows what its own job depends on (`Wharf::listeners`).
//! - `privacy`, owners of files: there is no `admin.token`; replicas are configured with the same one.
//! - `tenants`, credentials: an embedded token is found in the data folder, another is passed (`Wharf::credentials`).
//! - `feed` after a marker: embedded work is done in the order of arrival; elsewhere the bus must be empty first
//!   (`Wharf::settle`), since what a killed normalizer held comes again later than what is new.
//! - `outages`, `side_by_side`, `one_process`, `doctor`, `refusals`, `secrets` (only `distributed`): they are about the
//!   servers, or about several processes of a job.
//!
//! In `distributed` the key file of all processes is one file in the data folder, as a mounted secret is.
//!
//! # The programs
//! The binary is `WHARF_BIN` if that is set, with the others beside it; else those beside the tests' own build, which are
//! brought up to date first.
