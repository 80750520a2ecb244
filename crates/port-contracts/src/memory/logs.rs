//! Message log and request log in memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use common::TenantId;
use common::record::RecordBatch;
use ports::Unavailable;
use ports::message_log::{LoggedMessage, MessageFilter, MessageLog, MessagePage, MessageTotals};
use ports::request_log::RequestLog;

use super::database::Database;
use super::{MemoryBackend, Operation};

impl Database {
    fn of_tenant(&self, tenant: Option<&TenantId>) -> impl Iterator<Item = &LoggedMessage> {
        self.messages.iter().filter(move |message| tenant.is_none_or(|own| *own == message.tenant))
    }

    fn search(&self, filter: &MessageFilter) -> MessagePage {
        let needle = filter.text.as_ref().map(|text| text.to_lowercase());
        let has_text = |message: &LoggedMessage, needle: &str| {
            message.text.as_ref().is_some_and(|text| text.to_lowercase().contains(needle))
        };
        let matches = |message: &&LoggedMessage| filter.from.is_none() || filter.from == message.from;
        let mut found: Vec<&LoggedMessage> = self
            .of_tenant(filter.tenant.as_ref())
            .filter(matches)
            .filter(|message| filter.message_id.as_ref().is_none_or(|id| *id == message.message_id))
            .filter(|message| filter.since.is_none_or(|since| message.at >= since))
            .filter(|message| needle.as_ref().is_none_or(|needle| has_text(message, needle)))
            .collect();
        found.sort_by_key(|message| (message.at, &message.message_id));
        let (offset, limit) = (usize::try_from(filter.offset).unwrap(), usize::try_from(filter.limit).unwrap());
        MessagePage {
            total: found.len() as u64,
            messages: found.into_iter().skip(offset).take(limit).cloned().collect(),
        }
    }

    fn totals(&self, tenant: Option<&TenantId>) -> MessageTotals {
        let mut senders: BTreeMap<&String, u64> = BTreeMap::new();
        for from in self.of_tenant(tenant).filter_map(|message| message.from.as_ref()) {
            *senders.entry(from).or_default() += 1;
        }
        let mut top: Vec<(String, u64)> = senders.iter().map(|(from, count)| ((*from).clone(), *count)).collect();
        top.sort_by_key(|(_, count)| Reverse(*count));
        top.truncate(10);
        MessageTotals {
            messages: self.of_tenant(tenant).count() as u64,
            senders: senders.len() as u64,
            top_senders: top,
            first: self.of_tenant(tenant).map(|message| message.at).min(),
            last: self.of_tenant(tenant).map(|message| message.at).max(),
        }
    }
}

#[async_trait]
impl MessageLog for MemoryBackend {
    async fn search(&self, filter: &MessageFilter) -> Result<MessagePage, Unavailable> {
        self.faults().run(Operation::Search, || self.database().search(filter)).await
    }

    async fn totals(&self, tenant: Option<&TenantId>) -> Result<MessageTotals, Unavailable> {
        self.faults().run(Operation::Totals, || self.database().totals(tenant)).await
    }
}

#[async_trait]
impl RequestLog for MemoryBackend {
    async fn record(&self, batches: &[RecordBatch]) -> Result<(), Unavailable> {
        let work = || {
            let known = &mut self.database().record_batches;
            for batch in batches {
                if known.iter().all(|each| each.id != batch.id) {
                    known.push(batch.clone());
                }
            }
        };
        self.faults().run(Operation::Record, work).await
    }
}
