//! The recorder: stores the gateway's request records.
//!
//! Batches are idempotent by their id, so a batch that was stored and not acknowledged is harmless. What cannot be read
//! is dropped with an alert: records are statistics, and no webhook depends on them.

use std::sync::Arc;

use common::record::RecordBatch;
use ports::Unavailable;
use ports::event_bus::{AckToken, Delivery, EventBus};
use ports::request_log::RequestLog;
use service::{Tasks, names};

use crate::config::{Config, consumer_recorder};
use crate::consuming::{Consuming, out_of_time};
use crate::outage::Outage;

/// The step of the recorder.
pub struct Recorder {
    log: Arc<dyn RequestLog>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder that writes there.
    pub fn new(log: Arc<dyn RequestLog>) -> Self {
        Self { log }
    }

    /// Stores what was delivered, once, and returns what to acknowledge. On an error nothing is settled.
    pub async fn handle(&self, deliveries: &[Delivery]) -> Result<Vec<AckToken>, Unavailable> {
        let mut unreadable = 0;
        let read = |delivery: &Delivery| {
            let batch = serde_json::from_slice::<RecordBatch>(&delivery.payload).ok();
            unreadable += u64::from(batch.is_none());
            batch
        };
        let batches: Vec<RecordBatch> = deliveries.iter().filter_map(read).collect();
        if !batches.is_empty() {
            self.log.record(&batches).await?;
            let records: usize = batches.iter().map(|batch| batch.records.len()).sum();
            metrics::counter!(names::RECORDED).increment(records as u64);
        }
        if unreadable > 0 {
            tracing::error!(batches = unreadable, "request records that cannot be read were dropped");
            metrics::counter!(names::RECORDS_UNREADABLE).increment(unreadable);
        }
        Ok(deliveries.iter().map(|delivery| delivery.token.clone()).collect())
    }
}

pub(crate) async fn run(recorder: Recorder, bus: Arc<dyn EventBus>, config: Config, tasks: Tasks) {
    let mut consuming = Consuming::new(bus, consumer_recorder(&config), tasks.clone());
    let mut outage = Outage::new("recorder", "database");
    while let Some(deliveries) = consuming.pull(config.batch, config.pull_wait).await {
        if deliveries.is_empty() {
            continue;
        }
        let mut hold = consuming.hold();
        let held: Arc<[Delivery]> = deliveries.into();
        let settling = async {
            let tokens = loop {
                match recorder.handle(&held).await {
                    Ok(tokens) => break tokens,
                    Err(error) => {
                        if !outage.wait(&error, &tasks).await {
                            return false;
                        }
                    }
                }
            };
            outage.over();
            consuming.ack(&tokens).await
        };
        let settled = tokio::select! {
            biased;
            settled = settling => settled,
            never = hold.keep(std::slice::from_ref(&held)) => match never {},
            () = out_of_time(&tasks, config.stop_grace) => false,
        };
        if !settled {
            return;
        }
    }
}
