//! Every port on servers: NATS JetStream, Redis and PostgreSQL.
//!
//! One folder a technology. A process opens what its job needs and nothing else: the gateway never opens a database.
//! Nothing here creates streams or tables while serving: [`Nats::migrate`](nats::Nats::migrate) and
//! [`Postgres::migrate`](postgres::Postgres::migrate) do, once, on an operator's command; every process verifies what
//! it finds when it starts.

pub mod nats;
pub mod postgres;
pub mod redis;
