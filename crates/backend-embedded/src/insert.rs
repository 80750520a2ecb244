//! Inserts of many rows with few statements.
//!
//! `INSERT … VALUES (…), (…), …` in runs of a few fixed lengths, so that each statement is prepared once and found again
//! in the connection's cache.

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteQueryResult, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, Type};

/// Rows per statement, longest first. Times the columns they stay far below SQLite's limit of 32,766 variables.
const RUNS: [usize; 4] = [64, 16, 4, 1];

/// The values of one statement.
#[derive(Default)]
pub(crate) struct Values(SqliteArguments);

impl Values {
    /// Adds the next value.
    pub(crate) fn push<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) {
        // Encoding fails only for values out of SQLite's range, which the types used here do not have.
        let added = self.0.add(value);
        debug_assert!(added.is_ok(), "a value that SQLite cannot hold");
    }
}

/// A statement for rows of `columns` values: `head` up to and with `VALUES`, `tail` after the rows.
pub(crate) struct Insert {
    pub(crate) head: &'static str,
    pub(crate) columns: usize,
    pub(crate) tail: &'static str,
}

impl Insert {
    fn sql(&self, rows: usize) -> String {
        let mut row = "(".to_owned();
        row.push_str(&"?,".repeat(self.columns));
        row.pop();
        row.push_str("),");
        let mut sql = format!("{} {}", self.head, row.repeat(rows));
        sql.pop();
        sql.push(' ');
        sql.push_str(self.tail);
        sql
    }

    /// Inserts all rows.
    pub(crate) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        values: impl Fn(&T, &mut Values),
    ) -> Result<u64, sqlx::Error> {
        let mut affected = 0;
        for run in runs(rows) {
            let mut bound = Values::default();
            for row in run {
                values(row, &mut bound);
            }
            let query = sqlx::query_with(AssertSqlSafe(self.sql(run.len())), bound.0);
            affected += query.execute(&mut *connection).await.map(|done: SqliteQueryResult| done.rows_affected())?;
        }
        Ok(affected)
    }

    /// Inserts all rows and returns what `RETURNING` in the tail says.
    pub(crate) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        values: impl Fn(&T, &mut Values),
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut returned = Vec::with_capacity(rows.len());
        for run in runs(rows) {
            let mut bound = Values::default();
            for row in run {
                values(row, &mut bound);
            }
            let query = sqlx::query_with(AssertSqlSafe(self.sql(run.len())), bound.0);
            returned.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(returned)
    }
}

fn runs<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = RUNS.into_iter().find(|run| *run <= rows.len())?;
        let (run, rest) = rows.split_at(length);
        rows = rest;
        Some(run)
    })
}
