//! What a peek tells, whoever sent the webhook: each update with what identifies it and where it stands.
//!
//! The gateway must know this much before a webhook is durable, and the normalizer finds the updates again in the same
//! way. Everything is borrowed from the body. Content is passed over: no message is read here and nothing is judged
//! (tenant, limits and duplicates are the gateway's). How a body is read is in each provider's folder.

use std::borrow::Cow;
use std::ops::Range;

use common::Timestamp;
use common::update::{Provider, UpdateIdentity, UpdateKind};
use ring::digest::{SHA256, digest};

use crate::json::{NotJson, Value};
use crate::{generic, meta, twilio};

/// The body cannot be read as a webhook: it has another form than the provider's, or two readers could understand it
/// differently.
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

/// What surrounds updates that belong together: one `changes[]` element of Meta, the whole body of the others.
///
/// A text that is absent, or has not the documented type, is `None`; numbers are their digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// The account: Meta's `entry[].id` (the WABA, or the portfolio in partner events), Twilio's `AccountSid`.
    pub waba_id: Option<Cow<'a, str>>,
    /// The business number: Meta's `value.metadata.phone_number_id`, of the others the number itself with `+`.
    pub phone_number_id: Option<Cow<'a, str>>,
    /// The number as it is shown (Meta's `value.metadata.display_phone_number`); for people, not for keys.
    pub display_phone_number: Option<Cow<'a, str>>,
    /// Meta's `field`: what was subscribed to.
    pub field: Option<Cow<'a, str>>,
    /// Meta's `entry[].time` in unix seconds, from 0 to the year 9999; only account-level fields have it.
    pub entry_time: Option<i64>,
    /// Those of Meta's `value.contacts[]` that have an id.
    pub contacts: Vec<Contact<'a>>,
    /// Where it stands in the body; the place of Meta's entry, when the entry is malformed.
    pub range: Range<usize>,
}

/// One update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The index of its change in [`Peek::changes`].
    pub change: usize,
    /// What it is, by the list it stands in or by the parameters that are there.
    pub kind: UpdateKind,
    /// The provider's id, never empty, at most 512 bytes (of the generic kind at most 255 characters).
    pub id: Option<Cow<'a, str>>,
    /// The status of a [`UpdateKind::Status`]; of a [`UpdateKind::Call`] its `event` (`connect`, `terminate`), as the
    /// events of one call share an id.
    pub status: Option<Cow<'a, str>>,
    /// The group participant a status is about.
    pub participant: Option<Cow<'a, str>>,
    /// Who sent a message: Meta's `from`, else `from_user_id`; of the others a number with `+`, or a user id. Only for
    /// messages.
    pub sender: Option<Cow<'a, str>>,
    /// Its own `type`.
    pub r#type: Option<Cow<'a, str>>,
    /// When it happened, by the provider's clock; for [`UpdateKind::Change`] the entry's time. `None` if it has no time
    /// between 1970 and the year 9999.
    pub timestamp: Option<Timestamp>,
    /// Where it stands in the body: Meta's element, change or (malformed) entry, of the others the whole body.
    pub range: Range<usize>,
}

/// All updates of a body, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek<'a> {
    /// Whose body it is.
    pub provider: Provider,
    /// The changes that have an update; every update names one.
    pub changes: Vec<Change<'a>>,
    /// The updates.
    pub updates: Vec<Update<'a>>,
    /// What tells a delivery from others and is the same on each retry, where an update without an id needs it.
    pub delivery: Option<String>,
    pub(crate) layout: Layout,
}

/// Where the lists stand that hold the updates, for Meta's cut. Empty for bodies of one update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The inside of the brackets of `entry`.
    pub(crate) inside: Range<usize>,
    /// The entries that have an update.
    pub(crate) entries: Vec<EntryLayout>,
    /// Beside each of [`Peek::changes`].
    pub(crate) changes: Vec<ChangeLayout>,
    /// Every list that has an update.
    pub(crate) lists: Vec<ListLayout>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryLayout {
    pub(crate) range: Range<usize>,
    /// The inside of the brackets of `changes`.
    pub(crate) inside: Range<usize>,
    /// Indices of changes. Of a malformed entry the one that stands for it.
    pub(crate) changes: Range<usize>,
    /// Indices of updates.
    pub(crate) updates: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeLayout {
    /// Indices of lists; empty if the change is one update.
    pub(crate) lists: Range<usize>,
    /// Indices of updates.
    pub(crate) updates: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListLayout {
    /// The inside of the brackets; of what stands there instead of a list, all of it.
    pub(crate) inside: Range<usize>,
    /// Whether it has no brackets.
    pub(crate) bare: bool,
    /// Indices of updates.
    pub(crate) updates: Range<usize>,
}

/// Reads a body of this provider: [`meta::peek`](mod@meta::peek), [`twilio::peek`](mod@twilio::peek),
/// [`generic::peek`](mod@generic::peek).
///
/// Zero updates are a good reading. Bodies of Twilio and of the generic kind have at most one.
pub fn peek(provider: Provider, body: &[u8]) -> Result<Peek<'_>, Unreadable> {
    match provider {
        Provider::Meta => meta::peek::peek(body),
        Provider::Twilio => twilio::peek::peek(body),
        Provider::Generic => generic::peek::peek(body),
    }
}

impl Update<'_> {
    /// An update of which nothing but its kind and place is known.
    pub(crate) fn blank(change: usize, kind: UpdateKind, range: Range<usize>) -> Self {
        let (id, status, participant) = (None, None, None);
        Self { change, kind, id, status, participant, sender: None, r#type: None, timestamp: None, range }
    }

    /// What makes this the same update when it arrives again, with the `peek` it is from.
    ///
    /// `None` without an id, and for a status without `status`: such an update is never a repetition of another. Only one
    /// without an id in a delivery that has a name is told by that: it repeats itself when the delivery does. The status of a payment or a call (`type`) counts as [`UpdateKind::Item`]: it may have the id and the word of a
    /// delivery status and must not stand in for it.
    pub fn identity<'s>(&'s self, peek: &'s Peek<'_>) -> Option<UpdateIdentity<'s>> {
        if self.kind == UpdateKind::Status && self.status.is_none() {
            return None;
        }
        let about_message = matches!(self.r#type.as_deref(), None | Some("message"));
        let kind = if self.kind == UpdateKind::Status && !about_message { UpdateKind::Item } else { self.kind };
        Some(UpdateIdentity {
            provider: peek.provider,
            number: peek.changes.get(self.change).and_then(|change| change.phone_number_id.as_deref()),
            kind,
            id: self.id.as_deref().or_else(|| peek.delivery.as_deref().filter(|_| self.kind == UpdateKind::Change))?,
            status: self.status.as_deref(),
            participant: self.participant.as_deref(),
        })
    }
}

impl<'a> Peek<'a> {
    /// A reading without updates.
    pub fn empty(provider: Provider) -> Self {
        Self { provider, changes: Vec::new(), updates: Vec::new(), delivery: None, layout: Layout::default() }
    }

    /// A body that is one update as a whole: `change` and `update` get its range.
    pub(crate) fn whole(provider: Provider, body: &'a [u8], change: Change<'a>, update: Update<'a>) -> Self {
        let range = 0..body.len();
        Self {
            provider,
            changes: vec![Change { range: range.clone(), ..change }],
            updates: vec![Update { change: 0, range, ..update }],
            delivery: None,
            layout: Layout::default(),
        }
    }

    /// The same of a delivery that the provider names: Twilio, whose bodies are one update. The body counts too, so that
    /// two requests under one name (a proxy's mistake) are two.
    #[must_use]
    pub fn named(self, delivery: Option<&str>, body: &[u8]) -> Self {
        let needs_name = self.provider == Provider::Twilio && self.updates.iter().any(|update| update.id.is_none());
        let name = |delivery| format!("{delivery}:{}", hex::encode(digest(&SHA256, body)));
        Self { delivery: delivery.filter(|_| needs_name).map(name), ..self }
    }

    /// Whether this is the constant body that the "Test" button of Meta's dashboard sends.
    ///
    /// It is signed like a real one, but its entry has the id `0`, its number (where the field has one) is `123456123`
    /// and its time is years ago, so neither age nor repetition mean anything.
    pub fn is_dashboard_test(&self) -> bool {
        self.provider == Provider::Meta
            && !self.changes.is_empty()
            && self.changes.iter().all(|change| {
                change.waba_id.as_deref() == Some("0")
                    && matches!(change.phone_number_id.as_deref(), None | Some("123456123"))
            })
    }
}

/// The longest id, in bytes, where the provider names no limit. Meta's wamids have fewer than 128, Twilio's SIDs 34.
pub(crate) const MAX_ID: usize = 512;

/// What identifies an update cannot be read in exactly one way.
pub(crate) struct Ambiguous;

impl From<NotJson> for Unreadable {
    fn from(_: NotJson) -> Self {
        Self { reason: "the body is not JSON" }
    }
}

/// A text that is part of an identity: absent, or readable in exactly one way.
pub(crate) fn identifying(value: Value<'_>) -> Result<Option<Cow<'_, str>>, Ambiguous> {
    if matches!(value, Value::Null) {
        return Ok(None);
    }
    match value.strict() {
        Some(text) if text.is_empty() => Ok(None),
        Some(text) if text.len() <= MAX_ID => Ok(Some(text)),
        _ => Err(Ambiguous),
    }
}

/// A text that helps if it is readable.
pub(crate) fn context(value: Value<'_>) -> Option<Cow<'_, str>> {
    identifying(value).ok().flatten()
}
