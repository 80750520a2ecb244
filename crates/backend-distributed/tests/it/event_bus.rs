//! The laws of the event bus on a real nats-server.
//!
//! The server has a clock of its own, which nobody can turn. So it gets all its durations twentyfold shortened, and
//! time passes for it by waiting a twentieth: thirty seconds of a law are one and a half of the server. What a law lets
//! pass in hours is not waited for; there the stream's settings hold the promise (`nats::streams`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backend_distributed::nats::{JetStreamBus, Nats, NatsConfig, streams};
use common::Timestamp;
use port_contracts::memory::MemoryHarness;
use port_contracts::{Harness, ManualClock};
use ports::Unavailable;
use ports::event_bus::{AckToken, Backlog, Consumer, Delivery, EventBus, Outgoing, PublishError, Published, Stream};
use test_servers::Nats as Server;

use crate::{install_tls, other_ports_in_memory, others};

/// How much faster the server's time runs.
const FASTER: u32 = 20;
/// What is longer is not waited for.
const LONGEST: Duration = Duration::from_mins(10);

pub(crate) fn config(server: &Server) -> NatsConfig {
    NatsConfig {
        url: server.url().into(),
        monitor_url: Some(server.monitor_url()),
        client: "test",
        replicas: 1,
        allow_lazy_sync: false,
    }
}

struct NatsHarness {
    server: Server,
    nats: Nats,
    others: MemoryHarness,
    began: Timestamp,
}

async fn connect(server: &Server) -> Nats {
    Nats::connect(config(server)).await.unwrap()
}

fn now() -> Timestamp {
    common::Clock::now(&common::SystemClock)
}

#[async_trait]
impl Harness for NatsHarness {
    /// The server finds dedup ids in what is stored: those of acknowledged messages are gone after a restart. Nothing
    /// depends on it: the ids are those of events, which stay, and of batches of records, which are idempotent.
    const REMEMBERS_DEDUP_OF_ACKED_OVER_RESTART: bool = false;

    /// The server writes a consumer's place a little later than it answers. Whatever comes again is folded by its key.
    const REMEMBERS_ACKS_OVER_RESTART: bool = false;

    async fn open(clock: Arc<ManualClock>) -> Self {
        install_tls();
        let server = Server::start();
        let nats = connect(&server).await;
        nats.migrate().await.unwrap();
        nats.verify().await.unwrap();
        for mut stream in streams::wanted(1) {
            stream.duplicate_window /= FASTER;
            nats.context().update_stream(stream).await.unwrap();
        }
        Self { server, nats, others: others(clock).await, began: now() }
    }

    async fn restart(mut self) -> Self {
        self.server.kill();
        self.server.start_again();
        Self { nats: connect(&self.server).await, ..self }
    }

    async fn pass(&self, clock: &ManualClock, time: Duration) {
        clock.advance(time);
        if time <= LONGEST {
            tokio::time::sleep(time / FASTER).await;
        }
    }

    fn bus(&self) -> Arc<dyn EventBus> {
        Arc::new(Faster { bus: self.nats.bus(), began: self.began })
    }

    other_ports_in_memory! {
        admission -> ports::admission::Admission,
        directory -> ports::directory::DirectoryStore,
        store -> ports::event_store::EventStore,
        outbox -> ports::outbox::Outbox,
        feed -> ports::feed::Feed,
        message_log -> ports::message_log::MessageLog,
        request_log -> ports::request_log::RequestLog,
        statistics -> ports::statistics::Statistics,
        parking -> ports::parking::Parking,
        raw -> ports::raw::RawIndex,
        access -> ports::access::Access,
    }
}

/// The bus as a caller with slower time sees it.
struct Faster {
    bus: Arc<JetStreamBus>,
    began: Timestamp,
}

fn scaled(consumer: &Consumer) -> Consumer {
    Consumer { ack_wait: consumer.ack_wait / FASTER, ..consumer.clone() }
}

#[async_trait]
impl EventBus for Faster {
    async fn publish(&self, messages: Vec<Outgoing>) -> Vec<Result<Published, PublishError>> {
        self.bus.publish(messages).await
    }

    async fn publish_whole(&self, messages: &[Outgoing]) -> Result<bool, Unavailable> {
        self.bus.publish_whole(messages).await
    }

    async fn pull(&self, consumer: &Consumer, max: usize, wait: Duration) -> Result<Vec<Delivery>, Unavailable> {
        let mut pulled = self.bus.pull(&scaled(consumer), max, wait).await?;
        for delivery in &mut pulled {
            delivery.published_at = self.began.plus(delivery.published_at.since(self.began) * FASTER);
        }
        Ok(pulled)
    }

    async fn ack(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        self.bus.ack(&scaled(consumer), tokens).await
    }

    async fn retry_after(&self, consumer: &Consumer, tokens: &[AckToken], delay: Duration) -> Result<(), Unavailable> {
        self.bus.retry_after(&scaled(consumer), tokens, delay / FASTER).await
    }

    async fn extend(&self, consumer: &Consumer, tokens: &[AckToken]) -> Result<(), Unavailable> {
        self.bus.extend(&scaled(consumer), tokens).await
    }

    async fn backlog(&self, consumer: &Consumer) -> Result<Backlog, Unavailable> {
        let backlog = self.bus.backlog(&scaled(consumer)).await?;
        Ok(Backlog { oldest_age: backlog.oldest_age * FASTER, ..backlog })
    }

    async fn probe(&self, stream: Stream) -> Result<(), Unavailable> {
        self.bus.probe(stream).await
    }

    fn is_connected(&self) -> bool {
        self.bus.is_connected()
    }
}

port_contracts::event_bus_contract!(NatsHarness);
