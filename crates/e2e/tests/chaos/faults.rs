//! What can break, and how it is put right again.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::installation::Installation;
use crate::probe::Probes;
use crate::wait;

/// How long a killed or stopped server is away.
const DOWN: Duration = Duration::from_millis(700);
/// How long nats-server stands still.
const FROZEN: Duration = Duration::from_secs(3);
/// How long the disk is full.
const FULL: Duration = Duration::from_millis(1200);
/// How long the server has to go on by itself when the disk has room again, before an operator starts it again.
const BY_ITSELF: Duration = Duration::from_secs(2);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    DiskFull,
    NatsKill,
    NatsFreeze,
    NormalizerKill,
    GatewayKill,
    ApiKill,
    PostgresStop,
    PostgresKill,
    RedisFlush,
    RedisKill,
}

impl Fault {
    /// A round. What leaves envelopes in the hands of nobody comes first, so that they are handed out again (after
    /// 30 s) while the rest goes on.
    pub(crate) const ROUND: [Self; 10] = [
        Self::DiskFull,
        Self::NatsKill,
        Self::NatsFreeze,
        Self::NormalizerKill,
        Self::GatewayKill,
        Self::ApiKill,
        Self::PostgresStop,
        Self::PostgresKill,
        Self::RedisFlush,
        Self::RedisKill,
    ];

    /// Does it and puts it right; the moment when it was, and what was noticed. `round` says whose turn it is.
    pub(crate) fn inflict(self, round: usize, on: &mut Installation, probes: &Probes) -> (Instant, &'static str) {
        let mut noticed = "";
        match self {
            Self::DiskFull => noticed = fill_the_disk(on, probes),
            Self::NatsKill => {
                on.nats.kill();
                std::thread::sleep(DOWN);
                on.nats.start_again();
            }
            Self::NatsFreeze => {
                on.nats.freeze();
                std::thread::sleep(FROZEN);
                on.nats.thaw();
            }
            Self::NormalizerKill => {
                let victim = round % on.normalizers.len();
                on.normalizers[victim].kill();
                on.normalizers[victim].start();
            }
            Self::GatewayKill => {
                let victim = round % on.gateways.len();
                on.gateways[victim].kill();
                on.gateways[victim].start();
            }
            Self::ApiKill => {
                on.api.kill();
                on.api.start();
            }
            Self::PostgresStop => {
                on.postgres.stop();
                std::thread::sleep(DOWN);
                on.postgres.start_again();
            }
            Self::PostgresKill => {
                on.postgres.kill();
                std::thread::sleep(DOWN);
                on.postgres.start_again();
            }
            Self::RedisFlush => flush(&on.redis.url()),
            Self::RedisKill => {
                on.redis.kill();
                std::thread::sleep(DOWN);
                on.redis.start_again();
            }
        }
        (Instant::now(), noticed)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DiskFull => "disk full under NATS",
            Self::NatsKill => "nats-server killed",
            Self::NatsFreeze => "nats-server frozen",
            Self::NormalizerKill => "normalizer killed",
            Self::GatewayKill => "gateway killed",
            Self::ApiKill => "API killed",
            Self::PostgresStop => "PostgreSQL restarted",
            Self::PostgresKill => "PostgreSQL killed",
            Self::RedisFlush => "Redis flushed",
            Self::RedisKill => "Redis killed",
        })
    }
}

/// Fills the disk, waits under load, frees it. nats-server may give up JetStream for good when a write fails, until it is
/// started again: then that is done here, as an operator would who has made room.
fn fill_the_disk(on: &mut Installation, probes: &Probes) -> &'static str {
    // A large one takes a while.
    on.disk.fill(on.nats.pid());
    let full = Instant::now();
    while full.elapsed() < FULL {
        on.disk.fill(on.nats.pid());
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = probes.answered_since(full + FULL / 2).is_none();
    on.disk.free(on.nats.pid());
    let freed = Instant::now();
    while probes.answered_since(freed).is_none() {
        if freed.elapsed() > BY_ITSELF || !on.nats.is_running() {
            on.nats.start_again();
            return if refused { "refused; server started again by hand" } else { "server started again by hand" };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if refused { "refused; server went on by itself" } else { "nothing was refused" }
}

/// Makes Redis forget everything.
fn flush(url: &str) {
    let address = url.strip_prefix("redis://").unwrap();
    wait::until("Redis is flushed", || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"FLUSHALL\r\n").ok()?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).ok()?;
        (&answer == b"+OK\r\n").then_some(())
    });
}
