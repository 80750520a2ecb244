//! Compares what was acknowledged with what is in the database, in the feed and on the bus, tenant by tenant.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use simulator::UpdateRef;

use crate::consumer::Read;
use crate::load::Sent;
use crate::stored::Tables;

/// Updates of a tenant, each with the number of times it is there.
type Counted<'a> = BTreeMap<&'a str, HashMap<&'a UpdateRef, usize>>;

/// All that is compared.
pub(crate) struct Evidence<'a> {
    pub(crate) sent: &'a Sent,
    /// As often as each was acknowledged.
    pub(crate) acknowledged: &'a [UpdateRef],
    pub(crate) tables: &'a Tables,
    /// The feed, read at the end.
    pub(crate) feed: &'a Read,
    /// The feed, read while all that happened.
    pub(crate) followed: &'a Read,
    /// Ids of events on the bus.
    pub(crate) published: &'a HashSet<String>,
}

/// All that is not as it should be, a line each.
pub(crate) fn problems(evidence: &Evidence<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    let Evidence { sent, acknowledged, tables, feed, followed, published } = evidence;

    let taken = counted(acknowledged.iter().map(|update| (sent.genuine[update], update)));
    let genuine = counted(sent.genuine.iter().map(|(update, tenant)| (*tenant, update)));
    let stored = counted(tables.updates.iter().map(|(tenant, update)| (tenant.as_str(), update)));
    let out = counted(feed.events.iter().map(|event| (event.tenant.as_str(), &event.update)));
    let tenants: BTreeSet<_> = [&taken, &genuine, &stored, &out].into_iter().flat_map(|each| each.keys()).collect();
    let nothing = HashMap::new();
    for tenant in tenants {
        let acknowledged = of(&taken, tenant);
        differ(&mut problems, tenant, "sent and never acknowledged", &of(&genuine, tenant), &acknowledged);
        for (there, name) in [(of(&stored, tenant), "the database"), (of(&out, tenant), "the feed")] {
            differ(&mut problems, tenant, &format!("LOST: acknowledged and not in {name}"), &acknowledged, &there);
            differ(&mut problems, tenant, &format!("FOREIGN: in {name} and never acknowledged"), &there, &acknowledged);
        }
        for (name, there) in [("the database", &stored), ("the feed", &out)] {
            for (update, count) in there.get(tenant).unwrap_or(&nothing) {
                let of_acknowledged =
                    taken.get(tenant).and_then(|taken| taken.get(update)).copied().unwrap_or_default();
                // Account-level fields have no id by which a repetition could be known.
                let is_wrong = if update.phone_number_id.is_empty() { *count < of_acknowledged } else { *count != 1 };
                if is_wrong {
                    let line =
                        format!("{tenant}: {count} times in {name}, {of_acknowledged} times acknowledged: {update}");
                    problems.push(line);
                }
            }
        }
    }
    let forged = feed.events.iter().filter(|event| sent.forged.contains(&event.update)).count();
    note(&mut problems, forged == 0, || format!("{forged} forged updates in the feed"));
    order(&mut problems, tables, feed, followed);

    let ids: HashSet<_> = feed.events.iter().map(|event| &event.id).collect();
    note(&mut problems, ids.len() == feed.events.len(), || "an event id comes twice in the feed".to_owned());
    let unpublished = ids.iter().filter(|id| !published.contains(**id)).count();
    note(&mut problems, unpublished == 0, || format!("{unpublished} events of the feed are not on the bus"));
    let unknown = published.iter().filter(|id| !ids.contains(id)).count();
    note(&mut problems, unknown == 0, || format!("{unknown} events on the bus are not in the feed"));
    problems
}

/// Positions grow, pages have all that is between their cursors, and who followed has seen the same as who came late.
fn order(problems: &mut Vec<String>, tables: &Tables, feed: &Read, followed: &Read) {
    let grows = tables.positions.windows(2).all(|pair| pair[0] < pair[1]);
    note(problems, grows, || "a position is taken twice".to_owned());
    let last = tables.positions.last().copied().unwrap_or_default();
    note(problems, tables.head >= last, || format!("the head is at {}, the last event at {last}", tables.head));
    for (name, read) in [("at the end", feed), ("on the way", followed)] {
        let mut after_before = 0;
        for (after, next, count) in &read.pages {
            let up_to = |position: u64| {
                tables.positions.partition_point(|known| u64::try_from(*known).is_ok_and(|known| known <= position))
            };
            let there = up_to(*next) - up_to(*after);
            if next <= after || *after < after_before || there != *count {
                problems.push(format!("read {name}: {count} events from {after} to {next}, where there are {there}"));
            }
            after_before = *next;
        }
    }
    let same = feed.events == followed.events;
    note(problems, same, || {
        let at = feed.events.iter().zip(&followed.events).take_while(|(one, other)| one == other).count();
        let (all, seen) = (feed.events.len(), followed.events.len());
        format!(
            "who followed the feed saw {seen} events, who read it at the end {all}; they differ from number {at} on"
        )
    });
    let events = i64::try_from(tables.positions.len()).unwrap();
    let rows = tables.updates.len();
    for (what, count) in [("event keys", tables.event_keys), ("rows of updates", i64::try_from(rows).unwrap())] {
        note(problems, count == events, || format!("{count} {what}, but {events} events"));
    }
}

fn of<'a>(all: &Counted<'a>, tenant: &str) -> HashSet<&'a UpdateRef> {
    all.get(tenant).into_iter().flat_map(HashMap::keys).copied().collect()
}

fn counted<'a>(updates: impl Iterator<Item = (&'a str, &'a UpdateRef)>) -> Counted<'a> {
    let mut counted = Counted::new();
    for (tenant, update) in updates {
        *counted.entry(tenant).or_default().entry(update).or_insert(0) += 1;
    }
    counted
}

/// What of `these` is not among `those`.
fn differ(
    problems: &mut Vec<String>,
    tenant: &str,
    what: &str,
    these: &HashSet<&UpdateRef>,
    those: &HashSet<&UpdateRef>,
) {
    let missing: BTreeSet<_> = these.difference(those).collect();
    if let Some(first) = missing.first() {
        problems.push(format!("{tenant}: {what}: {}, such as {first}", missing.len()));
    }
}

fn note(problems: &mut Vec<String>, holds: bool, problem: impl FnOnce() -> String) {
    if !holds {
        problems.push(problem());
    }
}
