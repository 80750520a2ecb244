//! Outbox and feed in memory.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use ports::Unavailable;
use ports::feed::{Feed, FeedEvent, FeedFilter, FeedPage, Position};
use ports::outbox::{Fence, Outbox, SequenceError};
use uuid::Uuid;

use super::database::{Database, Lease};
use super::{MemoryBackend, Operation};

impl Database {
    fn acquire(&mut self, owner: Uuid, now: Duration, ttl: Duration) -> Option<Fence> {
        let running = self.sequencer.filter(|lease| lease.until > now);
        if running.is_some_and(|lease| lease.owner != owner) {
            return None;
        }
        if running.is_none() {
            self.fence = Some(Fence(self.fence.map_or(1, |fence| fence.0 + 1)));
        }
        self.sequencer = Some(Lease { owner, until: now + ttl });
        self.fence
    }

    fn sequence(&mut self, fence: Fence, max: usize) -> Result<usize, SequenceError> {
        if self.fence != Some(fence) {
            return Err(SequenceError::Fenced);
        }
        let mut count = 0;
        for row in self.outbox.iter_mut().skip(self.sequenced).take(max) {
            count += 1;
            row.event.position = Position::try_from(self.sequenced + count).unwrap();
        }
        self.sequenced += count;
        Ok(count)
    }

    fn claim(&mut self, lease: Lease, now: Duration, max: usize) -> Vec<FeedEvent> {
        let rows = || self.outbox[..self.sequenced].iter();
        let held = rows().filter(|row| !row.published).filter_map(|row| {
            let holder = row.lease.filter(|holder| holder.until > now)?;
            Some((row.event.partition, holder.owner))
        });
        let holders: HashMap<u16, Uuid> = held.collect();
        let mut claimed = Vec::new();
        for row in &mut self.outbox[..self.sequenced] {
            let is_held = row.lease.is_some_and(|holder| holder.until > now);
            let by_another = holders.get(&row.event.partition).is_some_and(|holder| *holder != lease.owner);
            if claimed.len() < max && !row.published && !is_held && !by_another {
                row.lease = Some(lease);
                claimed.push(row.event.clone());
            }
        }
        claimed
    }

    fn read(&self, after: Position, limit: usize, filter: &FeedFilter) -> FeedPage {
        let mut page = FeedPage { events: Vec::new(), next: after };
        for row in &self.outbox[..self.sequenced] {
            let event = &row.event;
            if event.position <= after {
                continue;
            }
            if page.events.len() == limit {
                break;
            }
            page.next = event.position;
            let wanted = filter.tenant.as_ref().is_none_or(|tenant| *tenant == event.tenant)
                && filter.event_type.as_ref().is_none_or(|name| *name == event.event_type);
            if wanted {
                page.events.push(event.clone());
            }
        }
        page
    }
}

#[async_trait]
impl Outbox for MemoryBackend {
    async fn acquire_sequencer(&self, owner: Uuid, ttl: Duration) -> Result<Option<Fence>, Unavailable> {
        let work = || self.database().acquire(owner, self.monotonic(), ttl);
        self.faults().run(Operation::AcquireSequencer, work).await
    }

    async fn sequence(&self, fence: Fence, max: usize) -> Result<usize, SequenceError> {
        self.faults().run(Operation::Sequence, || self.database().sequence(fence, max)).await?
    }

    async fn claim(&self, owner: Uuid, max: usize, lease: Duration) -> Result<Vec<FeedEvent>, Unavailable> {
        let work = || {
            let now = self.monotonic();
            self.database().claim(Lease { owner, until: now + lease }, now, max)
        };
        self.faults().run(Operation::Claim, work).await
    }

    async fn mark(&self, _owner: Uuid, positions: &[Position]) -> Result<(), Unavailable> {
        let work = || {
            let rows = &mut self.database().outbox;
            rows.iter_mut().filter(|row| positions.contains(&row.event.position)).for_each(|row| row.published = true);
        };
        self.faults().run(Operation::Mark, work).await
    }

    async fn unpublished(&self) -> Result<u64, Unavailable> {
        let work = || self.database().outbox.iter().filter(|row| !row.published).count() as u64;
        self.faults().run(Operation::Unpublished, work).await
    }
}

#[async_trait]
impl Feed for MemoryBackend {
    async fn read(&self, after: Position, limit: usize, filter: &FeedFilter) -> Result<FeedPage, Unavailable> {
        self.faults().run(Operation::ReadFeed, || self.database().read(after, limit, filter)).await
    }
}
