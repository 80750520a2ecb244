//! What every consumer of the bus does around its step: pull, hold, acknowledge, and stop in good time.
//!
//! No step is in here; each loop keeps its own order of these.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ports::event_bus::{AckToken, Consumer, Delivery, EventBus};
use service::Tasks;
use tokio::time::{Instant, Interval, interval_at};

use crate::outage::Outage;

/// A consumer with its bus, as one loop uses it.
pub(crate) struct Consuming {
    bus: Arc<dyn EventBus>,
    consumer: Consumer,
    tasks: Tasks,
    outage: Outage,
}

impl Consuming {
    pub(crate) const fn new(bus: Arc<dyn EventBus>, consumer: Consumer, tasks: Tasks) -> Self {
        let outage = Outage::new(consumer.name, "bus");
        Self { bus, consumer, tasks, outage }
    }

    /// The next messages, possibly none; waits out an outage. `None` when a stop was asked for.
    pub(crate) async fn pull(&mut self, max: usize, wait: Duration) -> Option<Vec<Delivery>> {
        loop {
            let pulled = tokio::select! {
                biased;
                () = self.tasks.stopping() => return None,
                pulled = self.bus.pull(&self.consumer, max, wait) => pulled,
            };
            match pulled {
                Ok(deliveries) => {
                    self.outage.over();
                    return Some(deliveries);
                }
                Err(error) => {
                    if !self.outage.wait(&error, &self.tasks).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Acknowledges, until the bus has it; false when a stop came first.
    pub(crate) async fn ack(&mut self, tokens: &[AckToken]) -> bool {
        while !tokens.is_empty() {
            match self.bus.ack(&self.consumer, tokens).await {
                Ok(()) => break,
                Err(error) => {
                    if !self.outage.wait(&error, &self.tasks).await {
                        return false;
                    }
                }
            }
        }
        self.outage.over();
        true
    }

    /// Hands messages back for later. If that fails they come again by themselves, only sooner or later than asked.
    pub(crate) async fn retry_after(&self, tokens: &[AckToken], delay: Duration) {
        if !tokens.is_empty()
            && let Err(error) = self.bus.retry_after(&self.consumer, tokens, delay).await
        {
            tracing::debug!(consumer = self.consumer.name, %error, "could not hand messages back");
        }
    }

    /// What extends messages that were pulled just now.
    pub(crate) fn hold(&self) -> Hold {
        let third = (self.consumer.ack_wait / 3).max(Duration::from_millis(1));
        let beat = interval_at(Instant::now() + third, third);
        Hold { bus: Arc::clone(&self.bus), consumer: self.consumer.clone(), beat }
    }
}

/// Keeps messages from being delivered again while their batch takes long.
pub(crate) struct Hold {
    bus: Arc<dyn EventBus>,
    consumer: Consumer,
    beat: Interval,
}

impl Hold {
    /// Extends everything in `held` at a third of the ack wait, for as long as it is polled.
    pub(crate) async fn keep(&mut self, held: &[Arc<[Delivery]>]) -> Infallible {
        loop {
            self.beat.tick().await;
            let tokens: Vec<AckToken> =
                held.iter().flat_map(|part| part.iter()).map(|delivery| delivery.token.clone()).collect();
            if let Err(error) = self.bus.extend(&self.consumer, &tokens).await {
                tracing::debug!(consumer = self.consumer.name, %error, "could not extend held messages");
            }
        }
    }
}

/// Resolves `grace` after a stop was asked for: work that has not ended by then is left to redelivery.
pub(crate) async fn out_of_time(tasks: &Tasks, grace: Duration) {
    tasks.stopping().await;
    tokio::time::sleep(grace).await;
}
