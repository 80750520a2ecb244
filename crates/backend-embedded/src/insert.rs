//! Statements over many rows of values, in one call each.
//!
//! `… (VALUES (…), (…), …) …` in a few fixed lengths, so that each statement is prepared once and found again in the
//! connection's cache. A run is filled up with rows of NULL, which the statement must pass over: every call to the
//! database costs more than many empty rows.

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteQueryResult, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, Type};

/// Rows per statement, shortest first. Times the columns they stay far below SQLite's limit of 32,766 variables.
const RUNS: [usize; 5] = [1, 4, 16, 64, LONGEST_RUN];
/// Rows of one statement at most.
pub(crate) const LONGEST_RUN: usize = 256;

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

/// A statement over rows of `columns` values: `head`, then the rows as `(VALUES …)`, then `tail`. Of a row that fills up
/// a run every column is NULL; a real row's first is not.
pub(crate) struct Rows {
    pub(crate) head: &'static str,
    pub(crate) columns: usize,
    pub(crate) tail: &'static str,
}

impl Rows {
    fn sql(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns].join(","));
        format!("{} (VALUES {}) {}", self.head, vec![row; rows].join(","), self.tail)
    }

    fn bind<T>(&self, run: &[T], length: usize, values: impl Fn(&T, &mut Values)) -> SqliteArguments {
        let mut bound = Values::default();
        for row in run {
            values(row, &mut bound);
        }
        for _ in 0..(length - run.len()) * self.columns {
            bound.push(None::<i64>);
        }
        bound.0
    }

    /// Runs the statement over all rows; returns how many rows it changed.
    pub(crate) async fn execute<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        values: impl Fn(&T, &mut Values),
    ) -> Result<u64, sqlx::Error> {
        let mut affected = 0;
        for (run, length) in runs(rows) {
            let query = sqlx::query_with(AssertSqlSafe(self.sql(length)), self.bind(run, length, &values));
            affected += query.execute(&mut *connection).await.map(|done: SqliteQueryResult| done.rows_affected())?;
        }
        Ok(affected)
    }

    /// Runs the statement over all rows and returns what it says.
    pub(crate) async fn fetch<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        values: impl Fn(&T, &mut Values),
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut returned = Vec::with_capacity(rows.len());
        for (run, length) in runs(rows) {
            let query = sqlx::query_with(AssertSqlSafe(self.sql(length)), self.bind(run, length, &values));
            returned.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(returned)
    }
}

/// Cuts rows into runs, each with the length of its statement.
fn runs<T>(rows: &[T]) -> impl Iterator<Item = (&[T], usize)> {
    rows.chunks(LONGEST_RUN)
        .map(move |run| (run, RUNS.into_iter().find(|length| *length >= run.len()).unwrap_or(LONGEST_RUN)))
}
