//! From verified bytes to envelopes: who owns each update, what is parked, what is sealed together.
//!
//! No I/O, so that all of it can be tested and measured by itself. Three steps, because admission is asked in between:
//! [`plan`] (peek, tenants, keys), the verdicts, then [`Planned::envelopes`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::directory::{OpenDirectory, Owner, TenantKeys, TenantStatus};
use common::envelope::{Disposition, Header, Lane, Packing, ParkReason};
use common::sealing::seal;
use common::trace::TraceContext;
use common::update::{Provider, UpdateKind, fingerprint};
use common::{AppId, EnvelopeId, EventKey, NumberId, RequestId, TenantId, Timestamp};
use ports::admission::{Candidate, Remembered, Verdict};
use ports::event_bus::{Outgoing, Stream};
use providers::peek::{Change, Peek, Update};
use providers::{cut, peek};
use ring::digest;

/// What is known of a verified request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Who sent it.
    pub provider: Provider,
    /// The app whose secret signed it.
    pub app: AppId,
    /// The client's address.
    pub source_ip: IpAddr,
    /// When its last byte arrived.
    pub received_at: Timestamp,
    /// Its place in a trace.
    pub trace: TraceContext,
    /// The provider's name for the delivery, if it has one.
    pub delivery: Option<String>,
}

/// An update with its owner.
struct PlannedUpdate {
    tenant: Arc<TenantKeys>,
    number: Option<NumberId>,
    lane: Lane,
    parked: Option<ParkReason>,
    key: Option<EventKey>,
    candidate: Candidate,
    is_message: bool,
}

/// A request taken apart, before admission.
pub struct Planned<'a> {
    body: &'a [u8],
    peek: Option<Peek<'a>>,
    updates: Vec<PlannedUpdate>,
    unassigned: Arc<TenantKeys>,
}

/// A request that cannot be planned: the directory lacks the reserved tenant's keys.
#[derive(Debug, thiserror::Error)]
#[error("the directory has no keys for the reserved tenant")]
pub struct Incomplete;

/// Takes a verified body apart. A body without any readable update is a plan too: it is parked whole.
pub fn plan<'a>(
    body: &'a [u8],
    request: &Request,
    directory: &OpenDirectory,
    max_event_age: Duration,
) -> Result<Planned<'a>, Incomplete> {
    let unassigned = directory.tenant(&TenantId::unassigned()).ok_or(Incomplete)?.clone();
    // Nothing that was signed is dropped, so a body in which no update can be found is kept whole.
    let Some(peek) = peek(request.provider, body).ok().filter(|peek| !peek.updates.is_empty()) else {
        return Ok(Planned { body, peek: None, updates: Vec::new(), unassigned });
    };
    let peek = peek.named(request.delivery.as_deref(), body);
    let age_matters = has_age_limit(request.provider) && !peek.is_dashboard_test();
    let mut owners: Vec<Option<(Arc<TenantKeys>, Option<ParkReason>)>> = vec![None; peek.changes.len()];
    let mut updates = Vec::with_capacity(peek.updates.len());
    for update in &peek.updates {
        let change = &peek.changes[update.change];
        let (tenant, mut parked) =
            owners[update.change].get_or_insert_with(|| owner(change, request, directory, &unassigned)).clone();
        let lane = lane(change);
        if parked.is_none() && age_matters && lane == Lane::Live && is_too_old(update, request, max_event_age) {
            parked = Some(ParkReason::TooOld);
        }
        let number = change.phone_number_id.as_deref().and_then(|id| NumberId::new(id).ok());
        let key = update.identity(&peek).map(|identity| tenant.event_hash.event_key(&identity));
        let is_message = update.kind == UpdateKind::Message;
        let sender = match update.sender.as_deref() {
            Some(sender) if is_message && parked.is_none() => {
                let number = number.as_ref().map(NumberId::as_str);
                Some(tenant.event_hash.sender_limit_key(request.provider, number, sender))
            }
            _ => None,
        };
        let bytes = &body[update.range.clone()];
        let candidate = Candidate { tenant: tenant.tenant.clone(), key, fingerprint: fingerprint(bytes), sender };
        updates.push(PlannedUpdate { tenant, number, lane, parked, key, candidate, is_message });
    }
    Ok(Planned { body, peek: Some(peek), updates, unassigned })
}

fn owner(
    change: &Change<'_>,
    request: &Request,
    directory: &OpenDirectory,
    unassigned: &Arc<TenantKeys>,
) -> (Arc<TenantKeys>, Option<ParkReason>) {
    let (number, waba) = (change.phone_number_id.as_deref(), change.waba_id.as_deref());
    let reason = match directory.owner(&request.app, number, waba, request.received_at) {
        Owner::Tenant(id) => match directory.tenant(&id) {
            Some(keys) if keys.status == TenantStatus::Active => return (keys.clone(), None),
            Some(keys) => {
                let paused = keys.status == TenantStatus::Paused;
                return (keys.clone(), Some(if paused { ParkReason::Paused } else { ParkReason::Suspended }));
            }
            None => ParkReason::UnknownTenant,
        },
        Owner::ForeignApp => ParkReason::ForeignApp,
        Owner::Unknown => ParkReason::UnknownTenant,
    };
    (unassigned.clone(), Some(reason))
}

fn lane(change: &Change<'_>) -> Lane {
    if change.field.as_deref() == Some("history") { Lane::Bulk } else { Lane::Live }
}

/// Whether old updates are parked: where the provider repeats what it could not deliver for days. Whoever signs a generic
/// message may send it as late as they like. What has no time is never old.
const fn has_age_limit(provider: Provider) -> bool {
    match provider {
        Provider::Meta | Provider::Twilio => true,
        Provider::Generic => false,
    }
}

fn is_too_old(update: &Update<'_>, request: &Request, max_age: Duration) -> bool {
    update.timestamp.is_some_and(|at| request.received_at.since(at) > max_age)
}

/// What makes updates travel in one envelope.
#[derive(Clone, PartialEq, Eq)]
struct Group {
    tenant: TenantId,
    number: Option<NumberId>,
    disposition: Disposition,
    lane: Lane,
}

/// The envelopes of a request, and what its record says.
pub struct Envelopes {
    /// To publish, all at once.
    pub messages: Vec<Outgoing>,
    /// The dispositions, beside the messages.
    pub dispositions: Vec<Disposition>,
    /// To remember once everything is acknowledged.
    pub remember: Vec<Remembered>,
}

impl Planned<'_> {
    /// What to ask admission.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.updates.iter().map(|update| update.candidate.clone()).collect()
    }

    /// Whether it is what the "Test" button of Meta's dashboard sends.
    pub fn is_dashboard_test(&self) -> bool {
        self.peek.as_ref().is_some_and(Peek::is_dashboard_test)
    }

    /// Whether the body could not be read as a webhook.
    pub const fn is_unreadable(&self) -> bool {
        self.peek.is_none()
    }

    /// How many updates there are.
    pub const fn count(&self) -> usize {
        self.updates.len()
    }

    /// The first update's tenant, key and kind, for the record.
    pub fn first(&self) -> Option<(&TenantId, Option<EventKey>, &'static str)> {
        let (update, peeked) = (self.updates.first()?, self.peek.as_ref()?.updates.first()?);
        Some((&update.tenant.tenant, update.key, peeked.kind.as_str()))
    }

    /// The keys of the inbound messages, with their tenants, in order.
    pub fn messages(&self) -> impl Iterator<Item = (usize, &TenantId, EventKey)> {
        let messages = self.updates.iter().enumerate().filter(|(_, update)| update.is_message);
        messages.filter_map(|(index, update)| Some((index, &update.tenant.tenant, update.key?)))
    }

    /// Reasons for parking among the updates, before admission.
    pub fn park_reasons(&self) -> impl Iterator<Item = ParkReason> {
        self.updates.iter().filter_map(|update| update.parked)
    }

    /// Cuts and seals one envelope for each (tenant, number, disposition, lane), in the order of their first update.
    pub fn envelopes(&self, request: &Request, verdicts: &[Verdict]) -> Envelopes {
        let body_sha256 = hex::encode(digest::digest(&digest::SHA256, self.body));
        let Some(peek) = &self.peek else {
            let group = Group {
                tenant: TenantId::unassigned(),
                number: None,
                disposition: Disposition::Parked(ParkReason::Unreadable),
                lane: Lane::Live,
            };
            let message = envelope(request, &group, self.body, 0, &body_sha256, &self.unassigned);
            return Envelopes { messages: vec![message], dispositions: vec![group.disposition], remember: Vec::new() };
        };
        let mut groups: Vec<(Group, Vec<usize>)> = Vec::new();
        for (index, update) in self.updates.iter().enumerate() {
            let over_limit = verdicts.get(index).is_some_and(|verdict| verdict.over_limit);
            let reason = update.parked.or(over_limit.then_some(ParkReason::Throttled));
            let group = Group {
                tenant: update.tenant.tenant.clone(),
                number: update.number.clone(),
                disposition: reason.map_or(Disposition::Deliver, Disposition::Parked),
                lane: update.lane,
            };
            // The last group first: neighbours nearly always go together.
            match groups.iter_mut().rev().find(|(known, _)| *known == group) {
                Some((_, members)) => members.push(index),
                None => groups.push((group, vec![index])),
            }
        }
        let single = groups.len() == 1;
        let messages = groups.iter().map(|(group, members)| {
            let payload = if single { Cow::Borrowed(self.body) } else { self.cut(peek, members) };
            let tenant = &self.updates[members[0]].tenant;
            let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
            envelope(request, group, &payload, count, &body_sha256, tenant)
        });
        let remember = self.updates.iter().filter_map(|update| {
            Some(Remembered {
                tenant: update.tenant.tenant.clone(),
                key: update.key?,
                fingerprint: update.candidate.fingerprint,
            })
        });
        Envelopes {
            messages: messages.collect(),
            dispositions: groups.iter().map(|(group, _)| group.disposition).collect(),
            remember: remember.collect(),
        }
    }

    fn cut(&self, peek: &Peek<'_>, members: &[usize]) -> Cow<'_, [u8]> {
        let mut keep = vec![false; peek.updates.len()];
        for index in members {
            keep[*index] = true;
        }
        cut(self.body, peek, &keep)
    }
}

fn envelope(
    request: &Request,
    group: &Group,
    payload: &[u8],
    updates: u32,
    body_sha256: &str,
    keys: &TenantKeys,
) -> Outgoing {
    let key = keys.sealing();
    let header = Header {
        id: EnvelopeId::fresh(),
        request: request.id,
        provider: request.provider,
        app: request.app.clone(),
        tenant: group.tenant.clone(),
        number: group.number.clone(),
        received_at: request.received_at,
        disposition: group.disposition,
        lane: group.lane,
        source_ip: request.source_ip,
        body_sha256: body_sha256.to_owned(),
        key: key.id().to_owned(),
        packing: Packing::Plain,
        size: 0,
        updates,
        trace: request.trace,
        delivery: request.delivery.clone(),
    };
    Outgoing {
        stream: Stream::Inbound(group.lane),
        subject: format!("inbound.{}.{}", group.lane.as_str(), group.tenant),
        payload: Bytes::from(seal(header, payload, key)),
        dedup_id: None,
    }
}

#[cfg(test)]
mod tests;
