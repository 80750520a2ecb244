//! NATS JetStream: the event bus, and the directory as the gateway reads it.

use std::sync::Arc;

use ports::directory::DirectoryStore;
use ports::event_bus::EventBus;
use secrecy::SecretString;

use crate::OpenError;

/// How to reach NATS.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// `nats://user:password@host:4222`, or `tls://…`; several separated by commas.
    pub url: SecretString,
    /// The HTTP monitoring endpoint (`http://host:8222`), the only place where a server says whether it syncs.
    pub monitor_url: Option<String>,
    /// Shown in the server's list of connections: the name of the process.
    pub client: &'static str,
    /// Replicas of each stream that `migrate` makes: 1 or 3.
    pub replicas: usize,
    /// Go on although the server may lose acknowledged messages in a power cut. For development and benchmarks.
    pub allow_lazy_sync: bool,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Nats {}

impl Nats {
    /// Connects, and keeps connecting again whenever the connection breaks. An error if the first attempt fails.
    pub async fn connect(_config: NatsConfig) -> Result<Self, OpenError> {
        Err(OpenError::Unsuitable("not written yet".to_owned()))
    }

    /// Makes the streams, or brings them up to date. Returns what was done, a line each.
    pub async fn migrate(&self) -> Result<Vec<String>, OpenError> {
        Err(OpenError::Unsuitable("not written yet".to_owned()))
    }

    /// Checks the server's version and limits, that it syncs, and that the streams are as they must be.
    pub async fn verify(&self) -> Result<(), OpenError> {
        Err(OpenError::Unsuitable("not written yet".to_owned()))
    }

    /// The event bus.
    pub fn bus(&self) -> Arc<dyn EventBus> {
        unreachable!("not written yet")
    }

    /// The directory, read from the stream. Writing to it fails: see [`crate::directory::PublishedDirectory`].
    pub fn directory(&self) -> Arc<dyn DirectoryStore> {
        unreachable!("not written yet")
    }

    /// Sends what is under way and closes.
    pub async fn close(&self) {}
}
