//! The three servers of a setup. They are started once and outlive the processes of ours.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use test_servers::{Nats, Postgres, Redis};

use crate::http;

/// NATS, Redis and PostgreSQL, fresh.
#[derive(Debug)]
pub(crate) struct Servers {
    nats: Mutex<Nats>,
    redis: Mutex<Redis>,
    postgres: Mutex<Postgres>,
}

/// Which of them a process is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Nats,
    Redis,
    Postgres,
}

impl Servers {
    pub(crate) const ALL: [Server; 3] = [Server::Nats, Server::Redis, Server::Postgres];

    pub(crate) fn start() -> Self {
        Self::with(Nats::start)
    }

    /// With a NATS of its own kind.
    pub(crate) fn with(nats: fn() -> Nats) -> Self {
        std::thread::scope(|scope| {
            let nats = scope.spawn(nats);
            let postgres = scope.spawn(Postgres::start);
            let redis = Mutex::new(Redis::start());
            Self { nats: Mutex::new(nats.join().unwrap()), redis, postgres: Mutex::new(postgres.join().unwrap()) }
        })
    }

    pub(crate) fn nats(&self) -> MutexGuard<'_, Nats> {
        self.nats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn redis(&self) -> MutexGuard<'_, Redis> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn postgres(&self) -> MutexGuard<'_, Postgres> {
        self.postgres.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages in a stream, as NATS' monitoring counts them.
    pub(crate) fn messages_in(&self, stream: &str) -> u64 {
        self.stream(stream)["state"]["messages"].as_u64().unwrap()
    }

    /// What a consumer has been given and has not acknowledged.
    pub(crate) fn in_hand(&self, stream: &str, consumer: &str) -> u64 {
        self.consumer(stream, consumer)["num_ack_pending"].as_u64().unwrap_or_default()
    }

    /// What a consumer has not acknowledged, in hand or not.
    pub(crate) fn waiting(&self, stream: &str, consumer: &str) -> u64 {
        let consumer = self.consumer(stream, consumer);
        ["num_pending", "num_ack_pending"].iter().filter_map(|count| consumer[count].as_u64()).sum()
    }

    fn consumer(&self, stream: &str, name: &str) -> Value {
        let stream = self.stream(stream);
        let consumers = stream["consumer_detail"].as_array().cloned().unwrap_or_default();
        consumers.into_iter().find(|each| each["name"] == name).unwrap_or_default()
    }

    fn stream(&self, name: &str) -> Value {
        let url = self.nats().monitor_url();
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let answer = http::get(address, "/jsz?streams=true&consumers=true", "").json();
        let streams = answer["account_details"][0]["stream_detail"].as_array().cloned().unwrap_or_default();
        streams.into_iter().find(|each| each["name"] == name).unwrap_or_else(|| panic!("no stream {name}: {answer}"))
    }

    /// Where they are, for a process that needs these.
    pub(crate) fn environment(&self, needed: &[Server]) -> Vec<(&'static str, String)> {
        let mut environment = Vec::new();
        for server in needed {
            match server {
                Server::Nats => {
                    let nats = self.nats();
                    environment.push(("WHARF__NATS__URL", nats.url()));
                    environment.push(("WHARF__NATS__MONITOR_URL", nats.monitor_url()));
                }
                Server::Redis => environment.push(("WHARF__REDIS__URL", self.redis().url())),
                Server::Postgres => environment.push(("WHARF__POSTGRES__URL", self.postgres().url())),
            }
        }
        environment
    }
}
