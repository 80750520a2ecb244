//! The outbox publisher: gives new events their positions and puts them on the bus, in order within each partition.
//!
//! An event that the bus did not take holds back the later ones of its partition. What was claimed goes out as a whole if
//! the bus can store all of it or nothing. Otherwise a partition has at most one message in flight: a call publishes the
//! next event of every partition at once. Publishing two of one partition together could store the second without the
//! first. Nothing is claimed while something claimed is unpublished, for the same reason. Repeats are possible (a lost answer, a crash before the mark) and carry the same dedup id. It decides no
//! order and assigns no position itself; the store does.
//!
//! Claims are made under an owner id that changes whenever it is uncertain what is claimed (a lost answer, a lease that
//! may have ended): under the old id the store would hand out the later events of a partition without the earlier ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::event::event_subject;
use common::{Clock, EventId, TenantId};
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
/// A claim of so many bytes may have left some: a store ends it at several times as many, or earlier by their number.
const FULL_CLAIM: usize = 1 << 20;

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
    held: BTreeMap<u16, VecDeque<Ready>>,
    /// What is published and not marked.
    unmarked: Vec<Position>,
    /// When the claim of what is held or unmarked may end.
    held_until: Duration,
    /// Whether something may be there that the last claim did not take.
    left_some: bool,
    /// When to claim although nothing seems to be there.
    look_again_at: Duration,
    poll: Duration,
}

/// An event as the bus gets it.
struct Ready {
    position: Position,
    tenant: TenantId,
    id: EventId,
    message: Outgoing,
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
            left_some: true,
            look_again_at: Duration::ZERO,
            poll: config.outbox_poll,
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
        let mut progress = Progress { sequenced: self.mark_and_sequence().await?, ..Progress::default() };
        if self.held.is_empty() && self.may_find_more() {
            self.claim().await?;
        }
        self.publish(&mut progress).await;
        Ok(progress)
    }

    /// Whether a claim may find something: it was sequenced since the last one, or left by it; somebody else sequences; or
    /// it is time to look for what another publisher had and does not have any more.
    fn may_find_more(&self) -> bool {
        self.left_some || self.fence.is_none() || self.clock.monotonic() >= self.look_again_at
    }

    /// Marks what is published, and gives new events their positions if this is the sequencer; how many.
    async fn mark_and_sequence(&mut self) -> Result<usize, Unavailable> {
        let now = self.clock.monotonic();
        if self.fence.is_none_or(|(_, renew_at)| now >= renew_at) {
            let fence = self.outbox.acquire_sequencer(self.sequencer, self.ttl).await?;
            self.fence = fence.map(|fence| (fence, now + self.ttl / 3));
        }
        let sequenced = match self.fence {
            None => mark(&*self.outbox, self.owner, &self.unmarked).await.map(|()| 0)?,
            Some((fence, _)) => {
                // Whatever it sequences, also if its answer is lost.
                let left_some = std::mem::replace(&mut self.left_some, true);
                match self.outbox.mark_and_sequence(self.owner, &self.unmarked, fence, SEQUENCE).await {
                    Ok(sequenced) => {
                        self.left_some = left_some || sequenced > 0;
                        sequenced
                    }
                    Err(SequenceError::Fenced) => {
                        self.fence = None;
                        0
                    }
                    Err(SequenceError::Unavailable(error)) => return Err(error),
                }
            }
        };
        self.unmarked.clear();
        Ok(sequenced)
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
        self.left_some = true;
        self.look_again_at = self.clock.monotonic() + self.poll;
        let claimed = self.outbox.claim(owner, self.batch, self.lease).await?;
        self.owner = owner;
        let bytes: usize = claimed.iter().map(|event| event.data.len()).sum();
        self.left_some = claimed.len() >= self.batch || bytes >= FULL_CLAIM;
        for event in claimed {
            let Some(message) = message(&event) else {
                unpublishable(&event.tenant, &event.id(), "not_json");
                self.unmarked.push(event.position);
                continue;
            };
            let ready = Ready { position: event.position, id: event.id(), tenant: event.tenant, message };
            self.held.entry(event.partition).or_default().push_back(ready);
        }
        self.held_until = until;
        Ok(())
    }

    /// Publishes what is held.
    async fn publish(&mut self, progress: &mut Progress) {
        if self.held.is_empty() || self.clock.monotonic() >= self.held_until {
            return;
        }
        let all = self.held.values().flatten().map(|ready| ready.message.clone()).collect::<Vec<_>>();
        match self.bus.publish_whole(&all).await {
            Ok(true) => {
                progress.published = all.len();
                let held = std::mem::take(&mut self.held);
                self.unmarked.extend(held.into_values().flatten().map(|ready| ready.position));
            }
            Ok(false) => self.publish_in_turns(progress).await,
            Err(error) => progress.refused = Some(error.into()),
        }
        if progress.published > 0 {
            metrics::counter!(names::OUTBOX_PUBLISHED).increment(progress.published as u64);
        }
    }

    /// One event of each partition at a time.
    async fn publish_in_turns(&mut self, progress: &mut Progress) {
        let mut stuck: BTreeSet<u16> = BTreeSet::new();
        while self.clock.monotonic() < self.held_until {
            let next = self.held.iter().filter(|(partition, _)| !stuck.contains(partition));
            let next = next.filter_map(|(partition, events)| Some((*partition, events.front()?.message.clone())));
            let (partitions, messages): (Vec<u16>, Vec<Outgoing>) = next.unzip();
            if messages.is_empty() {
                break;
            }
            for (partition, answer) in partitions.into_iter().zip(self.bus.publish(messages).await) {
                let Some(events) = self.held.get_mut(&partition) else { continue };
                match answer {
                    Ok(_) => progress.published += 1,
                    Err(PublishError::TooLarge { .. }) => {
                        if let Some(event) = events.front() {
                            unpublishable(&event.tenant, &event.id, "too_large");
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
    }
}

async fn mark(outbox: &dyn Outbox, owner: Uuid, unmarked: &[Position]) -> Result<(), Unavailable> {
    if unmarked.is_empty() { Ok(()) } else { outbox.mark(owner, unmarked).await }
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
fn unpublishable(tenant: &TenantId, event: &EventId, reason: &'static str) {
    tracing::error!(%tenant, %event, reason, "an event cannot be put on the bus; read it in the feed");
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
