//! The message log: searches over the table of messages.

use std::sync::Arc;

use async_trait::async_trait;
use common::{EnvelopeId, TenantId, Timestamp};
use ports::Unavailable;
use ports::message_log::{LoggedMessage, MessageFilter, MessageLog, MessagePage, MessageTotals};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::sqlite::{Database, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteMessageLog {
    database: Arc<Database>,
}

impl SqliteMessageLog {
    pub(crate) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl MessageLog for SqliteMessageLog {
    async fn search(&self, filter: &MessageFilter) -> Result<MessagePage, Unavailable> {
        // Of one message the index answers alone, from `since` on. Of many the rows are needed anyway: then it is faster to
        // read the table than to go from the index to each of them. `instr` on folded text instead of LIKE: no wildcards
        // to escape.
        let by_index = filter.message_id.is_some() && filter.since.is_some();
        let in_time = if by_index { "sent_at >= ?3" } else { "(?3 IS NULL OR sent_at >= ?3)" };
        let matching = format!(
            "FROM messages WHERE status <> 'failed' AND (?1 IS NULL OR tenant = ?1) \
             AND (?2 IS NULL OR phone_number = ?2) AND {in_time} \
             AND (?4 IS NULL OR instr(text_folded, ?4) > 0) AND (?5 IS NULL OR message_id = ?5)"
        );
        let mut transaction = self.database.readers.begin().await.map_err(unavailable)?;
        let tenant = filter.tenant.as_ref().map(TenantId::as_str);
        let from = filter.from.as_deref();
        let since = filter.since.map(Timestamp::as_millis);
        let text = filter.text.as_deref().map(str::to_lowercase);
        let message_id = filter.message_id.as_deref();
        let total: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) {matching}")))
            .bind(tenant)
            .bind(from)
            .bind(since)
            .bind(&text)
            .bind(message_id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let page = format!(
            "SELECT message_id, coalesce(phone_number, user_id), to_number, sent_at, text, tenant, envelope, received_at \
             {matching} ORDER BY sent_at, message_id LIMIT ?6 OFFSET ?7"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(page))
            .bind(tenant)
            .bind(from)
            .bind(since)
            .bind(&text)
            .bind(message_id)
            .bind(filter.limit)
            .bind(i64::try_from(filter.offset).unwrap_or(i64::MAX))
            .fetch_all(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let messages = rows.iter().map(message).collect::<Result<_, _>>()?;
        Ok(MessagePage { messages, total: total.unsigned_abs() })
    }

    async fn totals(&self, tenant: Option<&TenantId>) -> Result<MessageTotals, Unavailable> {
        let tenant = tenant.map(TenantId::as_str);
        let mut transaction = self.database.readers.begin().await.map_err(unavailable)?;
        let sums = sqlx::query(
            "SELECT count(*), count(DISTINCT coalesce(phone_number, user_id)), min(sent_at), max(sent_at) \
             FROM messages WHERE status <> 'failed' AND (?1 IS NULL OR tenant = ?1)",
        )
        .bind(tenant)
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let top = sqlx::query(
            "SELECT coalesce(phone_number, user_id) AS sender, count(*) AS n FROM messages \
             WHERE status <> 'failed' AND (?1 IS NULL OR tenant = ?1) AND coalesce(phone_number, user_id) IS NOT NULL \
             GROUP BY sender ORDER BY n DESC, sender LIMIT 10",
        )
        .bind(tenant)
        .fetch_all(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let count = |row: &SqliteRow, index: usize| row.get::<i64, _>(index).unsigned_abs();
        Ok(MessageTotals {
            messages: count(&sums, 0),
            senders: count(&sums, 1),
            first: sums.get::<Option<i64>, _>(2).map(Timestamp::from_millis),
            last: sums.get::<Option<i64>, _>(3).map(Timestamp::from_millis),
            top_senders: top.iter().map(|row| (row.get(0), count(row, 1))).collect(),
        })
    }
}

fn message(row: &SqliteRow) -> Result<LoggedMessage, Unavailable> {
    Ok(LoggedMessage {
        message_id: row.get(0),
        from: row.get(1),
        to: row.get(2),
        at: Timestamp::from_millis(row.get(3)),
        text: row.get(4),
        tenant: row.get::<&str, _>(5).parse().map_err(unreadable)?,
        envelope: EnvelopeId(Uuid::from_slice(row.get(6)).map_err(unreadable)?),
        received_at: Timestamp::from_millis(row.get(7)),
    })
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::new("a message's row (written by newer software?)", error)
}
