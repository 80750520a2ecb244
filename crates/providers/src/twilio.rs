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

#[cfg(test)]
mod tests;
