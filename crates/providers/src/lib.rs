//! What Wharf knows of each provider: how a webhook is verified, split into updates and turned into events.
//!
//! One directory per provider holds all of it, for every job. Everything here is sans-I/O: bytes in, domain values out.
//! There is no network, no clock, no storage and no configuration, so the gateway and the normalizer share one reading
//! of the same bytes and tests need no server.
//!
//! The order in which a body passes through: its provider's `signature` over the raw bytes, [`peek`](fn@peek) once over
//! the whole body, [`cut`](fn@cut) where one POST becomes several envelopes, and, in another process, peek again and
//! [`parse`](fn@parse) for each update. What these three tell is the same for every provider. Sending is not here yet.

#[cfg(test)]
mod fixtures;
mod json;

pub mod cut;
pub mod generic;
pub mod meta;
pub mod parse;
pub mod peek;
pub mod twilio;

pub use cut::cut;
pub use parse::parse;
pub use peek::peek;
