//! The outbox publisher: gives new events their positions and puts them on the bus, in order within each partition.
//!
//! An event that the bus did not take holds back the later ones of its partition, so a partition has at most one message
//! in flight: a call publishes the next event of every partition at once. Publishing two of one partition together
//! could store the second without the first. Nothing is claimed while something claimed is unpublished, for the same
//! reason. Repeats are possible (a lost answer, a crash before the mark) and carry the same dedup id. It decides no
//! order and assigns no position itself; the store does.
//!
//! Claims are made under an owner id that changes whenever it is uncertain what is claimed (a lost answer, a lease that
//! may have ended): under the old id the store would hand out the later events of a partition without the earlier ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Clock;
use common::event::event_subject;
use ports::Unavailable;
use ports::event_bus::{EventBus, Outgoing, PublishError, Stream};
use ports::feed::{FeedEvent, Position};
use ports::outbox::{Fence, Outbox, SequenceError};
use service::{Tasks, names};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::consuming::out_of_time;
use crate::outage::Outage;
use crate::{Config, Deps};

/// Events sequenced in one step.
const SEQUENCE: usize = 4096;

/// What a step did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events that got a position.
    pub sequenced: usize,
    /// Events that are on the bus now.
    pub published: usize,
    /// The first refusal of the bus: what it did not take is still in hand.
    pub refused: Option<PublishError>,
}

/// Publishes the outbox, step by step. One per process.
pub struct Publisher {
    outbox: Arc<dyn Outbox>,
    bus: Arc<dyn EventBus>,
    clock: Arc<dyn Clock>,
    batch: usize,
    lease: Duration,
    ttl: Duration,
    /// Who sequences; one id per process.
    sequencer: Uuid,
    /// Who claims; see the module's documentation.
    owner: Uuid,
    /// The sequencer's proof, and when to renew it.
    fence: Option<(Fence, Duration)>,
    /// What was claimed and is not published, by partition.
    held: BTreeMap<u16, VecDeque<FeedEvent>>,
    /// What is published and not marked.
    unmarked: Vec<Position>,
    /// When the claim of what is held or unmarked may end.
    held_until: Duration,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher with an owner id of its own.
    pub fn new(config: &Config, deps: &Deps) -> Self {
        Self {
            outbox: Arc::clone(&deps.outbox),
            bus: Arc::clone(&deps.bus),
            clock: Arc::clone(&deps.clock),
            batch: config.publish_batch,
            lease: config.publish_lease,
            ttl: config.sequencer_ttl,
            sequencer: Uuid::now_v7(),
            owner: Uuid::now_v7(),
            fence: None,
            held: BTreeMap::new(),
            unmarked: Vec::new(),
            held_until: Duration::ZERO,
        }
    }

    /// Marks what the last step published, while it sequences; claims and publishes. On an error what is in hand stays
    /// for the next step.
    pub async fn step(&mut self) -> Result<Progress, Unavailable> {
        let has_work = !self.held.is_empty() || !self.unmarked.is_empty();
        if has_work && self.clock.monotonic() >= self.held_until {
            // Another publisher may have them by now.
            self.held.clear();
            self.unmarked.clear();
            self.owner = Uuid::now_v7();
        }
        let (marked, sequenced) = tokio::join!(
            mark(&*self.outbox, self.owner, &self.unmarked),
            sequence(&*self.outbox, self.sequencer, self.ttl, &mut self.fence, self.clock.monotonic()),
        );
        marked?;
        self.unmarked.clear();
        let mut progress = Progress { sequenced: sequenced?, ..Progress::default() };
        if self.held.is_empty() {
            self.claim().await?;
        }
        self.publish(&mut progress).await;
        Ok(progress)
    }

    /// Marks what is published, so that nobody publishes it again. For the end.
    pub async fn settle(&mut self) -> Result<(), Unavailable> {
        mark(&*self.outbox, self.owner, &self.unmarked).await?;
        self.unmarked.clear();
        Ok(())
    }

    async fn claim(&mut self) -> Result<(), Unavailable> {
        // Counted from before the call, and with room for the clocks of two machines.
        let until = self.clock.monotonic() + self.lease / 4 * 3;
        // Forgotten first: if the answer is lost, or nobody waits for it any more, what it claimed is left to its lease.
        let owner = std::mem::replace(&mut self.owner, Uuid::now_v7());
        let claimed = self.outbox.claim(owner, self.batch, self.lease).await?;
        self.owner = owner;
        for event in claimed {
            self.held.entry(event.partition).or_default().push_back(event);
        }
        self.held_until = until;
        Ok(())
    }

    /// Publishes what is held, one event of each partition at a time.
    async fn publish(&mut self, progress: &mut Progress) {
        let mut stuck: BTreeSet<u16> = BTreeSet::new();
        while self.clock.monotonic() < self.held_until {
            let (mut partitions, mut messages) = (Vec::new(), Vec::new());
            for (partition, events) in &mut self.held {
                if stuck.contains(partition) {
                    continue;
                }
                while let Some(event) = events.front() {
                    if let Some(message) = message(event) {
                        partitions.push(*partition);
                        messages.push(message);
                        break;
                    }
                    unpublishable(event, "not_json");
                    self.unmarked.extend(events.pop_front().map(|event| event.position));
                }
            }
            if messages.is_empty() {
                break;
            }
            for (partition, answer) in partitions.into_iter().zip(self.bus.publish(messages).await) {
                let Some(events) = self.held.get_mut(&partition) else { continue };
                match answer {
                    Ok(_) => progress.published += 1,
                    Err(PublishError::TooLarge { .. }) => {
                        if let Some(event) = events.front() {
                            unpublishable(event, "too_large");
                        }
                    }
                    Err(error) => {
                        stuck.insert(partition);
                        progress.refused.get_or_insert(error);
                        continue;
                    }
                }
                self.unmarked.extend(events.pop_front().map(|event| event.position));
            }
            self.held.retain(|_, events| !events.is_empty());
        }
        self.held.retain(|_, events| !events.is_empty());
        if progress.published > 0 {
            metrics::counter!(names::OUTBOX_PUBLISHED).increment(progress.published as u64);
        }
    }
}

async fn mark(outbox: &dyn Outbox, owner: Uuid, unmarked: &[Position]) -> Result<(), Unavailable> {
    if unmarked.is_empty() { Ok(()) } else { outbox.mark(owner, unmarked).await }
}

async fn sequence(
    outbox: &dyn Outbox,
    sequencer: Uuid,
    ttl: Duration,
    held: &mut Option<(Fence, Duration)>,
    now: Duration,
) -> Result<usize, Unavailable> {
    if held.is_none_or(|(_, renew_at)| now >= renew_at) {
        let fence = outbox.acquire_sequencer(sequencer, ttl).await?;
        *held = fence.map(|fence| (fence, now + ttl / 3));
    }
    let Some((fence, _)) = *held else { return Ok(0) };
    match outbox.sequence(fence, SEQUENCE).await {
        Ok(sequenced) => Ok(sequenced),
        Err(SequenceError::Fenced) => {
            *held = None;
            Ok(0)
        }
        Err(SequenceError::Unavailable(error)) => Err(error),
    }
}

/// The event as the bus gets it; `None` if its data is not JSON.
fn message(event: &FeedEvent) -> Option<Outgoing> {
    let payload = Bytes::from(event.to_json().ok()?);
    Some(Outgoing {
        stream: Stream::Events,
        subject: event_subject(&event.tenant, event.partition, &event.event_type),
        payload,
        dedup_id: Some(format!("{}-{}", event.id(), event.revision)),
    })
}

/// It must not hold back its partition for ever, so it is skipped; the feed still has it.
fn unpublishable(event: &FeedEvent, reason: &'static str) {
    tracing::error!(tenant = %event.tenant, event = %event.id(), reason, "an event cannot be put on the bus; read it in the feed");
    metrics::counter!(names::OUTBOX_UNPUBLISHABLE, "reason" => reason).increment(1);
}

pub(crate) async fn run(mut publisher: Publisher, config: Config, tasks: Tasks, wake: Arc<Notify>) {
    let mut database = Outage::new("outbox-publisher", "database");
    let mut bus = Outage::new("outbox-publisher", "bus");
    loop {
        let stepped = tokio::select! {
            biased;
            stepped = publisher.step() => stepped,
            () = out_of_time(&tasks, config.stop_grace) => return,
        };
        if tasks.is_stopping() {
            break;
        }
        let progress = match stepped {
            Ok(progress) => progress,
            Err(error) => {
                database.wait(&error, &tasks).await;
                continue;
            }
        };
        database.over();
        if let Some(error) = &progress.refused {
            bus.wait(error, &tasks).await;
            continue;
        }
        bus.over();
        if progress.sequenced == 0 && progress.published == 0 {
            tokio::select! {
                () = tasks.stopping() => break,
                () = wake.notified() => {}
                () = tokio::time::sleep(config.outbox_poll) => {}
            }
        }
    }
    let _ = tokio::time::timeout(config.stop_grace, publisher.settle()).await;
}
