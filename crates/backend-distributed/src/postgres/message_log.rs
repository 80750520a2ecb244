//! The message log: searches over the table of messages.

use std::sync::Arc;

use async_trait::async_trait;
use common::{EnvelopeId, TenantId};
use ports::Unavailable;
use ports::message_log::{LoggedMessage, MessageFilter, MessageLog, MessagePage, MessageTotals};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, Row as _};
use uuid::Uuid;

use super::database::{Database, ONE_MOMENT, bounded, settle};
use super::values::{Moment, signed, storable};

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresMessageLog {
    database: Arc<Database>,
}

impl PostgresMessageLog {
    pub(super) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl MessageLog for PostgresMessageLog {
    async fn search(&self, filter: &MessageFilter) -> Result<MessagePage, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let page = bounded(search(&mut connection, filter)).await;
        settle(connection, page)
    }

    async fn totals(&self, tenant: Option<&TenantId>) -> Result<MessageTotals, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let totals = bounded(totals(&mut connection, tenant)).await;
        settle(connection, totals)
    }
}

/// The conditions that there are, with their values.
struct Conditions {
    sql: String,
    values: PgArguments,
    count: usize,
}

impl Conditions {
    fn new() -> Self {
        Self { sql: "status <> 'failed'".to_owned(), values: PgArguments::default(), count: 0 }
    }

    /// Adds a condition; `?` in it stands for the value.
    fn and<'t, T>(&mut self, condition: &str, value: T) -> Result<(), sqlx::Error>
    where
        T: sqlx::Encode<'t, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.values.add(value).map_err(sqlx::Error::Encode)?;
        self.count += 1;
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition.replace('?', &format!("${}", self.count)));
        Ok(())
    }

    fn of(filter: &MessageFilter) -> Result<Self, sqlx::Error> {
        let mut conditions = Self::new();
        if let Some(tenant) = &filter.tenant {
            conditions.and("tenant = ?", tenant.as_str())?;
        }
        if let Some(id) = &filter.message_id {
            conditions.and("message_id = ?", storable(id))?;
        }
        if let Some(from) = &filter.from {
            conditions.and("phone_number = ?", storable(from))?;
        }
        if let Some(since) = filter.since {
            conditions.and("sent_at >= ?", Moment::from(since))?;
        }
        if let Some(text) = &filter.text {
            conditions.and("text_folded LIKE ?", format!("%{}%", literal(&storable(text).to_lowercase())))?;
        }
        Ok(conditions)
    }
}

/// A pattern of LIKE that stands for the text itself.
fn literal(text: &str) -> String {
    text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_")
}

async fn search(connection: &mut PgConnection, filter: &MessageFilter) -> Result<MessagePage, sqlx::Error> {
    let conditions = Conditions::of(filter)?;
    let mut transaction = connection.begin_with(ONE_MOMENT).await?;
    let count = format!("SELECT count(*) FROM messages WHERE {}", conditions.sql);
    let total: i64 =
        sqlx::query_scalar_with(AssertSqlSafe(count), conditions.values).fetch_one(&mut *transaction).await?;
    let conditions = Conditions::of(filter)?;
    let page = format!(
        "SELECT message_id, coalesce(phone_number, user_id), to_number, sent_at, text, tenant, envelope, received_at \
         FROM messages WHERE {} ORDER BY sent_at, message_id LIMIT {} OFFSET {}",
        conditions.sql,
        filter.limit,
        signed(filter.offset)
    );
    let rows = sqlx::query_with(AssertSqlSafe(page), conditions.values)
        // Its numbers change, so it is not worth keeping.
        .persistent(false)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    let messages = rows.iter().map(message).collect::<Result<_, _>>()?;
    Ok(MessagePage { messages, total: total.unsigned_abs() })
}

fn message(row: &PgRow) -> Result<LoggedMessage, sqlx::Error> {
    Ok(LoggedMessage {
        message_id: row.get(0),
        from: row.get(1),
        to: row.get(2),
        at: row.get::<Moment, _>(3).into(),
        text: row.get(4),
        tenant: row.get::<&str, _>(5).parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        envelope: EnvelopeId(row.get::<Uuid, _>(6)),
        received_at: row.get::<Moment, _>(7).into(),
    })
}

async fn totals(connection: &mut PgConnection, tenant: Option<&TenantId>) -> Result<MessageTotals, sqlx::Error> {
    let filter = MessageFilter { tenant: tenant.cloned(), ..MessageFilter::default() };
    let (one, two) = (Conditions::of(&filter)?, Conditions::of(&filter)?);
    let mut transaction = connection.begin_with(ONE_MOMENT).await?;
    let sums = format!(
        "SELECT count(*), count(DISTINCT coalesce(phone_number, user_id)), min(sent_at), max(sent_at) \
         FROM messages WHERE {}",
        one.sql
    );
    let sums = sqlx::query_with(AssertSqlSafe(sums), one.values).fetch_one(&mut *transaction).await?;
    let top = format!(
        "SELECT coalesce(phone_number, user_id) AS sender, count(*) AS n FROM messages \
         WHERE {} AND coalesce(phone_number, user_id) IS NOT NULL GROUP BY sender ORDER BY n DESC, sender LIMIT 10",
        two.sql
    );
    let top = sqlx::query_with(AssertSqlSafe(top), two.values).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    let count = |row: &PgRow, index: usize| row.get::<i64, _>(index).unsigned_abs();
    let moment = |index: usize| sums.get::<Option<Moment>, _>(index).map(Into::into);
    Ok(MessageTotals {
        messages: count(&sums, 0),
        senders: count(&sums, 1),
        first: moment(2),
        last: moment(3),
        top_senders: top.iter().map(|row| (row.get(0), count(row, 1))).collect(),
    })
}
