//! What Wharf promises, tried on the real binary. See the crate's documentation.
#![expect(clippy::unwrap_used, reason = "a scenario fails by panicking")]

mod binary;
mod feed;
mod http;
mod meta;
mod sender;
mod wait;
mod wharf;

mod command_line;
mod commands;
mod configuration;
mod crash;
mod folder;
mod front;
mod handshake;
mod health;
mod hostile;
mod limits;
mod operations;
mod parking;
mod privacy;
mod providers;
mod reading;
mod rotation;
mod sources;
mod stop;
mod tenants;
mod tls;
mod traffic;
