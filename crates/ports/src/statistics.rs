//! Statistics: what the requests and messages of a time come to.
//!
//! Requests are read from roll-ups by the minute, which [`RequestLog`](crate::request_log::RequestLog) and
//! [`EventStore`](crate::event_store::EventStore) fill in the transactions that store what they count: reading costs the
//! same however many requests there were. So times count by whole minutes: the minute of `since` belongs to a time, and
//! so does that of the last moment before `until`. Counts are exact where records are samples, since each has a weight.
//!
//! [`rollup`] is what backends share: how records and messages add up, and how percentiles are read from a histogram.

pub mod rollup;

use std::net::IpAddr;

use async_trait::async_trait;
use common::Timestamp;
use common::envelope::ParkReason;
use common::record::{REASON_ADDRESS_LIST, SignatureStatus};
use common::update::Provider;

use crate::Unavailable;

/// Addresses that [`SecurityTotals::top_addresses`] names at most.
pub const TOP_ADDRESSES: usize = 10;

/// Inbound messages of one source in one status.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessingRow {
    /// Whose webhooks they came in.
    pub source: Provider,
    /// The status in the table of messages.
    pub status: String,
    /// How many.
    pub messages: u64,
    /// How long the answers to their webhooks took on average, in milliseconds; 0 if none is known.
    pub average_ms: f64,
    /// How long the slowest took; 0 if none is known.
    pub max_ms: f64,
    /// How often they came again.
    pub duplicates: u64,
    /// How often they could not be normalised.
    pub errors: u64,
}

/// The requests of one source in one hour, by their signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityRow {
    /// Whose webhooks they claim to be.
    pub source: Provider,
    /// When the hour began (UTC).
    pub hour: Timestamp,
    /// All.
    pub requests: u64,
    /// With a valid signature.
    pub valid: u64,
    /// With a signature that is neither valid nor was left unchecked.
    pub invalid: u64,
    /// That look like an attempt at something.
    pub suspicious: u64,
}

/// The requests of one source to one path in one hour, by their answers.
#[derive(Clone, Debug, PartialEq)]
pub struct PerformanceRow {
    /// Whose webhooks they claim to be.
    pub source: Provider,
    /// The path, without prefix.
    pub endpoint: String,
    /// When the hour began (UTC).
    pub hour: Timestamp,
    /// How many.
    pub requests: u64,
    /// How long the answers took on average, in milliseconds.
    pub average_ms: f64,
    /// 95 % of the answers were as quick as this or quicker, as [`rollup::Histogram`] can tell.
    pub p95_ms: f64,
    /// The same for 99 %.
    pub p99_ms: f64,
    /// Of the answers 2xx and 5xx the share of 2xx, 0 to 100; 100 if there is neither.
    pub success_rate: f64,
}

/// What a report on security says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityTotals {
    /// All requests.
    pub requests: u64,
    /// Requests whose signature is neither valid nor was left unchecked, by what it was; those that there are.
    pub invalid_signatures: Vec<(SignatureStatus, u64)>,
    /// Suspicious requests by reason (empty where none was given), most first.
    pub suspicious: Vec<(String, u64)>,
    /// Replays: requests with updates older than the age limit.
    pub too_old: u64,
    /// Replays: inbound messages that came again when the gateway had forgotten them ([`rollup::LATE`]); each envelope
    /// counts once.
    pub late_duplicates: u64,
    /// Inbound messages parked because their sender was over the limit.
    pub throttled_messages: u64,
    /// Requests answered 429.
    pub over_limit: u64,
    /// Requests refused because their address is not on the list ([`REASON_ADDRESS_LIST`]).
    pub not_on_list: u64,
    /// Where refused requests came from, most first. Exact while the gateway keeps a sample of each address in a second;
    /// in a flood from more addresses than that, the last sample stands for the rest.
    pub top_addresses: Vec<(IpAddr, u64)>,
}

impl SecurityTotals {
    /// Adds requests of one kind.
    pub fn add(&mut self, kind: rollup::Kind<'_>, requests: u64) {
        self.requests += requests;
        if is_invalid(kind.signature) {
            match self.invalid_signatures.iter_mut().find(|(status, _)| *status == kind.signature) {
                Some((_, count)) => *count += requests,
                None => self.invalid_signatures.push((kind.signature, requests)),
            }
            self.invalid_signatures.sort_unstable();
        }
        if kind.suspicious {
            match self.suspicious.iter_mut().find(|(reason, _)| reason == kind.reason) {
                Some((_, count)) => *count += requests,
                None => self.suspicious.push((kind.reason.to_owned(), requests)),
            }
            self.suspicious.sort_unstable_by(|one, two| (two.1, &one.0).cmp(&(one.1, &two.0)));
        }
        for (total, counts) in [
            (&mut self.too_old, kind.reason == ParkReason::TooOld.as_str()),
            (&mut self.over_limit, kind.http_status == 429),
            (&mut self.not_on_list, kind.reason == REASON_ADDRESS_LIST),
        ] {
            *total += if counts { requests } else { 0 };
        }
    }
}

/// Whether a signature was checked and is not valid.
pub const fn is_invalid(signature: SignatureStatus) -> bool {
    !matches!(signature, SignatureStatus::Valid | SignatureStatus::Skipped)
}

/// See the module's documentation.
#[async_trait]
pub trait Statistics: Send + Sync {
    /// Inbound messages stored in this time, of one source or all, by source and status.
    ///
    /// Here the messages themselves are read, at exact times.
    async fn processing(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<ProcessingRow>, Unavailable>;

    /// Requests received in this time, of one source or all, by hour; the newest first, then by source.
    async fn security(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<SecurityRow>, Unavailable>;

    /// Requests received in this time, of one source or all, by hour and path; the newest first, then by source and path.
    async fn performance(
        &self,
        source: Option<Provider>,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<PerformanceRow>, Unavailable>;

    /// What a report on security says of this time.
    async fn security_totals(&self, since: Timestamp, until: Timestamp) -> Result<SecurityTotals, Unavailable>;
}
