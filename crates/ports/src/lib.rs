//! The ports: what the jobs need from the outside, as traits that two backends implement.
//!
//! A port exists because two implementations exist. Each method says what a caller may rely on, never how it is done;
//! `port-contracts` holds one test for each promise, and every backend runs them all. Callers own retries; every write
//! is idempotent by the key its documentation names.

pub mod access;
pub mod admission;
pub mod directory;
pub mod event_bus;
pub mod event_store;
pub mod feed;
pub mod message_log;
pub mod outbox;
pub mod parking;
pub mod raw;
pub mod request_log;
pub mod statistics;

/// The system behind a port cannot do its work now: it is down, unreachable, frozen or out of space.
///
/// Nothing is known to have happened; waiting and trying again is right.
#[derive(Debug, thiserror::Error)]
#[error("{what} is unavailable")]
pub struct Unavailable {
    what: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Unavailable {
    /// Wraps the technology's error.
    pub fn new(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what, source: source.into() }
    }
}
