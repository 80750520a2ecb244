//! The peek into a body of Meta.
//!
//! A body is `{object, entry: [{id, time, changes: [{field, value}]}]}`; `value` holds the lists of updates beside the
//! metadata that names the business number. One pass over the bytes finds every update with what identifies it (kind,
//! id, status, participant), its sender, its time and its byte range, borrowed from the body. An update that has
//! not the documented shape is one [`UpdateKind::Malformed`](common::update::UpdateKind::Malformed) update that leaves
//! its neighbours alone.
//!
//! Source: Meta, "webhooks reference: messages" and the references of the other fields.

use crate::peek::{Peek, Unreadable};

mod walk;

/// Reads a body.
///
/// Zero updates are a good reading: of an object without `entry`, or with an empty one. [`Unreadable`] is a body that is
/// not UTF-8, not JSON, not an object, has an `entry` that is no list, has bytes after the object, or repeats a key that
/// gives it its structure (`object`, `entry`; `id`, `time`, `changes` in an entry; `field`, `value` in a change;
/// `metadata`, `contacts`, its two ids and the names of lists in a value).
///
/// [`UpdateKind::Malformed`](common::update::UpdateKind::Malformed) is an update whose id, status or participant is
/// neither text nor number, is longer than 512 bytes, or has lone surrogates; that repeats one of the keys read here; or
/// that is not an object at all. The same holds for changes and entries, and for a `value` that is no object. What
/// stands in place of a list counts as its only element, malformed.
///
/// Time and memory grow with the body and the number of updates (about 200 bytes each); depth does not matter.
pub fn peek(body: &[u8]) -> Result<Peek<'_>, Unreadable> {
    walk::walk(body)
}

#[cfg(test)]
mod tests;
