//! The loops around [`Normalizer::handle`]: a lane of envelopes, and the sweep of raw bytes.
//!
//! A lane pulls only when it has settled what it pulled before, so that an outage leaves the backlog on the bus, where it
//! is safe, and not in memory.

use std::sync::Arc;
use std::time::Duration;

use ports::event_bus::{Consumer, Delivery, EventBus};
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
    let mut consuming = Consuming::new(bus, consumer, tasks.clone());
    let mut outage = Outage::new(name, "database");
    loop {
        while !normalizer.is_ready() {
            tokio::select! {
                () = tasks.stopping() => return,
                () = tokio::time::sleep(DIRECTORY_POLL) => {}
            }
        }
        let Some(deliveries) = consuming.pull(config.batch, config.pull_wait).await else { return };
        let mut hold = consuming.hold();
        let works = Work::split(deliveries, &config);
        let held: Vec<Arc<[Delivery]>> = works.iter().map(Work::deliveries).collect();
        for (index, mut work) in works.into_iter().enumerate() {
            let settling = settle(&normalizer, &mut work, &mut consuming, &mut outage, &config, &tasks);
            let span = tracing::info_span!(names::SPAN_BATCH, consumer = name, envelopes = held[index].len());
            let settled = tokio::select! {
                biased;
                settled = settling.instrument(span) => settled,
                never = hold.keep(&held[index..]) => match never {},
                () = out_of_time(&tasks, config.stop_grace) => false,
            };
            if !settled {
                return;
            }
        }
    }
}

/// Handles a work until it is done and acknowledged; false when a stop came first.
async fn settle(
    normalizer: &Normalizer,
    work: &mut Work,
    consuming: &mut Consuming,
    outage: &mut Outage,
    config: &Config,
    tasks: &Tasks,
) -> bool {
    let Settled { done, waiting, .. } = loop {
        match normalizer.handle(work).await {
            Ok(settled) => break settled,
            Err(error) => {
                if !outage.wait(&error, tasks).await {
                    return false;
                }
            }
        }
    };
    outage.over();
    consuming.retry_after(&waiting, config.waiting_delay).await;
    consuming.ack(&done).await
}

/// Moves raw bytes that wait in the database to the blob store, now and then.
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
            () = tasks.stopping() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
