//! The API over stand-ins for its ports, as a client sees it.
//!
//! The stand-ins answer what a test tells them to and remember what they were asked: what a real log finds is the
//! business of the ports' own laws.
#![expect(clippy::unwrap_used, reason = "stand-ins and checks fail a test by panicking")]

mod access;
mod directory;
mod events;
mod kept;
mod log;
mod messages;
mod tenants;
mod world;
