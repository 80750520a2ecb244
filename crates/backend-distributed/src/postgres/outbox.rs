//! The outbox: a narrow table with a row for each event that is not on the bus yet.
//!
//! Positions are in the order of commits when they become visible (see the migrations), so sequencing only moves the
//! head. Both steps are functions of the database, one round trip each. Claims and the sequencer's lease run by the database's clock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::Unavailable;
use ports::feed::{FeedEvent, Position};
use ports::outbox::{Fence, Outbox, SequenceError};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::database::{Database, bounded, settle};
use super::feed::{PAGE_BYTES, event};
use super::values::signed;

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

    /// Asks by how much the head was moved.
    async fn moved(
        &self,
        query: sqlx::query::QueryScalar<'_, Postgres, Option<i64>, PgArguments>,
    ) -> Result<usize, SequenceError> {
        let mut connection = self.database.acquire().await?;
        let moved = bounded(query.fetch_one(&mut *connection)).await;
        let moved = settle(connection, moved)?.ok_or(SequenceError::Fenced)?;
        Ok(usize::try_from(moved).unwrap_or(0))
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
        // Durable, unlike claims: a head that went back would take events away from readers for a while.
        let query = sqlx::query_scalar("SELECT sequence_outbox($1, $2)");
        self.moved(query.bind(signed(fence.0)).bind(signed(max))).await
    }

    async fn claim(&self, owner: Uuid, max: usize, lease: Duration) -> Result<Vec<FeedEvent>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query("SELECT * FROM claim_outbox($1, $2, $3 * interval '1 microsecond', $4, $5)");
        let query = query.bind(owner).bind(signed(max)).bind(signed(lease.as_micros())).bind(FRONT).bind(PAGE_BYTES);
        let claimed = bounded(query.fetch_all(&mut *connection)).await;
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

    async fn mark_and_sequence(
        &self,
        _owner: Uuid,
        positions: &[Position],
        fence: Fence,
        max: usize,
    ) -> Result<usize, SequenceError> {
        if positions.is_empty() {
            return self.sequence(fence, max).await;
        }
        // One commit, so one sync.
        let query = sqlx::query_scalar(
            "WITH marked AS (DELETE FROM outbox WHERE position = ANY($3)) SELECT sequence_outbox($1, $2)",
        );
        self.moved(query.bind(signed(fence.0)).bind(signed(max)).bind(positions)).await
    }

    async fn unpublished(&self) -> Result<u64, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox");
        let count = bounded(query.fetch_one(&mut *connection)).await;
        settle(connection, count).map(i64::unsigned_abs)
    }
}
