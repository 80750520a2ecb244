//! NATS JetStream: the event bus, and the directory as the gateway reads it.

mod event_bus;
mod monitor;
mod publishing;
mod stream_directory;
pub mod streams;
mod work_queues;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use common::Timestamp;
use percent_encoding::percent_decode_str;
use ports::Unavailable;
use ports::event_bus::Stream;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::OpenError;
pub use event_bus::JetStreamBus;
pub use stream_directory::StreamDirectory;
pub(crate) use stream_directory::{Contents, HEAD, Head, Position, subject};

/// The oldest server that keeps every promise of the bus.
const OLDEST_SERVER: (i64, i64) = (2, 11);
/// The oldest server that syncs a batch of messages as one. From 2.12 on they take batches, and sync each message.
const BATCHING_SERVER: (i64, i64) = (2, 15);
/// What a message needs beside its payload: headers, subject, reply.
const HEADER_ROOM: usize = 64 << 10;
/// Requests to the server that are not about messages.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A publish without an answer for this long has failed. Callers with a deadline of their own give up sooner.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Publishes that may wait for their acknowledgement at once; more are refused, not queued.
const MAX_IN_FLIGHT: usize = 20_000;
/// A connection that does not answer two of these is broken.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at a server that is as it must be, and at one that is not.
const VERIFY_EVERY: Duration = Duration::from_secs(30);
const VERIFY_AGAIN: Duration = Duration::from_secs(1);

/// How to reach NATS.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// `nats://user:password@host:4222`, or `tls://…`; several separated by commas.
    pub url: SecretString,
    /// The HTTP monitoring endpoint (`http://host:8222`), the only place where a server says whether it syncs; several
    /// separated by commas, one for each server of a cluster.
    pub monitor_url: Option<String>,
    /// Shown in the server's list of connections: the name of the process.
    pub client: &'static str,
    /// Replicas of each stream that `migrate` makes: 1, 3 or 5.
    pub replicas: usize,
    /// Go on although the server may lose acknowledged messages in a power cut. For development and benchmarks.
    pub allow_lazy_sync: bool,
}

/// A connection.
#[derive(Clone)]
pub struct Nats {
    config: NatsConfig,
    client: async_nats::Client,
    jetstream: jetstream::Context,
    trust: Arc<Trust>,
    /// Where it was made. Listeners have runtimes of their own, which end one by one.
    runtime: Handle,
    bus: Arc<OnceLock<Arc<JetStreamBus>>>,
}

/// Whether the server at the other end is known to be as it must be. After each new connection that is open again: it
/// may have been started with another configuration, or be another one.
#[derive(Debug)]
struct Trust {
    /// The connection, by its number as the library counts them from 1, that was verified last; 0 for none. The library
    /// counts a new connection before it tells of it, so there is no moment at which an unverified one is taken for good.
    verified: AtomicU64,
    /// The connection on which batches of messages are taken, and save syncs.
    batching: AtomicU64,
    reconnected: Notify,
    /// Verifies again and again, once a first verification has succeeded; ends with the last copy of [`Nats`].
    keeper: OnceLock<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Trust {
    /// Whether this client's connection is there, to a server that is as it must be.
    fn holds(&self, client: &async_nats::Client) -> bool {
        client.connection_state() == State::Connected && (self.keeper.get().is_none() || self.is_verified(client))
    }

    /// Whether this client's server takes batches and syncs less for one than for its messages.
    fn has_batches(&self, client: &async_nats::Client) -> bool {
        self.batching.load(Ordering::Relaxed) == connection_number(client)
    }

    fn is_verified(&self, client: &async_nats::Client) -> bool {
        self.verified.load(Ordering::Acquire) == connection_number(client)
    }
}

fn connection_number(client: &async_nats::Client) -> u64 {
    client.statistics().connects.load(Ordering::Acquire)
}

impl Nats {
    /// Connects, and keeps connecting again whenever the connection breaks. An error if the first attempt fails.
    pub async fn connect(config: NatsConfig) -> Result<Self, OpenError> {
        let addresses = addresses(&config.url)?;
        // The library reads addresses from a URL and leaves the user in it aside.
        let user =
            addresses.iter().find_map(|address| Some((decoded(address.username()?), decoded(address.password()?))));
        let options = match user {
            Some((user, password)) => ConnectOptions::with_user_and_password(user, password),
            None => ConnectOptions::new(),
        };
        let trust = Arc::new(Trust {
            verified: AtomicU64::new(0),
            batching: AtomicU64::new(0),
            reconnected: Notify::new(),
            keeper: OnceLock::new(),
        });
        let noticing = Arc::downgrade(&trust);
        let client = options
            .name(format!("wharf-{}", config.client))
            // An inbox prefix of its own, so that a server can keep the answers to one user from another.
            .custom_inbox_prefix(format!("_INBOX_{}", config.client))
            .connection_timeout(REQUEST_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_EVERY)
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(50 << attempt.min(4)).min(Duration::from_millis(500))
            })
            .event_callback(move |event| {
                if let (Event::Connected, Some(trust)) = (&event, noticing.upgrade()) {
                    trust.reconnected.notify_one();
                }
                async move { log(&event) }
            })
            .connect(&addresses[..])
            .await
            .map_err(refusal)?;
        let jetstream = ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT)
            .backpressure_on_inflight(false)
            .build(client.clone());
        Ok(Self { config, client, jetstream, trust, runtime: Handle::current(), bus: Arc::default() })
    }

    /// Makes the streams, or brings them up to date. Returns what was done, a line each.
    pub async fn migrate(&self) -> Result<Vec<String>, OpenError> {
        self.verify_server().await?;
        let takes_batches = self.client.is_server_compatible(2, 12, 0);
        streams::migrate(&self.jetstream, self.config.replicas, takes_batches).await
    }

    /// Checks the server's version and limits, that it syncs, and that the streams are as they must be.
    ///
    /// After a first success this is done again after each new connection, and from time to time: while a server is not
    /// known to be as it must be, the bus counts as not connected.
    pub async fn verify(&self) -> Result<(), OpenError> {
        self.verify_now().await?;
        self.trust.keeper.get_or_init(|| {
            let (client, jetstream, config) = (self.client.clone(), self.jetstream.clone(), self.config.clone());
            let trust = Arc::downgrade(&self.trust);
            AbortOnDrop(self.runtime.spawn(keep_verified(client, jetstream, config, trust)))
        });
        Ok(())
    }

    async fn verify_now(&self) -> Result<(), OpenError> {
        let connection = connection_number(&self.client);
        let syncs = self.verify_server().await?;
        streams::verify(&self.jetstream).await?;
        let shares_syncs = self.client.is_server_compatible(BATCHING_SERVER.0, BATCHING_SERVER.1, 0);
        let batching = if syncs && shares_syncs { connection } else { 0 };
        self.trust.batching.store(batching, Ordering::Relaxed);
        self.trust.verified.store(connection, Ordering::Release);
        Ok(())
    }

    /// Whether it syncs every write, if it is a server to go on with.
    async fn verify_server(&self) -> Result<bool, OpenError> {
        let info = self.client.server_info();
        let unsuitable = |text: String| Err(OpenError::Unsuitable(text));
        if !self.client.is_server_compatible(OLDEST_SERVER.0, OLDEST_SERVER.1, 0) {
            return unsuitable(format!(
                "NATS server {} is too old: {}.{} or newer is needed (older ones ignore settings that Wharf relies on)",
                info.version, OLDEST_SERVER.0, OLDEST_SERVER.1
            ));
        }
        if info.max_payload < Stream::MAX_MESSAGE_BYTES + HEADER_ROOM {
            return unsuitable(format!(
                "the NATS server takes messages of {} bytes at most; set max_payload: 8MB in its configuration",
                info.max_payload
            ));
        }
        if !info.jetstream {
            return unsuitable("the NATS server runs without JetStream; add a jetstream block".to_owned());
        }
        match (&self.config.monitor_url, self.config.allow_lazy_sync) {
            (Some(urls), allow_lazy) => {
                let syncs = monitor::syncs_every_write(urls, &info.server_id).await;
                match syncs {
                    Ok(()) => Ok(true),
                    Err(error) if allow_lazy => {
                        warn_of_lazy_sync(&error.to_string());
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            }
            (None, true) => {
                warn_of_lazy_sync("nats.monitor_url is not set");
                Ok(false)
            }
            (None, false) => unsuitable(
                "whether the NATS server syncs before it acknowledges is not known: set nats.monitor_url \
                 (WHARF__NATS__MONITOR_URL) to its monitoring endpoint"
                    .to_owned(),
            ),
        }
    }

    /// The event bus, one for all copies.
    pub fn bus(&self) -> Arc<JetStreamBus> {
        self.bus.get_or_init(|| Arc::new(JetStreamBus::new(self))).clone()
    }

    /// The directory, read from the stream. Writing to it fails: see [`crate::directory::PublishedDirectory`].
    pub fn directory(&self) -> Arc<StreamDirectory> {
        Arc::new(StreamDirectory::new(self.client.clone(), self.jetstream.clone()))
    }

    /// What streams are made through.
    pub fn context(&self) -> jetstream::Context {
        self.jetstream.clone()
    }

    /// Whether the connection is there, to a server that is as it must be.
    pub fn is_connected(&self) -> bool {
        self.trust.holds(&self.client)
    }

    /// The server's clock, as its monitoring endpoint tells it. `None` without a monitoring endpoint.
    pub async fn clock(&self) -> Option<Timestamp> {
        monitor::clock(self.config.monitor_url.as_deref()?).await
    }

    /// Sends what is under way and closes.
    pub async fn close(&self) {
        // What it waits for is this process's own; a server that is gone must not hold the stop.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.client.drain()).await;
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("config", &self.config).finish_non_exhaustive()
    }
}

/// See [`Nats::verify`].
async fn keep_verified(
    client: async_nats::Client,
    jetstream: jetstream::Context,
    config: NatsConfig,
    trust: Weak<Trust>,
) {
    let mut next = VERIFY_EVERY;
    loop {
        let Some(holding) = trust.upgrade() else { return };
        let is_due = tokio::time::timeout(next, holding.reconnected.notified()).await.is_err();
        if !is_due && holding.is_verified(&client) {
            // The news of a connection that was verified meanwhile.
            continue;
        }
        let nats = Nats {
            config: config.clone(),
            client: client.clone(),
            jetstream: jetstream.clone(),
            trust: holding,
            runtime: Handle::current(),
            bus: Arc::default(),
        };
        let was_verified = nats.trust.is_verified(&nats.client);
        match nats.verify_now().await {
            Ok(()) => {
                if !was_verified {
                    tracing::info!("the NATS server is as it must be");
                }
                next = VERIFY_EVERY;
            }
            Err(error @ OpenError::Unsuitable(_)) => {
                nats.trust.verified.store(0, Ordering::Release);
                tracing::error!(%error, "the NATS server is not as it must be; nothing is acknowledged meanwhile");
                next = VERIFY_AGAIN;
            }
            // It does not answer now. What was known stays known until the connection breaks.
            Err(OpenError::Unavailable(error)) => {
                tracing::debug!(%error, "the NATS server could not be verified");
                next = VERIFY_AGAIN;
            }
        }
    }
}

/// A server that refuses the user does so again.
fn refusal(error: ConnectError) -> OpenError {
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            OpenError::Unsuitable("the NATS server refuses the user or the password in nats.url".to_owned())
        }
        _ => unavailable(error).into(),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn warn_of_lazy_sync(why: &str) {
    tracing::warn!(
        why,
        "nats.unsafe_lazy_sync: webhooks that were answered 200 may be lost when the NATS server's machine loses power"
    );
}

fn addresses(urls: &SecretString) -> Result<Vec<ServerAddr>, OpenError> {
    let parse = |url: &str| {
        // The error of the library repeats the text, which may hold a password.
        url.parse::<ServerAddr>()
            .map_err(|_| OpenError::Unsuitable("nats.url is not an address such as nats://host:4222".to_owned()))
    };
    urls.expose_secret().split(',').map(str::trim).filter(|url| !url.is_empty()).map(parse).collect()
}

fn log(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is broken; connecting again"),
        Event::SlowConsumer(_) => tracing::warn!("NATS answers faster than this process reads"),
        Event::ServerError(error) => tracing::error!(%error, "NATS refuses"),
        Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
        Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
        Event::Draining | Event::Closed => {}
    }
}

/// What is there instead of a stream, a consumer or an answer.
fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::new("NATS", error)
}
