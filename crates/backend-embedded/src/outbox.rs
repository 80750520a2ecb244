//! The outbox on SQLite.
//!
//! SQLite commits one transaction at a time, so the rowid of an event is in the order of commits and serves as its feed
//! position; sequencing moves the head. Leases are in memory: a restart voids them. What is published is one number on
//! disk, up to which everything is; a crash repeats at most what was under way, and the bus drops repeats.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use common::Clock;
use ports::Unavailable;
use ports::feed::{FeedEvent, Position};
use ports::outbox::{Fence, Outbox, SequenceError};
use sqlx::Row as _;
use uuid::Uuid;

use crate::feed::{PAGE_BYTES, event};
use crate::sqlite::{Database, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteOutbox {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// One claim at a time.
    claiming: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    sequencer: Option<(Uuid, Duration)>,
    fence: Fence,
    /// Everything up to here is published.
    floor: Position,
    /// Everything up to here was looked at by a claim.
    scanned: Position,
    /// Above the floor: claimed and not marked.
    claimed: BTreeMap<Position, Claim>,
    /// Above the floor: marked.
    marked: BTreeSet<Position>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    owner: Uuid,
    until: Duration,
    partition: u16,
}

impl SqliteOutbox {
    pub(crate) async fn open(database: Arc<Database>, clock: Arc<dyn Clock>) -> Result<Self, Unavailable> {
        let floor: i64 =
            sqlx::query_scalar("SELECT published FROM feed").fetch_one(&database.readers).await.map_err(unavailable)?;
        let state = State {
            sequencer: None,
            fence: Fence(0),
            floor,
            scanned: floor,
            claimed: BTreeMap::new(),
            marked: BTreeSet::new(),
        };
        Ok(Self { database, clock, state: Mutex::new(state), claiming: tokio::sync::Mutex::new(()) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Outbox for SqliteOutbox {
    async fn acquire_sequencer(&self, owner: Uuid, ttl: Duration) -> Result<Option<Fence>, Unavailable> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        match state.sequencer {
            Some((holder, until)) if until > now && holder != owner => return Ok(None),
            Some((holder, until)) if until > now && holder == owner => {}
            _ => state.fence = Fence(state.fence.0 + 1),
        }
        state.sequencer = Some((owner, now + ttl));
        Ok(Some(state.fence))
    }

    async fn sequence(&self, fence: Fence, max: usize) -> Result<usize, SequenceError> {
        const HEAD_AND_LAST: &str = "SELECT head, (SELECT coalesce(max(position), 0) FROM events) FROM feed";
        let (head, last): (i64, i64) =
            sqlx::query_as(HEAD_AND_LAST).fetch_one(&self.database.readers).await.map_err(unavailable)?;
        if self.lock().fence != fence {
            return Err(SequenceError::Fenced);
        }
        if last <= head {
            return Ok(0);
        }
        let mut writer = self.database.writer().await?;
        if self.lock().fence != fence {
            return Err(SequenceError::Fenced);
        }
        let mut transaction = writer.begin().await?;
        let (head, last): (i64, i64) =
            sqlx::query_as(HEAD_AND_LAST).fetch_one(&mut *transaction).await.map_err(unavailable)?;
        let upto = last.min(head.saturating_add(i64::try_from(max).unwrap_or(i64::MAX)));
        sqlx::query("UPDATE feed SET head = ?").bind(upto).execute(&mut *transaction).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(usize::try_from(upto - head).unwrap_or(0))
    }

    async fn claim(&self, owner: Uuid, max: usize, lease: Duration) -> Result<Vec<FeedEvent>, Unavailable> {
        let _one = self.claiming.lock().await;
        let now = self.clock.monotonic();
        let (from, held, known) = {
            let mut state = self.lock();
            let expired: Vec<Position> =
                state.claimed.iter().filter(|(_, claim)| claim.until <= now).map(|(position, _)| *position).collect();
            for position in expired {
                state.claimed.remove(&position);
                state.scanned = state.scanned.min(position - 1);
            }
            let others = state.claimed.values().filter(|claim| claim.owner != owner);
            let held: HashMap<u16, Uuid> = others.map(|claim| (claim.partition, claim.owner)).collect();
            (state.scanned, held, state.claimed.len() + state.marked.len())
        };
        let rows = sqlx::query(
            "SELECT position, tenant, key, event_type, occurred_at, number, conversation, partition, revision, data \
             FROM events WHERE position IN \
             (SELECT position FROM (SELECT position, sum(length(data)) OVER (ORDER BY position) - length(data) AS before \
              FROM events WHERE position > ? AND position <= (SELECT head FROM feed) ORDER BY position LIMIT ?) \
              WHERE before < ?) ORDER BY position",
        )
        .bind(from)
        .bind(i64::try_from(max + known).unwrap_or(i64::MAX))
        // What is known already lies before what is new, and takes its share.
        .bind(if known == 0 { PAGE_BYTES } else { i64::MAX })
        .fetch_all(&self.database.readers)
        .await
        .map_err(unavailable)?;
        let mut state = self.lock();
        let mut taken = Vec::with_capacity(rows.len());
        let mut passed_over = false;
        let mut looked_at = from;
        for row in &rows {
            if taken.len() == max {
                break;
            }
            let position: Position = row.get(0);
            let partition: u16 = row.get(7);
            looked_at = position;
            if state.marked.contains(&position) || state.claimed.contains_key(&position) {
                continue;
            }
            if held.contains_key(&partition) {
                passed_over = true;
                continue;
            }
            state.claimed.insert(position, Claim { owner, until: now + lease, partition });
            taken.push(event(row));
        }
        // Where another owner holds a partition, the next claim looks at its events again.
        if !passed_over {
            state.scanned = state.scanned.max(looked_at);
        }
        Ok(taken)
    }

    async fn mark(&self, owner: Uuid, positions: &[Position]) -> Result<(), Unavailable> {
        let floor = {
            let mut state = self.lock();
            for position in positions {
                if state.claimed.get(position).is_some_and(|claim| claim.owner == owner) {
                    state.claimed.remove(position);
                }
                if *position > state.floor {
                    state.marked.insert(*position);
                }
            }
            state.next_floor()
        };
        if floor == self.lock().floor {
            return Ok(());
        }
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        sqlx::query("UPDATE feed SET published = ?1 WHERE published < ?1")
            .bind(floor)
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        let mut state = self.lock();
        state.floor = state.floor.max(floor);
        let keep = state.floor + 1;
        state.marked = state.marked.split_off(&keep);
        Ok(())
    }

    async fn unpublished(&self) -> Result<u64, Unavailable> {
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM events")
            .fetch_one(&self.database.readers)
            .await
            .map_err(unavailable)?;
        let state = self.lock();
        let above = u64::try_from(last - state.floor).unwrap_or(0);
        Ok(above.saturating_sub(state.marked.len() as u64))
    }
}

impl State {
    /// The highest position up to which everything is marked. Positions may have gaps, so a marked one counts when
    /// nothing claimed or not yet looked at lies below it.
    fn next_floor(&self) -> Position {
        let open = self.claimed.keys().next().map_or(self.scanned, |first| (first - 1).min(self.scanned));
        self.marked.range(..=open).next_back().map_or(self.floor, |highest| self.floor.max(*highest))
    }
}
