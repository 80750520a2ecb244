//! The loops around [`Normalizer::handle`]: a lane of envelopes, and the sweep of raw bytes.
//!
//! A lane pulls only when it has committed what it pulled before, so that an outage leaves the backlog on the bus, where it
//! is safe, and not in memory. What is committed is acknowledged while the next is pulled: both are a way to the bus and
//! back.

use std::sync::Arc;
use std::time::Duration;

use ports::event_bus::{AckToken, Consumer, Delivery, EventBus};
use service::{Tasks, names};
use tracing::Instrument as _;

use crate::config::Config;
use crate::consuming::{Consuming, out_of_time};
use crate::normalizer::{Normalizer, Settled, Work};
use crate::outage::Outage;

/// How often the lane looks whether there is a directory.
const DIRECTORY_POLL: Duration = Duration::from_millis(20);

pub(crate) async fn run(
    normalizer: Arc<Normalizer>,
    bus: Arc<dyn EventBus>,
    consumer: Consumer,
    config: Config,
    tasks: Tasks,
) {
    let name = consumer.name;
    let mut pulling = Consuming::new(Arc::clone(&bus), consumer.clone(), tasks.clone());
    let mut settling = Consuming::new(bus, consumer, tasks.clone());
    let mut outage = Outage::new(name, "database");
    let mut done = Vec::new();
    loop {
        while !normalizer.is_ready() {
            tokio::select! {
                () = tasks.stopping() => return,
                () = tokio::time::sleep(DIRECTORY_POLL) => {}
            }
        }
        let (pulled, acked) = tokio::select! {
            both = async { tokio::join!(pulling.pull(config.batch, config.pull_wait), settling.ack(&done)) } => both,
            () = out_of_time(&tasks, config.stop_grace) => return,
        };
        let (Some(deliveries), true) = (pulled, acked) else { return };
        done.clear();
        let mut hold = pulling.hold();
        let works = Work::split(deliveries, &config);
        let held: Vec<Arc<[Delivery]>> = works.iter().map(Work::deliveries).collect();
        for (index, mut work) in works.into_iter().enumerate() {
            let span = tracing::info_span!(names::SPAN_BATCH, consumer = name, envelopes = held[index].len());
            let working = async {
                // Of several, one that takes long must not bring back those before it.
                if !settling.ack(&done).await {
                    return None;
                }
                commit(&normalizer, &mut work, &settling, &mut outage, &config, &tasks).await
            };
            let committed = tokio::select! {
                biased;
                committed = working.instrument(span) => committed,
                never = hold.keep(&held[index..]) => match never {},
                () = out_of_time(&tasks, config.stop_grace) => None,
            };
            let Some(committed) = committed else { return };
            done = committed;
        }
    }
}

/// Handles a work until it is committed; what is to be acknowledged, or `None` when a stop came first.
async fn commit(
    normalizer: &Normalizer,
    work: &mut Work,
    settling: &Consuming,
    outage: &mut Outage,
    config: &Config,
    tasks: &Tasks,
) -> Option<Vec<AckToken>> {
    let Settled { done, waiting, .. } = loop {
        match normalizer.handle(work).await {
            Ok(settled) => break settled,
            Err(error) => {
                if !outage.wait(&error, tasks).await {
                    return None;
                }
            }
        }
    };
    outage.over();
    settling.retry_after(&waiting, config.waiting_delay).await;
    Some(done)
}

/// Moves raw bytes that wait in the database to the blob store, now and then, and at the end.
pub(crate) async fn sweep(normalizer: Arc<Normalizer>, config: Config, tasks: Tasks) {
    let mut outage = Outage::new("raw-sweep", "database");
    loop {
        let swept = tokio::select! {
            swept = normalizer.sweep_raw() => swept,
            () = out_of_time(&tasks, config.stop_grace) => return,
        };
        let wait = match swept {
            Ok(full) => {
                outage.over();
                if full { Duration::ZERO } else { config.raw_sweep }
            }
            Err(error) => {
                if !outage.wait(&error, &tasks).await {
                    return;
                }
                continue;
            }
        };
        tokio::select! {
            () = tasks.stopping() => {
                // What stays is moved after the next start.
                let _ = tokio::time::timeout(config.stop_grace, normalizer.sweep_raw()).await;
                return;
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}
