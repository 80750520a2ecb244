//! What the gateway does behind the answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use common::envelope::Lane;
use ports::admission::{Admission, Remembered};
use ports::event_bus::{EventBus, Outgoing, Stream};
use service::{Tasks, names};
use tokio::sync::mpsc;

use super::Gateway;

/// Between two looks at a bus that does not answer.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Between two comparisons with the other gateways, and how many there are in a second.
const COMPARE_EVERY: Duration = Duration::from_millis(200);
const COMPARISONS: usize = 5;
/// Keys that are remembered at once.
const REMEMBERED_AT_ONCE: usize = 1000;

/// Starts all of it, with the queues of keys to remember and of refused webhooks to keep.
pub(super) fn start(
    gateway: &Arc<Gateway>,
    keys: mpsc::Receiver<Remembered>,
    refused: mpsc::Receiver<Outgoing>,
    tasks: &Tasks,
) {
    let deps = &gateway.deps;
    tasks.spawn("remember", remember_keys(deps.admission.clone(), keys, tasks.clone()));
    tasks.spawn("keep-refused", keep_refused(deps.bus.clone(), refused, tasks.clone()));
    tasks.spawn("request-records", flush_records(gateway.clone(), tasks.clone()));
    tasks.spawn("breaker-probe", probe(gateway.clone(), tasks.clone()));
    tasks.spawn("compare", compare(gateway.clone(), tasks.clone()));
}

async fn flush_records(gateway: Arc<Gateway>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tasks.stopping() => break,
            () = tokio::time::sleep(gateway.config.record_interval) => {}
        }
        ring(&gateway);
        if !gateway.records.flush(&gateway.deps.bus).await {
            tracing::warn!("request records wait: the bus does not take them");
        }
    }
    if !gateway.records.flush(&gateway.deps.bus).await {
        tracing::warn!("the last request records are lost: the bus does not take them");
    }
}

/// Says what of the last five minutes somebody should know of.
fn ring(gateway: &Gateway) {
    for alert in gateway.watch.look(gateway.deps.clock.monotonic()) {
        metrics::counter!(names::ALERTS, "alert" => alert.name).increment(1);
        let (count, of) = (alert.count, alert.of);
        tracing::error!(alert = alert.name, count, of, "ALERT: in the last five minutes {count} {}", alert.text);
    }
}

/// Tries a bus that did not answer. While nobody sends (a balancer that sees the red readiness), this is the only try there is.
async fn probe(gateway: Arc<Gateway>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tasks.stopping() => return,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
        if !gateway.breaker.is_open() {
            continue;
        }
        let probe = gateway.deps.bus.probe(Stream::Inbound(Lane::Live));
        tokio::select! {
            () = tasks.stopping() => return,
            probed = tokio::time::timeout(gateway.config.deadline, probe) => {
                if matches!(probed, Ok(Ok(()))) {
                    gateway.breaker.succeeded(gateway.deps.clock.monotonic());
                }
            }
        }
    }
}

/// Sees to it that all gateways together keep to the limit of all. While the others are not heard of, each has all of it.
async fn compare(gateway: Arc<Gateway>, tasks: Tasks) {
    let mut counts = VecDeque::from([gateway.limits.taken()]);
    loop {
        tokio::select! {
            () = tasks.stopping() => return,
            () = tokio::time::sleep(COMPARE_EVERY) => {}
        }
        let now = gateway.limits.taken();
        let a_second_ago = if counts.len() > COMPARISONS { counts.pop_front() } else { counts.front().copied() };
        counts.push_back(now);
        let taken = now.wrapping_sub(a_second_ago.unwrap_or(now));
        gateway.limits.leave_to(gateway.deps.admission.compare(taken).await.unwrap_or_default());
    }
}

/// Publishes refused webhooks that are kept. What the bus does not take is not kept.
async fn keep_refused(bus: Arc<dyn EventBus>, mut queue: mpsc::Receiver<Outgoing>, tasks: Tasks) {
    loop {
        let envelope = tokio::select! {
            next = queue.recv() => match next {
                Some(envelope) => envelope,
                None => return,
            },
            () = tasks.stopping() => return,
        };
        if bus.publish(vec![envelope]).await.iter().any(Result::is_err) {
            tracing::warn!("a refused webhook could not be kept: the bus does not take it");
        }
    }
}

/// Remembers keys in batches, behind the answers.
async fn remember_keys(admission: Arc<dyn Admission>, mut queue: mpsc::Receiver<Remembered>, tasks: Tasks) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        tokio::select! {
            received = queue.recv_many(&mut batch, REMEMBERED_AT_ONCE) => if received == 0 { return },
            () = tasks.stopping() => return,
        }
        if admission.remember(&batch).await.is_err() {
            metrics::counter!(names::ADMISSION_SKIPPED).increment(1);
        }
    }
}
