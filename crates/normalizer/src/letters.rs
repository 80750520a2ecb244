//! What is set aside: dead letters, and the updates of an envelope that turn out to belong to nobody.
//!
//! Each is kept as a sealed envelope of its own, cut from the original one, so that it can be released or replayed like
//! any other. Its id is derived from the original's id and from what was cut out, not fresh: a redelivered envelope then
//! writes the same row again instead of a second one. That is safe although the sealing key depends on the id: no sender
//! controls the original's id, and sealing the same cut again takes another random nonce.

use std::collections::BTreeMap;

use common::directory::TenantKeys;
use common::envelope::{Disposition, Header, ParkReason};
use common::update::{Provider, UpdateKind, fingerprint};
use common::{EnvelopeId, EventKey, TenantId, sealing};
use ports::admission::SenderLimits;
use ports::event_bus::Delivery;
use ports::event_store::{DeadLetter, Pace, Parked, RawPending};
use providers::cut;
use providers::peek::{Peek, Update};
use uuid::Uuid;

/// Updates of one envelope that get a dead letter each; more share one, so that a body of a million malformed updates
/// costs no more than its size.
const SINGLE_LETTERS: usize = 64;

/// The index that stands for a whole envelope in positional keys.
const WHOLE: u32 = u32::MAX;
/// The index of the letter that holds what is over [`SINGLE_LETTERS`].
const REST: u32 = u32::MAX - 1;

/// Longer message ids do not fit the column for them.
const LONGEST_MESSAGE_ID: usize = 255;

/// An envelope whose payload was opened and peeked into.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) header: &'a Header,
    pub(crate) payload: &'a [u8],
    pub(crate) peek: &'a Peek<'a>,
}

/// An update that could not be normalised.
pub(crate) struct Failed<'a> {
    pub(crate) index: usize,
    pub(crate) keys: &'a TenantKeys,
    pub(crate) reason: String,
}

/// The key of an update: by what identifies it, else by its place.
pub(crate) fn event_key(opened: &Opened<'_>, index: usize, keys: &TenantKeys) -> EventKey {
    let identity = opened.peek.updates.get(index).and_then(|update| update.identity(opened.peek));
    match identity {
        Some(identity) => keys.event_hash.event_key(&identity),
        None => keys.event_hash.positional_key(opened.header.id, position(index)),
    }
}

/// A dead letter for each update, in envelopes of their own.
pub(crate) fn of_updates(opened: &Opened<'_>, mut failed: Vec<Failed<'_>>, letters: &mut Vec<DeadLetter>) {
    let mut rest = if failed.len() > SINGLE_LETTERS { failed.split_off(SINGLE_LETTERS) } else { Vec::new() };
    for Failed { index, keys, reason } in failed {
        letters.push(DeadLetter {
            tenant: keys.tenant.clone(),
            provider: opened.header.provider,
            key: event_key(opened, index, keys),
            envelope: opened.header.id,
            received_at: opened.header.received_at,
            reason,
            sealed: part(opened, &[index], keys, Disposition::Deliver, "update", position(index)).into(),
            message: opened.peek.updates.get(index).and_then(message),
        });
    }
    while let Some(first) = rest.first() {
        let keys = first.keys;
        let (own, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|each| each.keys.tenant == keys.tenant);
        let indices: Vec<usize> = own.iter().map(|each| each.index).collect();
        letters.push(DeadLetter {
            tenant: keys.tenant.clone(),
            provider: opened.header.provider,
            key: keys.event_hash.positional_key(opened.header.id, REST),
            envelope: opened.header.id,
            received_at: opened.header.received_at,
            reason: "further updates of the webhook failed".to_owned(),
            sealed: part(opened, &indices, keys, Disposition::Deliver, "rest", REST).into(),
            message: None,
        });
        rest = others;
    }
}

/// A dead letter of an envelope as it is.
pub(crate) fn of_envelope(header: &Header, keys: &TenantKeys, delivery: &Delivery, reason: &str) -> DeadLetter {
    DeadLetter {
        tenant: header.tenant.clone(),
        provider: header.provider,
        key: keys.event_hash.positional_key(header.id, WHOLE),
        envelope: header.id,
        received_at: header.received_at,
        reason: reason.to_owned(),
        sealed: delivery.payload.clone(),
        message: None,
    }
}

/// A dead letter of bytes that are no envelope: they name neither a tenant nor an id.
pub(crate) fn of_bytes(delivery: &Delivery) -> DeadLetter {
    let print = fingerprint(&delivery.payload);
    DeadLetter {
        tenant: TenantId::unassigned(),
        // Nothing says whose it is, and nobody asks: it is no message.
        provider: Provider::Meta,
        key: EventKey(print.0),
        envelope: EnvelopeId(Uuid::new_v8(print.0)),
        received_at: delivery.published_at,
        reason: "corrupt envelope".to_owned(),
        sealed: delivery.payload.clone(),
        message: None,
    }
}

/// An envelope that stays parked, as it is.
pub(crate) fn parked(
    header: &Header,
    reason: ParkReason,
    delivery: &Delivery,
    throttled: Vec<Option<String>>,
    pace: Option<Pace>,
) -> Parked {
    Parked {
        envelope: header.id,
        tenant: header.tenant.clone(),
        provider: header.provider,
        reason,
        number: header.number.clone(),
        received_at: header.received_at,
        updates: header.updates,
        sealed: delivery.payload.clone(),
        due_at: None,
        pace,
        throttled,
    }
}

/// Updates that belong to nobody now, in a parked envelope for each reason, under the keys of the unassigned.
pub(crate) fn park_aside(
    opened: &Opened<'_>,
    aside: BTreeMap<ParkReason, Vec<usize>>,
    unassigned: &TenantKeys,
    parked: &mut Vec<Parked>,
) {
    for (reason, indices) in aside {
        parked.push(Parked {
            envelope: derived(opened.header.id, reason.as_str(), WHOLE),
            tenant: unassigned.tenant.clone(),
            provider: opened.header.provider,
            reason,
            number: opened.header.number.clone(),
            received_at: opened.header.received_at,
            updates: position(indices.len()),
            due_at: None,
            pace: None,
            throttled: Vec::new(),
            sealed: part(opened, &indices, unassigned, Disposition::Parked(reason), reason.as_str(), WHOLE).into(),
        });
    }
}

/// A tenant's updates of an envelope that was nobody's, under the keys of that tenant: what its archive has of it.
pub(crate) fn of_owner(opened: &Opened<'_>, indices: &[usize], owner: &TenantKeys) -> RawPending {
    let purpose = format!("owner/{}", owner.tenant);
    RawPending {
        envelope: derived(opened.header.id, &purpose, WHOLE),
        sealed: part(opened, indices, owner, Disposition::Deliver, &purpose, WHOLE).into(),
    }
}

/// The pace of the first sender of an envelope: nearly always there is only one.
pub(crate) fn pace(peek: &Peek<'_>, keys: &TenantKeys, limits: &SenderLimits) -> Option<Pace> {
    let message = peek.updates.iter().find(|update| update.kind == UpdateKind::Message)?;
    let number = peek.changes.get(message.change).and_then(|change| change.phone_number_id.as_deref());
    let sender = keys.event_hash.sender_limit_key(peek.provider, number, message.sender.as_deref()?);
    let limit = limits.of(peek.provider);
    Some(Pace { sender, max: limit.max, window: limit.window })
}

/// Who sent the inbound messages of an envelope: the phone number of each, where it is one.
pub(crate) fn senders(peek: &Peek<'_>) -> Vec<Option<String>> {
    peek.updates.iter().filter(|update| update.kind == UpdateKind::Message).map(phone).collect()
}

/// Seals some updates of an envelope again.
fn part(
    opened: &Opened<'_>,
    indices: &[usize],
    keys: &TenantKeys,
    disposition: Disposition,
    purpose: &str,
    index: u32,
) -> Vec<u8> {
    let mut keep = vec![false; opened.peek.updates.len()];
    for index in indices {
        keep[*index] = true;
    }
    let key = keys.sealing();
    let header = Header {
        id: derived(opened.header.id, purpose, index),
        tenant: keys.tenant.clone(),
        disposition,
        key: key.id().to_owned(),
        updates: position(indices.len()),
        ..opened.header.clone()
    };
    sealing::seal(header, &cut(opened.payload, opened.peek, &keep), key)
}

/// See the module's documentation.
fn derived(envelope: EnvelopeId, purpose: &str, index: u32) -> EnvelopeId {
    let origin = [b"wharf/derived-envelope/v1", envelope.0.as_bytes().as_slice(), &index.to_be_bytes()].concat();
    EnvelopeId(Uuid::new_v8(fingerprint(&[&origin, purpose.as_bytes()].concat()).0))
}

/// The id and the sender's phone number of an inbound message, for the row that says it failed.
fn message(update: &Update<'_>) -> Option<(String, Option<String>)> {
    if update.kind != UpdateKind::Message {
        return None;
    }
    let id = update.id.as_deref().filter(|id| id.chars().count() <= LONGEST_MESSAGE_ID)?;
    Some((id.to_owned(), phone(update)))
}

/// The sender's phone number as E.164, if the sender is one.
fn phone(update: &Update<'_>) -> Option<String> {
    // A user id has letters or a dot; a phone number is written with or without `+`.
    let is_phone = |sender: &&str| !sender.chars().any(|char| char == '.' || char.is_alphabetic());
    let sender = update.sender.as_deref().filter(is_phone)?;
    let phone: String = std::iter::once('+').chain(sender.chars().filter(char::is_ascii_digit)).collect();
    (phone.len() > 1).then_some(phone)
}

fn position(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
