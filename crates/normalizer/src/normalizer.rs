//! The step of a lane: a work of deliveries is read, archived and committed, once.
//!
//! An error means that nothing is settled and that trying the same work again is right; the loop around it
//! (`lane`) waits, holds and acknowledges. Attempts are counted only for envelopes that the bus delivered suspiciously
//! often, and an error outside the envelope takes its attempt back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use common::directory::OpenDirectory;
use common::{EnvelopeId, TenantId};
use ports::Unavailable;
use ports::admission::SenderLimits;
use ports::event_bus::{AckToken, Delivery};
use ports::event_store::{Batch, CommitOutcome, DeadLetter, EventStore, RawObject, RawPending};
use service::names;
use tokio::sync::Notify;

use crate::archive::Archive;
use crate::reading::{self, Origin, Reading, Wait};
use crate::{Config, Deps, DirectoryHandle};

/// Sealed bytes up to which a work is read on the thread that drives the loop.
const READ_IN_PLACE: usize = 64 << 10;
/// Raw envelopes moved to the blob store at once.
const SWEEP: usize = 256;
/// Bytes that are worth an object of their own, however few envelopes they are.
const ARCHIVE_BYTES: usize = 1 << 20;
/// Different reasons to wait that are remembered as logged.
const REMEMBERED_WAITS: usize = 1000;

/// Deliveries that are handled together, with what was already done for them.
#[derive(Debug)]
pub struct Work {
    deliveries: Arc<[Delivery]>,
    /// Whether its only envelope was delivered so often that it may be the reason.
    suspect: bool,
    /// The suspect's attempt has begun and was not taken back.
    attempt: Option<EnvelopeId>,
    /// Where its envelopes lie in the blob store; `None` if archiving was not tried yet.
    archived: Option<HashMap<EnvelopeId, RawObject>>,
}

impl Work {
    /// Splits what was pulled: suspects alone, the rest together as far as the bytes allow.
    pub fn split(deliveries: Vec<Delivery>, config: &Config) -> Vec<Self> {
        let (mut works, mut together, mut bytes) = (Vec::new(), Vec::new(), 0);
        for delivery in deliveries {
            if delivery.delivered > config.max_deliveries {
                works.push(Self::new(vec![delivery], true));
                continue;
            }
            let size = unpacked_size(&delivery);
            bytes += size;
            if bytes > config.batch_bytes && !together.is_empty() {
                works.push(Self::new(std::mem::take(&mut together), false));
                bytes = size;
            }
            together.push(delivery);
        }
        if !together.is_empty() {
            works.push(Self::new(together, false));
        }
        // What is suspected of never ending comes last.
        works.sort_by_key(|work| work.suspect);
        works
    }

    fn new(deliveries: Vec<Delivery>, suspect: bool) -> Self {
        Self { deliveries: deliveries.into(), suspect, attempt: None, archived: None }
    }

    /// What it consists of.
    pub fn deliveries(&self) -> Arc<[Delivery]> {
        Arc::clone(&self.deliveries)
    }
}

/// How much memory a delivery takes once it is open: envelopes are compressed.
fn unpacked_size(delivery: &Delivery) -> usize {
    let announced = common::envelope::decode(&delivery.payload).map_or(0, |parts| parts.header.size as usize);
    delivery.payload.len().max(announced)
}

/// What became of a work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// To acknowledge: committed.
    pub done: Vec<AckToken>,
    /// To hand back for later: this process cannot read them yet.
    pub waiting: Vec<AckToken>,
    /// Events that were made.
    pub events: usize,
}

/// See the module's documentation.
pub struct Normalizer {
    max_unfinished_attempts: u32,
    archive_at_once: usize,
    throttle: SenderLimits,
    store: Arc<dyn EventStore>,
    directory: DirectoryHandle,
    archive: Archive,
    wake_outbox: Arc<Notify>,
    logged: Mutex<HashSet<Wait>>,
}

impl std::fmt::Debug for Normalizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Normalizer").finish_non_exhaustive()
    }
}

impl Normalizer {
    /// A normalizer over these ports; it rings `wake_outbox` when it made events.
    #[expect(clippy::needless_pass_by_value, reason = "a configuration has one owner")]
    pub fn new(config: Config, deps: &Deps, wake_outbox: Arc<Notify>) -> Self {
        let (blobs, clock) = (Arc::clone(&deps.blobs), Arc::clone(&deps.clock));
        Self {
            max_unfinished_attempts: config.max_unfinished_attempts,
            archive_at_once: config.archive_at_once,
            throttle: config.throttle,
            store: Arc::clone(&deps.store),
            directory: Arc::clone(&deps.directory),
            archive: Archive::new(blobs, clock, config.blob_timeout, config.raw_sweep),
            wake_outbox,
            logged: Mutex::default(),
        }
    }

    /// Whether there is a directory. Without one everything would wait.
    pub fn is_ready(&self) -> bool {
        (self.directory)().is_some()
    }

    /// Tries a work once. On an error nothing is settled; the same work is to be tried again.
    pub async fn handle(&self, work: &mut Work) -> Result<Settled, Unavailable> {
        let Some(directory) = (self.directory)() else {
            let waiting = work.deliveries.iter().map(|delivery| delivery.token.clone()).collect();
            return Ok(Settled { waiting, ..Settled::default() });
        };
        let openable = work.suspect.then(|| reading::openable(&directory, &work.deliveries[0])).flatten();
        let Some(envelope) = openable else { return self.normalize(&directory, work).await };
        let handled = self.handle_suspect(envelope, &directory, work).await;
        let unfinished = handled.as_ref().map_or(true, |settled| settled.done.is_empty());
        if unfinished && work.attempt == Some(envelope) && self.store.take_back_attempt(envelope).await.is_ok() {
            work.attempt = None;
        }
        handled
    }

    async fn handle_suspect(
        &self,
        envelope: EnvelopeId,
        directory: &Arc<OpenDirectory>,
        work: &mut Work,
    ) -> Result<Settled, Unavailable> {
        if work.attempt.is_none() {
            let attempts = self.store.begin_attempt(envelope).await?;
            work.attempt = Some(envelope);
            if attempts > self.max_unfinished_attempts {
                return self.bury(envelope, directory, work).await;
            }
        }
        self.normalize(directory, work).await
    }

    /// Makes an envelope that nobody survived opening a dead letter, without opening it.
    async fn bury(&self, envelope: EnvelopeId, directory: &OpenDirectory, work: &Work) -> Result<Settled, Unavailable> {
        let delivery = &work.deliveries[0];
        let letter = reading::bury(directory, delivery, "unfinished attempts");
        let report = Report::of(std::slice::from_ref(&letter), None);
        let raw_pending = vec![RawPending { envelope, sealed: delivery.payload.clone() }];
        let batch = Batch { dead_letters: vec![letter], raw_pending, finished: vec![envelope], ..Batch::default() };
        self.store.commit(batch).await?;
        report.send();
        Ok(Settled { done: vec![delivery.token.clone()], ..Settled::default() })
    }

    async fn normalize(&self, directory: &Arc<OpenDirectory>, work: &mut Work) -> Result<Settled, Unavailable> {
        let mut reading = read(directory, &work.deliveries, self.throttle).await;
        self.log_waiting(&reading.waiting);
        let token = |index: usize| work.deliveries[index].token.clone();
        let mut settled = Settled {
            done: reading.done.iter().copied().map(token).collect(),
            waiting: reading.waiting.iter().map(|(index, _)| token(*index)).collect(),
            events: 0,
        };
        if settled.done.is_empty() {
            return Ok(settled);
        }
        self.archive(work, &mut reading).await;
        let batch = std::mem::take(&mut reading.batch);
        let parked: Vec<_> = batch.parked.iter().map(|parked| parked.reason).collect();
        let report = Report::of(&batch.dead_letters, None);
        let outcomes = self.store.commit(batch).await?.outcomes;
        report.send();
        metrics::histogram!(names::COMMIT_UPDATES).record(outcomes.len() as f64);
        for reason in parked {
            metrics::counter!(names::PARKED, "reason" => reason.as_str()).increment(1);
        }
        settled.events = outcomes.iter().filter(|outcome| **outcome == CommitOutcome::New).count();
        count(&reading.origins, &outcomes);
        if settled.events > 0 {
            self.wake_outbox.notify_one();
        }
        if outcomes.iter().any(|outcome| matches!(outcome, CommitOutcome::Refused(_))) {
            let dead_letters = reading::refused(directory, &work.deliveries, &reading.origins, outcomes);
            let report = Report::of(&dead_letters, Some("refused by the database"));
            self.store.commit(Batch { dead_letters, ..Batch::default() }).await?;
            report.send();
        }
        Ok(settled)
    }

    /// Puts the envelopes of a work into the archive if they are many, at most once for a work, and says so in the batch.
    /// What is not there goes into the database.
    async fn archive(&self, work: &mut Work, reading: &mut Reading) {
        let bytes = |index: usize| work.deliveries[index].payload.clone();
        let size: usize = reading.decoded.iter().map(|(index, _)| work.deliveries[*index].payload.len()).sum();
        let is_worth_an_object = reading.decoded.len() >= self.archive_at_once || size >= ARCHIVE_BYTES;
        if work.archived.is_none() && is_worth_an_object {
            let pieces: Vec<(EnvelopeId, Bytes)> =
                reading.decoded.iter().map(|(index, envelope)| (*envelope, bytes(*index))).collect();
            let located = self.archive.put(&pieces).await;
            let located = located.into_iter().flatten().map(|object| (object.envelope, object));
            work.archived = Some(located.collect());
        }
        for (index, envelope) in &reading.decoded {
            match work.archived.as_ref().and_then(|archived| archived.get(envelope)) {
                Some(object) => reading.batch.raw_objects.push(object.clone()),
                None => {
                    reading.batch.raw_pending.push(RawPending { envelope: *envelope, sealed: bytes(*index) });
                }
            }
        }
        if is_worth_an_object && !reading.batch.raw_pending.is_empty() {
            metrics::counter!(names::RAW_DEFERRED).increment(reading.batch.raw_pending.len() as u64);
        }
    }

    /// Moves the oldest raw bytes from the database to the blob store. True if there may be many more.
    pub async fn sweep_raw(&self) -> Result<bool, Unavailable> {
        let pending = self.store.raw_pending(SWEEP).await?;
        if pending.is_empty() {
            return Ok(false);
        }
        // The store ends a page by its bytes too, at several times as many.
        let size: usize = pending.iter().map(|pending| pending.sealed.len()).sum();
        let full = pending.len() == SWEEP || size >= ARCHIVE_BYTES;
        let pieces: Vec<(EnvelopeId, Bytes)> =
            pending.into_iter().map(|pending| (pending.envelope, pending.sealed)).collect();
        let Some(objects) = self.archive.put(&pieces).await else {
            metrics::counter!(names::RAW_DEFERRED).increment(pieces.len() as u64);
            return Ok(false);
        };
        self.store.raw_archived(objects).await?;
        Ok(full)
    }

    /// Alerts once for each thing that envelopes wait for.
    fn log_waiting(&self, waiting: &[(usize, Wait)]) {
        if waiting.is_empty() {
            return;
        }
        metrics::counter!(names::WAITING).increment(waiting.len() as u64);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, wait) in waiting {
            if logged.len() >= REMEMBERED_WAITS || !logged.insert(wait.clone()) {
                continue;
            }
            match wait {
                Wait::Version(version) => tracing::error!(
                    version,
                    "envelopes of a newer version wait until this process is updated; nothing is lost"
                ),
                Wait::Tenant(tenant) => {
                    tracing::error!(%tenant, "envelopes wait for their tenant to appear in the directory");
                }
                Wait::Key(tenant) => {
                    tracing::error!(%tenant, "envelopes wait for a data key of their tenant that the directory lacks");
                }
            }
        }
    }
}

/// Reads on this thread if it is little, else on one that may block.
async fn read(directory: &Arc<OpenDirectory>, deliveries: &Arc<[Delivery]>, throttle: SenderLimits) -> Reading {
    let bytes: usize = deliveries.iter().map(|delivery| delivery.payload.len()).sum();
    if bytes <= READ_IN_PLACE {
        return reading::read(directory, deliveries, throttle);
    }
    let (of, from) = (Arc::clone(directory), Arc::clone(deliveries));
    match tokio::task::spawn_blocking(move || reading::read(&of, &from, throttle)).await {
        Ok(reading) => reading,
        // Reading catches what a parser does; anything else is a fault of this program.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and runs no such task any more.
            Err(_) => reading::read(directory, deliveries, throttle),
        },
    }
}

/// What is said of dead letters, once they are stored.
struct Report(Vec<(TenantId, EnvelopeId, String)>);

impl Report {
    /// `reason` stands for reasons that are not known to be fixed words.
    fn of(letters: &[DeadLetter], reason: Option<&str>) -> Self {
        let line = |letter: &DeadLetter| {
            let reason = reason.unwrap_or(&letter.reason).to_owned();
            (letter.tenant.clone(), letter.envelope, reason)
        };
        Self(letters.iter().map(line).collect())
    }

    fn send(self) {
        for (tenant, envelope, reason) in self.0 {
            tracing::warn!(%tenant, %envelope, reason, "dead letter");
            metrics::counter!(names::DEAD_LETTERS, "reason" => reason).increment(1);
            metrics::counter!(names::NORMALIZED, "outcome" => "dead_letter").increment(1);
        }
    }
}

fn count(origins: &[Origin], outcomes: &[CommitOutcome]) {
    let mut events: HashMap<&'static str, u64> = HashMap::new();
    let mut unsupported: HashMap<(&'static str, &'static str), u64> = HashMap::new();
    let (mut new, mut duplicate) = (0, 0);
    for (origin, outcome) in origins.iter().zip(outcomes) {
        match outcome {
            CommitOutcome::New => {
                new += 1;
                *events.entry(origin.event_type.as_str()).or_default() += 1;
                if let Some(words) = origin.unsupported {
                    *unsupported.entry(words).or_default() += 1;
                }
            }
            CommitOutcome::Duplicate => duplicate += 1,
            CommitOutcome::Refused(_) => {}
        }
    }
    for (outcome, times) in [("new", new), ("duplicate", duplicate)] {
        if times > 0 {
            metrics::counter!(names::NORMALIZED, "outcome" => outcome).increment(times);
        }
    }
    for (event_type, times) in events {
        metrics::counter!(names::EVENTS, "type" => event_type).increment(times);
    }
    for ((field, kind), times) in unsupported {
        metrics::counter!(names::UNSUPPORTED, "field" => field, "type" => kind).increment(times);
    }
}
