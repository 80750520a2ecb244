//! Statistics in memory: added up anew for each question, from all that was ever recorded.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use common::record::RequestRecord;
use common::update::Provider;
use common::{EventKey, TenantId, Timestamp};
use ports::Unavailable;
use ports::statistics::rollup::{Answers, Requests, hour, minute};
use ports::statistics::{
    PerformanceRow, ProcessingRow, SecurityRow, SecurityTotals, Statistics, TOP_ADDRESSES, is_invalid,
};

use super::database::Database;
use super::{MemoryBackend, Operation};

/// Whether a minute belongs to a time.
fn is_within(start: Timestamp, since: Timestamp, until: Timestamp) -> bool {
    start >= minute(since) && start < until
}

impl Database {
    fn all_records(&self) -> impl Iterator<Item = &RequestRecord> {
        self.record_batches.iter().flat_map(|batch| &batch.records)
    }

    /// How long the first answer took, and how many duplicates were stopped.
    fn receipt(&self, tenant: &TenantId, key: EventKey) -> (Option<f64>, u64) {
        let (mut took, mut duplicates) = (None, 0);
        for record in self.all_records() {
            for messages in record.messages.iter().filter(|messages| messages.tenant == *tenant) {
                if messages.stored.contains(&key) {
                    took.get_or_insert(record.processing_ms);
                }
                duplicates += messages.duplicates.iter().filter(|each| **each == key).count() as u64;
            }
        }
        (took, duplicates)
    }

    fn processing(&self, source: Option<Provider>, since: Timestamp, until: Timestamp) -> Vec<ProcessingRow> {
        let mut rows: BTreeMap<(&str, &str), (ProcessingRow, Vec<f64>)> = BTreeMap::new();
        for ((tenant, key), tracked) in &self.tracked {
            let provider = tracked.provider;
            if source.is_some_and(|only| only != provider) || tracked.created_at < since || tracked.created_at >= until
            {
                continue;
            }
            let status = if tracked.failed { "failed" } else { "completed" };
            let (row, times) = rows.entry((provider.webhook_source(), status)).or_insert_with(|| {
                let row = ProcessingRow {
                    source: provider,
                    status: status.to_owned(),
                    messages: 0,
                    average_ms: 0.0,
                    max_ms: 0.0,
                    duplicates: 0,
                    errors: 0,
                };
                (row, Vec::new())
            });
            let (took, duplicates) = self.receipt(tenant, *key);
            row.messages += 1;
            row.duplicates += duplicates + tracked.envelopes.len().saturating_sub(1) as u64;
            row.errors += tracked.failures.len() as u64;
            times.extend(took);
        }
        let finish = |(mut row, times): (ProcessingRow, Vec<f64>)| {
            row.max_ms = times.iter().copied().fold(0.0, f64::max);
            row.average_ms = times.iter().sum::<f64>() / f64::from(u32::try_from(times.len().max(1)).unwrap());
            row
        };
        rows.into_values().map(finish).collect()
    }

    fn security(&self, source: Option<Provider>, since: Timestamp, until: Timestamp) -> Vec<SecurityRow> {
        let mut rows: BTreeMap<(Reverse<Timestamp>, &str), SecurityRow> = BTreeMap::new();
        for ((minute, provider, kind), count) in Requests::of(self.all_records()).kinds {
            if source.is_some_and(|only| only != provider) || !is_within(minute, since, until) {
                continue;
            }
            let hour = hour(minute);
            let row = rows.entry((Reverse(hour), provider.webhook_source())).or_insert(SecurityRow {
                source: provider,
                hour,
                requests: 0,
                valid: 0,
                invalid: 0,
                suspicious: 0,
            });
            row.requests += count;
            row.valid += if kind.signature == common::record::SignatureStatus::Valid { count } else { 0 };
            row.invalid += if is_invalid(kind.signature) { count } else { 0 };
            row.suspicious += if kind.suspicious { count } else { 0 };
        }
        rows.into_values().collect()
    }

    fn performance(&self, source: Option<Provider>, since: Timestamp, until: Timestamp) -> Vec<PerformanceRow> {
        let mut rows: BTreeMap<(Reverse<Timestamp>, &str, &str), (Provider, Answers)> = BTreeMap::new();
        for (endpoint, answers) in Requests::of(self.all_records()).answers {
            let provider = endpoint.source;
            if source.is_some_and(|only| only != provider) || !is_within(endpoint.minute, since, until) {
                continue;
            }
            let key = (Reverse(hour(endpoint.minute)), provider.webhook_source(), endpoint.path);
            rows.entry(key).or_insert((provider, Answers::default())).1.add(&answers);
        }
        let row = |((Reverse(hour), _, path), (provider, answers)): ((_, _, &str), (Provider, Answers))| {
            answers.row(provider, path.to_owned(), hour)
        };
        rows.into_iter().map(row).collect()
    }

    fn security_totals(&self, since: Timestamp, until: Timestamp) -> SecurityTotals {
        let mut totals = SecurityTotals::default();
        let requests = Requests::of(self.all_records());
        for ((_, _, kind), count) in requests.kinds.iter().filter(|((minute, ..), _)| is_within(*minute, since, until))
        {
            totals.add(*kind, *count);
        }
        let mut addresses = BTreeMap::new();
        for ((minute, _, address), count) in &requests.refused {
            if is_within(*minute, since, until) {
                *addresses.entry(*address).or_default() += count;
            }
        }
        totals.top_addresses = addresses.into_iter().collect();
        totals.top_addresses.sort_by_key(|(address, count)| (Reverse(*count), address.to_string()));
        totals.top_addresses.truncate(TOP_ADDRESSES);
        for (_, held) in self.held.iter().filter(|(minute, _)| is_within(**minute, since, until)) {
            totals.throttled_messages += held.throttled;
            totals.late_duplicates += held.late;
        }
        totals
    }
}

#[async_trait]
impl Statistics for MemoryBackend {
    async fn processing(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<ProcessingRow>, Unavailable> {
        let work = || self.database().processing(source, since, until);
        self.faults().run(Operation::ReadStatistics, work).await
    }

    async fn security(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<SecurityRow>, Unavailable> {
        let work = || self.database().security(source, since, until);
        self.faults().run(Operation::ReadStatistics, work).await
    }

    async fn performance(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<PerformanceRow>, Unavailable> {
        let work = || self.database().performance(source, since, until);
        self.faults().run(Operation::ReadStatistics, work).await
    }

    async fn security_totals(&self, since: Timestamp, until: Timestamp) -> Result<SecurityTotals, Unavailable> {
        self.faults().run(Operation::ReadStatistics, || self.database().security_totals(since, until)).await
    }
}
