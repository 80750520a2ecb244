//! Takes what was acknowledged out of the work queues.
//!
//! JetStream's own work queues remove each acknowledged message by a write and a sync of its own, which costs as much as
//! the publish did. So these streams keep what is acknowledged; the server notes it beside the stream, many at a time, and
//! about once a second everything below the first message that is not acknowledged is purged with one request. Where such
//! a message holds back a purge for long, what this process acknowledged behind it is deleted one by one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{DeleteMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use futures_util::future::join_all;
use ports::Unavailable;
use ports::event_bus::{AckToken, Consumer, Retention};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{AbortOnDrop, streams, unavailable};

/// From an acknowledgement to the purge that takes it out, with all that came meanwhile.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long what is acknowledged may wait for messages before it.
const HELD_BACK: Duration = Duration::from_secs(30);
/// Messages deleted one by one in one sweep, and at the same time. Each is a sync.
const DELETED: usize = 4096;
const DELETED_AT_ONCE: usize = 64;

/// What one process has acknowledged, until it is out of the queues.
pub(super) struct WorkQueues {
    held_back: Duration,
    acked: Mutex<HashMap<&'static str, Acked>>,
    noted: Notify,
    sweeping: OnceLock<AbortOnDrop>,
}

struct Acked {
    consumer: Consumer,
    /// Sequences, and when they were acknowledged.
    sequences: BTreeMap<u64, Instant>,
}

impl Default for WorkQueues {
    fn default() -> Self {
        Self { held_back: HELD_BACK, acked: Mutex::default(), noted: Notify::default(), sweeping: OnceLock::default() }
    }
}

impl WorkQueues {
    /// Notes what was acknowledged, or, without any, that there may be something from before.
    #[expect(clippy::disallowed_methods, reason = "nothing waits for it: it ends with the bus that it works for")]
    pub(super) fn note(self: &Arc<Self>, context: &jetstream::Context, consumer: &Consumer, tokens: &[AckToken]) {
        if !matches!(consumer.stream.retention(), Retention::WorkQueue { .. }) {
            return;
        }
        let now = Instant::now();
        let noted = tokens.iter().filter_map(sequence).map(|sequence| (sequence, now));
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let of = || Acked { consumer: consumer.clone(), sequences: BTreeMap::new() };
        acked.entry(consumer.name).or_insert_with(of).sequences.extend(noted);
        drop(acked);
        self.noted.notify_one();
        self.sweeping.get_or_init(|| {
            let (queues, context) = (Arc::downgrade(self), context.clone());
            AbortOnDrop(tokio::spawn(async move {
                let mut has_failed = false;
                while let Some(queues) = queues.upgrade() {
                    queues.noted.notified().await;
                    tokio::time::sleep(SWEEP_EVERY).await;
                    match queues.sweep(&context).await {
                        Ok(()) => has_failed = false,
                        Err(error) => {
                            if !std::mem::replace(&mut has_failed, true) {
                                tracing::warn!(%error, "acknowledged messages stay in their queues for now");
                            }
                            queues.noted.notify_one();
                        }
                    }
                }
            }))
        });
    }

    async fn sweep(&self, context: &jetstream::Context) -> Result<(), Unavailable> {
        let consumers: Vec<Consumer> = {
            let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
            acked.values().map(|acked| acked.consumer.clone()).collect()
        };
        for consumer in consumers {
            let stream = context.get_stream_no_info(streams::name(consumer.stream)).await.map_err(unavailable)?;
            let floor = stream.consumer_info(consumer.name).await.map_err(unavailable)?.ack_floor.stream_sequence;
            // Nobody else reads a work queue, so what lies below is done with. Where nothing does, there is nothing to ask for:
            // up to 2.14 a server that is told to purge below 1 purges everything.
            if floor > 0 {
                stream.purge().sequence(floor + 1).await.map_err(unavailable)?;
            }
            let late = self.held_back(&consumer, floor);
            let mut deleted = Vec::new();
            for some in late.chunks(DELETED_AT_ONCE) {
                let gone = join_all(some.iter().map(|sequence| delete(&stream, *sequence))).await;
                deleted.extend(some.iter().zip(gone).filter(|(_, gone)| *gone).map(|(sequence, _)| *sequence));
            }
            self.forget(&consumer, &deleted);
        }
        Ok(())
    }

    /// Forgets what is purged; what has waited too long above it.
    fn held_back(&self, consumer: &Consumer, floor: u64) -> Vec<u64> {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(acked) = acked.get_mut(consumer.name) else { return Vec::new() };
        acked.sequences = acked.sequences.split_off(&(floor + 1));
        let late = acked.sequences.iter().filter(|(_, at)| at.elapsed() > self.held_back);
        late.map(|(sequence, _)| *sequence).take(DELETED).collect()
    }

    /// Forgets what is deleted. While anything is left there is another sweep; where nothing is, the queue is quiet.
    fn forget(&self, consumer: &Consumer, deleted: &[u64]) {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = acked.get_mut(consumer.name) else { return };
        for sequence in deleted {
            own.sequences.remove(sequence);
        }
        if own.sequences.is_empty() {
            acked.remove(consumer.name);
        } else {
            self.noted.notify_one();
        }
    }
}

/// Whether the message is gone now.
async fn delete(stream: &Stream<()>, sequence: u64) -> bool {
    match stream.delete_message(sequence).await {
        Ok(_) => true,
        // Another process, or a purge, came first.
        Err(error) => matches!(error.kind(), DeleteMessageErrorKind::JetStream(error)
            if matches!(error.error_code(), ErrorCode::SEQUENCE_NOT_FOUND | ErrorCode::NO_MESSAGE_FOUND)),
    }
}

/// The position in the stream, from the subject that acknowledges a message.
///
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>`, with the domain and
/// the account before the stream in newer servers.
fn sequence(token: &AckToken) -> Option<u64> {
    let parts: Vec<&str> = token.0.split('.').collect();
    let at = if parts.len() == 9 { 5 } else { 7 };
    parts.get(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ports::event_bus::{EventBus as _, Outgoing};

    use super::*;
    use crate::nats::{Nats, NatsConfig};

    #[test]
    fn both_forms_of_tokens_name_their_sequence() {
        for token in [
            "$JS.ACK.audit.recorder.1.17.9.1700000000000000000.0",
            "$JS.ACK._.hash.audit.recorder.1.17.9.1700000000000000000.0",
            "$JS.ACK._.hash.audit.recorder.1.17.9.1700000000000000000.0.random",
        ] {
            assert_eq!(sequence(&AckToken(token.to_owned())), Some(17), "{token}");
        }
        assert_eq!(sequence(&AckToken("nonsense".to_owned())), None);
    }

    #[tokio::test]
    async fn what_is_done_behind_a_message_that_waits_is_taken_out_one_by_one() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = test_servers::Nats::start();
        let config = NatsConfig {
            url: server.url().into(),
            monitor_url: None,
            client: "test",
            replicas: 1,
            allow_lazy_sync: true,
        };
        let nats = Nats::connect(config).await.unwrap();
        nats.migrate().await.unwrap();
        let bus = nats.bus();
        let stream = ports::event_bus::Stream::Audit;
        let consumer = Consumer { name: "recorder", stream, ack_wait: Duration::from_secs(30) };
        let message =
            Outgoing { stream, subject: "audit.requests".into(), payload: Bytes::from_static(b"a"), dedup_id: None };
        assert!(bus.publish(vec![message; 5]).await.iter().all(Result::is_ok));
        let taken = bus.pull(&consumer, 5, Duration::from_secs(10)).await.unwrap();
        let tokens: Vec<AckToken> = taken.iter().map(|delivery| delivery.token.clone()).collect();
        bus.ack(&consumer, &tokens[..1]).await.unwrap();
        bus.ack(&consumer, &tokens[2..]).await.unwrap();
        let queues = Arc::new(WorkQueues { held_back: Duration::ZERO, ..WorkQueues::default() });
        queues.note(&nats.context(), &consumer, &tokens[2..]);
        let left = async || {
            let stream = nats.context().get_stream("audit").await.unwrap();
            let state = &stream.cached_info().state;
            (state.first_sequence, state.messages)
        };
        let alone = async { while left().await != (2, 1) {} };
        tokio::time::timeout(Duration::from_secs(20), alone).await.unwrap();
        bus.ack(&consumer, &tokens[1..2]).await.unwrap();
        let empty = async { while left().await.1 > 0 {} };
        tokio::time::timeout(Duration::from_secs(20), empty).await.unwrap();
    }
}
