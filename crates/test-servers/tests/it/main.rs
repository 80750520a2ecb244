//! The servers do what other tests ask of them, and none of them stays.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alive;
mod clients;
mod nats;
mod parent;
mod postgres;
mod redis;
