//! How records and messages add up, the same in every backend.
//!
//! What a transaction adds is gathered here first, sorted by key: each row is written once, and transactions that write
//! the same rows do so in the same order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use common::envelope::ParkReason;
use common::record::{Outcome, RequestRecord, SignatureStatus};
use common::update::Provider;
use common::{TenantId, Timestamp};

use super::PerformanceRow;
use crate::event_store::{Detail, NewUpdate, Parked};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The window of the senders' limits that are counted, and the step of the statistics that people read.
pub const WINDOW: Duration = Duration::from_hours(1);
/// A duplicate that comes later than this after the first was let through although the gateway remembers: its key had
/// expired.
pub const LATE: Duration = Duration::from_hours(24);
/// A longer phone number is none.
const LONGEST_PHONE: usize = 32;

/// The years 1 to 9999, in milliseconds. Others' clocks may show anything; what is outside counts at the end, so that no
/// two keys become one in a database that has fewer years.
const FIRST: i64 = -62_135_596_800_000;
const LAST: i64 = 253_402_300_799_999;

/// When the minute of a moment began.
pub fn minute(at: Timestamp) -> Timestamp {
    step(at, MINUTE)
}

/// When the hour of a moment began (UTC).
pub fn hour(at: Timestamp) -> Timestamp {
    step(at, HOUR)
}

fn step(at: Timestamp, length: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().clamp(FIRST, LAST).div_euclid(length) * length)
}

/// Upper bounds of the buckets in milliseconds: 0.1, and each 1.05 times the one before, up to the first over 10 s. What
/// is slower is in one bucket more. The migrations make the same bounds by the same multiplications.
static BOUNDS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let bounds = std::iter::successors(Some(0.1), |bound| (*bound < 10_000.0).then_some(bound * 1.05));
    bounds.collect()
});

/// How many answers took how long.
///
/// A percentile is interpolated within its bucket, whose ends lie 5 % apart: it is never wrong by more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    /// With these counts, one for each bucket from the quickest on; those that are missing are 0.
    pub const fn new(counts: Vec<u64>) -> Self {
        Self(counts)
    }

    /// Upper bounds of all buckets but the last, which has none, in milliseconds.
    pub fn bounds() -> &'static [f64] {
        &BOUNDS
    }

    /// The counts up to the last that is not 0.
    pub fn counts(&self) -> &[u64] {
        &self.0
    }

    /// Counts answers that took this long.
    pub fn count(&mut self, ms: f64, answers: u64) {
        self.count_in(BOUNDS.partition_point(|bound| *bound < ms), answers);
    }

    /// Counts answers in a bucket.
    pub fn count_in(&mut self, bucket: usize, answers: u64) {
        if answers == 0 {
            return;
        }
        if bucket >= self.0.len() {
            self.0.resize(bucket.min(BOUNDS.len()) + 1, 0);
        }
        self.0[bucket.min(BOUNDS.len())] += answers;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in other.0.iter().enumerate() {
            self.count_in(bucket, *count);
        }
    }

    /// The time within which this share (0 to 1) of the answers came, where the slowest took `max_ms`; 0 without any.
    pub fn percentile(&self, share: f64, max_ms: f64) -> f64 {
        let total: u64 = self.0.iter().sum();
        let wanted = share * number(total);
        let mut before = 0.0;
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = number(*count);
            if before + count >= wanted {
                let lower = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] };
                let upper = BOUNDS.get(bucket).map_or(max_ms, |bound| bound.min(max_ms));
                return lower + (upper - lower) * (wanted - before) / count;
            }
            before += count;
        }
        if total == 0 { 0.0 } else { max_ms }
    }
}

/// A count as a number to calculate with. It is exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "counts do not reach 2⁵³")]
const fn number(count: u64) -> f64 {
    count as f64
}

/// Requests to one path in one minute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint<'a> {
    /// When the minute began.
    pub minute: Timestamp,
    /// Whose webhooks they claim to be.
    pub source: Provider,
    /// The path, without prefix.
    pub path: &'a str,
}

/// How requests were answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// All.
    pub requests: u64,
    /// Answered 2xx.
    pub succeeded: u64,
    /// Answered 5xx.
    pub failed: u64,
    /// The sum of their times in milliseconds.
    pub sum_ms: f64,
    /// The longest of their times in milliseconds.
    pub max_ms: f64,
    /// Their times.
    pub histogram: Histogram,
}

impl Answers {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.sum_ms += other.sum_ms;
        self.max_ms = self.max_ms.max(other.max_ms);
        self.histogram.add(&other.histogram);
    }

    /// What they come to.
    pub fn row(&self, source: Provider, endpoint: String, hour: Timestamp) -> PerformanceRow {
        let counted = self.succeeded + self.failed;
        PerformanceRow {
            source,
            endpoint,
            hour,
            requests: self.requests,
            average_ms: if self.requests == 0 { 0.0 } else { self.sum_ms / number(self.requests) },
            p95_ms: self.histogram.percentile(0.95, self.max_ms),
            p99_ms: self.histogram.percentile(0.99, self.max_ms),
            success_rate: if counted == 0 { 100.0 } else { 100.0 * number(self.succeeded) / number(counted) },
        }
    }
}

/// What requests have in common, beside their minute and source, that statistics of security count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind<'a> {
    /// The check of the signature.
    pub signature: SignatureStatus,
    /// The answer.
    pub http_status: u16,
    /// Whether they look like an attempt at something.
    pub suspicious: bool,
    /// Why; empty where there is nothing to say.
    pub reason: &'a str,
}

/// What request records add to the roll-ups.
#[derive(Debug, Default)]
pub struct Requests<'a> {
    /// By path.
    pub answers: BTreeMap<Endpoint<'a>, Answers>,
    /// By minute, source and kind.
    pub kinds: BTreeMap<(Timestamp, Provider, Kind<'a>), u64>,
    /// Those that were refused, by minute, source and address.
    pub refused: BTreeMap<(Timestamp, Provider, IpAddr), u64>,
}

impl<'a> Requests<'a> {
    /// Of these records.
    pub fn of(records: impl IntoIterator<Item = &'a RequestRecord>) -> Self {
        let mut all = Self::default();
        for record in records {
            all.add(record);
        }
        all
    }

    fn add(&mut self, record: &'a RequestRecord) {
        let (minute, source, requests) = (minute(record.received_at), record.provider, u64::from(record.weight));
        let answers = self.answers.entry(Endpoint { minute, source, path: &record.endpoint }).or_default();
        answers.requests += requests;
        match record.http_status {
            200..300 => answers.succeeded += requests,
            500..600 => answers.failed += requests,
            _ => {}
        }
        answers.sum_ms += record.processing_ms * f64::from(record.weight);
        answers.max_ms = answers.max_ms.max(record.processing_ms);
        answers.histogram.count(record.processing_ms, requests);
        let kind = Kind {
            signature: record.signature,
            http_status: record.http_status,
            suspicious: record.suspicious,
            reason: record.reason.as_deref().unwrap_or_default(),
        };
        *self.kinds.entry((minute, source, kind)).or_default() += requests;
        if record.outcome == Outcome::Refused {
            *self.refused.entry((minute, source, record.source_ip)).or_default() += requests;
        }
    }
}

/// A sender in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender<'a> {
    /// When the window began.
    pub window: Timestamp,
    /// Whose messages they are.
    pub tenant: &'a TenantId,
    /// Whose webhooks they came in.
    pub source: Provider,
    /// The phone number, E.164; empty for all senders who are known otherwise.
    pub phone: &'a str,
}

/// Messages of a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Handed out.
    pub delivered: u64,
    /// Parked because the sender was over the limit.
    pub blocked: u64,
}

/// Messages that were not handed out as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Parked because their sender was over the limit.
    pub throttled: u64,
    /// Duplicates that came [`LATE`].
    pub late: u64,
}

/// What a commit adds to the roll-ups. Only what is new in its transaction is to be counted, so that an envelope that is
/// delivered again is not.
#[derive(Debug, Default)]
pub struct Messages<'a> {
    /// By window and sender.
    pub senders: BTreeMap<Sender<'a>, Sent>,
    /// By minute and source.
    pub held: BTreeMap<(Timestamp, Provider), Held>,
}

impl<'a> Messages<'a> {
    /// Counts a new update, if it is an inbound message.
    pub fn delivered(&mut self, update: &'a NewUpdate) {
        if matches!(update.event.detail, Detail::Message { .. }) {
            let phone = update.event.party.phone.as_deref();
            self.sent(update.received_at, &update.tenant, update.provider, phone).delivered += 1;
        }
    }

    /// Counts the messages of a newly parked envelope, if they are throttled.
    pub fn parked(&mut self, parked: &'a Parked) {
        if parked.reason != ParkReason::Throttled || parked.throttled.is_empty() {
            return;
        }
        for phone in &parked.throttled {
            self.sent(parked.received_at, &parked.tenant, parked.provider, phone.as_deref()).blocked += 1;
        }
        self.held(parked.received_at, parked.provider).throttled += parked.throttled.len() as u64;
    }

    /// Counts a message that came again, in an envelope that was not counted yet, if it came late.
    pub fn repeated(&mut self, update: &NewUpdate, first_seen: Timestamp) {
        if update.received_at.since(first_seen) > LATE {
            self.held(update.received_at, update.provider).late += 1;
        }
    }

    fn sent(&mut self, at: Timestamp, tenant: &'a TenantId, source: Provider, phone: Option<&'a str>) -> &mut Sent {
        let phone = phone.filter(|phone| is_phone(phone)).unwrap_or_default();
        self.senders.entry(Sender { window: hour(at), tenant, source, phone }).or_default()
    }

    fn held(&mut self, at: Timestamp, source: Provider) -> &mut Held {
        self.held.entry((minute(at), source)).or_default()
    }
}

/// Whether it may stand in a key. What others sent as a phone number may be anything.
fn is_phone(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default();
    !digits.is_empty() && text.len() <= LONGEST_PHONE && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: impl IntoIterator<Item = f64>) -> (Histogram, f64) {
        let (mut histogram, mut max) = (Histogram::default(), 0.0_f64);
        for ms in times {
            histogram.count(ms, 1);
            max = max.max(ms);
        }
        (histogram, max)
    }

    #[test]
    fn bounds_reach_from_a_tenth_of_a_millisecond_over_ten_seconds() {
        let bounds = Histogram::bounds();
        assert_eq!(bounds.len(), 237);
        assert!((bounds[0] - 0.1).abs() < 1e-9 && bounds[235] < 10_000.0 && bounds[236] > 10_000.0);
        assert!(bounds.windows(2).all(|pair| (pair[1] / pair[0] - 1.05).abs() < 1e-9));
    }

    #[test]
    fn percentiles_are_right_to_a_few_percent_whatever_the_distribution() {
        let uniform: Vec<f64> = (1..=10_000).map(|n| f64::from(n) / 10.0).collect();
        let skewed: Vec<f64> = (1..=10_000).map(|n| 0.3 * (f64::from(n) / 1500.0).exp()).collect();
        let two_humps: Vec<f64> =
            (0..10_000).map(|n| if n < 9700 { 1.0 + f64::from(n) / 1e5 } else { 900.0 + f64::from(n) / 1e3 }).collect();
        for times in [uniform, skewed, two_humps] {
            let (histogram, max) = of(times.iter().copied());
            for (share, index) in [(0.5, 4999), (0.95, 9499), (0.99, 9899)] {
                let (told, exact) = (histogram.percentile(share, max), times[index]);
                assert!((told / exact - 1.0).abs() < 0.05, "{share}: {told} for {exact}");
            }
        }
    }

    #[test]
    fn a_percentile_is_interpolated_within_its_bucket() {
        let bounds = Histogram::bounds();
        let mut histogram = Histogram::default();
        histogram.count_in(0, 50);
        histogram.count_in(10, 50);
        let (lower, upper) = (bounds[9], bounds[10]);
        assert!((histogram.percentile(0.25, 9.0) - 0.05).abs() < 1e-9);
        assert!((histogram.percentile(0.75, 9.0) - lower.midpoint(upper)).abs() < 1e-9);
        assert!((histogram.percentile(1.0, 9.0) - upper).abs() < 1e-9);
        let slowest = lower.midpoint(upper);
        assert!((histogram.percentile(1.0, slowest) - slowest).abs() < 1e-9, "nothing is slower than the slowest");
    }

    #[test]
    fn the_ends_of_a_histogram_are_in_it() {
        assert!(Histogram::default().percentile(0.95, 0.0).abs() < 1e-9);
        let (instant, max) = of([0.0; 3]);
        assert_eq!(instant.counts(), [3]);
        assert!(instant.percentile(0.95, max).abs() < 1e-9);
        let (slow, max) = of([20_000.0, 30_000.0]);
        assert_eq!(slow.counts().len(), Histogram::bounds().len() + 1);
        assert!((slow.percentile(1.0, max) - 30_000.0).abs() < 1e-9);
        assert_eq!(of([f64::NAN, f64::INFINITY]).0.counts().iter().sum::<u64>(), 2);
        assert_eq!(of([0.1, 0.100_001]).0.counts(), [1, 1], "a bound belongs to what is below");
    }

    #[test]
    fn histograms_add_up_whatever_their_lengths() {
        let mut sum = Histogram::new(vec![1, 2]);
        sum.add(&Histogram::new(vec![0, 1, 0, 4]));
        assert_eq!(sum.counts(), [1, 3, 0, 4]);
        sum.add(&Histogram::default());
        assert_eq!(sum.counts(), [1, 3, 0, 4]);
    }

    #[test]
    fn any_moment_has_a_minute_and_an_hour() {
        let far = |millis| minute(Timestamp::from_millis(millis));
        assert_eq!([far(i64::MAX), far(i64::MIN)], [far(LAST), far(FIRST)]);
        assert_eq!(minute(Timestamp::from_millis(-1)), Timestamp::from_millis(-60_000));
        assert_eq!(hour(Timestamp::from_millis(3_600_001)), Timestamp::from_millis(3_600_000));
        assert_eq!(hour(Timestamp::from_millis(-1)), Timestamp::from_millis(-3_600_000));
    }

    #[test]
    fn only_what_is_a_phone_number_is_a_key() {
        for (text, is) in
            [("+491700000001", true), ("+", false), ("", false), ("491700000001", false), ("+49\0", false)]
        {
            assert_eq!(is_phone(text), is, "{text:?}");
        }
        assert!(!is_phone(&format!("+{}", "1".repeat(40))));
    }
}
