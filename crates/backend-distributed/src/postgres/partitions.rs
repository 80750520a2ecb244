//! Time partitions: a table a week, made ahead of time.
//!
//! Each partitioned table has a DEFAULT partition too, so that an insert never fails for want of a partition. A week
//! whose rows are in there already stays there: moving them would lock the table for as long as it takes.

use ports::Unavailable;
use sqlx::postgres::PgConnection;
use sqlx::{Acquire as _, AssertSqlSafe};

use super::database::{Database, bounded, is_data_error, locks, settle};

/// Tables partitioned by `received_at`.
const TABLES: [&str; 4] = ["events", "messages", "statuses", "webhook_signature_log"];
/// Weeks after the current one.
const AHEAD: i32 = 4;

/// A week, by the database's clock.
#[derive(sqlx::FromRow)]
struct Week {
    name: String,
    from: String,
    to: String,
}

/// Makes the partitions of the current and the next weeks that do not exist; returns how many.
pub(super) async fn make(database: &Database) -> Result<usize, Unavailable> {
    let mut connection = database.acquire().await?;
    let result = async {
        let mut made = 0;
        for week in bounded(weeks(&mut connection)).await? {
            for table in TABLES {
                // A transaction each, so that no lock is held for long.
                match bounded(make_one(&mut connection, table, &week)).await {
                    Ok(true) => made += 1,
                    Ok(false) => {}
                    // A row of that week came into DEFAULT in this moment.
                    Err(error) if is_data_error(&error) => kept_in_default(table, &week),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(made)
    }
    .await;
    settle(connection, result)
}

fn kept_in_default(table: &str, week: &Week) {
    tracing::warn!(table, week = week.from, "rows of this week are in the default partition already and stay there");
}

async fn weeks(connection: &mut PgConnection) -> Result<Vec<Week>, sqlx::Error> {
    sqlx::query_as(
        "SELECT to_char(monday, 'YYYYMMDD') AS name, to_char(monday, 'YYYY-MM-DD') || ' 00:00:00+00' AS from, \
         to_char(monday + interval '7 days', 'YYYY-MM-DD') || ' 00:00:00+00' AS to \
         FROM (SELECT date_trunc('week', now() AT TIME ZONE 'UTC') + n * interval '7 days' AS monday \
               FROM generate_series(0, $1) AS n) AS weeks",
    )
    .bind(AHEAD)
    .fetch_all(connection)
    .await
}

async fn make_one(connection: &mut PgConnection, table: &str, week: &Week) -> Result<bool, sqlx::Error> {
    let Week { name, from, to } = week;
    let partition = format!("{table}_{name}");
    if exists(connection, &partition).await? {
        return Ok(false);
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(locks::PARTITIONS).execute(&mut *transaction).await?;
    if exists(&mut transaction, &partition).await? {
        return Ok(false);
    }
    let in_default =
        format!("SELECT EXISTS (SELECT FROM {table}_default WHERE received_at >= '{from}' AND received_at < '{to}')");
    if sqlx::query_scalar(AssertSqlSafe(in_default)).fetch_one(&mut *transaction).await? {
        kept_in_default(table, week);
        return Ok(false);
    }
    // Attached instead of created as a partition: that would keep everybody from the whole table.
    let make = format!(
        "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL); \
         ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Asks the table of tables: what looks names up has a cache, which may be from before the lock was taken.
async fn exists(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace \
         WHERE relname = $1 AND n.nspname = current_schema())",
    )
    .bind(table)
    .fetch_one(connection)
    .await
}
