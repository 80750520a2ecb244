//! Publishing: what comes while others are published goes out with the next round, as one atomic batch.
//!
//! A server that syncs every write syncs for each message, but only a few times for a whole batch (its ADR 50; from 2.15
//! on). So the busier the bus, the less a message costs. Few messages are sent one by one, as is everything where a batch
//! cannot be had: an older server, a stream that was not made for it, a batch that the server refuses because one message
//! of it is a duplicate or over its tenant's quota. Where nothing is synced, nothing is gained either.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{PublishAckFuture, PublishError as NatsPublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, Request};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use ports::Unavailable;
use ports::event_bus::{Outgoing, PublishError, Published, Stream};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{ACK_TIMEOUT, AbortOnDrop, MAX_IN_FLIGHT, Nats, Trust, connection_number, unavailable};

/// Rounds of a stream under way at once: while the server syncs one it reads the next.
const ROUNDS: usize = 2;
/// A round is closed by so many messages or bytes. A server takes batches of a thousand; the outbox publisher takes as many
/// events at once by default, which go out as a whole.
const ROUND_MESSAGES: usize = 512;
const ROUND_BYTES: usize = 8 << 20;
/// Up to so many messages one by one are no dearer than a batch, which is synced four times.
const FEW: usize = 4;
/// A stream whose batches the server refused is tried again after this: it may have been migrated meanwhile.
const BATCHES_AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked whether the connection is still the one that an answer is awaited on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) type Answers = Vec<Result<Published, PublishError>>;

/// Publishes for all callers of a bus.
pub(super) struct Publishing {
    link: Link,
    rounds: [OnceLock<Rounds>; Stream::ALL.len()],
    runtime: Handle,
}

struct Rounds {
    waiting: mpsc::Sender<Waiting>,
    /// Ends with the bus.
    _running: AbortOnDrop,
}

/// What one caller wants to publish to one stream.
struct Waiting {
    messages: Vec<Outgoing>,
    answer: oneshot::Sender<Answers>,
}

#[derive(Clone)]
struct Link {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    trust: Arc<Trust>,
    /// Seconds since `began` before which the server is sent no batches: it takes none for a stream that an older one made.
    batches_again: Arc<AtomicU64>,
    began: Instant,
    /// Makes ids of batches: one of the process, and a number.
    process: Arc<str>,
    batches: Arc<AtomicU64>,
}

impl Publishing {
    pub(super) fn new(nats: &Nats) -> Self {
        let link = Link {
            client: nats.client.clone(),
            jetstream: nats.jetstream.clone(),
            trust: nats.trust.clone(),
            batches_again: Arc::default(),
            began: Instant::now(),
            process: uuid::Uuid::now_v7().simple().to_string().into(),
            batches: Arc::default(),
        };
        Self { link, rounds: Default::default(), runtime: nats.runtime.clone() }
    }

    /// Publishes messages; the answers are in their order.
    pub(super) async fn publish(&self, messages: Vec<Outgoing>) -> Answers {
        let Some(stream) = messages.first().map(|first| first.stream) else { return Vec::new() };
        let at = Stream::ALL.iter().position(|each| *each == stream);
        let is_one_stream = messages.iter().all(|message| message.stream == stream);
        let (Some(rounds), true, true) =
            (at.and_then(|at| self.rounds.get(at)), is_one_stream, self.link.may_batch(stream))
        else {
            let published = self.link.while_connected(self.link.one_by_one(&messages)).await;
            return published.unwrap_or_else(|| nothing_came(messages.len()));
        };
        let rounds = rounds.get_or_init(|| Rounds::start(self.link.clone(), &self.runtime));
        let (answer, answered) = oneshot::channel();
        let count = messages.len();
        // A full queue refuses at once: what waits behind so many is not answered in time anyway.
        match rounds.waiting.try_send(Waiting { messages, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| nothing_came(count)),
            Err(_) => nothing_came(count),
        }
    }

    /// Publishes messages as one batch, at once; `false` if that cannot be, and is not done.
    pub(super) async fn publish_whole(&self, messages: &[Outgoing]) -> Result<bool, Unavailable> {
        let Some(stream) = messages.first().map(|first| first.stream) else { return Ok(true) };
        let fits = |message: &Outgoing| message.stream == stream && message.payload.len() <= Stream::MAX_MESSAGE_BYTES;
        if !(FEW + 1..=ROUND_MESSAGES).contains(&messages.len())
            || !messages.iter().all(fits)
            || !self.link.may_batch(stream)
        {
            return Ok(false);
        }
        match self.link.while_connected(self.link.batch(messages)).await {
            Some(Ok(_)) => Ok(true),
            Some(Err(BatchError::Message | BatchError::Batch)) => Ok(false),
            Some(Err(BatchError::Unavailable(error))) => Err(Unavailable::new("NATS", error)),
            None => Err(Unavailable::new("NATS", "no answer: the connection broke")),
        }
    }
}

impl Rounds {
    fn start(link: Link, runtime: &Handle) -> Self {
        let (waiting, queue) = mpsc::channel(MAX_IN_FLIGHT);
        Self { waiting, _running: AbortOnDrop(runtime.spawn(run(link, queue))) }
    }
}

async fn run(link: Link, mut queue: mpsc::Receiver<Waiting>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            first = queue.recv(), if under_way.len() < ROUNDS => {
                let Some(first) = first else { return };
                under_way.push(link.round(gather(first, &mut queue)));
            }
            Some(()) = under_way.next() => {}
        }
    }
}

/// The first, and whatever else waits; without what its caller has given up.
fn gather(first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let (mut round, mut messages, mut bytes) = (Vec::new(), 0, 0);
    let mut next = Some(first);
    while let Some(waiting) = next {
        if !waiting.answer.is_closed() {
            messages += waiting.messages.len();
            bytes += waiting.messages.iter().map(|message| message.payload.len()).sum::<usize>();
            round.push(waiting);
        }
        next = if messages < ROUND_MESSAGES && bytes < ROUND_BYTES { queue.try_recv().ok() } else { None };
    }
    round
}

/// Why a batch was not stored.
enum BatchError {
    /// Because of a message in it, says the server: nothing is stored, and smaller batches may be.
    Message,
    /// For another reason, the same for a smaller batch: nothing is stored, and one by one they may be.
    Batch,
    /// Whether it was stored is not known.
    Unavailable(String),
}

impl BatchError {
    fn lost(error: impl std::fmt::Display) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Link {
    /// Whether it is worth trying batches on this connection. An older server would take each of them for a message.
    fn may_batch(&self, stream: Stream) -> bool {
        is_batched(stream)
            && self.trust.has_batches(&self.client)
            && self.began.elapsed().as_secs() >= self.batches_again.load(Ordering::Relaxed)
    }

    async fn round(&self, round: Vec<Waiting>) {
        let mut messages = Vec::new();
        let mut callers = Vec::with_capacity(round.len());
        for waiting in round {
            callers.push((waiting.messages.len(), waiting.answer));
            messages.extend(waiting.messages);
        }
        let answers = self.while_connected(self.batches(&messages)).await;
        let mut answers = answers.unwrap_or_else(|| nothing_came(messages.len())).into_iter();
        for (count, caller) in callers {
            let _ = caller.send(answers.by_ref().take(count).collect());
        }
    }

    /// As batches; one that is refused as two of half the size, and so on, so that one message costs the others little.
    /// Once they have taken as long as one may take in vain nothing more is sent: each might take as long.
    async fn batches(&self, messages: &[Outgoing]) -> Answers {
        let fits = messages.iter().all(|message| message.payload.len() <= Stream::MAX_MESSAGE_BYTES);
        let mut answers = Vec::with_capacity(messages.len());
        let mut parts: Vec<&[Outgoing]> = messages.chunks(ROUND_MESSAGES).rev().collect();
        let begun = Instant::now();
        while let Some(part) = parts.pop() {
            let stream = part.first().map(|message| message.stream);
            let may_batch = part.len() > FEW && fits && stream.is_some_and(|stream| self.may_batch(stream));
            let batch = if may_batch { self.batch(part).await } else { Err(BatchError::Batch) };
            let answered = match batch {
                Ok(first) => {
                    let published = (first..).map(|sequence| Ok(Published { sequence, duplicate: false }));
                    published.take(part.len()).collect()
                }
                Err(BatchError::Message) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                Err(BatchError::Batch) => self.one_by_one(part).await,
                Err(BatchError::Unavailable(error)) => lost(part.len(), &error),
            };
            answers.extend(answered);
            if begun.elapsed() >= ACK_TIMEOUT {
                break;
            }
        }
        answers.extend(lost(messages.len() - answers.len(), "not sent: those before it took too long"));
        answers
    }

    /// Stores all of them or none; the sequence of the first.
    async fn batch(&self, messages: &[Outgoing]) -> Result<u64, BatchError> {
        let id = format!("{}{:x}", self.process, self.batches.fetch_add(1, Ordering::Relaxed));
        let mut sequence = 0_usize;
        let mut headers = |message: &Outgoing| {
            sequence += 1;
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", sequence.to_string().as_str());
            if let Some(id) = &message.dedup_id {
                headers.insert("Nats-Msg-Id", id.as_str());
            }
            headers
        };
        let Some((last, others)) = messages.split_last() else { return Ok(0) };
        for message in others {
            let sent =
                self.client.publish_with_headers(message.subject.clone(), headers(message), message.payload.clone());
            sent.await.map_err(BatchError::lost)?;
        }
        let mut commit = headers(last);
        commit.insert("Nats-Batch-Commit", "1");
        let request = Request::new().headers(commit).payload(last.payload.clone()).timeout(Some(ACK_TIMEOUT));
        let answer = self.client.send_request(last.subject.clone(), request).await;
        let answer = answer.map_err(BatchError::lost)?;
        let answer: Committed = serde_json::from_slice(&answer.payload).map_err(BatchError::lost)?;
        match answer {
            Committed { error: None, batch: Some(_), seq, count } if count == messages.len() as u64 && seq >= count => {
                Ok(seq - count + 1)
            }
            Committed { error, .. } => {
                const OF_A_MESSAGE: [ErrorCode; 2] =
                    [ErrorCode::STREAM_STORE_FAILED, ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE];
                let code = error.map(|error| ErrorCode(error.err_code));
                if code.is_some_and(|code| OF_A_MESSAGE.contains(&code)) {
                    return Err(BatchError::Message);
                }
                // Whoever answers as if it were a single message knows no batches, whatever its version says.
                if code.is_none_or(|code| code == ErrorCode::ATOMIC_PUBLISH_DISABLED) {
                    let again = self.began.elapsed() + BATCHES_AGAIN;
                    self.batches_again.store(again.as_secs(), Ordering::Relaxed);
                    tracing::warn!(
                        "the NATS server takes no batches for a stream, which is slower: run `wharf migrate`"
                    );
                }
                Err(BatchError::Batch)
            }
        }
    }

    /// Each by itself, all at once.
    async fn one_by_one(&self, messages: &[Outgoing]) -> Answers {
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            sent.push((message.stream, self.send(message).await));
        }
        join_all(sent.into_iter().map(|(stream, sent)| acknowledged(stream, sent))).await
    }

    /// Hands a message to the connection.
    async fn send(&self, message: &Outgoing) -> Result<PublishAckFuture, PublishError> {
        let size = message.payload.len();
        if size > Stream::MAX_MESSAGE_BYTES {
            return Err(PublishError::TooLarge { size, limit: Stream::MAX_MESSAGE_BYTES });
        }
        let mut publish = PublishMessage::build().payload(message.payload.clone());
        if let Some(id) = &message.dedup_id {
            publish = publish.message_id(id);
        }
        let sent = self.jetstream.send_publish(message.subject.clone(), publish).await;
        sent.map_err(|error| failure(message.stream, error))
    }

    /// `None` as soon as the connection is another one, since its answers go to nobody, and if in the end the server is not
    /// known to be as it must be.
    async fn while_connected<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let connection = connection_number(&self.client);
        let mut work = std::pin::pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(LOOK_EVERY, &mut work).await {
                let is_same = connection_number(&self.client) == connection;
                return (is_same && self.trust.holds(&self.client)).then_some(done);
            }
            let is_there = self.client.connection_state() == State::Connected;
            if !is_there || connection_number(&self.client) != connection {
                return None;
            }
        }
    }
}

/// Streams to which many publish at once, or many messages. `migrate` makes them so that they take batches.
pub(super) const fn is_batched(stream: Stream) -> bool {
    matches!(stream, Stream::Inbound(_) | Stream::Events)
}

/// The answer to the last message of a batch.
#[derive(Deserialize)]
struct Committed {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    count: u64,
    batch: Option<String>,
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    #[serde(default)]
    err_code: u64,
}

fn nothing_came(count: usize) -> Answers {
    lost(count, "no answer: the connection broke, or too much is waiting")
}

fn lost(count: usize, error: &str) -> Answers {
    (0..count).map(|_| Err(PublishError::Unavailable(Unavailable::new("NATS", error)))).collect()
}

async fn acknowledged(stream: Stream, sent: Result<PublishAckFuture, PublishError>) -> Result<Published, PublishError> {
    match sent?.await {
        Ok(ack) => Ok(Published { sequence: ack.sequence, duplicate: ack.duplicate }),
        Err(error) => Err(failure(stream, error)),
    }
}

/// A full subject is told from a full disk: the one is the tenant's, the other everybody's.
fn failure(stream: Stream, error: NatsPublishError) -> PublishError {
    use std::error::Error as _;
    let full = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>()).is_some_and(|error| {
        error.error_code() == ErrorCode::STREAM_STORE_FAILED && error.to_string().contains("maximum messages")
    });
    if full { PublishError::Full { stream: stream.name() } } else { PublishError::Unavailable(unavailable(error)) }
}
