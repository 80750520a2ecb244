//! The outbox: a narrow table with a row for each event that is not on the bus yet.
//!
//! Positions are in the order of commits when they become visible (see the migrations), so sequencing only moves the
//! head. Claims and the sequencer's lease run by the database's clock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::Unavailable;
use ports::feed::{FeedEvent, Position};
use ports::outbox::{Fence, Outbox, SequenceError};
use sqlx::Acquire as _;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::database::{Database, bounded, locks, settle};
use super::feed::{PAGE_BYTES, event};
use super::values::{Moment, signed};

/// Rows at the front of the outbox that claims look at. Claims take only from here and rows come only at the end, so
/// every claimed row lies here, and a claim never costs more, however much is waiting.
const FRONT: i64 = 10_000;

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresOutbox {
    database: Arc<Database>,
}

impl PostgresOutbox {
    pub(super) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn acquire_sequencer(&self, owner: Uuid, ttl: Duration) -> Result<Option<Fence>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query_scalar::<_, i64>(
            "UPDATE sequencer SET fence = CASE WHEN owner = $1 AND until > clock_timestamp() THEN fence ELSE fence + \
             1 END, \
             owner = $1, until = clock_timestamp() + $2 * interval '1 microsecond' \
             WHERE owner IS NULL OR owner = $1 OR until <= clock_timestamp() RETURNING fence",
        );
        let query = query.bind(owner).bind(signed(ttl.as_micros()));
        let fence = bounded(query.fetch_optional(&mut *connection)).await;
        let fence = settle(connection, fence)?;
        Ok(fence.map(|fence| Fence(fence.unsigned_abs())))
    }

    async fn sequence(&self, fence: Fence, max: usize) -> Result<usize, SequenceError> {
        let mut connection = self.database.acquire().await?;
        let moved = bounded(sequence(&mut connection, fence, max)).await;
        settle(connection, moved)?.ok_or(SequenceError::Fenced)
    }

    async fn claim(&self, owner: Uuid, max: usize, lease: Duration) -> Result<Vec<FeedEvent>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let claimed = bounded(claim(&mut connection, owner, max, lease)).await;
        let claimed = settle(connection, claimed)?;
        Ok(claimed.iter().map(event).collect())
    }

    async fn mark(&self, _owner: Uuid, positions: &[Position]) -> Result<(), Unavailable> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut connection = self.database.acquire().await?;
        // Durable, unlike claims: forgetting it would publish again what may be older than the bus remembers.
        let query = sqlx::query("DELETE FROM outbox WHERE position = ANY($1)").bind(positions);
        let marked = bounded(query.execute(&mut *connection)).await;
        settle(connection, marked).map(|_| ())
    }

    async fn unpublished(&self) -> Result<u64, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox");
        let count = bounded(query.fetch_one(&mut *connection)).await;
        settle(connection, count).map(i64::unsigned_abs)
    }
}

/// Moves the head; `None` if the fence is not the newest.
async fn sequence(connection: &mut PgConnection, fence: Fence, max: usize) -> Result<Option<usize>, sqlx::Error> {
    let (newest, behind): (i64, bool) = sqlx::query_as(
        "SELECT fence, EXISTS (SELECT FROM outbox WHERE position > (SELECT head FROM feed)) FROM sequencer",
    )
    .fetch_one(&mut *connection)
    .await?;
    if newest != signed(fence.0) {
        return Ok(None);
    }
    if !behind {
        return Ok(Some(0));
    }
    let mut transaction = connection.begin().await?;
    // Durable, unlike claims: a head that went back would take events away from readers for a while.
    let (newest, head): (i64, i64) = sqlx::query_as(
        "SELECT sequencer.fence, feed.head FROM feed, sequencer FOR UPDATE OF feed FOR SHARE OF sequencer",
    )
    .fetch_one(&mut *transaction)
    .await?;
    if newest != signed(fence.0) {
        return Ok(None);
    }
    let moved: i64 = sqlx::query_scalar(
        "WITH next AS (SELECT position FROM outbox WHERE position > $1 ORDER BY position LIMIT $2), \
         moved AS (UPDATE feed SET head = (SELECT max(position) FROM next) WHERE EXISTS (SELECT FROM next)) \
         SELECT count(*) FROM next",
    )
    .bind(head)
    .bind(signed(max))
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Some(usize::try_from(moved).unwrap_or(0)))
}

async fn claim(
    connection: &mut PgConnection,
    owner: Uuid,
    max: usize,
    lease: Duration,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Its commit is not waited for: a claim that a crash forgets is made again, and the bus drops what is published
    // twice.
    sqlx::query("SELECT pg_advisory_xact_lock($1), set_config('synchronous_commit', 'off', true)")
        .bind(locks::CLAIM)
        .execute(&mut *transaction)
        .await?;
    let claimed: Vec<(Position, Moment)> = sqlx::query_as(
        "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), \
         front AS MATERIALIZED (SELECT position, partition, bytes, owner, until FROM outbox \
             WHERE position <= (SELECT head FROM feed) ORDER BY position LIMIT $4), \
         held AS (SELECT DISTINCT partition FROM front WHERE owner <> $1 AND until > (SELECT now FROM clock)), \
         free AS (SELECT position, bytes FROM front WHERE (owner IS NULL OR until <= (SELECT now FROM clock)) \
             AND NOT EXISTS (SELECT FROM held WHERE held.partition = front.partition) ORDER BY position LIMIT $2), \
         page AS (SELECT position, sum(bytes) OVER (ORDER BY position) - bytes AS before FROM free) \
         UPDATE outbox SET owner = $1, until = (SELECT now FROM clock) + $3 * interval '1 microsecond' \
         FROM page WHERE outbox.position = page.position AND page.before < $5 \
         RETURNING outbox.position, outbox.received_at",
    )
    .bind(owner)
    .bind(signed(max))
    .bind(signed(lease.as_micros()))
    .bind(FRONT)
    .bind(PAGE_BYTES)
    .fetch_all(&mut *transaction)
    .await?;
    if claimed.is_empty() {
        return Ok(Vec::new());
    }
    let (positions, received): (Vec<Position>, Vec<Moment>) = claimed.into_iter().unzip();
    // One event at a time, each in the one partition where it lies.
    let events = sqlx::query(
        "SELECT e.position, e.tenant, e.key, e.event_type, e.occurred_at, e.number, e.conversation, e.partition, \
         e.revision, \
         e.data FROM UNNEST($1::bigint[], $2::timestamptz[]) AS claimed (position, received_at) \
         CROSS JOIN LATERAL (SELECT * FROM events WHERE events.position = claimed.position \
             AND events.received_at = claimed.received_at LIMIT 1) AS e ORDER BY e.position",
    )
    .bind(positions)
    .bind(received)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(events)
}
