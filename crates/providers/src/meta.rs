//! Meta's WhatsApp Cloud API: the webhook's signature and handshake, the peek of the gateway, the cut into envelopes
//! and the parse of the normalizer.
//!
//! A POST holds any number of updates of any number of business numbers.

#[cfg(test)]
mod generate;

pub mod cut;
pub mod parse;
pub mod peek;
pub mod signature;
pub mod verification;
