//! What Wharf promises, tried on its jobs as processes of their own. See the crate's documentation.
//!
//! The scenarios are those of `tests/it`, on a harness of this target, and some more about the servers.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a scenario fails by panicking")]

#[path = "../it/binary.rs"]
mod binary;
#[path = "../it/feed.rs"]
mod feed;
#[path = "../it/http.rs"]
mod http;
#[path = "../it/meta.rs"]
mod meta;
#[path = "../it/sender.rs"]
mod sender;
mod servers;
#[path = "../it/wait.rs"]
mod wait;
mod wharf;

#[path = "../it/commands.rs"]
mod commands;
#[path = "../it/configuration.rs"]
mod configuration;
#[path = "../it/crash.rs"]
mod crash;
#[path = "../it/front.rs"]
mod front;
#[path = "../it/handshake.rs"]
mod handshake;
#[path = "../it/health.rs"]
mod health;
#[path = "../it/hostile.rs"]
mod hostile;
#[path = "../it/limits.rs"]
mod limits;
#[path = "../it/operations.rs"]
mod operations;
#[path = "../it/parking.rs"]
mod parking;
#[path = "../it/privacy.rs"]
mod privacy;
#[path = "../it/providers.rs"]
mod providers;
#[path = "../it/reading.rs"]
mod reading;
#[path = "../it/rotation.rs"]
mod rotation;
#[path = "../it/sources.rs"]
mod sources;
#[path = "../it/stop.rs"]
mod stop;
#[path = "../it/tenants.rs"]
mod tenants;
#[path = "../it/tls.rs"]
mod tls;
#[path = "../it/traffic.rs"]
mod traffic;

mod doctor;
mod one_process;
mod outages;
mod refusals;
mod rolling;
mod secrets;
mod side_by_side;
