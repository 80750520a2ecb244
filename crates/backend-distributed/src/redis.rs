//! Redis: what the gateways remember together.
//!
//! One script decides about all updates of a request: one round trip. The keys:
//!
//! - `wa_dedup:<tenant>:<event key>` holds `s` and the fingerprint of bytes that are stored (24 h), or `c` and the
//!   fingerprint of bytes that were counted against their sender and not stored yet (one window).
//! - `wa_rate:<tenant>:<sender>` counts a sender's messages; it expires with the window.
//!
//! Every part of a key is a keyed hash. Redis only saves work: while it does not answer in time, admission in the
//! process decides, and after a pause one request tries again. A flushed Redis costs duplicates that the database folds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::{EventKey, TenantId};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, RedisError, Script};
use deadpool_redis::{Config, Pool, PoolConfig, Runtime, Timeouts};
use ports::Unavailable;
use ports::admission::{Admission, Candidate, Remembered, SenderLimit, Verdict};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::OpenError;

/// An answer later than this is not worth waiting for: admission only saves work.
const BUDGET: Duration = Duration::from_millis(15);
/// How long Redis is left alone after it did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The same for what no webhook waits for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a key is remembered.
const REMEMBER: Duration = Duration::from_hours(24);

/// Arguments: maximum, window in ms, then for each candidate its fingerprint. Keys: for each candidate its dedup key and
/// its sender's, empty if it has none. Answers one digit a candidate: 0 new, 1 known, 2 over the limit.
const ADMIT: &str = r"
local max, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for i = 1, #KEYS / 2 do
  local key, sender, print = KEYS[i * 2 - 1], KEYS[i * 2], ARGV[i + 2]
  local seen = key ~= '' and redis.call('GET', key)
  if seen == 's' .. print then
    answer[i] = 1
  elseif seen == 'c' .. print or sender == '' then
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

/// Admission in Redis, shared by all gateways; in process while Redis does not answer.
pub struct RedisAdmission {
    pool: Pool,
    /// One connection carries the requests of all threads, as it can have many under way.
    shared: RwLock<Option<MultiplexedConnection>>,
    local: Arc<dyn Admission>,
    budget: Duration,
    script: Script,
    began: Instant,
    /// Milliseconds since `began` before which Redis is left alone.
    paused_until: AtomicU64,
    is_up: AtomicBool,
}

impl RedisAdmission {
    /// Does not connect yet: Redis may be down. An error only for a URL that is none. `local` decides while Redis does
    /// not answer.
    pub fn new(url: &SecretString, local: Arc<dyn Admission>) -> Result<Arc<Self>, OpenError> {
        Self::with_budget(url, local, BUDGET)
    }

    /// The same with another time than 15 ms in which an answer is of use.
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
        Ok(Arc::new(Self {
            pool,
            shared: RwLock::default(),
            local,
            budget,
            script: Script::new(ADMIT),
            began: Instant::now(),
            paused_until: AtomicU64::new(0),
            is_up: AtomicBool::new(true),
        }))
    }

    /// Whether Redis answered when it was asked last.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Asks Redis for a sign of life, and sees to it that there is a connection: a webhook's budget is too short to make
    /// one far away. True if the answer came soon enough to be of use.
    pub async fn ping(&self) -> bool {
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
            self.failed().await;
        }
        answered
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether this request may ask Redis. After a pause the first one may, and the others only once it was answered.
    fn may_ask(&self) -> bool {
        let until = self.paused_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = self.elapsed();
        let next = now.saturating_add(millis(PAUSE));
        now >= until && self.paused_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn answered(&self) {
        self.paused_until.store(0, Ordering::Relaxed);
        if !self.is_up.swap(true, Ordering::Relaxed) {
            tracing::info!("Redis answers again");
        }
    }

    async fn failed(&self) {
        self.paused_until.store(self.elapsed().saturating_add(millis(PAUSE)).max(1), Ordering::Relaxed);
        *self.shared.write().await = None;
        if self.is_up.swap(false, Ordering::Relaxed) {
            tracing::warn!("Redis does not answer: duplicates are found and senders limited in this process alone");
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Unavailable> {
        if let Some(shared) = &*self.shared.read().await {
            return Ok(shared.clone());
        }
        let mut place = self.shared.write().await;
        if let Some(shared) = &*place {
            return Ok(shared.clone());
        }
        let connection = self.pool.get().await.map_err(|error| Unavailable::new("Redis", error))?;
        // Out of the pool for good: the pool asks a connection for a sign of life each time it hands it out, which
        // would be a second round trip for every webhook.
        let connection = deadpool_redis::Connection::take(connection);
        *place = Some(connection.clone());
        Ok(connection)
    }

    async fn ask(&self, candidates: &[Candidate], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable> {
        let mut connection = self.connection().await?;
        let mut call = self.script.prepare_invoke();
        for candidate in candidates {
            let of = |prefix, key: Option<EventKey>| {
                key.map_or_else(String::new, |key| name(prefix, &candidate.tenant, key))
            };
            call.key(of("wa_dedup", candidate.key)).key(of("wa_rate", candidate.sender));
        }
        call.arg(limit.max).arg(millis(limit.window).max(1));
        for candidate in candidates {
            call.arg(&candidate.fingerprint.0[..]);
        }
        let answers: Vec<u8> = call.invoke_async(&mut connection).await.map_err(unavailable)?;
        if answers.len() != candidates.len() {
            return Err(Unavailable::new("Redis", "an answer of another length"));
        }
        Ok(answers.into_iter().map(|answer| Verdict { known: answer == 1, over_limit: answer == 2 }).collect())
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

#[async_trait]
impl Admission for RedisAdmission {
    async fn admit(&self, candidates: &[Candidate], limit: SenderLimit) -> Result<Vec<Verdict>, Unavailable> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        if !self.may_ask() {
            return self.local.admit(candidates, limit).await;
        }
        // Dropping the request at the end of its budget leaves the connection to the others; that it is slow is noted.
        if let Ok(Ok(verdicts)) = tokio::time::timeout(self.budget, self.ask(candidates, limit)).await {
            self.answered();
            return Ok(verdicts);
        }
        self.failed().await;
        self.local.admit(candidates, limit).await
    }

    async fn remember(&self, keys: &[Remembered]) -> Result<(), Unavailable> {
        // Also here: what was stored while Redis was there must be known when it is not.
        self.local.remember(keys).await?;
        if keys.is_empty() || self.paused_until.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        match tokio::time::timeout(PATIENCE, self.store(keys)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.failed().await;
                Err(error)
            }
            Err(late) => {
                self.failed().await;
                Err(Unavailable::new("Redis", late))
            }
        }
    }
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
