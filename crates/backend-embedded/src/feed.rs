//! The feed: the table of events, up to the head.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::{EventKey, NumberId, TenantId, Timestamp};
use ports::Unavailable;
use ports::feed::{Feed, FeedEvent, FeedFilter, FeedPage, Position};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::sqlite::{Database, unavailable};

/// Bytes of data on one page, and at most one event more.
pub(crate) const PAGE_BYTES: i64 = 8 << 20;

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteFeed {
    database: Arc<Database>,
}

impl SqliteFeed {
    pub(crate) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Feed for SqliteFeed {
    async fn read(&self, after: Position, limit: usize, filter: &FeedFilter) -> Result<FeedPage, Unavailable> {
        let mut transaction = self.database.readers.begin().await.map_err(unavailable)?;
        let head: i64 =
            sqlx::query_scalar("SELECT head FROM feed").fetch_one(&mut *transaction).await.map_err(unavailable)?;
        let rows = sqlx::query(
            "SELECT position, tenant, key, event_type, occurred_at, number, conversation, partition, revision, data \
             FROM events WHERE position IN \
             (SELECT position FROM (SELECT position, sum(length(data)) OVER (ORDER BY position) - length(data) AS before \
              FROM events WHERE position > ?1 AND position <= ?2 \
              AND (?3 IS NULL OR tenant = ?3) AND (?4 IS NULL OR event_type = ?4) ORDER BY position LIMIT ?5) \
              WHERE before < ?6) ORDER BY position",
        )
        .bind(after)
        .bind(head)
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.event_type.as_deref())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(PAGE_BYTES)
        .fetch_all(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let events: Vec<FeedEvent> = rows.iter().map(event).collect();
        // A full page ends at its last event; any other has looked at everything up to the head.
        let next = match events.last() {
            Some(last) if events.len() == limit || is_cut(&events) => last.position,
            _ => head.max(after),
        };
        Ok(FeedPage { events, next })
    }
}

/// Whether a page ended because of its bytes.
fn is_cut(events: &[FeedEvent]) -> bool {
    let bytes: usize = events.iter().map(|event| event.data.len()).sum();
    i64::try_from(bytes).is_ok_and(|bytes| bytes >= PAGE_BYTES)
}

/// Reads the columns `position` to `data` in the order of the table.
pub(crate) fn event(row: &SqliteRow) -> FeedEvent {
    let key: [u8; 16] = row.get::<&[u8], _>(2).try_into().unwrap_or_default();
    FeedEvent {
        position: row.get(0),
        tenant: TenantId::new(row.get(1)).unwrap_or_else(|_| TenantId::unassigned()),
        key: EventKey(key),
        event_type: row.get(3),
        occurred_at: Timestamp::from_millis(row.get(4)),
        number: row.get::<Option<&str>, _>(5).and_then(|id| NumberId::new(id).ok()),
        conversation: row.get::<Option<&[u8]>, _>(6).and_then(|id| Uuid::from_slice(id).ok()),
        partition: row.get(7),
        revision: row.get(8),
        data: Bytes::from(row.get::<Vec<u8>, _>(9)),
    }
}
