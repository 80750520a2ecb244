//! Meta's WhatsApp Cloud API: the webhook's signature and handshake, the peek of the gateway, the cut into envelopes
//! and the parse of the normalizer.
//!
//! The order in which a body passes through: [`signature`] over the raw bytes, [`peek`](mod@peek) once over the whole
//! body, [`cut`](mod@cut) where one POST becomes several envelopes, and, in another process, peek again and
//! [`parse`](mod@parse) for each update. Sending is not here yet.

#[cfg(test)]
mod generate;
mod scan;

pub mod cut;
pub mod parse;
pub mod peek;
pub mod signature;
pub mod verification;
