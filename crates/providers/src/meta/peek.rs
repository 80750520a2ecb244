//! The peek: what the gateway must know of a webhook before it is durable, and where each update stands.
//!
//! A body is `{object, entry: [{id, time, changes: [{field, value}]}]}`; `value` holds the lists of updates beside the
//! metadata that names the business number. One pass over the bytes finds every update with what identifies it (kind,
//! id, status, participant), its sender, its time and its byte range, borrowed from the body. Content is passed over:
//! no message is read here, nothing is judged (tenant, limits and duplicates are the gateway's), and an update that has
//! not the documented shape is one [`UpdateKind::Malformed`] update that leaves its neighbours alone.
//!
//! Source: Meta, "webhooks reference: messages" and the references of the other fields.

use std::borrow::Cow;
use std::ops::Range;

use common::Timestamp;
use common::update::{Provider, UpdateIdentity, UpdateKind};

mod walk;

/// The body cannot be read as a webhook: it is not JSON, or two readers could understand it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// Why, in fixed words that never repeat the body.
    pub reason: &'static str,
}

/// A person named in the `contacts` of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact<'a> {
    /// The phone number as Meta writes it: digits without `+`.
    pub wa_id: Option<Cow<'a, str>>,
    /// The business-scoped user id.
    pub user_id: Option<Cow<'a, str>>,
    /// Where the contact's JSON stands in the body.
    pub range: Range<usize>,
}

/// What surrounds the updates of one `changes[]` element.
///
/// A text that is absent, or has not the documented type, is `None`; numbers are their digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// `entry[].id`: the WABA, or the portfolio in partner events.
    pub waba_id: Option<Cow<'a, str>>,
    /// `value.metadata.phone_number_id`: the business number.
    pub phone_number_id: Option<Cow<'a, str>>,
    /// `value.metadata.display_phone_number`; for people, not for keys.
    pub display_phone_number: Option<Cow<'a, str>>,
    /// `field`: what was subscribed to.
    pub field: Option<Cow<'a, str>>,
    /// `entry[].time` in unix seconds, from 0 to the year 9999; only account-level fields have it.
    pub entry_time: Option<i64>,
    /// Those of `value.contacts[]` that have an id.
    pub contacts: Vec<Contact<'a>>,
    /// Where the change's JSON stands in the body; the entry's, when the entry is malformed.
    pub range: Range<usize>,
}

/// One update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The index of its change in [`Peek::changes`].
    pub change: usize,
    /// What it is, by the list it stands in.
    pub kind: UpdateKind,
    /// The provider's id, at most 512 bytes, never empty.
    pub id: Option<Cow<'a, str>>,
    /// The status of a [`UpdateKind::Status`]; of a [`UpdateKind::Call`] its `event` (`connect`, `terminate`), as the
    /// events of one call share an id.
    pub status: Option<Cow<'a, str>>,
    /// The group participant a status is about.
    pub participant: Option<Cow<'a, str>>,
    /// Who sent a message: `from`, else `from_user_id`. Only for messages.
    pub sender: Option<Cow<'a, str>>,
    /// Its own `type`.
    pub r#type: Option<Cow<'a, str>>,
    /// When it happened, by the provider's clock; for [`UpdateKind::Change`] the entry's time. `None` if it has no time
    /// between 1970 and the year 9999.
    pub timestamp: Option<Timestamp>,
    /// Where its JSON stands in the body: the element, the change or (malformed) the entry.
    pub range: Range<usize>,
}

/// All updates of a body, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek<'a> {
    /// The changes that have an update; every update names one.
    pub changes: Vec<Change<'a>>,
    /// The updates.
    pub updates: Vec<Update<'a>>,
    pub(super) layout: Layout,
}

/// Where the lists stand that hold the updates, for [`cut`](fn@super::cut::cut).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The inside of the brackets of `entry`.
    pub(super) inside: Range<usize>,
    /// The entries that have an update.
    pub(super) entries: Vec<EntryLayout>,
    /// Beside each of [`Peek::changes`].
    pub(super) changes: Vec<ChangeLayout>,
    /// Every list that has an update.
    pub(super) lists: Vec<ListLayout>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryLayout {
    pub(super) range: Range<usize>,
    /// The inside of the brackets of `changes`.
    pub(super) inside: Range<usize>,
    /// Indices of changes. Of a malformed entry the one that stands for it.
    pub(super) changes: Range<usize>,
    /// Indices of updates.
    pub(super) updates: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChangeLayout {
    /// Indices of lists; empty if the change is one update.
    pub(super) lists: Range<usize>,
    /// Indices of updates.
    pub(super) updates: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListLayout {
    /// The inside of the brackets; of what stands there instead of a list, all of it.
    pub(super) inside: Range<usize>,
    /// Whether it has no brackets.
    pub(super) bare: bool,
    /// Indices of updates.
    pub(super) updates: Range<usize>,
}

/// Reads a body.
///
/// Zero updates are a good reading: of an object without `entry`, or with an empty one. [`Unreadable`] is a body that is
/// not UTF-8, not JSON, not an object, has an `entry` that is no list, has bytes after the object, or repeats a key that
/// gives it its structure (`object`, `entry`; `id`, `time`, `changes` in an entry; `field`, `value` in a change;
/// `metadata`, `contacts`, its two ids and the names of lists in a value).
///
/// [`UpdateKind::Malformed`] is an update whose id, status or participant is neither text nor number, is longer than 512
/// bytes, or has lone surrogates; that repeats one of the keys read here; or that is not an object at all. The same
/// holds for changes and entries, and for a `value` that is no object. What stands in place of a list counts as its
/// only element, malformed.
///
/// Time and memory grow with the body and the number of updates (about 200 bytes each); depth does not matter.
pub fn peek(body: &[u8]) -> Result<Peek<'_>, Unreadable> {
    walk::walk(body)
}

impl Update<'_> {
    /// What makes this the same update when it arrives again, with `changes` from the same peek.
    ///
    /// `None` without an id, and for a status without `status`: such an update is never a repetition of another. The
    /// status of a payment or a call (`type`) counts as [`UpdateKind::Item`]: it may have the id and the word of a
    /// delivery status and must not stand in for it.
    pub fn identity<'s>(&'s self, changes: &'s [Change<'_>]) -> Option<UpdateIdentity<'s>> {
        if self.kind == UpdateKind::Status && self.status.is_none() {
            return None;
        }
        let about_message = matches!(self.r#type.as_deref(), None | Some("message"));
        let kind = if self.kind == UpdateKind::Status && !about_message { UpdateKind::Item } else { self.kind };
        Some(UpdateIdentity {
            provider: Provider::Meta,
            number: changes.get(self.change).and_then(|change| change.phone_number_id.as_deref()),
            kind,
            id: self.id.as_deref()?,
            status: self.status.as_deref(),
            participant: self.participant.as_deref(),
        })
    }
}

impl Peek<'_> {
    /// Whether this is the constant body that the "Test" button of Meta's dashboard sends.
    ///
    /// It is signed like a real one, but its entry has the id `0`, its number (where the field has one) is `123456123`
    /// and its time is years ago, so neither age nor repetition mean anything.
    pub fn is_dashboard_test(&self) -> bool {
        !self.changes.is_empty()
            && self.changes.iter().all(|change| {
                change.waba_id.as_deref() == Some("0")
                    && matches!(change.phone_number_id.as_deref(), None | Some("123456123"))
            })
    }
}

#[cfg(test)]
mod tests;
