//! The backlog gauges: how far each consumer is behind, and the alert when envelopes wait too long.
//!
//! Nothing is dead-lettered for its age: what is old here is a sign that something is down or too slow, and only people
//! can tell which.

use std::sync::Arc;
use std::time::Duration;

use common::Clock;
use ports::event_bus::{EventBus, Stream};
use service::{Tasks, names};

use crate::config::{Config, consumer_bulk, consumer_live, consumer_recorder};

/// The alert is repeated at most this often.
const ALERT_EVERY: Duration = Duration::from_mins(1);

pub(crate) async fn run(bus: Arc<dyn EventBus>, clock: Arc<dyn Clock>, config: Config, tasks: Tasks) {
    let consumers = [consumer_live(&config), consumer_bulk(&config), consumer_recorder(&config)];
    let mut alerted: Option<Duration> = None;
    loop {
        let measure = async {
            for consumer in &consumers {
                let Ok(backlog) = bus.backlog(consumer).await else { continue };
                metrics::gauge!(names::DEPTH, "consumer" => consumer.name).set(backlog.depth as f64);
                metrics::gauge!(names::OLDEST_SECONDS, "consumer" => consumer.name)
                    .set(backlog.oldest_age.as_secs_f64());
                let is_inbound = matches!(consumer.stream, Stream::Inbound(_));
                let now = clock.monotonic();
                let is_due = alerted.is_none_or(|at| now.saturating_sub(at) >= ALERT_EVERY);
                if is_inbound && backlog.oldest_age > config.oldest_alert && is_due {
                    alerted = Some(now);
                    tracing::error!(
                        consumer = consumer.name,
                        depth = backlog.depth,
                        oldest_seconds = backlog.oldest_age.as_secs(),
                        "ALERT: envelopes wait to be normalised for too long"
                    );
                }
            }
            tokio::time::sleep(config.gauges).await;
        };
        tokio::select! {
            () = tasks.stopping() => return,
            () = measure => {}
        }
    }
}
