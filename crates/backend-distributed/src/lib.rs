//! Every port on servers: NATS JetStream, Redis and PostgreSQL.
//!
//! One module a technology. A process opens what its job needs and nothing else: the gateway never opens a database.
//! Nothing here creates streams or tables while serving: [`nats::Nats::migrate`] and [`postgres::Postgres::migrate`] do,
//! once, on an operator's command; every process verifies what it finds when it starts.

pub mod directory;
pub mod nats;
pub mod postgres;
pub mod redis;

use ports::Unavailable;

/// A server that a process cannot begin with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is there, but not as it must be. Trying again does not help; the text says what to do.
    #[error("{0}")]
    Unsuitable(String),
    /// It is not there, or does not answer. Trying again may help.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
