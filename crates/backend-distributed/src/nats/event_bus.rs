//! The event bus on JetStream.
//!
//! A pull first takes what is there without waiting; only when there is nothing it waits for one
//! message, and then takes what came with it. So a request that is given up never holds more than one message, and a
//! busy consumer needs one round trip a batch.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::{self, Batch};
use async_nats::jetstream::consumer::{AckPolicy, Consumer as PullConsumer, DeliverPolicy};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::{HeaderMap, RequestErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use common::{Clock as _, SystemClock, Timestamp};
use futures_util::StreamExt as _;
use ports::Unavailable;
use ports::event_bus::{AckToken, Backlog, Consumer, Delivery, EventBus, Outgoing, PublishError, Published, Stream};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::nats::publishing::Publishing;
use crate::nats::work_queues::WorkQueues;
use crate::nats::{Nats, Trust, streams, unavailable};

/// Bytes of one pull, and at most one message more.
const PULL_BYTES: usize = 16 << 20;
/// How much longer than asked for an answer may take before the server counts as frozen.
const PATIENCE: Duration = Duration::from_secs(3);
/// Messages of a consumer in the hands of all processes together.
const MAX_IN_HAND: i64 = 100_000;
/// Acknowledgements for which one answer is awaited.
const SETTLED_AT_ONCE: usize = 512;
/// Pulls that may wait for a consumer.
const MAX_WAITING: i64 = 4096;
/// A probe leaves no message for longer than this.
const PROBE_TTL: &str = "1s";

/// See the module's documentation.
pub struct JetStreamBus {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    trust: Arc<Trust>,
    publishing: Publishing,
    queues: Arc<WorkQueues>,
    /// The one of the process, which outlives the threads of its listeners.
    runtime: Handle,
    consumers: Mutex<HashMap<&'static str, PullConsumer<pull::Config>>>,
}

impl JetStreamBus {
    pub(super) fn new(nats: &Nats) -> Self {
        Self {
            client: nats.client.clone(),
            jetstream: nats.jetstream.clone(),
            trust: nats.trust.clone(),
            publishing: Publishing::new(nats),
            queues: Arc::default(),
            runtime: nats.runtime.clone(),
            consumers: Mutex::default(),
        }
    }

    /// The consumer, made on its first use.
    async fn consumer(&self, consumer: &Consumer) -> Result<PullConsumer<pull::Config>, Unavailable> {
        let mut consumers = self.consumers.lock().await;
        if let Some(known) = consumers.get(consumer.name) {
            return Ok(known.clone());
        }
        let config = pull::Config {
            durable_name: Some(consumer.name.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: consumer.ack_wait,
            // What is poison is for the consumer to decide.
            max_deliver: -1,
            filter_subject: streams::subjects(consumer.stream).to_owned(),
            max_ack_pending: MAX_IN_HAND,
            max_waiting: MAX_WAITING,
            ..pull::Config::default()
        };
        let made = self.jetstream.create_consumer_on_stream(config, consumer.stream.name()).await;
        let made = made.map_err(unavailable)?;
        consumers.insert(consumer.name, made.clone());
        // What another process acknowledged just before it ended.
        self.queues.note(&self.jetstream, &self.runtime, consumer, &[]);
        Ok(made)
    }

    /// Forgets the consumer: the next use makes it again if the server has lost it.
    async fn forget(&self, consumer: &Consumer) {
        self.consumers.lock().await.remove(consumer.name);
    }

    /// What is there now, at most `max` messages and about [`PULL_BYTES`].
    async fn take(&self, from: &PullConsumer<pull::Config>, max: usize) -> Result<Vec<Delivery>, Unavailable> {
        let batch = from.fetch().max_messages(max).max_bytes(PULL_BYTES).messages().await.map_err(unavailable)?;
        let (taken, error) = collect(batch, PATIENCE).await;
        match error {
            Some(error) if taken.is_empty() => Err(error),
            // A batch that is cut short by its bytes ends with an error too.
            _ => Ok(taken),
        }
    }

    /// Waits for one message.
    async fn wait(&self, on: &PullConsumer<pull::Config>, wait: Duration) -> Result<Vec<Delivery>, Unavailable> {
        let batch = on.batch().max_messages(1).expires(wait).messages().await.map_err(unavailable)?;
        match collect(batch, wait + PATIENCE).await {
            (taken, Some(error)) if taken.is_empty() => Err(error),
            (taken, _) => Ok(taken),
        }
    }

    async fn pull_now(&self, consumer: &Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>, Unavailable> {
        let handle = self.consumer(consumer).await?;
        let taken = self.take(&handle, max).await?;
        if !taken.is_empty() || wait.is_zero() {
            return Ok(taken);
        }
        let mut taken = self.wait(&handle, wait).await?;
        if !taken.is_empty() && max > 1 {
            // What came meanwhile. If it cannot be had, what is in hand still counts.
            taken.extend(self.take(&handle, max - 1).await.unwrap_or_default());
        }
        Ok(taken)
    }

    /// Sends a word to the subject of each token; the last of a group is answered, and the server reads them in order.
    ///
    /// A server that was started again does not know what it delivered before, and does not answer about it. If it
    /// answers other questions, these tokens are void: their messages are gone or will be delivered again.
    async fn settle(&self, consumer: &Consumer, tokens: &[AckToken], word: Bytes) -> Result<(), Unavailable> {
        let mut is_answered = true;
        for group in tokens.chunks(SETTLED_AT_ONCE) {
            let Some((last, others)) = group.split_last() else { continue };
            for token in others {
                self.client.publish(token.0.clone(), word.clone()).await.map_err(unavailable)?;
            }
            if !is_answered {
                self.client.publish(last.0.clone(), word.clone()).await.map_err(unavailable)?;
                continue;
            }
            match self.client.request(last.0.clone(), word.clone()).await {
                Ok(_) => {}
                Err(error) if error.kind() == RequestErrorKind::TimedOut => {
                    if let Err(error) = self.consumer(consumer).await?.info().await {
                        self.forget(consumer).await;
                        return Err(unavailable(error));
                    }
                    tracing::debug!(consumer = consumer.name, "the bus does not know a delivery of it any more");
                    is_answered = false;
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl EventBus for JetStreamBus {
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>> {
        self.publishing.publish(messages).await
    }

    async fn publish_whole(&self, messages: &[Outgoing]) -> Result<bool, Unavailable> {
        self.publishing.publish_whole(messages).await
    }

    async fn pull(&self, consumer: &Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>, Unavailable> {
        let pulled = self.pull_now(consumer, max, wait).await;
        if pulled.is_err() {
            self.forget(consumer).await;
        }
        pulled
    }

    async fn ack(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        self.settle(consumer, tokens, Bytes::from_static(b"+ACK")).await?;
        self.queues.note(&self.jetstream, &self.runtime, consumer, tokens);
        Ok(())
    }

    async fn retry_after(&self, consumer: &Consumer, tokens: &[AckToken], delay: Duration) -> Result<(), Unavailable> {
        let word = if delay.is_zero() {
            Bytes::from_static(b"-NAK")
        } else {
            Bytes::from(format!("-NAK {{\"delay\":{}}}", delay.as_nanos()))
        };
        self.settle(consumer, tokens, word).await
    }

    async fn extend(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        self.settle(consumer, tokens, Bytes::from_static(b"+WPI")).await
    }

    async fn backlog(&self, consumer: &Consumer) -> Result<Backlog, Unavailable> {
        let mut handle = self.consumer(consumer).await?;
        let info = match handle.info().await {
            Ok(info) => info,
            Err(error) => {
                let error = unavailable(error);
                self.forget(consumer).await;
                return Err(error);
            }
        };
        let depth = info.num_pending + info.num_ack_pending as u64;
        if depth == 0 {
            return Ok(Backlog::default());
        }
        let floor = info.ack_floor.stream_sequence;
        let stream = self.jetstream.get_stream_no_info(consumer.stream.name()).await.map_err(unavailable)?;
        let oldest = stream.direct_get_next_for_subject(streams::subjects(consumer.stream), Some(floor + 1)).await;
        // It may have been acknowledged since.
        let oldest_age = oldest.map_or(Duration::ZERO, |oldest| {
            SystemClock.now().since(Timestamp::from_millis(millis(oldest.time.unix_timestamp_nanos())))
        });
        Ok(Backlog { depth, oldest_age })
    }

    async fn probe(&self, stream: Stream) -> Result<(), Unavailable> {
        let mut headers = HeaderMap::new();
        let subject = if let Stream::Inbound(lane) = stream {
            // A real write, to see whether writing works.
            headers.insert("Nats-TTL", PROBE_TTL);
            streams::probe_subject(lane).to_owned()
        } else {
            // No write, since consumers would see it: a condition that cannot hold is checked by whoever would write.
            headers.insert("Nats-Expected-Last-Sequence", u64::MAX.to_string().as_str());
            streams::subjects(stream).replace('>', "probe")
        };
        let message = PublishMessage::build().headers(headers);
        let sent = self.jetstream.send_publish(subject, message).await.map_err(unavailable)?;
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn is_connected(&self) -> bool {
        self.trust.holds(&self.client)
    }
}

/// Everything of a batch, and the error that ended it, if one did. Never waits longer than `limit` in all.
async fn collect(mut batch: Batch, limit: Duration) -> (Vec<Delivery>, Option<Unavailable>) {
    let deadline = tokio::time::Instant::now() + limit;
    let mut taken = Vec::new();
    loop {
        match tokio::time::timeout_at(deadline, batch.next()).await {
            Ok(Some(Ok(message))) => match delivery(message) {
                Ok(delivery) => taken.push(delivery),
                Err(error) => return (taken, Some(error)),
            },
            Ok(Some(Err(error))) => return (taken, Some(unavailable(error))),
            Ok(None) => return (taken, None),
            Err(_) => return (taken, Some(unavailable("no answer"))),
        }
    }
}

fn delivery(message: jetstream::Message) -> Result<Delivery, Unavailable> {
    let info = message.info().map_err(unavailable)?;
    let sequence = info.stream_sequence;
    let delivered = u32::try_from(info.delivered).unwrap_or(u32::MAX);
    let published_at = Timestamp::from_millis(millis(info.published.unix_timestamp_nanos()));
    let message = message.message;
    let token = message.reply.map(|reply| AckToken(reply.to_string()));
    Ok(Delivery {
        subject: message.subject.to_string(),
        payload: message.payload,
        sequence,
        delivered,
        published_at,
        token: token.ok_or_else(|| unavailable("a delivery without a subject to acknowledge it"))?,
    })
}

fn millis(nanos: i128) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or_default()
}

impl fmt::Debug for JetStreamBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamBus").finish_non_exhaustive()
    }
}
