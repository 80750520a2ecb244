//! The way of one webhook from its raw bytes to its answer.

mod background;
mod trail;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use bytes::Bytes;
use common::directory::OpenDirectory;
use common::envelope::Disposition;
use common::record::{Outcome, RequestRecord, SignatureStatus};
use common::trace::TraceContext;
use common::update::Provider;
use common::{Clock, RequestId, Timestamp};
use ports::admission::{Admission, Candidate, Remembered, Verdict};
use ports::event_bus::{EventBus, Outgoing, PublishError};
use providers::twilio;
use service::{Tasks, names};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::alarm::{Alarm, Ringing, Watch};
use crate::answer::Answer;
use crate::breaker::Breaker;
use crate::config::Config;
use crate::evidence;
use crate::limits::{Limits, RetryAfter};
use crate::meters::Meters;
use crate::plan::{self, Envelopes, Request};
use crate::records::{Records, Words};
use crate::verification::{Refused, Target, candidates, verify};
use trail::Trail;

/// Bodies over this size are planned and sealed beside the event loop, not on it.
const LARGE_BODY: usize = 128 << 10;
/// Keys to remember that may wait; more are not remembered, which only costs work.
const REMEMBER_QUEUE: usize = 100_000;
/// Refused webhooks that wait to be kept.
const REFUSED_QUEUE: usize = 16;
/// The reason of a request that is signed more than once.
const SEVERAL_SIGNATURES: &str = "several-signatures";
/// Seconds after which a refused webhook should be tried again.
const RETRY_AFTER: u64 = 1;
/// The word for a handshake with a wrong token: somebody typing, not an attack.
pub(crate) const VERIFY_TOKEN: &str = "verify-token";

/// What the gateway needs.
#[derive(Clone)]
pub struct Deps {
    /// Where envelopes go.
    pub bus: Arc<dyn EventBus>,
    /// What was seen, and how much.
    pub admission: Arc<dyn Admission>,
    /// The newest directory; `None` before the first load.
    pub directory: Arc<dyn Fn() -> Option<Arc<OpenDirectory>> + Send + Sync>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// See the crate's documentation.
pub struct Gateway {
    pub(crate) config: Config,
    deps: Deps,
    pub(crate) limits: Limits,
    breaker: Breaker,
    alarm: Alarm,
    watch: Watch,
    records: Records,
    meters: Meters,
    remember: mpsc::Sender<Remembered>,
    refused: mpsc::Sender<Outgoing>,
}

/// A webhook as it came in, its body read.
pub(crate) struct Incoming<'a> {
    pub(crate) request: RequestId,
    /// The provider that the path is for; `None` if the signature decides.
    pub(crate) provider: Option<Provider>,
    /// The app in the path, if there is one.
    pub(crate) app: Option<&'a str>,
    pub(crate) endpoint: &'static str,
    /// Every signature header that was sent, of any provider.
    pub(crate) signatures: Vec<(Provider, &'a [u8])>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) target: Target<'a>,
    pub(crate) body: Bytes,
    pub(crate) source_ip: IpAddr,
    pub(crate) trace: TraceContext,
    /// When the last byte of the body arrived.
    pub(crate) read_at: Instant,
}

impl Incoming<'_> {
    /// Whose webhook it claims to be, if it claims to be one provider's.
    pub(crate) fn claimed(&self) -> Option<Provider> {
        self.provider.or(match self.signatures[..] {
            [(provider, _)] => Some(provider),
            _ => None,
        })
    }

    /// How the provider names the delivery, if it does so once.
    fn delivery(&self) -> Option<String> {
        let mut values = self.headers.get_all(twilio::DELIVERY);
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        twilio::delivery(value.as_bytes()).map(str::to_owned)
    }
}

impl Gateway {
    /// Starts the gateway's background work.
    pub fn start(config: Config, deps: Deps, tasks: &Tasks) -> Arc<Self> {
        let (remember, keys) = mpsc::channel(REMEMBER_QUEUE);
        let (refused, evidence) = mpsc::channel(REFUSED_QUEUE);
        let gateway = Arc::new(Self {
            limits: Limits::new(
                config.per_ip_limit_per_second,
                config.global_limit_per_second,
                config.max_buffered_bytes,
            ),
            breaker: Breaker::default(),
            alarm: Alarm::default(),
            watch: Watch::default(),
            records: Records::default(),
            meters: Meters::new(),
            remember,
            refused,
            config,
            deps,
        });
        background::start(&gateway, keys, evidence, tasks);
        gateway
    }

    /// Whether the bus takes envelopes, as far as can be told without one.
    pub fn is_bus_up(&self) -> bool {
        self.deps.bus.is_connected() && !self.breaker.is_open()
    }

    /// Whether the token is one of an app's (of the default apps without one), in constant time per token.
    /// `None` before the first directory.
    pub(crate) fn accepts_verify_token(&self, app: Option<&str>, token: &str) -> Option<bool> {
        let directory = (self.deps.directory)()?;
        let apps = candidates(&directory, Provider::Meta, app);
        Some(apps.fold(false, |found, app| app.accepts_verify_token(token) | found))
    }

    /// Records a request that was answered before any body was looked at.
    pub(crate) fn record_early(
        &self,
        request: RequestId,
        provider: Provider,
        endpoint: &'static str,
        source_ip: IpAddr,
        answer: &Answer,
    ) {
        let suspicious = answer.status == 403 && answer.code != VERIFY_TOKEN;
        let signature = Some(SignatureStatus::Skipped);
        let trail = Trail { signature, provider: Some(provider), suspicious, ..Trail::default() };
        self.record(request, endpoint, source_ip, Duration::ZERO, answer, trail);
    }

    /// Whether a warning about what strangers send may be logged now.
    pub(crate) fn may_warn(&self) -> bool {
        self.limits.may_warn(self.deps.clock.monotonic()).is_some()
    }

    /// Checks the limit of an address.
    pub(crate) fn admit_ip(&self, ip: IpAddr) -> Result<(), Answer> {
        self.limits
            .admit_ip(ip, self.deps.clock.monotonic())
            .map_err(|RetryAfter(seconds)| Answer::over(self.config.per_ip_limit_per_second, "address-limit", seconds))
    }

    /// Handles a webhook whose body is complete; the answer, and whose webhook it is.
    pub(crate) async fn receive(&self, incoming: Incoming<'_>) -> (Answer, Provider) {
        let mut trail = Trail { provider: incoming.provider, ..Trail::default() };
        let deadline = incoming.read_at + self.config.deadline;
        let (request, endpoint, source_ip) = (incoming.request, incoming.endpoint, incoming.source_ip);
        let read_at = incoming.read_at;
        let answer = self.decide(incoming, deadline, &mut trail).await;
        let provider = trail.provider.unwrap_or(Provider::Meta);
        self.record(request, endpoint, source_ip, read_at.elapsed(), &answer, trail);
        (answer, provider)
    }

    async fn decide(&self, incoming: Incoming<'_>, deadline: Instant, trail: &mut Trail) -> Answer {
        let Some(directory) = (self.deps.directory)() else {
            return Answer::later(503, "not-ready", RETRY_AFTER);
        };
        let config = &self.config;
        let verified =
            verify(&directory, &incoming, &config.unsigned, config.public_url.as_deref(), self.deps.clock.now()).await;
        let verified = match verified {
            Ok(verified) => verified,
            Err(Refused::NotConfigured) => {
                trail.signature = Some(SignatureStatus::Skipped);
                return Answer::refused(404, "provider");
            }
            Err(Refused::Signature(status)) => {
                trail.signature = Some(status);
                trail.suspicious = incoming.signatures.len() > 1;
                trail.reason = trail.suspicious.then_some(SEVERAL_SIGNATURES);
                if let Some(suppressed) = self.limits.may_warn(self.deps.clock.monotonic()) {
                    tracing::warn!(
                        request.id = %incoming.request,
                        client.address = %incoming.source_ip,
                        signature = status.as_str(),
                        suppressed,
                        "security: a webhook's signature is not accepted"
                    );
                }
                self.keep(&directory, &incoming, status);
                return Answer::refused(403, "signature");
            }
        };
        let provider = verified.provider;
        trail.signature = Some(verified.signature);
        trail.provider = Some(provider);
        trail.app = Some(verified.app.id.clone());
        if let Err(RetryAfter(seconds)) = self.limits.admit_verified(self.deps.clock.monotonic()) {
            return Answer::over(self.config.global_limit_per_second, "global-limit", seconds);
        }
        if provider == Provider::Generic
            && let Err(problems) = providers::generic::message::validate(&incoming.body)
        {
            return Answer::invalid(problems);
        }
        if !self.deps.bus.is_connected() || !self.breaker.lets_through(self.deps.clock.monotonic()) {
            return Answer::later(503, "bus", RETRY_AFTER);
        }
        let request = Request {
            id: incoming.request,
            provider,
            app: verified.app.id.clone(),
            source_ip: incoming.source_ip,
            received_at: received_at(&*self.deps.clock, incoming.read_at),
            trace: incoming.trace,
            delivery: if provider == Provider::Twilio { incoming.delivery() } else { None },
        };
        let (began, asked_at) = (self.deps.clock.monotonic(), Instant::now());
        let stored = self.store(&directory, request, incoming.body, trail);
        if let Ok(answer) = tokio::time::timeout_at(deadline, stored).await {
            return answer;
        }
        let now = self.deps.clock.monotonic();
        if asked_at.elapsed() * 2 >= self.config.deadline {
            self.breaker.timed_out(now, began);
        } else {
            // This process stood still; the bus was hardly asked.
            self.breaker.failed(now);
        }
        trail.messages.clear();
        metrics::counter!(names::PUBLISH_FAILURES, "reason" => "deadline").increment(1);
        Answer::later(503, "deadline", RETRY_AFTER)
    }

    /// Keeps a webhook whose signature is not accepted, if that is switched on. Nobody waits for it.
    fn keep(&self, directory: &OpenDirectory, incoming: &Incoming<'_>, status: SignatureStatus) {
        let (config, clock) = (&self.config, &self.deps.clock);
        if config.keep_refused_per_minute == 0 {
            return;
        }
        let Ok(place) = self.refused.try_reserve() else { return };
        // What has no signature at all comes from scanners, and must not take all of it.
        let is_signed = status == SignatureStatus::Invalid;
        let most = config.keep_refused_per_minute.div_ceil(if is_signed { 1 } else { 2 });
        if !self.limits.may_keep_refused(most, clock.monotonic()) {
            return;
        }
        let at = received_at(&**clock, incoming.read_at);
        let kept = evidence::envelope(directory, incoming, status, config.public_url.as_deref(), at);
        if let Some((id, envelope)) = kept {
            place.send(envelope);
            let raw_payload_ref = id.raw_payload_ref();
            tracing::warn!(request.id = %incoming.request, raw_payload_ref, "a refused webhook is kept; `wharf raw show`");
        }
    }

    async fn store(&self, directory: &Arc<OpenDirectory>, request: Request, body: Bytes, trail: &mut Trail) -> Answer {
        if body.len() > LARGE_BODY {
            return self.store_large(directory.clone(), request, body, trail).await;
        }
        let planned = match plan::plan(&body, &request, directory, self.config.max_event_age) {
            Ok(planned) => planned,
            Err(plan::Incomplete) => return Answer::later(503, "not-ready", RETRY_AFTER),
        };
        trail.note(request.id, &planned);
        if let Err(answer) = self.admit_tenant(trail) {
            return answer;
        }
        let verdicts = self.admit(request.provider, planned.candidates()).await;
        trail.note_messages(planned.messages(), &verdicts);
        if is_known(planned.count(), &verdicts) {
            trail.duplicate = true;
            return Answer::OK;
        }
        let envelopes = planned.envelopes(&request, &verdicts);
        self.publish(request.id, envelopes, trail).await
    }

    /// The same for large bodies, planned and sealed on a thread for blocking work. It is planned twice, before and
    /// after admission, which is cheaper than keeping what borrows from the body alive across threads.
    async fn store_large(
        &self,
        directory: Arc<OpenDirectory>,
        request: Request,
        body: Bytes,
        trail: &mut Trail,
    ) -> Answer {
        let (id, max_age) = (request.id, self.config.max_event_age);
        let (first_body, first_directory, first_request) = (body.clone(), directory.clone(), request.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let planned = plan::plan(&first_body, &first_request, &first_directory, max_age).ok()?;
            let mut trail = Trail::default();
            trail.note(first_request.id, &planned);
            let messages: Vec<_> =
                planned.messages().map(|(index, tenant, key)| (index, tenant.clone(), key)).collect();
            Some((trail, planned.candidates(), messages))
        })
        .await;
        let Ok(Some((noted, candidates, messages))) = looked else {
            return Answer::later(503, "not-ready", RETRY_AFTER);
        };
        *trail = Trail { signature: trail.signature, provider: trail.provider, app: trail.app.take(), ..noted };
        if let Err(answer) = self.admit_tenant(trail) {
            return answer;
        }
        let count = candidates.len();
        let verdicts = self.admit(request.provider, candidates).await;
        trail.note_messages(messages.iter().map(|(index, tenant, key)| (*index, tenant, *key)), &verdicts);
        if is_known(count, &verdicts) {
            trail.duplicate = true;
            return Answer::OK;
        }
        let sealed = tokio::task::spawn_blocking(move || {
            let planned = plan::plan(&body, &request, &directory, max_age).ok()?;
            Some(planned.envelopes(&request, &verdicts))
        })
        .await;
        match sealed {
            Ok(Some(envelopes)) => self.publish(id, envelopes, trail).await,
            _ => Answer::later(503, "not-ready", RETRY_AFTER),
        }
    }

    /// Checks the limit of the tenant of the first update, if there is one.
    fn admit_tenant(&self, trail: &mut Trail) -> Result<(), Answer> {
        let (Some(limit), Some(tenant)) = (self.config.tenant_limit_per_second, &trail.tenant) else { return Ok(()) };
        let admitted = self.limits.admit_tenant(tenant, limit.get(), self.deps.clock.monotonic());
        admitted.map_err(|RetryAfter(seconds)| {
            // Nothing is parked.
            (trail.reason, trail.suspicious) = (None, false);
            Answer::over(limit.get(), "tenant-limit", seconds)
        })
    }

    /// Asks admission within its budget; without an answer everything is new.
    async fn admit(&self, provider: Provider, candidates: Vec<Candidate>) -> Vec<Verdict> {
        if candidates.is_empty() {
            return Vec::new();
        }
        let asked = self.deps.admission.admit(&candidates, self.config.sender_limits.of(provider));
        let verdicts = match tokio::time::timeout(self.config.admission_budget, asked).await {
            Ok(Ok(verdicts)) if verdicts.len() == candidates.len() => verdicts,
            _ => {
                metrics::counter!(names::ADMISSION_SKIPPED).increment(1);
                vec![Verdict::default(); candidates.len()]
            }
        };
        let known = verdicts.iter().filter(|verdict| verdict.known).count();
        let throttled = verdicts.iter().filter(|verdict| verdict.over_limit).count();
        self.watch.admitted(verdicts.len() as u64, known as u64, throttled as u64);
        self.meters.known.increment(known as u64);
        self.meters.throttled.increment(throttled as u64);
        self.meters.new.increment((verdicts.len() - known - throttled) as u64);
        verdicts
    }

    /// Publishes all envelopes at once. Only if every one is on disk the request is answered 200.
    async fn publish(&self, request: RequestId, envelopes: Envelopes, trail: &mut Trail) -> Answer {
        let Envelopes { messages, dispositions, remember } = envelopes;
        let published = self.deps.bus.publish(messages).await;
        let mut refused = false;
        for (answer, disposition) in published.iter().zip(&dispositions) {
            match (answer, disposition) {
                (Ok(_), Disposition::Refused) => {}
                (Ok(_), Disposition::Deliver) => self.meters.delivered.increment(1),
                (Ok(_), Disposition::Parked(reason)) => {
                    metrics::counter!(names::ENVELOPES, "disposition" => reason.as_str()).increment(1);
                }
                (Err(error), _) => {
                    refused = true;
                    let reason = match error {
                        PublishError::Full { .. } => "full",
                        PublishError::TooLarge { .. } => "too-large",
                        PublishError::Unavailable(_) => "unavailable",
                    };
                    metrics::counter!(names::PUBLISH_FAILURES, "reason" => reason).increment(1);
                    tracing::warn!(
                        request.id = %request,
                        error = error as &dyn std::error::Error,
                        "an envelope was not published"
                    );
                }
            }
        }
        let unavailable = published.iter().any(|answer| matches!(answer, Err(PublishError::Unavailable(_))));
        if unavailable {
            self.breaker.failed(self.deps.clock.monotonic());
        } else {
            self.breaker.succeeded(self.deps.clock.monotonic());
        }
        if refused || published.len() != dispositions.len() {
            trail.messages.clear();
            return Answer::later(503, "bus", RETRY_AFTER);
        }
        // A full queue forgets: the database folds what comes again.
        if let Ok(places) = self.remember.try_reserve_many(remember.len()) {
            places.zip(remember).for_each(|(place, key)| place.send(key));
        }
        Answer::OK
    }

    fn record(
        &self,
        request: RequestId,
        endpoint: &'static str,
        source_ip: IpAddr,
        took: Duration,
        answer: &Answer,
        trail: Trail,
    ) {
        let signature = trail.signature.unwrap_or(SignatureStatus::Skipped);
        let outcome = match answer.status {
            200 if trail.duplicate => Outcome::Duplicate,
            200 => Outcome::Accepted,
            503 => Outcome::Unavailable,
            _ => Outcome::Refused,
        };
        let provider = trail.provider.unwrap_or(Provider::Meta);
        self.meters.answered(provider, answer.status, signature, took);
        self.watch.answered(signature == SignatureStatus::Valid, answer.status, took);
        let failed =
            matches!(signature, SignatureStatus::Invalid | SignatureStatus::Missing | SignatureStatus::Malformed);
        if let Some(Ringing { failures, requests }) = self.alarm.count(failed, self.deps.clock.monotonic()) {
            metrics::counter!(names::ALERTS, "alert" => "signatures").increment(1);
            tracing::error!(
                failures,
                requests,
                "ALERT: many webhooks of this minute are not signed as they must be; `wharf security report` tells from where"
            );
        }
        tracing::debug!(
            request.id = %request,
            status = answer.status,
            signature = signature.as_str(),
            updates = trail.event_count,
            "webhook answered"
        );
        let words = Words { endpoint, reason: trail.reason.unwrap_or(answer.code) };
        let record = RequestRecord {
            request,
            received_at: received_at(&*self.deps.clock, Instant::now() - took),
            source_ip,
            provider,
            endpoint: words.endpoint.to_owned(),
            app: trail.app,
            tenant: trail.tenant,
            event: trail.event,
            event_type: trail.event_type.map(str::to_owned),
            event_count: trail.event_count,
            signature,
            http_status: answer.status,
            outcome,
            reason: (!words.reason.is_empty()).then(|| words.reason.to_owned()),
            suspicious: trail.suspicious,
            processing_ms: took.as_secs_f64() * 1000.0,
            weight: 1,
            messages: trail.messages,
        };
        self.records.push(words, record);
    }
}

/// The wall-clock time of a moment a little while ago.
fn received_at(clock: &dyn Clock, moment: Instant) -> Timestamp {
    clock.now().minus(moment.elapsed())
}

fn is_known(count: usize, verdicts: &[Verdict]) -> bool {
    count > 0 && verdicts.len() == count && verdicts.iter().all(|verdict| verdict.known)
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}
