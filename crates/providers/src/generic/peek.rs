//! The peek into a generic body: one inbound message, or nothing.

use common::update::{Provider, UpdateKind};

use super::message::validate;
use crate::peek::{Change, Peek, Unreadable, Update};

/// Reads a body: one [`UpdateKind::Message`] that is addressed to `to` and belongs to no account.
///
/// [`Unreadable`] is all that [`validate`] refuses. Callers who may answer the sender ask that first, since it says what
/// is wrong.
pub fn peek(body: &[u8]) -> Result<Peek<'_>, Unreadable> {
    let message = validate(body).map_err(|_| Unreadable { reason: "the body is not a valid message" })?;
    let change = Change {
        phone_number_id: Some(message.to.clone()),
        display_phone_number: Some(message.to),
        ..Change::default()
    };
    let update = Update {
        id: Some(message.message_id),
        sender: Some(message.from),
        timestamp: Some(message.ts),
        ..Update::blank(0, UpdateKind::Message, 0..0)
    };
    Ok(Peek::whole(Provider::Generic, body, change, update))
}
