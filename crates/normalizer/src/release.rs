//! Parked envelopes: let go once they can, expired once they are too old; and the raw archive's end.
//!
//! What was parked for the directory is looked at when that changes, a throttled envelope when its turn has come, any one
//! when an operator asks. An envelope that can go is read as if it were delivered now, and leaves the parking place in the
//! transaction that stores what was inside: nothing is let go twice, and nothing is lost in between. What has still no
//! owner, or a tenant that is paused or suspended, stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::directory::{OpenDirectory, TenantStatus};
use common::envelope::ParkReason;
use common::{Clock, Timestamp};
use ports::Unavailable;
use ports::event_bus::{AckToken, Delivery};
use ports::event_store::{Batch, CommitOutcome, EventStore, RawPending};
use ports::parking::{Due, ParkedFilter, ParkedGroup, Parking};
use ports::raw::RawIndex;
use service::{Tasks, names};
use tokio::sync::Notify;

use crate::archive::{Archive, hour_path};
use crate::config::Config;
use crate::outage::Outage;
use crate::reading::{self, Reading};
use crate::{Deps, DirectoryHandle};

/// Envelopes taken at once: each may be 4 MiB.
const AT_ONCE: usize = 16;
/// How long others keep off what this process has taken.
const LEASE: Duration = Duration::from_mins(1);
/// When one is looked at again that this process cannot read yet, or whose turn came while its tenant was held back.
const LOOK_AGAIN: Duration = Duration::from_mins(10);
/// Between two looks at what is due, and at the directory.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what is too old.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);
/// Rows deleted in one statement.
const PORTION: usize = 1000;

/// See the module's documentation.
pub struct Releaser {
    store: Arc<dyn EventStore>,
    parking: Arc<dyn Parking>,
    raw: Arc<dyn RawIndex>,
    directory: DirectoryHandle,
    archive: Archive,
    clock: Arc<dyn Clock>,
    wake_outbox: Arc<Notify>,
    keep_raw: Duration,
    keep_parked: Duration,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Envelopes that are parked no more.
    pub released: usize,
    /// Envelopes that stay.
    pub kept: usize,
}

impl std::fmt::Debug for Releaser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Releaser").finish_non_exhaustive()
    }
}

impl Releaser {
    /// A releaser over these ports; it rings `wake_outbox` when it made events.
    pub fn new(config: &Config, deps: &Deps, wake_outbox: Arc<Notify>) -> Self {
        let (blobs, clock) = (Arc::clone(&deps.blobs), Arc::clone(&deps.clock));
        Self {
            store: Arc::clone(&deps.store),
            parking: Arc::clone(&deps.parking),
            raw: Arc::clone(&deps.raw),
            directory: Arc::clone(&deps.directory),
            archive: Archive::new(blobs, Arc::clone(&clock), config.blob_timeout, config.raw_sweep),
            clock,
            wake_outbox,
            keep_raw: config.keep_raw,
            keep_parked: config.keep_parked,
        }
    }

    /// Makes due what the directory, as it is now, may let go. Returns its revision.
    pub async fn look_at_directory(&self) -> Result<Option<u64>, Unavailable> {
        let Some(directory) = (self.directory)() else { return Ok(None) };
        let now = self.clock.now();
        for group in self.parking.groups().await? {
            if may_go(&directory, &group) {
                let filter = ParkedFilter {
                    envelope: None,
                    tenant: Some(group.tenant),
                    reason: Some(group.reason),
                    number: group.number,
                };
                self.parking.make_due(&filter, now, false).await?;
            }
        }
        Ok(Some(directory.revision))
    }

    /// Takes what is due and lets go what can go.
    pub async fn step(&self) -> Result<Released, Unavailable> {
        let Some(directory) = (self.directory)() else { return Ok(Released::default()) };
        let due = self.parking.take_due(self.clock.now(), AT_ONCE, LEASE).await?;
        let mut done = Released::default();
        for due in due {
            match self.let_go(&directory, &due).await? {
                Verdict::Went => done.released += 1,
                Verdict::Stays(until) => {
                    done.kept += 1;
                    self.parking.put_back(&[due.row.envelope], until).await?;
                }
            }
        }
        Ok(done)
    }

    async fn let_go(&self, directory: &OpenDirectory, due: &Due) -> Result<Verdict, Unavailable> {
        let envelope = due.row.envelope;
        let delivery = Delivery {
            subject: String::new(),
            payload: due.sealed.clone(),
            sequence: 0,
            delivered: 1,
            published_at: due.row.received_at,
            token: AckToken(String::new()),
        };
        let look_again = self.clock.now().plus(LOOK_AGAIN);
        let reading = match reading::release(directory, &delivery, due.is_forced) {
            Ok(Some(reading)) => reading,
            // The directory makes no throttled one due: each has its turn.
            Ok(None) if due.row.reason == ParkReason::Throttled => return Ok(Verdict::Stays(Some(look_again))),
            Ok(None) => return Ok(Verdict::Stays(None)),
            Err(wait) => {
                tracing::debug!(%envelope, ?wait, "a parked envelope cannot be read yet");
                return Ok(Verdict::Stays(Some(look_again)));
            }
        };
        let Reading { mut batch, origins, .. } = reading;
        // One that was cut from another was never archived itself. What was nobody's is, in its owners' parts.
        let is_derived = envelope.0.get_version_num() != 7;
        if is_derived && !due.row.tenant.is_unassigned() {
            batch.raw_pending.push(RawPending { envelope, sealed: due.sealed.clone() });
        }
        batch.released.push(envelope);
        let outcomes = self.store.commit(batch).await?.outcomes;
        if outcomes.contains(&CommitOutcome::New) {
            self.wake_outbox.notify_one();
        }
        if outcomes.iter().any(|outcome| matches!(outcome, CommitOutcome::Refused(_))) {
            let dead_letters = reading::refused(directory, std::slice::from_ref(&delivery), &origins, outcomes);
            self.store.commit(Batch { dead_letters, ..Batch::default() }).await?;
        }
        metrics::counter!(names::RELEASED, "reason" => due.row.reason.as_str()).increment(1);
        Ok(Verdict::Went)
    }

    /// Ends what is kept for too long.
    pub async fn expire(&self) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let mut expired: BTreeMap<ParkReason, u64> = BTreeMap::new();
        loop {
            let rows = self.parking.expire(now.minus(self.keep_parked), PORTION).await?;
            for row in &rows {
                *expired.entry(row.reason).or_default() += 1;
            }
            if rows.len() < PORTION {
                break;
            }
        }
        for (reason, count) in expired {
            let reason = reason.as_str();
            metrics::counter!(names::PARKED_EXPIRED, "reason" => reason).increment(count);
            tracing::warn!(reason, envelopes = count, "parked envelopes are deleted: nobody released them in time");
        }
        self.expire_raw(now).await
    }

    async fn expire_raw(&self, now: Timestamp) -> Result<(), Unavailable> {
        let below = hour_path(now.minus(self.keep_raw));
        while self.raw.forget_below(&below, PORTION).await? > 0 {}
        match self.archive.delete_below(&below).await {
            Ok(0) => {}
            Ok(objects) => {
                metrics::counter!(names::RAW_EXPIRED).increment(objects);
                tracing::info!(objects, "raw envelopes are deleted: their time is over");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "raw envelopes whose time is over cannot be deleted; trying again in an hour");
            }
        }
        Ok(())
    }
}

enum Verdict {
    Went,
    /// Until then, or until the directory changes.
    Stays(Option<Timestamp>),
}

/// Whether the directory gives reason to look at envelopes that were parked for what it said.
fn may_go(directory: &OpenDirectory, group: &ParkedGroup) -> bool {
    match group.reason {
        ParkReason::Suspended | ParkReason::Paused => {
            directory.tenant(&group.tenant).is_some_and(|keys| keys.status == TenantStatus::Active)
        }
        // Without a listed number the account or the app may decide, which stands inside.
        ParkReason::UnknownTenant | ParkReason::ForeignApp => match &group.number {
            Some(number) => directory.lists(number) || directory.owns_more_than_it_lists(),
            None => directory.owns_more_than_it_lists(),
        },
        ParkReason::Throttled | ParkReason::TooOld | ParkReason::Unreadable => false,
    }
}

pub(crate) async fn run(releaser: Releaser, tasks: Tasks) {
    let mut outage = Outage::new("parked", "database");
    let (mut seen, mut expired_at) = (None, None::<Duration>);
    loop {
        let work = async {
            let current = (releaser.directory)().map(|directory| directory.revision);
            let is_new = current.is_some() && current != seen;
            let looked = if is_new { Some(releaser.look_at_directory().await) } else { None };
            // Also after a look that failed: what is due already has nothing to do with it.
            let done = releaser.step().await?;
            if let Some(looked) = looked {
                seen = looked?;
            }
            let now = releaser.clock.monotonic();
            if expired_at.is_none_or(|at| now >= at + EXPIRE_EVERY) {
                releaser.expire().await?;
                expired_at = Some(now);
            }
            Ok::<_, Unavailable>(done)
        };
        let stepped = tokio::select! {
            stepped = work => stepped,
            () = tasks.stopping() => return,
        };
        match stepped {
            Ok(done) => {
                outage.over();
                if done.released + done.kept == AT_ONCE {
                    continue;
                }
            }
            Err(error) => {
                if !outage.wait(&error, &tasks).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = tasks.stopping() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
