//! Parking and raw envelopes in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use common::{EnvelopeId, Timestamp};
use ports::Unavailable;
use ports::event_store::Parked;
use ports::parking::{Due, ParkedFilter, ParkedGroup, ParkedRow, Parking};
use ports::raw::{RawIndex, RawPlace};

use super::database::Database;
use super::{MemoryBackend, Operation};

/// What is known of parked envelopes beside their rows.
#[derive(Default)]
pub(super) struct Held {
    /// By the monotonic clock.
    taken_until: HashMap<EnvelopeId, Duration>,
    forced: HashSet<EnvelopeId>,
}

impl Held {
    pub(super) fn forget_leases(&mut self) {
        self.taken_until.clear();
    }
}

fn row(parked: &Parked) -> ParkedRow {
    ParkedRow {
        envelope: parked.envelope,
        tenant: parked.tenant.clone(),
        reason: parked.reason,
        number: parked.number.clone(),
        received_at: parked.received_at,
        updates: parked.updates,
        due_at: parked.due_at,
    }
}

fn matches(filter: &ParkedFilter, parked: &Parked) -> bool {
    filter.envelope.is_none_or(|envelope| envelope == parked.envelope)
        && filter.tenant.as_ref().is_none_or(|tenant| *tenant == parked.tenant)
        && filter.reason.is_none_or(|reason| reason == parked.reason)
        && (filter.number.is_none() || filter.number == parked.number)
}

impl Database {
    /// Parks an envelope if it is not parked yet, at its sender's pace.
    pub(super) fn park(&mut self, mut parked: Parked) -> bool {
        if self.parked.contains_key(&parked.envelope) {
            return false;
        }
        if let Some(pace) = parked.pace {
            let own = self.parked.values().filter(|each| {
                each.tenant == parked.tenant && each.pace.is_some_and(|other| other.sender == pace.sender)
            });
            let mut turns: Vec<Timestamp> = own.filter_map(|each| each.due_at).collect();
            turns.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
            let last = usize::try_from(pace.max).unwrap().checked_sub(1).and_then(|at| turns.get(at));
            let turn = last.map(|at| at.plus(pace.window));
            parked.due_at = turn.max(Some(parked.received_at.plus(pace.window)));
        }
        self.parked.insert(parked.envelope, parked);
        true
    }

    fn in_order(&self) -> Vec<&Parked> {
        let mut all: Vec<&Parked> = self.parked.values().collect();
        all.sort_by_key(|parked| (parked.received_at, parked.envelope));
        all
    }
}

#[async_trait]
impl Parking for MemoryBackend {
    async fn list(
        &self,
        filter: &ParkedFilter,
        after: Option<(Timestamp, EnvelopeId)>,
        limit: u32,
    ) -> Result<Vec<ParkedRow>, Unavailable> {
        let work = || {
            let database = self.database();
            let behind = |parked: &&Parked| after.is_none_or(|after| (parked.received_at, parked.envelope) > after);
            let found = database.in_order().into_iter().filter(|parked| matches(filter, parked)).filter(behind);
            found.take(usize::try_from(limit).unwrap()).map(row).collect()
        };
        self.faults().run(Operation::Parking, work).await
    }

    async fn groups(&self) -> Result<Vec<ParkedGroup>, Unavailable> {
        let work = || {
            let mut groups: BTreeMap<_, ParkedGroup> = BTreeMap::new();
            for parked in self.database().parked.values() {
                let key = (parked.tenant.clone(), parked.reason.as_str(), parked.number.clone());
                let group = groups.entry(key).or_insert_with(|| ParkedGroup {
                    tenant: parked.tenant.clone(),
                    reason: parked.reason,
                    number: parked.number.clone(),
                    envelopes: 0,
                    updates: 0,
                    oldest: parked.received_at,
                });
                group.envelopes += 1;
                group.updates += u64::from(parked.updates);
                group.oldest = group.oldest.min(parked.received_at);
            }
            groups.into_values().collect()
        };
        self.faults().run(Operation::Parking, work).await
    }

    async fn make_due(&self, filter: &ParkedFilter, at: Timestamp, forced: bool) -> Result<u64, Unavailable> {
        let work = || {
            let mut database = self.database();
            let database = &mut *database;
            let mut count = 0;
            for parked in database.parked.values_mut().filter(|parked| matches(filter, parked)) {
                count += 1;
                parked.due_at = Some(parked.due_at.map_or(at, |due_at| due_at.min(at)));
                if forced {
                    database.held_aside.taken_until.remove(&parked.envelope);
                    database.held_aside.forced.insert(parked.envelope);
                }
            }
            count
        };
        self.faults().run(Operation::Parking, work).await
    }

    async fn take_due(&self, now: Timestamp, max: usize, lease: Duration) -> Result<Vec<Due>, Unavailable> {
        let clock = self.monotonic();
        let work = || {
            let mut database = self.database();
            let database = &mut *database;
            let held = &database.held_aside;
            let is_free = |parked: &&Parked| held.taken_until.get(&parked.envelope).is_none_or(|until| *until <= clock);
            let is_due = |parked: &&Parked| parked.due_at.is_some_and(|due_at| due_at <= now);
            let mut due: Vec<&Parked> = database.parked.values().filter(is_due).filter(is_free).collect();
            due.sort_by_key(|parked| (parked.due_at, parked.received_at, parked.envelope));
            due.truncate(max);
            let taken: Vec<Due> = due
                .into_iter()
                .map(|parked| Due {
                    row: row(parked),
                    is_forced: held.forced.contains(&parked.envelope),
                    sealed: parked.sealed.clone(),
                })
                .collect();
            for due in &taken {
                database.held_aside.taken_until.insert(due.row.envelope, clock + lease);
            }
            taken
        };
        self.faults().run(Operation::Parking, work).await
    }

    async fn put_back(&self, envelopes: &[EnvelopeId], due_at: Option<Timestamp>) -> Result<(), Unavailable> {
        let work = || {
            let mut database = self.database();
            for envelope in envelopes {
                if database.held_aside.taken_until.remove(envelope).is_none() {
                    continue;
                }
                database.held_aside.forced.remove(envelope);
                if let Some(parked) = database.parked.get_mut(envelope) {
                    parked.due_at = due_at;
                }
            }
        };
        self.faults().run(Operation::Parking, work).await
    }

    async fn expire(&self, received_before: Timestamp, max: usize) -> Result<Vec<ParkedRow>, Unavailable> {
        let work = || {
            let mut database = self.database();
            let old = database.in_order().into_iter().filter(|parked| parked.received_at < received_before);
            let expired: Vec<ParkedRow> = old.take(max).map(row).collect();
            for row in &expired {
                database.parked.remove(&row.envelope);
            }
            expired
        };
        self.faults().run(Operation::Parking, work).await
    }
}

#[async_trait]
impl RawIndex for MemoryBackend {
    async fn find(&self, envelope: EnvelopeId) -> Result<Option<RawPlace>, Unavailable> {
        let work = || {
            let database = self.database();
            if let Some(object) = database.raw_objects.get(&envelope) {
                return Some(RawPlace::Object(object.clone()));
            }
            let pending = database.raw_pending.iter().find(|pending| pending.envelope == envelope);
            let here = pending.map(|pending| &pending.sealed);
            here.or(database.parked.get(&envelope).map(|parked| &parked.sealed)).cloned().map(RawPlace::Here)
        };
        self.faults().run(Operation::Raw, work).await
    }

    async fn forget_below(&self, object: &str, max: usize) -> Result<u64, Unavailable> {
        let work = || {
            let mut database = self.database();
            let below = database.raw_objects.values().filter(|place| place.object.as_str() < object);
            let below: Vec<EnvelopeId> = below.map(|place| place.envelope).take(max).collect();
            for envelope in &below {
                database.raw_objects.remove(envelope);
            }
            below.len() as u64
        };
        self.faults().run(Operation::Raw, work).await
    }
}
