//! The pool, and what errors of the database mean.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use ports::Unavailable;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Postgres};

/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a caller waits for the answer of the server: more than the server's own limit for a statement, which says
/// better what was wrong. A server that is frozen keeps no limits.
const ANSWER: Duration = Duration::from_secs(15);
/// A connection that nobody used for this long is tried before it is handed out.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long a returned connection may take to settle.
const SETTLING: Duration = Duration::from_secs(2);

/// Begins a transaction of several statements that see one moment.
pub(super) const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Advisory locks. Their numbers mean nothing, but must never change; functions of the migrations have others (…001 and
/// …002).
pub(super) mod locks {
    /// Time partitions are made by one process at a time.
    pub(in crate::postgres) const PARTITIONS: i64 = 8_239_742_003;
    /// The directory is published by one process at a time.
    pub(in crate::postgres) const PUBLISHING: i64 = 8_239_742_004;
}

/// See the module's documentation.
pub(super) struct Database {
    pub(super) pool: PgPool,
    pub(super) options: PgConnectOptions,
}

/// The options of a connection hold the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("connections", &self.pool.size()).finish_non_exhaustive()
    }
}

impl Database {
    pub(super) fn new(options: PgConnectOptions, max_connections: u32) -> Self {
        let pool = pool_options(max_connections).connect_lazy_with(options.clone());
        Self { pool, options }
    }

    /// A connection; to be given back by [`settle`].
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, Unavailable> {
        self.pool.acquire().await.map_err(unavailable)
    }

    /// A pool of one connection that waits for notifications, so that it takes none away from those that work.
    pub(super) fn listening(&self) -> PgPool {
        pool_options(1).max_lifetime(None).idle_timeout(None).connect_lazy_with(self.options.clone())
    }
}

fn pool_options(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections.max(1))
        .acquire_timeout(ACQUIRE)
        // A ping for every use would cost a round trip each.
        .test_before_acquire(false)
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                if usage.idle_for > TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        // Who gives up in the middle of a statement leaves a connection that may never answer again.
        .after_release(|connection, _| {
            Box::pin(async move {
                match tokio::time::timeout(SETTLING, connection.ping()).await {
                    Ok(pinged) => pinged.map(|()| true),
                    Err(_) => Err(no_answer()),
                }
            })
        })
}

/// Runs work on a connection for as long as a caller can wait.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer"))
}

/// Gives a connection back, or throws it away after an error: then it may be in any state.
pub(super) fn settle<T>(
    connection: PoolConnection<Postgres>,
    result: Result<T, sqlx::Error>,
) -> Result<T, Unavailable> {
    result.map_err(|error| {
        drop(connection.detach());
        unavailable(error)
    })
}

pub(super) fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable::new("PostgreSQL", error)
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(Into::into)
}

/// Whether the database refuses the data itself, so that trying again cannot help: a value it cannot hold, a broken
/// constraint, or a text too long for an index.
pub(super) fn is_data_error(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code.starts_with("22") || code.starts_with("23") || code == "54000")
}

/// Whether another transaction was in the way, so that trying again at once is right.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "40001" || code == "40P01")
}

/// Whether the server refuses this user or has no such database, which waiting does not change.
pub(super) fn is_refusal(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code.starts_with("28") || code == "3D000" || code == "3F000" || code == "42501")
}

/// An error with its causes, for a log line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
