//! Request records: gathered in memory, published about once a second, bounded whatever happens.
//!
//! An accepted request keeps a record of its own. Refused ones do so up to a number per second and kind; more of them
//! add to the weight of the last of the same address, else of the last, so that a flood costs exact counters and a few
//! samples, not a row each. All that statistics count by is what makes a kind. Records wait while the bus is down, up to
//! a number; then they merge too.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use common::record::{Outcome, RecordBatch, RequestRecord, SignatureStatus};
use common::update::Provider;
use ports::event_bus::{EventBus, Outgoing, PublishError, Stream};
use service::names;
use uuid::Uuid;

/// Refused requests of one kind that keep a record of their own, per interval.
const SAMPLES: usize = 20;
/// Records waiting at most.
const MAX_WAITING: usize = 50_000;
/// Records and message keys in one message, so that it stays far below what the bus takes.
const PER_MESSAGE: usize = 500;
const KEYS_PER_MESSAGE: usize = 20_000;

/// The fixed words of a record, as they were before they became text: looking for its kind allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Words {
    pub(crate) endpoint: &'static str,
    /// Empty where there is nothing to say.
    pub(crate) reason: &'static str,
}

/// What makes requests alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    words: Words,
    provider: Provider,
    signature: SignatureStatus,
    http_status: u16,
    outcome: Outcome,
    suspicious: bool,
    /// Since the epoch: statistics are by the minute.
    minute: i64,
}

impl Kind {
    const fn of(words: Words, record: &RequestRecord) -> Self {
        Self {
            words,
            provider: record.provider,
            signature: record.signature,
            http_status: record.http_status,
            outcome: record.outcome,
            suspicious: record.suspicious,
            minute: record.received_at.as_secs().div_euclid(60),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<RequestRecord>,
    /// For each kind the number in this interval and the index of the last of them.
    samples: HashMap<Kind, (usize, usize)>,
    /// The index of the last record of each kind from each address that was refused in this interval.
    addresses: HashMap<(Kind, IpAddr), usize>,
}

impl Records {
    /// Takes a record with these words in it.
    pub(crate) fn push(&self, words: Words, record: RequestRecord) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept_whole = matches!(record.outcome, Outcome::Accepted | Outcome::Duplicate);
        let kind = Kind::of(words, &record);
        let next = waiting.records.len();
        let (count, last) = waiting.samples.get(&kind).copied().unwrap_or((0, next));
        let full = next >= MAX_WAITING;
        if count > 0 && (full || (!kept_whole && count >= SAMPLES)) {
            metrics::counter!(names::RECORDS_MERGED).increment(1);
            let same = waiting.addresses.get(&(kind, record.source_ip)).copied().unwrap_or(last);
            merge(&mut waiting.records[same], &record);
            return;
        }
        if !kept_whole {
            waiting.addresses.insert((kind, record.source_ip), next);
        }
        // The first of its kind is kept even if everything is full: there are few kinds.
        waiting.samples.insert(kind, (count + 1, next));
        waiting.records.push(record);
    }

    fn take(&self) -> Vec<RequestRecord> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.samples.clear();
        waiting.addresses.clear();
        std::mem::take(&mut waiting.records)
    }

    /// Puts records back that could not be published, in front of what came meanwhile.
    fn put_back(&self, mut records: Vec<RequestRecord>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shift = records.len();
        records.append(&mut waiting.records);
        if records.len() > MAX_WAITING {
            // None of the places is right any more.
            waiting.samples.clear();
            waiting.addresses.clear();
            waiting.records = fold(records);
            return;
        }
        waiting.records = records;
        for (_, last) in waiting.samples.values_mut() {
            *last += shift;
        }
        for last in waiting.addresses.values_mut() {
            *last += shift;
        }
    }

    /// Publishes what is waiting. False if some of it could not be.
    pub(crate) async fn flush(&self, bus: &Arc<dyn EventBus>) -> bool {
        let records = self.take();
        if records.is_empty() {
            return true;
        }
        let (mut messages, mut parts) = (Vec::new(), Vec::new());
        let mut rest = records.into_iter();
        while !rest.as_slice().is_empty() {
            let size = part(rest.as_slice());
            let batch = RecordBatch { id: Uuid::now_v7(), records: rest.by_ref().take(size).collect() };
            // A second's worth of records must not hold up the answers that are due meanwhile.
            tokio::task::yield_now().await;
            match serde_json::to_vec(&batch) {
                Ok(json) => {
                    messages.push(Outgoing {
                        stream: Stream::Audit,
                        subject: "audit.requests".to_owned(),
                        payload: Bytes::from(json),
                        dedup_id: Some(batch.id.to_string()),
                    });
                    parts.push(batch.records);
                }
                Err(error) => tracing::error!(%error, "request records do not serialise"),
            }
        }
        let published = bus.publish(messages).await;
        let mut failed = Vec::new();
        for (part, answer) in parts.into_iter().zip(published) {
            match answer {
                Ok(_) => {}
                Err(PublishError::TooLarge { size, .. }) => {
                    // It would be refused for ever. Nothing but these records is lost.
                    tracing::error!(records = part.len(), size, "request records are too large for the bus; dropped");
                }
                Err(_) => failed.extend(part),
            }
        }
        let complete = failed.is_empty();
        if !complete {
            self.put_back(failed);
        }
        complete
    }
}

/// What makes records alike once their words are text.
type Likeness = (String, Option<String>, Provider, SignatureStatus, u16, Outcome, bool, i64);

fn likeness(record: &RequestRecord) -> Likeness {
    let minute = record.received_at.as_secs().div_euclid(60);
    let (endpoint, reason) = (record.endpoint.clone(), record.reason.clone());
    let answer = (record.signature, record.http_status, record.outcome, record.suspicious);
    (endpoint, reason, record.provider, answer.0, answer.1, answer.2, answer.3, minute)
}

/// Merges what is over the limit into those of the same kind; the first of a kind stays.
fn fold(mut records: Vec<RequestRecord>) -> Vec<RequestRecord> {
    let surplus = records.split_off(MAX_WAITING);
    let mut places: HashMap<Likeness, usize> =
        records.iter().enumerate().map(|(place, record)| (likeness(record), place)).collect();
    for record in surplus {
        match places.entry(likeness(&record)) {
            Entry::Occupied(place) => {
                metrics::counter!(names::RECORDS_MERGED).increment(1);
                merge(&mut records[*place.get()], &record);
            }
            Entry::Vacant(place) => {
                place.insert(records.len());
                records.push(record);
            }
        }
    }
    records
}

/// Adds requests to a record of the same kind. Its time becomes that of all of them on average.
fn merge(into: &mut RequestRecord, record: &RequestRecord) {
    let (before, added) = (f64::from(into.weight), f64::from(record.weight));
    into.processing_ms = (into.processing_ms * before + record.processing_ms * added) / (before + added).max(1.0);
    into.weight = into.weight.saturating_add(record.weight);
}

/// How many of the first records go into one message; at least one.
fn part(records: &[RequestRecord]) -> usize {
    let mut keys = 0;
    let fitting = records.iter().take(PER_MESSAGE).take_while(|record| {
        keys += record.messages.iter().map(|each| each.stored.len() + each.duplicates.len()).sum::<usize>();
        keys <= KEYS_PER_MESSAGE
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{RequestId, Timestamp};

    const WORDS: Words = Words { endpoint: "/webhook", reason: "" };

    fn record(outcome: Outcome, status: u16) -> RequestRecord {
        RequestRecord {
            request: RequestId::fresh(),
            received_at: Timestamp::default(),
            source_ip: "192.0.2.1".parse().unwrap(),
            provider: common::update::Provider::Meta,
            endpoint: "/webhook".into(),
            app: None,
            tenant: None,
            event: None,
            event_type: None,
            event_count: 0,
            signature: SignatureStatus::Invalid,
            http_status: status,
            outcome,
            reason: None,
            suspicious: false,
            processing_ms: 0.1,
            weight: 1,
            messages: Vec::new(),
        }
    }

    #[test]
    fn a_flood_of_refusals_keeps_exact_counts_in_few_records() {
        let records = Records::default();
        for _ in 0..10_000 {
            records.push(WORDS, record(Outcome::Refused, 403));
        }
        records.push(WORDS, record(Outcome::Accepted, 200));
        let taken = records.take();
        assert_eq!(taken.len(), SAMPLES + 1);
        assert_eq!(taken.iter().map(|each| each.weight).sum::<u32>(), 10_001);
    }

    #[test]
    fn what_comes_while_records_cannot_be_published_stays_within_the_limit() {
        let records = Records::default();
        let mut sent = 0;
        for _ in 0..3 {
            for _ in 0..=MAX_WAITING / 2 {
                records.push(WORDS, record(Outcome::Accepted, 200));
                sent += 1;
            }
            let taken = records.take();
            // While they are on their way.
            records.push(WORDS, record(Outcome::Refused, 403));
            sent += 1;
            records.put_back(taken);
        }
        let taken = records.take();
        assert!(taken.len() <= MAX_WAITING + 2, "{}", taken.len());
        assert_eq!(taken.iter().map(|each| each.weight).sum::<u32>(), sent);
    }

    #[test]
    fn nothing_that_statistics_count_by_is_merged_away() {
        let one = || record(Outcome::Refused, 403);
        let list = Words { reason: "address-list", ..WORDS };
        let kinds = [
            (WORDS, one()),
            (list, one()),
            (Words { endpoint: "/webhooks/meta", ..WORDS }, one()),
            (WORDS, RequestRecord { provider: Provider::Twilio, ..one() }),
            (WORDS, RequestRecord { suspicious: true, ..one() }),
            (WORDS, RequestRecord { signature: SignatureStatus::Missing, ..one() }),
            (WORDS, RequestRecord { received_at: Timestamp::from_secs(60), ..one() }),
        ];
        let records = Records::default();
        for _ in 0..1000 {
            for (words, record) in &kinds {
                records.push(*words, record.clone());
            }
        }
        let taken = records.take();
        assert_eq!(taken.len(), kinds.len() * SAMPLES);
        let weight = |is: &dyn Fn(&RequestRecord) -> bool| {
            taken.iter().filter(|each| is(each)).map(|each| each.weight).sum::<u32>()
        };
        assert_eq!(weight(&|each| each.provider == Provider::Twilio), 1000);
        assert_eq!(weight(&|each| each.suspicious), 1000);
        assert_eq!(weight(&|each| each.received_at == Timestamp::from_secs(60)), 1000);
    }

    #[test]
    fn what_is_merged_counts_for_its_address_and_its_time() {
        let records = Records::default();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for n in 0..1000 {
            let (source_ip, processing_ms) = if n % 10 == 0 { (other, 9.0) } else { (one, 1.0) };
            records.push(WORDS, RequestRecord { source_ip, processing_ms, ..record(Outcome::Refused, 403) });
        }
        let taken = records.take();
        let of = |address: IpAddr| taken.iter().filter(move |each| each.source_ip == address).map(|each| each.weight);
        assert_eq!((of(one).sum::<u32>(), of(other).sum::<u32>()), (900, 100));
        let sum: f64 = taken.iter().map(|each| each.processing_ms * f64::from(each.weight)).sum();
        assert!((sum - 1800.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn memory_is_bounded_while_the_bus_is_down() {
        let records = Records::default();
        for _ in 0..2 * MAX_WAITING {
            records.push(WORDS, record(Outcome::Accepted, 200));
        }
        let taken = records.take();
        assert_eq!(taken.len(), MAX_WAITING);
        assert_eq!(taken.iter().map(|each| each.weight as usize).sum::<usize>(), 2 * MAX_WAITING);
    }

    #[test]
    fn a_message_is_bounded_by_keys_as_well_as_by_records() {
        let mut records = vec![record(Outcome::Accepted, 200); 600];
        assert_eq!(part(&records), PER_MESSAGE);
        for record in &mut records {
            record.messages = vec![common::record::RecordedMessages {
                tenant: common::TenantId::default(),
                stored: vec![common::EventKey([0; 16]); 2000],
                duplicates: Vec::new(),
            }];
        }
        assert_eq!(part(&records), 10);
        let size = serde_json::to_vec(&records[..10]).unwrap().len();
        assert!(size < Stream::MAX_MESSAGE_BYTES / 4, "{size}");
    }

    #[test]
    fn what_is_put_back_goes_first_and_weights_stay_where_they_belong() {
        let records = Records::default();
        records.push(WORDS, record(Outcome::Accepted, 200));
        let first = records.take();
        for _ in 0..=SAMPLES {
            records.push(WORDS, record(Outcome::Refused, 403));
        }
        records.put_back(first);
        records.push(WORDS, record(Outcome::Refused, 403));
        let taken = records.take();
        assert_eq!(taken[0].http_status, 200);
        assert_eq!(taken[0].weight, 1);
        assert_eq!(taken.last().unwrap().weight, 3);
    }
}
