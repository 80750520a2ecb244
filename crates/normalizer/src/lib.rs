//! The normalizer: turns sealed envelopes into rows and events, publishes the events, records requests.
//!
//! Everything between the gateway's acknowledgement and the events on the bus happens here, in loops that [`start`]
//! spawns: two lanes of envelopes, the outbox publisher, the recorder, the sweeps of raw bytes and of what is parked, and the backlog gauges.
//! Each loop has a step of its own ([`Normalizer::handle`], [`Publisher::step`], [`Recorder::handle`]) that takes what
//! was pulled and tries once; the loop acknowledges, waits and tries again. Rules they share:
//!
//! - The store decides what is new. Everything may happen twice (a crash between commit and acknowledgement, a lost
//!   answer) and changes nothing the second time.
//! - What is down is waited for: nothing is pulled, what is held is extended, nothing counts against an envelope.
//! - What can never be normalised becomes a dead letter, alone; what this process cannot read *yet* (newer envelope
//!   version, unknown key) waits and never becomes one.
//! - No payload, phone number or provider id appears in logs, errors or metrics.
//!
//! It is deliberately not the place where duplicates, identities or conversations are decided (the store does, in its
//! transaction).

mod archive;
mod backlog;
mod config;
mod consuming;
mod lane;
mod letters;
mod normalizer;
mod outage;
mod outbox;
mod reading;
mod recorder;
mod release;
mod words;

use std::sync::Arc;

use common::Clock;
use common::directory::OpenDirectory;
use ports::event_bus::EventBus;
use ports::event_store::EventStore;
use ports::outbox::Outbox;
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::request_log::RequestLog;
use service::Tasks;
use tokio::sync::Notify;

pub use archive::RAW_FOLDER;
pub use config::{Config, consumer_bulk, consumer_live, consumer_recorder};
pub use normalizer::{Normalizer, Settled, Work};
pub use outbox::{Progress, Publisher};
pub use recorder::Recorder;
pub use release::{Released, Releaser};

/// Gives the newest directory; `None` until there is a first complete one.
pub type DirectoryHandle = Arc<dyn Fn() -> Option<Arc<OpenDirectory>> + Send + Sync>;

/// What the normalizer needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// Envelopes and request records come from it, events go to it.
    pub bus: Arc<dyn EventBus>,
    /// Where batches are committed.
    pub store: Arc<dyn EventStore>,
    /// The events that the store made, on their way out; of the same database.
    pub outbox: Arc<dyn Outbox>,
    /// What is parked; of the same database.
    pub parking: Arc<dyn Parking>,
    /// Where raw envelopes are; of the same database.
    pub raw: Arc<dyn RawIndex>,
    /// Where request records go.
    pub request_log: Arc<dyn RequestLog>,
    /// Tenants, numbers and keys.
    pub directory: DirectoryHandle,
    /// Where raw envelopes are archived.
    pub blobs: Arc<dyn object_store::ObjectStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").finish_non_exhaustive()
    }
}

/// Starts every loop; they end when `tasks` stops. `wake_outbox` is rung after each commit that made events, and may be
/// rung by others who make some.
pub fn start(config: Config, deps: Deps, tasks: &Tasks, wake_outbox: Arc<Notify>) {
    let normalizer = Arc::new(Normalizer::new(config.clone(), &deps, Arc::clone(&wake_outbox)));
    for (name, consumer) in [("normalizer-live", consumer_live(&config)), ("normalizer-bulk", consumer_bulk(&config))] {
        let run = lane::run(Arc::clone(&normalizer), Arc::clone(&deps.bus), consumer, config.clone(), tasks.clone());
        tasks.spawn(name, run);
    }
    tasks.spawn("raw-sweep", lane::sweep(normalizer, config.clone(), tasks.clone()));
    let releaser = Releaser::new(&config, &deps, Arc::clone(&wake_outbox));
    tasks.spawn("parked", release::run(releaser, tasks.clone()));
    let publisher = Publisher::new(&config, &deps);
    tasks.spawn("outbox-publisher", outbox::run(publisher, config.clone(), tasks.clone(), wake_outbox));
    let recorder = Recorder::new(Arc::clone(&deps.request_log));
    tasks.spawn("recorder", recorder::run(recorder, Arc::clone(&deps.bus), config.clone(), tasks.clone()));
    tasks.spawn("backlog-gauges", backlog::run(deps.bus, deps.clock, config, tasks.clone()));
}
