//! The generic webhook: any software that posts one message as JSON and signs it with HMAC-SHA256.
//!
//! There is no vendor behind it, so the contract is Wharf's own and is checked strictly: what breaks it is refused with a
//! list of all that is wrong ([`message::validate`]), before anything is stored. Statuses and media are not part of it.

pub mod message;
pub mod parse;
pub mod peek;
pub mod signature;

#[cfg(test)]
mod tests;
