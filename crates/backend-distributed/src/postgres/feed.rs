//! The feed: the table of events, up to the head.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::{EventKey, NumberId, TenantId};
use ports::Unavailable;
use ports::feed::{Feed, FeedEvent, FeedFilter, FeedPage, Position};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::database::{Database, bounded, settle};
use super::values::{Moment, signed, storable};

/// Bytes of data on one page, and at most one event more.
pub(super) const PAGE_BYTES: i64 = 8 << 20;
/// Positions that a page by type looks at, for which there is no index: the rest is for the next page.
const WINDOW: i64 = 100_000;

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresFeed {
    database: Arc<Database>,
}

impl PostgresFeed {
    pub(super) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Feed for PostgresFeed {
    async fn read(&self, after: Position, limit: usize, filter: &FeedFilter) -> Result<FeedPage, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let page = bounded(read(&mut connection, after, limit, filter)).await;
        settle(connection, page)
    }
}

async fn read(
    connection: &mut PgConnection,
    after: Position,
    limit: usize,
    filter: &FeedFilter,
) -> Result<FeedPage, sqlx::Error> {
    // Everything up to a head that was seen is visible from then on, so the two statements need no common snapshot.
    let head: Position = sqlx::query_scalar("SELECT head FROM feed").fetch_one(&mut *connection).await?;
    let end = if filter.event_type.is_some() { head.min(after.saturating_add(WINDOW)) } else { head };
    if end <= after {
        return Ok(FeedPage { events: Vec::new(), next: after });
    }
    // Conditions that are not there, instead of conditions that are always true: the plan depends on them.
    let tenant = if filter.tenant.is_some() { "AND tenant = $5" } else { "AND $5::text IS NULL" };
    let event_type = if filter.event_type.is_some() { "AND event_type = $6" } else { "AND $6::text IS NULL" };
    let query = format!(
        "SELECT position, tenant, key, event_type, occurred_at, number, conversation, partition, revision, data \
         FROM (SELECT *, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS before \
               FROM (SELECT * FROM events WHERE position > $1 AND position <= $2 {tenant} {event_type} \
                     ORDER BY position LIMIT $3) AS page) AS sized \
         WHERE before < $4 ORDER BY position"
    );
    let rows = sqlx::query(AssertSqlSafe(query))
        .bind(after)
        .bind(end)
        .bind(signed(limit))
        .bind(PAGE_BYTES)
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.event_type.as_deref().map(storable))
        .fetch_all(connection)
        .await?;
    let events: Vec<FeedEvent> = rows.iter().map(event).collect();
    // A full page ends at its last event; any other has looked at everything up to the end.
    let next = match events.last() {
        Some(last) if events.len() == limit || is_cut(&events) => last.position,
        _ => end,
    };
    Ok(FeedPage { events, next })
}

/// Whether a page ended because of its bytes.
fn is_cut(events: &[FeedEvent]) -> bool {
    events.iter().map(|event| signed(event.data.len())).sum::<i64>() >= PAGE_BYTES
}

/// Reads the columns `position` to `data` in the order of the table.
pub(super) fn event(row: &PgRow) -> FeedEvent {
    let key: [u8; 16] = row.get::<&[u8], _>(2).try_into().unwrap_or_default();
    FeedEvent {
        position: row.get(0),
        tenant: TenantId::new(row.get(1)).unwrap_or_else(|_| TenantId::unassigned()),
        key: EventKey(key),
        event_type: row.get(3),
        occurred_at: row.get::<Moment, _>(4).into(),
        number: row.get::<Option<&str>, _>(5).and_then(|id| NumberId::new(id).ok()),
        conversation: row.get::<Option<Uuid>, _>(6),
        partition: row.get::<i16, _>(7).unsigned_abs(),
        revision: row.get::<i32, _>(8).unsigned_abs(),
        data: Bytes::from(row.get::<Vec<u8>, _>(9)),
    }
}
