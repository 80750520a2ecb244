//! Redis: what the gateways remember together.
//!
//! What requests ask while an answer is under way is asked together with the next: the busier the gateway, the less each
//! of them costs. A script decides about messages, which count against their senders; the rest is only looked up. The
//! keys:
//!
//! - `wa_dedup:<tenant>:<event key>` holds `s` and the fingerprint of bytes that are stored (24 h), or `c` and the
//!   fingerprint of bytes that were counted against their sender and not stored yet (one window).
//! - `wa_rate:<tenant>:<sender>` counts a sender's messages; it expires with the window.
//! - `wa_gateways` holds, for each gateway, how much it let through in a second, and when it said so.
//!
//! Every part of a key that comes from outside is a keyed hash. Redis only saves work: while it does not answer in time,
//! admission in the process decides, and after a pause one request tries again. What the one remembers the other does not
//! know, and a flushed Redis knows nothing: that costs duplicates, which the database folds.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::vec;

use async_trait::async_trait;
use common::{EventKey, TenantId};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, RedisError, Script};
use deadpool_redis::{Config, Pool, PoolConfig, Runtime, Timeouts};
use ports::Unavailable;
use ports::admission::{Admission, Candidate, Others, Remembered, SenderLimit, Verdict};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::OpenError;

/// An answer later than this is not worth waiting for: admission only saves work.
const BUDGET: Duration = Duration::from_millis(15);
/// How long Redis is left alone after it did not answer in time; doubled each time it does not again.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Answers missed one after the other from which on Redis counts as down. A busy machine misses one now and then.
const MISSES: u32 = 5;
/// The same for what no webhook waits for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Requests that may wait for an answer; more decide in process.
const MAX_WAITING: usize = 10_000;
/// Updates asked about at once: Redis does nothing else meanwhile.
const ASKED_AT_ONCE: usize = 500;
/// How long a key is remembered.
const REMEMBER: Duration = Duration::from_hours(24);

/// For candidates with a sender. Arguments: maximum, window in ms, then for each candidate its fingerprint. Keys: for
/// each candidate its dedup key, empty if it has none, and its sender's. Answers one digit a candidate: 0 new, 1 known, 2
/// over the limit.
const ADMIT: &str = r"
local max, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for i = 1, #KEYS / 2 do
  local key, sender, print = KEYS[i * 2 - 1], KEYS[i * 2], ARGV[i + 2]
  local seen = key ~= '' and redis.call('GET', key)
  if seen == 's' .. print then
    answer[i] = 1
  elseif seen == 'c' .. print then
    answer[i] = 0
  else
    local count = redis.call('INCR', sender)
    if count == 1 then redis.call('PEXPIRE', sender, window) end
    if count > max then
      answer[i] = 2
    else
      answer[i] = 0
      if key ~= '' and not seen then redis.call('SET', key, 'c' .. print, 'PX', window) end
    end
  end
end
return answer";

/// Notes what a gateway let through, forgets those that are gone, and tells of the others. Arguments: the gateway, its
/// count. By the server's clock.
const COMPARE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], now .. ':' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], 10000)
local all, gateways, taken = redis.call('HGETALL', KEYS[1]), 0, 0
for i = 1, #all, 2 do
  local at, count = string.match(all[i + 1], '^(%d+):(%d+)$')
  if not at or now - at > 2000 then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] then
    gateways, taken = gateways + 1, taken + count
  end
end
return {gateways, taken}";
/// Its key.
const GATEWAYS: &str = "wa_gateways";

/// Admission in Redis, shared by all gateways; in process while Redis does not answer.
pub struct RedisAdmission {
    link: Arc<Link>,
    local: Arc<dyn Admission>,
    questions: mpsc::Sender<Question>,
    asking: JoinHandle<()>,
    /// This gateway's name among the others.
    gateway: String,
    comparison: Script,
}

/// What a request wants to know.
struct Question {
    candidates: Vec<Candidate>,
    limit: SenderLimit,
    answer: oneshot::Sender<Vec<Verdict>>,
}

/// The connection, and whether it is of use.
struct Link {
    pool: Pool,
    /// One connection carries everything, as it can have many requests under way.
    shared: Mutex<Option<MultiplexedConnection>>,
    /// Held while one is made, which may take long.
    connecting: tokio::sync::Mutex<()>,
    budget: Duration,
    script: Script,
    began: Instant,
    /// Milliseconds since `began` before which Redis is left alone; 0 while it answers.
    paused_until: AtomicU64,
    /// Answers missed one after the other.
    misses: AtomicU32,
}

impl RedisAdmission {
    /// Does not connect yet: Redis may be down. An error only for a URL that is none. `local` decides while Redis does
    /// not answer. Must be called on a tokio runtime.
    pub fn new(url: &SecretString, local: Arc<dyn Admission>) -> Result<Arc<Self>, OpenError> {
        Self::with_budget(url, local, BUDGET)
    }

    /// The same with another time than 15 ms in which an answer is of use.
    #[expect(clippy::disallowed_methods, reason = "nothing waits for it: it ends with the admission that it works for")]
    pub fn with_budget(
        url: &SecretString,
        local: Arc<dyn Admission>,
        budget: Duration,
    ) -> Result<Arc<Self>, OpenError> {
        let mut config = Config::from_url(url.expose_secret());
        config.pool = Some(PoolConfig {
            // One to share and one to take its place.
            max_size: 2,
            timeouts: Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) },
            ..PoolConfig::default()
        });
        // The error of the library may repeat the URL, which may hold a password.
        let pool = config.create_pool(Some(Runtime::Tokio1)).map_err(|_| {
            OpenError::Unsuitable("redis.url is not a URL such as redis://:password@host:6379/0".to_owned())
        })?;
        let link = Arc::new(Link {
            pool,
            shared: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            budget,
            script: Script::new(ADMIT),
            began: Instant::now(),
            paused_until: AtomicU64::new(0),
            misses: AtomicU32::new(0),
        });
        let (questions, waiting) = mpsc::channel(MAX_WAITING);
        let asking = tokio::spawn(answer_questions(link.clone(), waiting));
        let (gateway, comparison) = (Uuid::now_v7().simple().to_string(), Script::new(COMPARE));
        Ok(Arc::new(Self { link, local, questions, asking, gateway, comparison }))
    }

    /// Whether Redis is of use: it may have missed an answer or two.
    pub fn is_up(&self) -> bool {
        self.link.misses.load(Ordering::Relaxed) < MISSES
    }

    /// Asks Redis for a sign of life, and sees to it that there is a connection: a webhook's budget is too short to make
    /// one far away. True if the answer came soon enough to be of use.
    pub async fn ping(&self) -> bool {
        self.link.ping().await
    }

    /// What Redis says, if it does so in time.
    async fn ask(&self, candidates: &[Candidate], limit: SenderLimit) -> Option<Vec<Verdict>> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { candidates: candidates.to_vec(), limit, answer }).ok()?;
        answered.await.ok()
    }
}

impl Drop for RedisAdmission {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

#[async_trait]
impl Admission for RedisAdmission {
    async fn admit(&self, candidates: &[Candidate], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        if self.link.may_ask()
            && let Some(verdicts) = self.ask(candidates, limit).await
        {
            return Ok(verdicts);
        }
        self.local.admit(candidates, limit).await
    }

    async fn remember(&self, keys: &[Remembered]) -> Result<(), Unavailable> {
        if keys.is_empty() {
            return Ok(());
        }
        if !self.link.is_paused() {
            if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, self.link.store(keys)).await {
                return Ok(());
            }
            self.link.missed();
        }
        self.local.remember(keys).await
    }

    async fn compare(&self, taken: u32) -> Result<Others, Unavailable> {
        if self.link.is_paused() {
            return Err(Unavailable::new("Redis", "it is left alone for a while"));
        }
        let compared = tokio::time::timeout(PATIENCE, async {
            let mut connection = self.link.connection().await?;
            let mut call = self.comparison.key(GATEWAYS);
            call.arg(&self.gateway).arg(taken);
            call.invoke_async::<(u32, u32)>(&mut connection).await.map_err(unavailable)
        });
        let compared = compared.await.map_err(|late| Unavailable::new("Redis", late)).flatten();
        let (gateways, taken) = compared.inspect_err(|_| self.link.missed())?;
        Ok(Others { gateways, taken })
    }
}

/// Answers questions, those that wait together in one call. Whoever gets no answer decides without Redis.
async fn answer_questions(link: Arc<Link>, mut waiting: mpsc::Receiver<Question>) {
    let mut left = None;
    loop {
        let next = match left.take() {
            Some(question) => Some(question),
            None => waiting.recv().await,
        };
        let Some(next) = next else { return };
        let (limit, mut count) = (next.limit, next.candidates.len());
        let mut questions = vec![next];
        while count < ASKED_AT_ONCE {
            let Ok(question) = waiting.try_recv() else { break };
            if question.limit != limit {
                left = Some(question);
                break;
            }
            count += question.candidates.len();
            questions.push(question);
        }
        // Nobody waits any more for what its request gave up.
        questions.retain(|question| !question.answer.is_closed());
        if questions.is_empty() {
            continue;
        }
        // Dropping the call at the end of its budget leaves the connection whole; that it is slow is noted.
        if let Ok(Ok(mut verdicts)) = tokio::time::timeout(link.budget, link.ask(&questions, limit)).await {
            link.answered();
            for question in questions {
                let rest = verdicts.split_off(question.candidates.len().min(verdicts.len()));
                let _ = question.answer.send(std::mem::replace(&mut verdicts, rest));
            }
        } else {
            link.missed();
            // With those that came meanwhile: they were let through before the pause began.
            left = None;
            while waiting.try_recv().is_ok() {}
        }
    }
}

impl Link {
    async fn ping(&self) -> bool {
        let connected = tokio::time::timeout(PATIENCE, self.connection()).await;
        let asked_at = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, async {
            let mut connection = self.connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.map_err(unavailable)
        });
        let answered =
            matches!(connected, Ok(Ok(_))) && matches!(asked.await, Ok(Ok(_))) && asked_at.elapsed() < self.budget;
        if answered {
            self.answered();
        } else {
            self.missed();
        }
        answered
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_paused(&self) -> bool {
        self.paused_until.load(Ordering::Relaxed) != 0
    }

    /// Whether this request may ask Redis. After a pause the first one may, and the others only once it was answered.
    fn may_ask(&self) -> bool {
        let until = self.paused_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = self.elapsed();
        let next = now.saturating_add(millis(MAX_PAUSE));
        now >= until && self.paused_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn answered(&self) {
        self.paused_until.store(0, Ordering::Relaxed);
        if self.misses.swap(0, Ordering::Relaxed) >= MISSES {
            tracing::info!("Redis answers again");
        }
    }

    fn missed(&self) {
        let misses = self.misses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let pause = (PAUSE * 2_u32.pow(misses.min(8) - 1)).min(MAX_PAUSE);
        self.paused_until.store(self.elapsed().saturating_add(millis(pause)), Ordering::Relaxed);
        *self.shared() = None;
        if misses == MISSES {
            tracing::warn!("Redis does not answer: duplicates are found and senders limited in this process alone");
        }
    }

    fn shared(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Unavailable> {
        if let Some(shared) = self.shared().clone() {
            return Ok(shared);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(shared) = self.shared().clone() {
            return Ok(shared);
        }
        let connection = self.pool.get().await.map_err(|error| Unavailable::new("Redis", error))?;
        // Out of the pool for good: the pool asks a connection for a sign of life each time it hands it out, which
        // would be a second round trip for every webhook.
        let connection = deadpool_redis::Connection::take(connection);
        *self.shared() = Some(connection.clone());
        Ok(connection)
    }

    /// The verdicts about all candidates of all questions, one after the other.
    async fn ask(&self, questions: &[Question], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable> {
        let candidates = || questions.iter().flat_map(|question| &question.candidates);
        let connection = self.connection().await?;
        // Both go out together.
        let (mut looked_up, mut counted) = tokio::try_join!(
            look_up(connection.clone(), candidates().filter(|candidate| candidate.sender.is_none())),
            self.count(connection, candidates().filter(|candidate| candidate.sender.is_some()), limit),
        )?;
        let verdicts = candidates().map(|candidate| match candidate.sender {
            Some(_) => counted.next(),
            None => looked_up.next(),
        });
        let verdicts: Option<Vec<Verdict>> = verdicts.collect();
        verdicts.ok_or_else(|| Unavailable::new("Redis", "an answer of another length"))
    }

    /// Verdicts about messages, which count against their senders.
    async fn count<'c>(
        &self,
        mut connection: MultiplexedConnection,
        candidates: impl Iterator<Item = &'c Candidate> + Clone,
        limit: SenderLimit,
    ) -> Result<vec::IntoIter<Verdict>, Unavailable> {
        let mut call = self.script.prepare_invoke();
        for candidate in candidates.clone() {
            call.key(dedup_key(candidate));
            call.key(candidate.sender.map_or_else(String::new, |sender| name("wa_rate", &candidate.tenant, sender)));
        }
        call.arg(limit.max).arg(millis(limit.window).max(1));
        let mut any = false;
        for candidate in candidates {
            call.arg(&candidate.fingerprint.0[..]);
            any = true;
        }
        let answers: Vec<u8> =
            if any { call.invoke_async(&mut connection).await.map_err(unavailable)? } else { Vec::new() };
        let verdict = |answer| Verdict { known: answer == 1, over_limit: answer == 2 };
        Ok(answers.into_iter().map(verdict).collect::<Vec<_>>().into_iter())
    }

    async fn store(&self, keys: &[Remembered]) -> Result<(), Unavailable> {
        let mut connection = self.connection().await?;
        let mut pipe = redis::pipe();
        for each in keys {
            let value = [&b"s"[..], &each.fingerprint.0[..]].concat();
            pipe.set_ex(name("wa_dedup", &each.tenant, each.key), value, REMEMBER.as_secs()).ignore();
        }
        pipe.query_async(&mut connection).await.map_err(unavailable)
    }
}

/// Verdicts about updates without a sender, for which nothing is counted: three in four.
async fn look_up<'c>(
    mut connection: MultiplexedConnection,
    candidates: impl Iterator<Item = &'c Candidate> + Clone,
) -> Result<vec::IntoIter<Verdict>, Unavailable> {
    let keys: Vec<String> = candidates.clone().map(dedup_key).collect();
    let seen: Vec<Option<Vec<u8>>> = if keys.is_empty() {
        Vec::new()
    } else {
        redis::cmd("MGET").arg(keys).query_async(&mut connection).await.map_err(unavailable)?
    };
    let verdict = |(candidate, seen): (&Candidate, Option<Vec<u8>>)| {
        let known = seen.is_some_and(|seen| seen.strip_prefix(b"s") == Some(&candidate.fingerprint.0[..]));
        Verdict { known, over_limit: false }
    };
    Ok(candidates.zip(seen).map(verdict).collect::<Vec<_>>().into_iter())
}

/// Empty for an update without a key, which is a name that is never set.
fn dedup_key(candidate: &Candidate) -> String {
    candidate.key.map_or_else(String::new, |key| name("wa_dedup", &candidate.tenant, key))
}

fn name(prefix: &str, tenant: &TenantId, key: EventKey) -> String {
    format!("{prefix}:{tenant}:{}", hex::encode(key.0))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unavailable(error: RedisError) -> Unavailable {
    Unavailable::new("Redis", error)
}

impl fmt::Debug for RedisAdmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAdmission").field("is_up", &self.is_up()).finish_non_exhaustive()
    }
}
