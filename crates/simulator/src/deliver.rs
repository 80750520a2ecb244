//! Delivers webhooks the way Meta does: concurrently, and again and again until the answer is 200. One
//! task drives everything: it launches requests while connections are free, and files their answers. It
//! neither makes webhooks nor judges what the receiver does with them.
//!
//! Retries wait in a heap, so that a webhook that waits holds no connection. The heap is bounded; when it
//! is full nothing new is started until something comes out of it.

mod acknowledged_log;
mod pace;
mod post;
mod report;
mod retries;
mod schedule;

use std::{net::IpAddr, path::PathBuf, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::header::HeaderValue;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{UpdateRef, Webhook};
use acknowledged_log::AcknowledgedLog;
use pace::Pace;
use post::{Answer, Outcome, Poster};
use report::Tally;
use retries::Retries;

pub use report::{Latency, Progress, Report};
pub use schedule::RetrySchedule;

/// How often progress is published and the acknowledged log is flushed.
const TICK: Duration = Duration::from_millis(100);
/// How many bytes of bodies are launched before answers get a turn.
const BYTES_PER_TURN: usize = 64 << 10;
const FORBIDDEN: u16 = 403;
const OK: u16 = 200;

/// Where and how to deliver.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The receiver's address, `http` or `https`. For `https` the certificate must chain to a root of
    /// the operating system. Proxies of the environment are not used and redirects not followed.
    pub url: String,
    /// How many POSTs may be under way at once, each on a connection of its own that is kept open; at
    /// least 1.
    pub connections: usize,
    /// POSTs per second over all connections, retries included; as fast as possible if none. Kept
    /// evenly: after a delay at most 50 ms are caught up.
    pub rate: Option<f64>,
    /// How long an answer may take, connecting included.
    pub timeout: Duration,
    /// What happens after a failure.
    pub retry: RetrySchedule,
    /// Source addresses to bind, such as 127.0.0.2 and following, over which the connections are
    /// spread; the system's choice if empty.
    pub local_addresses: Vec<IpAddr>,
    /// File to which each acknowledged update is appended, one [`UpdateRef`] a line, at most 100 ms
    /// after its answer. A repeat's updates are written again.
    pub acknowledged_log: Option<PathBuf>,
    /// Whether acknowledged updates are also kept in memory, for [`Report::acknowledged`].
    pub keep_acknowledged: bool,
    /// Further headers of each POST; they replace ours of the same name, except the signature.
    pub headers: Vec<(String, String)>,
}

/// A run could not start or go on. A receiver that fails is no such error: that is in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The receiver's address is not a URL.
    #[error("{url:?} is not a usable address")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A header's name or value cannot be sent.
    #[error("header {name:?} cannot be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// The rate is not a positive number.
    #[error("{0} is not a rate")]
    Rate(f64),
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be built")]
    Client(#[source] reqwest::Error),
    /// The acknowledged log could not be written.
    #[error("the acknowledged log {} could not be written", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

/// A webhook on its way.
struct Job {
    body: Bytes,
    signature: HeaderValue,
    updates: Vec<UpdateRef>,
    forged: bool,
    /// Start of the first try.
    since: Instant,
    /// Retries so far.
    retries: u32,
}

/// What to do next.
enum Step {
    Launch(Job),
    /// Nothing until an answer comes or the moment does.
    Wait(Option<Instant>),
    Done,
}

/// Posts the webhooks of `generator` until all are settled or `stop` is cancelled, and tells how it went.
///
/// A genuine webhook is settled by a 200, acknowledged if the body of that answer is `OK`; anything else
/// is retried by the schedule. A forged one is settled by its first answer, whatever it is; 403 is
/// expected. Each update of an acknowledged webhook goes to the acknowledged log.
///
/// When stopped, requests under way are abandoned: the receiver may have taken what is not reported as
/// acknowledged, never the other way round. `progress` is updated ten times a second and at the end.
///
/// Installs ring as rustls' process-wide provider unless there is one already. Must run within a Tokio
/// runtime with time and I/O enabled; `generator` is run on its thread and should be quick.
pub async fn deliver(
    generator: impl Iterator<Item = Webhook> + Send,
    delivery: Delivery,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
) -> Result<Report, DeliverError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let start = Instant::now();
    let mut run = Run {
        webhooks: generator,
        exhausted: false,
        retries: Retries::default(),
        pace: Pace::new(delivery.rate, start)?,
        free: (0..delivery.connections.max(1)).rev().collect(),
        under_way: 0,
        schedule: delivery.retry.clone(),
        log: delivery.acknowledged_log.as_deref().map(AcknowledgedLog::open).transpose()?,
        tally: Tally::new(delivery.keep_acknowledged),
    };
    let poster = Poster::new(&delivery)?;

    let mut under_way = FuturesUnordered::new();
    let mut stopped = pin!(stop.cancelled());
    let mut timer = pin!(tokio::time::sleep_until(start));
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut launched = 0;
    loop {
        let mut wake = None;
        match run.next(Instant::now())? {
            Step::Done => break,
            Step::Launch(job) => {
                launched += job.body.len();
                let slot = run.take_slot();
                under_way.push(poster.post(slot, job));
                if launched < BYTES_PER_TURN {
                    continue;
                }
            }
            Step::Wait(until) => {
                wake = until;
                launched = 0;
            }
        }
        if let Some(until) = wake
            && timer.deadline() != until
        {
            timer.as_mut().reset(until);
        }
        tokio::select! {
            biased;
            () = &mut stopped => break,
            _ = tick.tick() => {
                run.flush()?;
                progress.send_replace(run.progress());
            }
            Some(outcome) = under_way.next(), if !under_way.is_empty() => run.settle(outcome)?,
            () = &mut timer, if wake.is_some() => {}
            () = tokio::task::yield_now(), if launched >= BYTES_PER_TURN => launched = 0,
        }
    }
    run.flush()?;
    progress.send_replace(run.progress());
    let unsettled = run.retries.len() + run.under_way;
    Ok(run.tally.report(start.elapsed(), unsettled))
}

/// The state of a delivery, apart from the requests under way.
struct Run<G> {
    webhooks: G,
    exhausted: bool,
    retries: Retries,
    pace: Pace,
    /// Connections that carry nothing at the moment.
    free: Vec<usize>,
    under_way: usize,
    schedule: RetrySchedule,
    log: Option<AcknowledgedLog>,
    tally: Tally,
}

impl<G: Iterator<Item = Webhook>> Run<G> {
    fn next(&mut self, now: Instant) -> Result<Step, DeliverError> {
        if self.exhausted && self.retries.is_empty() && self.under_way == 0 {
            return Ok(Step::Done);
        }
        if self.free.is_empty() {
            return Ok(Step::Wait(None));
        }
        let may_start = self.pace.ready_at(now);
        if may_start > now {
            return Ok(Step::Wait(Some(may_start)));
        }
        if let Some(job) = self.retries.pop_due(now) {
            self.pace.started();
            self.tally.retried();
            return Ok(Step::Launch(job));
        }
        if !self.exhausted && !self.retries.is_full() {
            if let Some(webhook) = self.webhooks.next() {
                self.pace.started();
                self.tally.sent(webhook.forged);
                return Job::new(webhook, now).map(Step::Launch);
            }
            self.exhausted = true;
            if self.retries.is_empty() && self.under_way == 0 {
                return Ok(Step::Done);
            }
        }
        Ok(Step::Wait(self.retries.next_due()))
    }

    fn take_slot(&mut self) -> usize {
        self.under_way += 1;
        self.free.pop().unwrap_or_default()
    }

    fn settle(&mut self, outcome: Outcome) -> Result<(), DeliverError> {
        let Outcome { slot, job, answer, took } = outcome;
        self.free.push(slot);
        self.under_way -= 1;
        self.tally.answered(&answer);
        match (answer, job.forged) {
            (Answer::Status { code: FORBIDDEN, .. }, true) => self.tally.refused_forged(),
            (Answer::Status { code: OK, taken: true }, false) => {
                if let Some(log) = &mut self.log {
                    log.append(&job.updates)?;
                }
                self.tally.acknowledged(job.updates, took);
            }
            (Answer::Status { code: OK, .. }, false) => self.tally.failed(Some(OK)),
            (answer, true) => self.tally.failed(answer.code()),
            (answer, false) => self.retry(job, &answer),
        }
        Ok(())
    }

    fn retry(&mut self, mut job: Job, answer: &Answer) {
        let now = Instant::now();
        job.retries += 1;
        let due = now + self.schedule.pause_before(job.retries);
        if due.duration_since(job.since) >= self.schedule.give_up_after {
            self.tally.gave_up(answer.code());
        } else {
            self.retries.push(due, job);
        }
    }

    fn flush(&mut self) -> Result<(), DeliverError> {
        self.log.as_mut().map_or(Ok(()), AcknowledgedLog::flush)
    }

    fn progress(&self) -> Progress {
        Progress { waiting: self.retries.len() as u64, ..self.tally.progress() }
    }
}

impl Job {
    fn new(webhook: Webhook, now: Instant) -> Result<Self, DeliverError> {
        let signature = HeaderValue::from_maybe_shared(Bytes::from(webhook.signature))
            .map_err(|_| DeliverError::Header { name: post::SIGNATURE.to_owned() })?;
        Ok(Self {
            body: webhook.body,
            signature,
            updates: webhook.updates,
            forged: webhook.forged,
            since: now,
            retries: 0,
        })
    }
}

#[cfg(test)]
mod tests;
