//! Reading: pulled envelopes become one batch for the store, without touching anything outside.
//!
//! This is the whole of the normalizer's thinking, as a function of the deliveries and the directory: what is decoded,
//! opened, resolved to a tenant, parsed, parked and given up. The same deliveries under the same directory give the same
//! keys and ids again, so a batch whose commit failed is simply read once more. It is CPU work; the caller decides on
//! which thread. What is known already, and what a dead letter costs, is not decided here.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use common::directory::{OpenDirectory, Owner, TenantKeys, TenantStatus};
use common::envelope::{self, Disposition, EnvelopeError, Header, ParkReason, Parts};
use common::event::EventType;
use common::sealing::{self, OpenError};
use common::{EnvelopeId, TenantId};
use ports::admission::SenderLimits;
use ports::event_bus::Delivery;
use ports::event_store::{Batch, CommitOutcome, DeadLetter, Detail, NewEvent, NewUpdate, StatusDetail};
use providers::parse::{Parsed, ParsedContent};
use providers::peek::{Peek, Unreadable};
use providers::{parse, peek};

use crate::letters::{self, Failed, Opened};
use crate::words;

/// What a set of deliveries comes to.
#[derive(Default)]
pub(crate) struct Reading {
    /// All but the raw bytes.
    pub(crate) batch: Batch,
    /// Where each update of the batch comes from, and how it counts.
    pub(crate) origins: Vec<Origin>,
    /// The deliveries that the batch settles.
    pub(crate) done: Vec<usize>,
    /// Those of them that are envelopes, for the archive.
    pub(crate) decoded: Vec<(usize, EnvelopeId)>,
    /// The deliveries that this process cannot read yet.
    pub(crate) waiting: Vec<(usize, Wait)>,
}

/// Where an update comes from.
pub(crate) struct Origin {
    pub(crate) delivery: usize,
    pub(crate) update: usize,
    pub(crate) event_type: EventType,
    /// Its field and type as words for metrics, if it is unsupported.
    pub(crate) unsupported: Option<(&'static str, &'static str)>,
}

/// Why an envelope cannot be read yet. More than its bytes is needed, so it is never given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// It was written by newer software.
    Version(u8),
    /// Its tenant is not in the directory.
    Tenant(TenantId),
    /// Its tenant has no key of that id.
    Key(TenantId),
}

/// Where an update belongs.
#[derive(Clone, Copy)]
enum Home<'d> {
    Tenant(&'d TenantKeys),
    Nobody(ParkReason),
}

/// Reads deliveries.
pub(crate) fn read(directory: &OpenDirectory, deliveries: &[Delivery], throttle: SenderLimits) -> Reading {
    let mut reading = Reading::default();
    for (index, delivery) in deliveries.iter().enumerate() {
        match reading.isolated(|reading| read_one(directory, delivery, index, throttle, reading)) {
            Outcome::Done => reading.done.push(index),
            Outcome::Waits(wait) => reading.waiting.push((index, wait)),
            Outcome::Panicked => {
                let letter = bury(directory, delivery, "the normalizer fails on it");
                reading.batch.dead_letters.push(letter);
                reading.done.push(index);
            }
        }
    }
    // Attempts are counted of what was delivered often. What seems to come for the first time has none, or its consumer
    // was made anew meanwhile: then a row stays that nobody reads.
    let came_before = reading.decoded.iter().filter(|(index, _)| deliveries[*index].delivered > 1);
    reading.batch.finished = came_before.map(|(_, envelope)| *envelope).collect();
    reading
}

/// Reads a parked envelope as if it were delivered now; `None` if it has to stay. Forced, it goes also to a tenant whose
/// traffic is held back. What has no owner goes to nobody.
pub(crate) fn release(
    directory: &OpenDirectory,
    delivery: &Delivery,
    is_forced: bool,
) -> Result<Option<Reading>, Wait> {
    let parts = match envelope::decode(&delivery.payload) {
        Ok(parts) => parts,
        Err(EnvelopeError::UnknownVersion(version)) => return Err(Wait::Version(version)),
        Err(EnvelopeError::Corrupt(_)) => return Ok(None),
    };
    let keys = keys_of(directory, &parts.header)?;
    let Ok(payload) = open(&parts, keys) else { return Ok(None) };
    let Ok(peek) = peeked(&parts.header, &payload) else { return Ok(None) };
    let homes = homes(directory, &parts.header, keys, &peek)?;
    let mut owners = homes.iter().filter_map(|home| match home {
        Home::Tenant(keys) => Some(keys.status),
        Home::Nobody(_) => None,
    });
    let Some(first) = owners.next() else { return Ok(None) };
    let held_back = std::iter::once(first).chain(owners).any(|status| status != TenantStatus::Active);
    if held_back && !is_forced {
        return Ok(None);
    }
    let mut reading = Reading::default();
    let opened = Opened { header: &parts.header, payload: &payload, peek: &peek };
    let work = |reading: &mut Reading| {
        deliver(directory, &opened, keys, 0, reading)?;
        hand_over(directory, &opened, reading);
        Ok(())
    };
    match reading.isolated(work) {
        Outcome::Done => Ok(Some(reading)),
        Outcome::Waits(wait) => Err(wait),
        Outcome::Panicked => Ok(None),
    }
}

/// Gives each tenant its own part of what was nobody's or another's, sealed under its keys, for the archive.
fn hand_over(directory: &OpenDirectory, opened: &Opened<'_>, reading: &mut Reading) {
    let mut parts: BTreeMap<TenantId, Vec<usize>> = BTreeMap::new();
    for (update, origin) in reading.batch.updates.iter().zip(&reading.origins) {
        if update.tenant != opened.header.tenant {
            parts.entry(update.tenant.clone()).or_default().push(origin.update);
        }
    }
    for (tenant, indices) in parts {
        let Some(owner) = directory.tenant(&tenant) else { continue };
        let raw = letters::of_owner(opened, &indices, owner);
        for update in reading.batch.updates.iter_mut().filter(|update| update.tenant == tenant) {
            update.envelope = raw.envelope;
        }
        reading.batch.raw_pending.push(raw);
    }
}

/// The id of an envelope that could be opened now; `None` if it waits, or is no envelope.
pub(crate) fn openable(directory: &OpenDirectory, delivery: &Delivery) -> Option<EnvelopeId> {
    let header = envelope::decode(&delivery.payload).ok()?.header;
    keys_of(directory, &header).is_ok().then_some(header.id)
}

/// A dead letter of the whole envelope, which is not opened.
pub(crate) fn bury(directory: &OpenDirectory, delivery: &Delivery, reason: &str) -> DeadLetter {
    let header = envelope::decode(&delivery.payload).ok().map(|parts| parts.header);
    let keys = header.as_ref().and_then(|header| directory.tenant(&header.tenant));
    match (header.as_ref(), keys) {
        (Some(header), Some(keys)) => letters::of_envelope(header, keys, delivery, reason),
        _ => letters::of_bytes(delivery),
    }
}

/// Dead letters for the updates that the database refused.
pub(crate) fn refused(
    directory: &OpenDirectory,
    deliveries: &[Delivery],
    origins: &[Origin],
    outcomes: Vec<CommitOutcome>,
) -> Vec<DeadLetter> {
    let mut refused: BTreeMap<usize, Vec<(usize, String)>> = BTreeMap::new();
    for (origin, outcome) in origins.iter().zip(outcomes) {
        if let CommitOutcome::Refused(reason) = outcome {
            refused.entry(origin.delivery).or_default().push((origin.update, reason));
        }
    }
    let mut dead = Vec::new();
    for (delivery, updates) in refused {
        // What was read a moment ago reads the same again.
        let Ok(parts) = envelope::decode(&deliveries[delivery].payload) else { continue };
        let Ok(keys) = keys_of(directory, &parts.header) else { continue };
        let Ok(payload) = open(&parts, keys) else { continue };
        let Ok(peek) = peeked(&parts.header, &payload) else { continue };
        let Ok(homes) = homes(directory, &parts.header, keys, &peek) else { continue };
        let failed = updates.into_iter().filter_map(|(index, reason)| match homes[peek.updates[index].change] {
            Home::Tenant(keys) => Some(Failed { index, keys, reason }),
            Home::Nobody(_) => None,
        });
        let opened = Opened { header: &parts.header, payload: &payload, peek: &peek };
        letters::of_updates(&opened, failed.collect(), &mut dead);
    }
    dead
}

enum Outcome {
    Done,
    Waits(Wait),
    Panicked,
}

impl Reading {
    /// Adds all that `work` adds, or nothing: if it waits or panics, its part is taken out again.
    fn isolated(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Wait>) -> Outcome {
        let (updates, origins) = (self.batch.updates.len(), self.origins.len());
        let (parked, dead, decoded) = (self.batch.parked.len(), self.batch.dead_letters.len(), self.decoded.len());
        let outcome = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(())) => return Outcome::Done,
            Ok(Err(wait)) => Outcome::Waits(wait),
            Err(_) => Outcome::Panicked,
        };
        self.batch.updates.truncate(updates);
        self.origins.truncate(origins);
        self.batch.parked.truncate(parked);
        self.batch.dead_letters.truncate(dead);
        self.decoded.truncate(decoded);
        outcome
    }
}

fn read_one(
    directory: &OpenDirectory,
    delivery: &Delivery,
    index: usize,
    throttle: SenderLimits,
    reading: &mut Reading,
) -> Result<(), Wait> {
    let parts = match envelope::decode(&delivery.payload) {
        Ok(parts) => parts,
        Err(EnvelopeError::UnknownVersion(version)) => return Err(Wait::Version(version)),
        Err(EnvelopeError::Corrupt(_)) => {
            reading.batch.dead_letters.push(letters::of_bytes(delivery));
            return Ok(());
        }
    };
    let header = &parts.header;
    tracing::debug!(envelope = %header.id, trace = %format_args!("{:032x}", header.trace.trace_id), "envelope");
    let keys = keys_of(directory, header)?;
    reading.decoded.push((index, header.id));
    let Ok(payload) = open(&parts, keys) else {
        reading.batch.dead_letters.push(letters::of_envelope(header, keys, delivery, "does not open"));
        return Ok(());
    };
    match (peeked(header, &payload), header.disposition) {
        // It goes to the archive, and no further.
        (_, Disposition::Refused) => Ok(()),
        (peek, Disposition::Parked(reason)) => {
            let (throttled, pace) = match peek {
                Ok(peek) if reason == ParkReason::Throttled => {
                    (letters::senders(&peek), letters::pace(&peek, keys, &throttle))
                }
                _ => (Vec::new(), None),
            };
            reading.batch.parked.push(letters::parked(header, reason, delivery, throttled, pace));
            Ok(())
        }
        (Err(unreadable), Disposition::Deliver) => {
            let letter = letters::of_envelope(header, keys, delivery, unreadable.reason);
            reading.batch.dead_letters.push(letter);
            Ok(())
        }
        (Ok(peek), Disposition::Deliver) => {
            deliver(directory, &Opened { header, payload: &payload, peek: &peek }, keys, index, reading)
        }
    }
}

fn deliver(
    directory: &OpenDirectory,
    opened: &Opened<'_>,
    keys: &TenantKeys,
    delivery: usize,
    reading: &mut Reading,
) -> Result<(), Wait> {
    let header = opened.header;
    let homes = homes(directory, header, keys, opened.peek)?;
    let mut failed = Vec::new();
    let mut aside: BTreeMap<ParkReason, Vec<usize>> = BTreeMap::new();
    reading.batch.updates.reserve(opened.peek.updates.len());
    for (index, update) in opened.peek.updates.iter().enumerate() {
        let keys = match homes[update.change] {
            Home::Tenant(keys) => keys,
            Home::Nobody(reason) => {
                aside.entry(reason).or_default().push(index);
                continue;
            }
        };
        match parse(opened.payload, opened.peek, index, header.received_at) {
            Ok(parsed) => {
                let field = opened.peek.changes[update.change].field.as_deref();
                let unsupported = parsed.event_type == EventType::Unsupported;
                let words = unsupported.then(|| (words::field(field), words::kind(update.r#type.as_deref())));
                let event_type = parsed.event_type;
                reading.origins.push(Origin { delivery, update: index, event_type, unsupported: words });
                reading.batch.updates.push(NewUpdate {
                    tenant: keys.tenant.clone(),
                    provider: header.provider,
                    key: letters::event_key(opened, index, keys),
                    envelope: header.id,
                    received_at: header.received_at,
                    event: event(parsed),
                });
            }
            Err(error) => failed.push(Failed { index, keys, reason: error.reason.to_owned() }),
        }
    }
    letters::of_updates(opened, failed, &mut reading.batch.dead_letters);
    if !aside.is_empty() {
        let unassigned = TenantId::unassigned();
        let keys = directory.tenant(&unassigned).ok_or(Wait::Tenant(unassigned))?;
        letters::park_aside(opened, aside, keys, &mut reading.batch.parked);
    }
    Ok(())
}

/// The keys of the tenant that the header names, if the one it is sealed under is among them.
fn keys_of<'d>(directory: &'d OpenDirectory, header: &Header) -> Result<&'d TenantKeys, Wait> {
    let keys = directory.tenant(&header.tenant).ok_or_else(|| Wait::Tenant(header.tenant.clone()))?;
    if keys.data_key(&header.key).is_some() { Ok(keys) } else { Err(Wait::Key(header.tenant.clone())) }
}

/// What identifies the updates of an envelope: what the gateway found.
fn peeked<'p>(header: &Header, payload: &'p [u8]) -> Result<Peek<'p>, Unreadable> {
    Ok(peek(header.provider, payload)?.named(header.delivery.as_deref(), payload))
}

fn open(parts: &Parts<'_>, keys: &TenantKeys) -> Result<Vec<u8>, OpenError> {
    let key = keys.data_key(&parts.header.key).ok_or(OpenError::NotAuthentic)?;
    sealing::open(parts, key)
}

/// Where the updates of each change belong. The gateway's tenant is a hint: the directory decides, as of the receipt.
fn homes<'d>(
    directory: &'d OpenDirectory,
    header: &Header,
    keys: &'d TenantKeys,
    peek: &Peek<'_>,
) -> Result<Vec<Home<'d>>, Wait> {
    let home = |number: Option<&str>, waba: Option<&str>| {
        Ok(match directory.owner(&header.app, number, waba, header.received_at) {
            Owner::Tenant(tenant) if tenant == keys.tenant => Home::Tenant(keys),
            Owner::Tenant(tenant) => Home::Tenant(directory.tenant(&tenant).ok_or(Wait::Tenant(tenant))?),
            Owner::ForeignApp => Home::Nobody(ParkReason::ForeignApp),
            Owner::Unknown => Home::Nobody(ParkReason::UnknownTenant),
        })
    };
    peek.changes.iter().map(|change| home(change.phone_number_id.as_deref(), change.waba_id.as_deref())).collect()
}

fn event(parsed: Parsed) -> NewEvent {
    let data: Box<str> = parsed.data.into();
    NewEvent {
        event_type: parsed.event_type,
        occurred_at: parsed.occurred_at,
        number: parsed.number.phone_number_id,
        display_number: parsed.number.display_phone_number.map(e164),
        waba: parsed.number.waba_id,
        party: parsed.party,
        group: parsed.group_id,
        data: Bytes::from(String::from(data)),
        detail: match parsed.content {
            ParsedContent::Message { id, r#type, text } => Detail::Message { id, kind: r#type, text },
            ParsedContent::Status {
                id,
                state,
                participant,
                conversation,
                pricing,
                errors,
                biz_opaque_callback_data,
            } => Detail::Status(StatusDetail {
                message_id: id,
                state,
                participant,
                conversation,
                pricing,
                errors,
                biz_opaque_callback_data,
            }),
            ParsedContent::Other { .. } => Detail::None,
        },
    }
}

/// A displayed number as E.164 where it is one (`4915155500011`, `+49 151 555000-11`), else as it is.
fn e164(displayed: String) -> String {
    let digits: String = displayed.chars().filter(char::is_ascii_digit).collect();
    let rest = displayed.chars().all(|c| c.is_ascii_digit() || " +-()./".contains(c));
    if rest && (7..=15).contains(&digits.len()) { format!("+{digits}") } else { displayed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_or_panics_leaves_nothing_behind() {
        let delivery = Delivery {
            subject: String::new(),
            payload: Bytes::new(),
            sequence: 1,
            delivered: 1,
            published_at: common::Timestamp::default(),
            token: ports::event_bus::AckToken(String::new()),
        };
        let mut reading = Reading::default();
        let add = |reading: &mut Reading| reading.batch.dead_letters.push(letters::of_bytes(&delivery));
        let done = reading.isolated(|reading| {
            add(reading);
            Ok(())
        });
        assert!(matches!(done, Outcome::Done));
        let waits = reading.isolated(|reading| {
            add(reading);
            Err(Wait::Version(9))
        });
        assert!(matches!(waits, Outcome::Waits(Wait::Version(9))));
        let panicked = reading.isolated(|reading| {
            add(reading);
            panic!("on purpose")
        });
        assert!(matches!(panicked, Outcome::Panicked));
        assert_eq!(reading.batch.dead_letters.len(), 1);
    }
}
