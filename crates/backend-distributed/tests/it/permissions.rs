//! deploy/nats.conf on a real server: each process can do its work as its user, and nothing else.
//!
//! A request to JetStream is a publish, so what a user may ask is tried by publishing. The server answers a forbidden
//! subject with an error on the connection, which is what these tests wait for.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::{Client, ConnectOptions, Event};
use backend_distributed::nats::{Nats, NatsConfig};
use bytes::Bytes;
use common::directory::Entry;
use common::envelope::Lane;
use futures_util::StreamExt as _;
use ports::directory::DirectoryStore as _;
use ports::event_bus::{Consumer, EventBus as _, Outgoing, Stream};
use test_servers::Nats as Server;
use tokio::sync::mpsc;

use crate::install_tls;

const LIVE: Stream = Stream::Inbound(Lane::Live);
const STREAMS: [&str; 6] = ["inbound_live", "inbound_bulk", "audit", "wakeups", "events", "directory"];
/// What a user sees that is not of the house.
const READER: &str = "consumer";
const PATIENCE: Duration = Duration::from_secs(10);

/// A server with deploy/nats.conf and the streams made by `migrate`.
struct Deployed {
    server: Server,
}

impl Deployed {
    async fn start() -> Self {
        install_tls();
        let mut config = include_str!("../../../../deploy/nats.conf").to_owned();
        for (variable, value) in [
            ("$NATS_LISTEN", "\"127.0.0.1:{port}\""),
            ("$NATS_MONITOR_LISTEN", "\"127.0.0.1:{monitor_port}\""),
            ("$NATS_STORE_DIR", "\"{folder}/jetstream\""),
        ] {
            config = config.replace(variable, value);
        }
        for user in ["gateway", "normalizer", "api", "migrate", READER] {
            let variable = format!("$NATS_{}_PASSWORD", user.to_uppercase());
            assert!(config.contains(&variable), "{variable} is not in deploy/nats.conf");
            config = config.replace(&variable, &password(user));
        }
        let deployed = Self { server: Server::start_with(&config) };
        deployed.process("migrate").await.migrate().await.unwrap();
        deployed
    }

    fn url(&self, user: &str) -> String {
        self.server.url().replace("://", &format!("://{user}:{}@", password(user)))
    }

    /// Connects as a process does.
    async fn process(&self, user: &'static str) -> Nats {
        let config = NatsConfig {
            url: self.url(user).into(),
            monitor_url: Some(self.server.monitor_url()),
            // `wharf migrate` is the program `wharf`.
            client: if user == "migrate" { "wharf" } else { user },
            replicas: 1,
            allow_lazy_sync: false,
        };
        Nats::connect(config).await.unwrap()
    }

    async fn somebody(&self, user: &str) -> Somebody {
        let (sender, said) = mpsc::unbounded_channel();
        let options =
            ConnectOptions::with_user_and_password(user.to_owned(), password(user)).event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(error) = event {
                        let _ = sender.send(error.to_string());
                    }
                }
            });
        Somebody { client: options.connect(self.server.url()).await.unwrap(), said }
    }

    /// Makes the consumer of the reader outside, as the documentation tells the operator to.
    async fn make_reader(&self) {
        let config = pull::Config {
            durable_name: Some(READER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            filter_subject: "wharf.events.default.>".to_owned(),
            ..pull::Config::default()
        };
        let context = self.process("migrate").await.context();
        context.create_consumer_on_stream(config, "events").await.unwrap();
    }
}

fn password(user: &str) -> String {
    format!("the{user}password")
}

/// A user with a client that is not ours.
struct Somebody {
    client: Client,
    /// What the server complained about.
    said: mpsc::UnboundedReceiver<String>,
}

impl Somebody {
    async fn cannot_publish(&mut self, subject: &str) {
        self.client.publish(subject.to_owned(), Bytes::from_static(b"{}")).await.unwrap();
        self.is_refused("publish", subject).await;
    }

    async fn cannot_subscribe(&mut self, subject: &str) {
        let _subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_refused("subscription", subject).await;
    }

    async fn is_refused(&mut self, what: &str, subject: &str) {
        self.client.flush().await.unwrap();
        let said = tokio::time::timeout(PATIENCE, self.said.recv()).await;
        let said = said.unwrap_or_else(|_| panic!("{what} to {subject} is not refused")).unwrap().to_lowercase();
        let expected = format!("permissions violation for {what} to \"{}\"", subject.to_lowercase());
        assert!(said.contains(&expected), "{said}, not {expected}");
    }
}

fn outgoing(stream: Stream, subject: &str) -> Outgoing {
    Outgoing { stream, subject: subject.to_owned(), payload: Bytes::from_static(b"{}"), dedup_id: None }
}

/// Publishes a directory of one entry, as `api` does.
async fn write_directory(api: &Nats) {
    let entry = Entry::SingleTenant(true);
    let written = serde_json::json!({ "key": entry.key(), "revision": 1, "entry": entry });
    let head = serde_json::json!({ "revision": 1, "entries": 1 });
    let subject = format!("directory.entry.{}", hex::encode(entry.key()));
    for (subject, payload) in [(subject, written), ("directory.head".to_owned(), head)] {
        let sent = api.context().publish(subject, serde_json::to_vec(&payload).unwrap().into()).await.unwrap();
        sent.await.unwrap();
    }
}

/// That the directory can be read and watched.
async fn reads_the_directory(nats: &Nats) {
    let directory = nats.directory();
    let snapshot = directory.snapshot().await.unwrap();
    assert_eq!((snapshot.revision, snapshot.entries.len()), (1, 1));
    assert_eq!(tokio::time::timeout(PATIENCE, directory.changed(0)).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn each_process_does_its_work_as_its_user() {
    let deployed = Deployed::start().await;
    let gateway = deployed.process("gateway").await;
    let normalizer = deployed.process("normalizer").await;
    let api = deployed.process("api").await;
    for process in [&gateway, &normalizer, &api] {
        process.verify().await.unwrap();
    }
    write_directory(&api).await;
    reads_the_directory(&gateway).await;
    reads_the_directory(&normalizer).await;
    // It mends what somebody has written over.
    assert_eq!(api.directory().snapshot().await.unwrap().revision, 1);

    let bus = gateway.bus();
    bus.probe(LIVE).await.unwrap();
    let sent = bus
        .publish(vec![
            outgoing(LIVE, "inbound.live.acme"),
            outgoing(Stream::Inbound(Lane::Bulk), "inbound.bulk._unassigned"),
            outgoing(Stream::Audit, "audit.requests"),
        ])
        .await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");

    let bus = normalizer.bus();
    let consumers =
        [("normalizer-live", LIVE), ("normalizer-bulk", Stream::Inbound(Lane::Bulk)), ("recorder", Stream::Audit)];
    for (name, stream) in consumers {
        let consumer = Consumer { name, stream, ack_wait: Duration::from_secs(30) };
        let pulled = bus.pull(&consumer, 10, PATIENCE).await.unwrap();
        assert_eq!(pulled.len(), 1, "{name}");
        let token = &[pulled[0].token.clone()];
        assert_eq!(bus.backlog(&consumer).await.unwrap().depth, 1, "{name}");
        bus.extend(&consumer, token).await.unwrap();
        bus.ack(&consumer, token).await.unwrap();
        assert_eq!(bus.backlog(&consumer).await.unwrap().depth, 0, "{name}");
    }
    // What was acknowledged is taken out, but for probes, which expire.
    for name in ["inbound_live", "inbound_bulk", "audit"] {
        let context = normalizer.context();
        let empty = async { while context.get_stream(name).await.unwrap().cached_info().state.messages > 0 {} };
        tokio::time::timeout(PATIENCE, empty).await.unwrap_or_else(|_| panic!("{name} is not empty"));
    }
    let sent = bus.publish(vec![outgoing(Stream::Events, "wharf.events.acme.7.message.received")]).await;
    assert!(sent[0].is_ok(), "{sent:?}");

    api.context().get_stream_no_info("directory").await.unwrap().purge().await.unwrap();
    deployed.process("migrate").await.migrate().await.unwrap();
    // A refusal that a process works around would still cost it a time-out.
    let log = deployed.server.log();
    assert!(!log.contains("Violation"), "{log}");
}

#[tokio::test]
async fn only_migrate_makes_and_changes_streams_and_nobody_deletes_them() {
    let deployed = Deployed::start().await;
    for user in ["gateway", "normalizer", "api", READER] {
        let mut somebody = deployed.somebody(user).await;
        for stream in STREAMS {
            for verb in ["CREATE", "UPDATE"] {
                somebody.cannot_publish(&format!("$JS.API.STREAM.{verb}.{stream}")).await;
            }
        }
    }
    for user in ["gateway", "normalizer", "api", "migrate", READER] {
        let mut somebody = deployed.somebody(user).await;
        for stream in STREAMS {
            somebody.cannot_publish(&format!("$JS.API.STREAM.DELETE.{stream}")).await;
            let has_own_queue = user == "normalizer" && ["inbound_live", "inbound_bulk", "audit"].contains(&stream);
            if !has_own_queue {
                somebody.cannot_publish(&format!("$JS.API.STREAM.MSG.DELETE.{stream}")).await;
            }
            if !has_own_queue && (user, stream) != ("api", "directory") {
                somebody.cannot_publish(&format!("$JS.API.STREAM.PURGE.{stream}")).await;
            }
        }
    }
}

/// All the ways to what a stream holds.
fn ways_to_read(stream: &str, subject: &str, consumer: &str) -> Vec<String> {
    vec![
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.{subject}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.mine"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.mine.{subject}"),
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        format!("$JS.ACK.{stream}.{consumer}.1.1.1.1.0"),
    ]
}

#[tokio::test]
async fn the_gateway_reads_no_message_and_does_not_write_the_directory() {
    let deployed = Deployed::start().await;
    let mut gateway = deployed.somebody("gateway").await;
    for (stream, subject, consumer) in [
        ("inbound_live", "inbound.live.acme", "normalizer-live"),
        ("audit", "audit.requests", "recorder"),
        ("events", "wharf.events.acme.7.message.received", READER),
    ] {
        for way in ways_to_read(stream, subject, consumer) {
            gateway.cannot_publish(&way).await;
        }
    }
    for subject in ["directory.head", "directory.entry.00", "wharf.events.acme.7.message.received", "wakeups.any"] {
        gateway.cannot_publish(subject).await;
    }
    for subject in ["inbound.>", "audit.>", "wharf.events.>", ">", "_INBOX_normalizer.>", "_INBOX.>", "$JS.>"] {
        gateway.cannot_subscribe(subject).await;
    }
}

#[tokio::test]
async fn the_normalizer_writes_neither_the_directory_nor_a_queue() {
    let deployed = Deployed::start().await;
    let mut normalizer = deployed.somebody("normalizer").await;
    for subject in ["directory.head", "directory.entry.00", "inbound.live.acme", "audit.requests"] {
        normalizer.cannot_publish(subject).await;
    }
    // Nor has it another consumer than its own, whose messages nobody would acknowledge.
    for way in ways_to_read("events", "wharf.events.acme.7.message.received", READER) {
        normalizer.cannot_publish(&way).await;
    }
    for subject in [
        "$JS.API.CONSUMER.CREATE.inbound_live.mine.inbound.live.acme",
        "$JS.API.CONSUMER.CREATE.inbound_live.normalizer-live",
        "$JS.API.CONSUMER.DELETE.inbound_live.normalizer-live",
        "$JS.API.STREAM.MSG.GET.inbound_live",
    ] {
        normalizer.cannot_publish(subject).await;
    }
    for subject in ["wharf.events.>", "inbound.>", ">", "_INBOX_gateway.>"] {
        normalizer.cannot_subscribe(subject).await;
    }
}

/// Neither has a way to a message of a queue, or to an event, as things are. `migrate` can make one: a stream may copy or
/// show what another gets, and a consumer of `events` may deliver to its inbox. So its password is the operator's.
#[tokio::test]
async fn api_reaches_no_message_and_migrate_none_without_changing_something() {
    let deployed = Deployed::start().await;
    for user in ["api", "migrate"] {
        let mut somebody = deployed.somebody(user).await;
        for (stream, subject, consumer) in
            [("inbound_live", "inbound.live.acme", "normalizer-live"), ("audit", "audit.requests", "recorder")]
        {
            for way in ways_to_read(stream, subject, consumer) {
                somebody.cannot_publish(&way).await;
            }
            somebody.cannot_publish(subject).await;
            somebody.cannot_subscribe(subject).await;
        }
        for subject in ["wharf.events.acme.7.message.received", "$JS.API.CONSUMER.MSG.NEXT.events.consumer"] {
            somebody.cannot_publish(subject).await;
        }
        for subject in ["wharf.events.>", ">"] {
            somebody.cannot_subscribe(subject).await;
        }
        // A stream of another name could copy what ours get, and nobody would look at it.
        for verb in ["CREATE", "UPDATE"] {
            somebody.cannot_publish(&format!("$JS.API.STREAM.{verb}.mine")).await;
        }
    }
    let mut api = deployed.somebody("api").await;
    for way in ways_to_read("events", "wharf.events.acme.7.message.received", READER) {
        api.cannot_publish(&way).await;
    }
    api.cannot_subscribe("directory.head").await;
}

/// What docs/deployment.md says a stolen gateway can do, so that nobody thinks otherwise.
#[tokio::test]
async fn an_answer_of_the_server_lands_where_its_asker_wants_it() {
    let deployed = Deployed::start().await;
    let gateway = deployed.somebody("gateway").await;
    let config = serde_json::json!({ "stream_name": "directory", "config": {
        "ack_policy": "none", "deliver_policy": "new", "mem_storage": true, "inactive_threshold": 1_000_000_000,
        "metadata": { "text": "chosen" },
    } });
    for (ask, answer, body) in [
        ("inbound.live.default", "directory.head", "{}".to_owned()),
        ("$JS.API.CONSUMER.CREATE.directory", "wharf.events.default.1.message.received", config.to_string()),
    ] {
        gateway.client.publish_with_reply(ask, answer, body.into()).await.unwrap();
    }
    let context = deployed.process("migrate").await.context();
    let arrived = async {
        for name in ["directory", "events"] {
            while context.get_stream(name).await.unwrap().cached_info().state.messages == 0 {}
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("no answer: then the documentation can promise more");
}

#[tokio::test]
async fn a_reader_outside_gets_its_tenants_events_and_nothing_else() {
    let deployed = Deployed::start().await;
    deployed.make_reader().await;
    let bus = deployed.process("normalizer").await.bus();
    let events = ["wharf.events.acme.7.message.received", "wharf.events.default.7.message.received"];
    let sent = bus.publish(events.map(|subject| outgoing(Stream::Events, subject)).to_vec()).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");

    let mut reader = deployed.somebody(READER).await;
    let client = reader.client.clone();
    let mut answers = client.subscribe("_INBOX_consumer.1").await.unwrap();
    let ask = |answer: &'static str| {
        client.publish_with_reply("$JS.API.CONSUMER.MSG.NEXT.events.consumer", answer, Bytes::from_static(b"10"))
    };
    ask("_INBOX_consumer.1").await.unwrap();
    let event = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert_eq!(event.subject.as_str(), "wharf.events.default.7.message.received");
    let mut settled = client.subscribe("_INBOX_consumer.2").await.unwrap();
    let ack = Bytes::from_static(b"+ACK");
    client.publish_with_reply(event.reply.unwrap(), "_INBOX_consumer.2", ack).await.unwrap();
    tokio::time::timeout(PATIENCE, settled.next()).await.unwrap().unwrap();

    for (stream, subject, consumer) in [
        ("inbound_live", "inbound.live.default", "normalizer-live"),
        ("audit", "audit.requests", "recorder"),
        ("directory", "directory.head", "mine"),
    ] {
        for way in ways_to_read(stream, subject, consumer) {
            reader.cannot_publish(&way).await;
        }
        reader.cannot_publish(subject).await;
    }
    for subject in [
        "$JS.API.STREAM.MSG.GET.events",
        "$JS.API.CONSUMER.CREATE.events.consumer",
        "$JS.API.CONSUMER.CREATE.events.consumer.wharf.events.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.events.consumer",
        "$JS.API.CONSUMER.MSG.NEXT.events.another",
        "wharf.events.default.7.message.received",
    ] {
        reader.cannot_publish(subject).await;
    }
    for subject in ["wharf.events.default.>", "wharf.events.>", "directory.>", ">", "_INBOX_gateway.>"] {
        reader.cannot_subscribe(subject).await;
    }
}

/// Within an account it would, since a server does not check where a request wants its answer.
#[tokio::test]
async fn a_reader_outside_cannot_have_an_event_sent_to_a_subject_of_ours() {
    let deployed = Deployed::start().await;
    deployed.make_reader().await;
    let bus = deployed.process("normalizer").await.bus();
    let publish = async || {
        let sent = bus.publish(vec![outgoing(Stream::Events, "wharf.events.default.7.message.received")]).await;
        assert!(sent[0].is_ok(), "{sent:?}");
    };
    publish().await;
    publish().await;
    let reader = deployed.somebody(READER).await;
    let ask = "$JS.API.CONSUMER.MSG.NEXT.events.consumer";
    for target in ["directory.head", "inbound.live.default"] {
        reader.client.publish_with_reply(ask, target, Bytes::from_static(b"1")).await.unwrap();
    }
    // Requests are served in order, so once this one is, those were.
    let mut answers = reader.client.subscribe("_INBOX_consumer.1").await.unwrap();
    reader.client.publish_with_reply(ask, "_INBOX_consumer.1", Bytes::from_static(b"1")).await.unwrap();
    tokio::time::timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    let context = deployed.process("migrate").await.context();
    for name in ["directory", "inbound_live"] {
        assert_eq!(context.get_stream(name).await.unwrap().cached_info().state.messages, 0, "{name}");
    }
}

#[tokio::test]
async fn whoever_may_not_ask_is_told_to_look_at_the_user() {
    let deployed = Deployed::start().await;
    let config = NatsConfig {
        url: deployed.url("gateway").into(),
        monitor_url: Some(deployed.server.monitor_url()),
        client: "wharf",
        replicas: 1,
        allow_lazy_sync: false,
    };
    let error = Nats::connect(config).await.unwrap().verify().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("nats.url") && cause.contains("`migrate`"), "{cause}");
}

#[tokio::test]
async fn nobody_connects_without_the_right_password() {
    let deployed = Deployed::start().await;
    assert!(async_nats::connect(deployed.server.url()).await.is_err());
    for (user, password) in [("gateway", "wrong"), ("gateway", ""), ("admin", "admin")] {
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
        assert!(options.connect(deployed.server.url()).await.is_err(), "{user}");
    }
}
