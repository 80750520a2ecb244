//! The gateway: proves who sent a webhook, makes it durable, answers.
//!
//! In this order, and nothing else: the client's address and whether it may come, size and time limits, per-address limit,
//! signature over the raw bytes, global limit, a peek at what identifies each update, tenant and its limit, admission,
//! sealing, publish, answer. A 200 goes out only after the bus has everything on disk. The gateway never opens a database,
//! never calls a provider and never logs a payload.
//!
//! Deliberately not here: anything that looks into the content of a message; that is the normalizer's.

mod alarm;
mod answer;
mod breaker;
mod config;
mod evidence;
mod front;
mod gateway;
mod http;
mod limits;
mod meters;
mod plan;
mod records;
mod verification;

pub use config::Config;
pub use front::Front;
pub use gateway::{Deps, Gateway};
pub use http::{not_found, routes};
pub use plan::{Envelopes, Planned, Request, plan};
