//! The event bus in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use common::{Clock, Timestamp};
use ports::Unavailable;
use ports::event_bus::{
    AckToken, Backlog, Consumer, Delivery, EventBus, Outgoing, PublishError, Published, Retention, Stream,
};
use tokio::sync::watch;

use super::{MemoryBackend, Operation, StoredMessage};

/// What a consumer holds of a message: from when on it comes again, and how often it came.
#[derive(Clone, Copy, Default)]
struct Hold {
    until: Duration,
    delivered: u32,
}

#[derive(Default)]
struct Reader {
    held: HashMap<u64, Hold>,
    acked: BTreeSet<u64>,
}

/// One stream. Messages are never thrown away, so that tests can look at them; a work queue's consumer just does not
/// get them again.
#[derive(Default)]
struct Queue {
    messages: BTreeMap<u64, StoredMessage>,
    /// Waiting messages per subject of a work queue.
    waiting: HashMap<String, u64>,
    ids: HashMap<String, (u64, Duration)>,
    readers: HashMap<&'static str, Reader>,
}

#[derive(Default)]
pub(super) struct Bus {
    queues: Mutex<HashMap<Stream, Queue>>,
    /// Changes whenever there may be something to pull.
    news: watch::Sender<()>,
}

impl Bus {
    fn queues(&self) -> MutexGuard<'_, HashMap<Stream, Queue>> {
        self.queues.lock().unwrap()
    }

    pub(super) fn forget_leases(&self) {
        self.queues().values_mut().flat_map(|queue| queue.readers.values_mut()).for_each(|reader| reader.held.clear());
        self.news.send_replace(());
    }

    pub(super) fn published(&self, stream: Stream) -> Vec<StoredMessage> {
        self.queues().get(&stream).map_or_else(Vec::new, |queue| queue.messages.values().cloned().collect())
    }
}

impl Queue {
    fn publish(&mut self, message: Outgoing, now: Timestamp, monotonic: Duration) -> Result<Published, PublishError> {
        if let Some(sequence) = self.known(&message, monotonic) {
            return Ok(Published { sequence, duplicate: true });
        }
        if let Retention::WorkQueue { max_per_subject } = message.stream.retention() {
            let waiting = self.waiting.entry(message.subject.clone()).or_default();
            if *waiting >= max_per_subject {
                return Err(PublishError::Full { stream: message.stream.name() });
            }
            *waiting += 1;
        }
        let sequence = self.messages.last_key_value().map_or(1, |(last, _)| last + 1);
        if let Some(id) = &message.dedup_id {
            self.ids.insert(id.clone(), (sequence, monotonic));
        }
        let Outgoing { subject, payload, dedup_id, .. } = message;
        self.messages.insert(sequence, StoredMessage { sequence, subject, payload, dedup_id, published_at: now });
        Ok(Published { sequence, duplicate: false })
    }

    /// The position of an earlier message with the same dedup id.
    fn known(&self, message: &Outgoing, monotonic: Duration) -> Option<u64> {
        let (sequence, at) = message.dedup_id.as_ref().and_then(|id| self.ids.get(id))?;
        (monotonic.saturating_sub(*at) <= Stream::DUPLICATE_WINDOW).then_some(*sequence)
    }

    fn take(&mut self, consumer: &Consumer, max: usize, monotonic: Duration) -> Vec<Delivery> {
        let reader = self.readers.entry(consumer.name).or_default();
        let mut taken = Vec::new();
        for (sequence, message) in &self.messages {
            if taken.len() == max {
                break;
            }
            if reader.acked.contains(sequence) {
                continue;
            }
            let hold = reader.held.entry(*sequence).or_default();
            if hold.until > monotonic {
                continue;
            }
            *hold = Hold { until: monotonic + consumer.ack_wait, delivered: hold.delivered + 1 };
            taken.push(Delivery {
                subject: message.subject.clone(),
                payload: message.payload.clone(),
                sequence: *sequence,
                delivered: hold.delivered,
                published_at: message.published_at,
                token: AckToken(sequence.to_string()),
            });
        }
        taken
    }

    fn ack(&mut self, consumer: &Consumer, token: &AckToken) {
        let sequence = sequence(token);
        let first = self.readers.entry(consumer.name).or_default().acked.insert(sequence);
        if first && let Some(waiting) = self.waiting.get_mut(&self.messages[&sequence].subject) {
            *waiting -= 1;
        }
    }

    fn hold(&mut self, consumer: &Consumer, tokens: &[AckToken], until: Duration) {
        let reader = self.readers.entry(consumer.name).or_default();
        for token in tokens {
            reader.held.entry(sequence(token)).or_default().until = until;
        }
    }

    fn backlog(&self, consumer: &Consumer, now: Timestamp) -> Backlog {
        let acked = self.readers.get(consumer.name).map(|reader| &reader.acked);
        let open = |sequence: &u64| !acked.is_some_and(|acked| acked.contains(sequence));
        let mut open = self.messages.iter().filter(|(sequence, _)| open(sequence)).map(|(_, message)| message);
        let oldest_age = open.clone().next().map_or(Duration::ZERO, |oldest| now.since(oldest.published_at));
        Backlog { depth: open.by_ref().count() as u64, oldest_age }
    }
}

fn sequence(token: &AckToken) -> u64 {
    token.0.parse().expect("tokens come from this bus")
}

impl MemoryBackend {
    fn on_queue<T>(&self, stream: Stream, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(self.shared.bus.queues().entry(stream).or_default())
    }

    fn publish_one(&self, message: Outgoing) -> Result<Published, PublishError> {
        let (size, limit) = (message.payload.len(), Stream::MAX_MESSAGE_BYTES);
        if size > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        if self.faults().is_full(&message.subject) {
            return Err(PublishError::Full { stream: message.stream.name() });
        }
        let (now, monotonic) = (self.shared.clock.now(), self.monotonic());
        self.on_queue(message.stream, |queue| queue.publish(message, now, monotonic))
    }
}

#[async_trait]
impl EventBus for MemoryBackend {
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>> {
        let count = messages.len();
        let work = || {
            let answers = messages.into_iter().map(|message| self.publish_one(message)).collect();
            self.shared.bus.news.send_replace(());
            answers
        };
        let down = || Unavailable::new("the event bus", "arranged by the test");
        let answers = self.faults().run(Operation::Publish, work).await;
        answers.unwrap_or_else(|_| (0..count).map(|_| Err(down().into())).collect())
    }

    async fn publish_whole(&self, messages: &[Outgoing]) -> Result<bool, Unavailable> {
        if !self.faults().has_batches() {
            return Ok(false);
        }
        let work = || {
            let now = self.monotonic();
            let refused = |message: &Outgoing| {
                message.payload.len() > Stream::MAX_MESSAGE_BYTES
                    || self.faults().is_full(&message.subject)
                    || self.on_queue(message.stream, |queue| queue.known(message, now).is_some())
            };
            if messages.iter().any(refused) {
                return false;
            }
            for message in messages {
                drop(self.publish_one(message.clone()));
            }
            self.shared.bus.news.send_replace(());
            true
        };
        self.faults().run(Operation::PublishWhole, work).await
    }

    async fn probe(&self, _stream: Stream) -> Result<(), Unavailable> {
        self.faults().pass(Operation::Publish).await
    }

    async fn pull(&self, consumer: &Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>, Unavailable> {
        self.faults().pass(Operation::Pull).await?;
        // Subscribed before the first look, so that nothing arrives unseen in between.
        let mut news = self.shared.bus.news.subscribe();
        let mut turns = self.shared.clock.turns();
        let something = async {
            loop {
                let taken = self.on_queue(consumer.stream, |queue| queue.take(consumer, max, self.monotonic()));
                if !taken.is_empty() {
                    return taken;
                }
                tokio::select! {
                    changed = news.changed() => changed.expect("the bus is here"),
                    turned = turns.changed() => turned.expect("the clock is here"),
                }
            }
        };
        Ok(tokio::time::timeout(wait, something).await.unwrap_or_default())
    }

    async fn ack(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        let work = |queue: &mut Queue| tokens.iter().for_each(|token| queue.ack(consumer, token));
        self.faults().run(Operation::Ack, || self.on_queue(consumer.stream, work)).await
    }

    async fn retry_after(&self, consumer: &Consumer, tokens: &[AckToken], delay: Duration) -> Result<(), Unavailable> {
        let work = || {
            let until = self.monotonic() + delay;
            self.on_queue(consumer.stream, |queue| queue.hold(consumer, tokens, until));
            self.shared.bus.news.send_replace(());
        };
        self.faults().run(Operation::RetryAfter, work).await
    }

    async fn extend(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        let until = self.monotonic() + consumer.ack_wait;
        let work = |queue: &mut Queue| queue.hold(consumer, tokens, until);
        self.faults().run(Operation::Extend, || self.on_queue(consumer.stream, work)).await
    }

    async fn backlog(&self, consumer: &Consumer) -> Result<Backlog, Unavailable> {
        let now = self.shared.clock.now();
        let work = |queue: &mut Queue| queue.backlog(consumer, now);
        self.faults().run(Operation::Backlog, || self.on_queue(consumer.stream, work)).await
    }

    fn is_connected(&self) -> bool {
        !self.faults().is_disconnected()
    }
}
