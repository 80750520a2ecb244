//! Waiting for notifications on a connection of one's own.

use std::time::Duration;

use sqlx::Executor as _;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::Notify;

use super::database::{bounded, chain};

/// Said inside every commit that makes events.
const COMMITS: &str = "wharf_outbox";
/// After an error.
const PAUSE: Duration = Duration::from_secs(1);
/// A connection that was silent for this long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// Rings at each commit with events, and whenever some may have been missed. Never ends.
pub(super) async fn ring_on_commit(pool: &PgPool, bell: &Notify) {
    loop {
        if let Err(error) = listen(pool, bell).await {
            tracing::warn!(error = chain(&error), "PostgreSQL announces no commits now; listening again in a second");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(pool: &PgPool, bell: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = start(pool, COMMITS).await?;
    bell.notify_one();
    loop {
        match tokio::time::timeout(SILENCE, listener.try_recv()).await {
            // A notification, or a new connection that has missed some.
            Ok(heard) => {
                heard?;
                bell.notify_one();
            }
            Err(_) => bounded(listener.execute("SELECT 1")).await.map(|_| ())?,
        }
    }
}

/// A listener on one channel.
pub(super) async fn start(pool: &PgPool, channel: &str) -> Result<PgListener, sqlx::Error> {
    bounded(async {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(channel).await?;
        Ok(listener)
    })
    .await
}
