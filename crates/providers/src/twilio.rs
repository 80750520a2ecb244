//! Twilio's webhooks for WhatsApp: the signature over address and parameters, the peek, and the parse of inbound messages
//! and status callbacks.
//!
//! A request is one message or one status, as a form or, where it is so configured, as a JSON object with the same
//! names. Twilio adds parameters without notice, so unknown ones are kept and signed like the others. No time is sent.
//!
//! Source: Twilio, "Twilio's request to your incoming message webhook URL", "track outbound message status" and
//! "webhooks security".

mod form;
mod parameters;

pub mod parse;
pub mod peek;
pub mod signature;

/// The header that names a delivery, in lower case: the same on every retry of one request.
///
/// Twilio does not sign it, so it never stands in for an id that is in the request.
pub const DELIVERY: &str = "i-twilio-idempotency-token";
/// The longest that is taken, in bytes. Twilio's have 36.
const MAX_DELIVERY: usize = 128;

/// The name of a delivery, if the value of its header is one: visible ASCII.
pub fn delivery(value: &[u8]) -> Option<&str> {
    let is_name = !value.is_empty() && value.len() <= MAX_DELIVERY && value.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(value).ok().filter(|_| is_name)
}

#[cfg(test)]
mod tests;
