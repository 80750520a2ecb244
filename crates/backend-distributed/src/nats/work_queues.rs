//! Takes what was acknowledged out of the work queues.
//!
//! JetStream's own work queues remove each acknowledged message by a write and a sync of its own, which costs as much as
//! the publish did. So these streams keep what is acknowledged; the server notes it beside the stream, many at a time, and
//! about once a second everything up to the first that is not acknowledged is purged with one request. Where a message holds back a purge for long, what this process acknowledged behind it is deleted one by one, each after a look
//! whether it is still the same message: a stream that was made anew counts from 1 again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{DeleteMessageErrorKind, DirectGetErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use futures_util::future::join_all;
use ports::Unavailable;
use ports::event_bus::{AckToken, Consumer, Retention};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{AbortOnDrop, streams, unavailable};

/// From an acknowledgement to the purge that takes it out, with all that came meanwhile.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long what is acknowledged may wait for messages before it.
const HELD_BACK: Duration = Duration::from_secs(30);
/// Messages deleted one by one at the same time. Each is a sync.
const DELETED_AT_ONCE: usize = 64;
/// Messages deleted one by one before it is looked anew whether a purge can take them.
const DELETED_IN_A_SWEEP: usize = 2048;
/// Failed sweeps between two warnings.
const WARN_EVERY: u32 = 60;

/// What one process has acknowledged, until it is out of the queues.
pub(super) struct WorkQueues {
    held_back: Duration,
    acked: Mutex<HashMap<&'static str, Acked>>,
    noted: Arc<Notify>,
    sweeping: OnceLock<AbortOnDrop>,
}

struct Acked {
    consumer: Consumer,
    /// By sequence, until they are gone.
    messages: BTreeMap<u64, AckedMessage>,
}

#[derive(Clone, Copy)]
struct AckedMessage {
    /// Nanoseconds since 1970. With the sequence it names a message, whatever became of its stream.
    stored_at: i128,
    acked_at: Instant,
}

impl Default for WorkQueues {
    fn default() -> Self {
        Self { held_back: HELD_BACK, acked: Mutex::default(), noted: Arc::default(), sweeping: OnceLock::default() }
    }
}

impl WorkQueues {
    /// Notes what was acknowledged, or, without any, that there may be something from before.
    pub(super) fn note(
        self: &Arc<Self>,
        context: &jetstream::Context,
        runtime: &Handle,
        consumer: &Consumer,
        tokens: &[AckToken],
    ) {
        if !matches!(consumer.stream.retention(), Retention::WorkQueue { .. }) {
            return;
        }
        let acked_at = Instant::now();
        let noted = tokens.iter().filter_map(named);
        let noted = noted.map(|(sequence, stored_at)| (sequence, AckedMessage { stored_at, acked_at }));
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let of = || Acked { consumer: consumer.clone(), messages: BTreeMap::new() };
        acked.entry(consumer.name).or_insert_with(of).messages.extend(noted);
        drop(acked);
        self.noted.notify_one();
        self.sweeping.get_or_init(|| {
            let (queues, noted, context) = (Arc::downgrade(self), self.noted.clone(), context.clone());
            AbortOnDrop(runtime.spawn(async move {
                let mut failures = 0;
                loop {
                    noted.notified().await;
                    tokio::time::sleep(SWEEP_EVERY).await;
                    let Some(queues) = queues.upgrade() else { return };
                    if let Err(error) = queues.sweep(&context).await {
                        if failures % WARN_EVERY == 0 {
                            tracing::warn!(
                                error = &error as &dyn std::error::Error,
                                "acknowledged messages stay in their queues, which fill up; may this user purge them?"
                            );
                        }
                        failures += 1;
                        queues.noted.notify_one();
                    } else {
                        failures = 0;
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
        // One queue does not keep the others from being swept.
        let swept = join_all(consumers.iter().map(|consumer| self.sweep_one(context, consumer))).await;
        swept.into_iter().collect()
    }

    async fn sweep_one(&self, context: &jetstream::Context, consumer: &Consumer) -> Result<(), Unavailable> {
        // The consumer first: the stream is then at least as far.
        let name = consumer.stream.name();
        let done = context.get_stream_no_info(name).await.map_err(unavailable)?;
        let floor = done.consumer_info(consumer.name).await.map_err(unavailable)?.ack_floor.stream_sequence;
        let there = context.get_stream(name).await.map_err(unavailable)?;
        let (first, last) = (there.cached_info().state.first_sequence, there.cached_info().state.last_sequence);
        if floor > last {
            tracing::error!(
                stream = name,
                floor,
                last,
                "the NATS server lost the end of a stream whose messages were acknowledged before; nothing is taken out of it"
            );
            return Ok(());
        }
        // Nobody else reads a work queue, so what the consumer reads of it up to the floor is done with. What it does not
        // read stays: nobody can have acknowledged it (a stream that was changed by hand stored it under another subject).
        // A server that is told to purge beyond the end of a stream purges everything, and up to 2.14 also what is stored at
        // the same moment; so the last message is deleted by itself.
        let keep_from = last.min(floor + 1);
        if first < keep_from {
            let read = streams::subjects(consumer.stream);
            there.purge().filter(read).sequence(keep_from).await.map_err(unavailable)?;
        }
        if floor == last && floor > 0 && first <= floor {
            delete_read(&done, consumer, floor).await?;
        }
        let stream = done;
        let late = self.held_back(consumer, floor);
        for some in late.chunks(DELETED_AT_ONCE) {
            let gone = join_all(some.iter().map(|(sequence, at)| delete(&stream, *sequence, *at))).await;
            self.forget(consumer, some.iter().zip(gone).filter(|(_, gone)| *gone).map(|((sequence, _), _)| *sequence));
        }
        self.rest(consumer);
        Ok(())
    }

    /// Forgets what is purged; what has waited too long above it.
    fn held_back(&self, consumer: &Consumer, floor: u64) -> Vec<(u64, i128)> {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(acked) = acked.get_mut(consumer.name) else { return Vec::new() };
        acked.messages = acked.messages.split_off(&(floor + 1));
        let late = acked.messages.iter().filter(|(_, message)| message.acked_at.elapsed() > self.held_back);
        late.map(|(sequence, message)| (*sequence, message.stored_at)).take(DELETED_IN_A_SWEEP).collect()
    }

    /// Forgets what is deleted.
    fn forget(&self, consumer: &Consumer, deleted: impl Iterator<Item = u64>) {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = acked.get_mut(consumer.name) else { return };
        for sequence in deleted {
            own.messages.remove(&sequence);
        }
    }

    /// While anything is left there is another sweep; where nothing is, the queue is quiet.
    fn rest(&self, consumer: &Consumer) {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = acked.get(consumer.name) else { return };
        if own.messages.is_empty() {
            acked.remove(consumer.name);
        } else {
            self.noted.notify_one();
        }
    }
}

/// Whether the message is gone now. Another one in its place is left alone.
async fn delete(stream: &Stream<()>, sequence: u64, stored_at: i128) -> bool {
    match stream.direct_get(sequence).await {
        Ok(there) if there.time.unix_timestamp_nanos() != stored_at => return true,
        Ok(_) => {}
        Err(error) => return error.kind() == DirectGetErrorKind::NotFound,
    }
    delete_known(stream, sequence).await.is_ok()
}

/// Deletes a message if it is one that the consumer reads.
async fn delete_read(stream: &Stream<()>, consumer: &Consumer, sequence: u64) -> Result<(), Unavailable> {
    match stream.direct_get(sequence).await {
        Ok(there) if !there.subject.starts_with(streams::subjects(consumer.stream).trim_end_matches('>')) => Ok(()),
        Ok(_) => delete_known(stream, sequence).await,
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(()),
        Err(error) => Err(unavailable(error)),
    }
}

async fn delete_known<I>(stream: &Stream<I>, sequence: u64) -> Result<(), Unavailable> {
    match stream.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            // Another process, or a purge, came first.
            DeleteMessageErrorKind::JetStream(error)
                if matches!(error.error_code(), ErrorCode::SEQUENCE_NOT_FOUND | ErrorCode::NO_MESSAGE_FOUND) =>
            {
                Ok(())
            }
            _ => Err(unavailable(error)),
        },
    }
}

/// The position in the stream and the time of storing, from the subject that acknowledges a message.
///
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>`, with the domain and
/// the account before the stream in newer servers.
fn named(token: &AckToken) -> Option<(u64, i128)> {
    let parts: Vec<&str> = token.0.split('.').collect();
    let at = if parts.len() == 9 { 5 } else { 7 };
    Some((parts.get(at)?.parse().ok()?, parts.get(at + 2)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::{Config, SubjectTransform};
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
            assert_eq!(named(&AckToken(token.to_owned())), Some((17, 1_700_000_000_000_000_000)), "{token}");
        }
        assert_eq!(named(&AckToken("nonsense".to_owned())), None);
    }

    const AUDIT: ports::event_bus::Stream = ports::event_bus::Stream::Audit;

    fn recorder() -> Consumer {
        Consumer { name: "recorder", stream: AUDIT, ack_wait: Duration::from_secs(30) }
    }

    async fn connect(server: &test_servers::Nats) -> Nats {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = NatsConfig {
            url: server.url().into(),
            monitor_url: None,
            client: "test",
            replicas: 1,
            allow_lazy_sync: true,
        };
        let nats = Nats::connect(config).await.unwrap();
        nats.migrate().await.unwrap();
        nats
    }

    /// Publishes five and takes them; their tokens.
    async fn five(nats: &Nats) -> Vec<AckToken> {
        publish_five(nats).await;
        let taken = nats.bus().pull(&recorder(), 5, Duration::from_secs(10)).await.unwrap();
        taken.iter().map(|delivery| delivery.token.clone()).collect()
    }

    async fn publish_five(nats: &Nats) {
        let message = Outgoing {
            stream: AUDIT,
            subject: "audit.requests".into(),
            payload: Bytes::from_static(b"a"),
            dedup_id: None,
        };
        assert!(nats.bus().publish(vec![message; 5]).await.iter().all(Result::is_ok));
    }

    /// The first sequence, and the number of messages.
    async fn left(nats: &Nats) -> (u64, u64) {
        let stream = nats.context().get_stream("audit").await.unwrap();
        let state = &stream.cached_info().state;
        (state.first_sequence, state.messages)
    }

    async fn until(what: &str, done: impl AsyncFn() -> bool) {
        let waiting = async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    fn impatient() -> Arc<WorkQueues> {
        Arc::new(WorkQueues { held_back: Duration::ZERO, ..WorkQueues::default() })
    }

    #[tokio::test]
    async fn what_is_done_behind_a_message_that_waits_is_taken_out_one_by_one() {
        let server = test_servers::Nats::start();
        let nats = connect(&server).await;
        let bus = nats.bus();
        let tokens = five(&nats).await;
        bus.ack(&recorder(), &tokens[..1]).await.unwrap();
        bus.ack(&recorder(), &tokens[2..]).await.unwrap();
        let queues = impatient();
        // Another queue that cannot be swept is in nobody's way.
        let nobody = Consumer { name: "nobody", stream: ports::event_bus::Stream::Wakeups, ..recorder() };
        queues.note(&nats.context(), &Handle::current(), &nobody, &[]);
        queues.note(&nats.context(), &Handle::current(), &recorder(), &tokens[2..]);
        until("only the one that waits is there", async || left(&nats).await == (2, 1)).await;
        bus.ack(&recorder(), &tokens[1..2]).await.unwrap();
        until("nothing is there", async || left(&nats).await.1 == 0).await;
    }

    /// What was acknowledged to a sender and never read must not go with what was.
    #[tokio::test]
    async fn what_a_changed_stream_stored_under_another_subject_is_not_taken_out() {
        let server = test_servers::Nats::start();
        let nats = connect(&server).await;
        let audit = streams::wanted(1).into_iter().find(|stream| stream.name == AUDIT.name()).unwrap();
        let transform =
            SubjectTransform { source: "audit.*".to_owned(), destination: "lost.{{wildcard(1)}}".to_owned() };
        let changed = Config { subject_transform: Some(transform), ..audit };
        nats.context().update_stream(changed.clone()).await.unwrap();
        publish_five(&nats).await;
        let done = nats.migrate().await.unwrap();
        assert!(done.contains(&"stream audit: changed (subject transform)".to_owned()), "{done:?}");
        let tokens = five(&nats).await;
        assert_eq!(tokens.len(), 5);
        nats.bus().ack(&recorder(), &tokens).await.unwrap();
        until("what was read is gone", async || left(&nats).await.1 <= 5).await;
        // Also where what was not read is the last.
        nats.context().update_stream(changed).await.unwrap();
        publish_five(&nats).await;
        nats.migrate().await.unwrap();
        let queues = impatient();
        queues.note(&nats.context(), &Handle::current(), &recorder(), &[]);
        until("it is swept", async || queues.acked.lock().unwrap().is_empty()).await;
        assert_eq!(left(&nats).await, (1, 10));
    }

    #[tokio::test]
    async fn a_stream_that_was_made_anew_keeps_its_messages() {
        let server = test_servers::Nats::start();
        let nats = connect(&server).await;
        let tokens = five(&nats).await;
        nats.context().delete_stream("audit").await.unwrap();
        nats.migrate().await.unwrap();
        publish_five(&nats).await;
        let other = connect(&server).await;
        assert_eq!(other.bus().pull(&recorder(), 1, Duration::from_secs(10)).await.unwrap().len(), 1);
        let queues = impatient();
        queues.note(&nats.context(), &Handle::current(), &recorder(), &tokens);
        until("the old ones are forgotten", async || queues.acked.lock().unwrap().is_empty()).await;
        assert_eq!(left(&nats).await, (1, 5));
    }
}
