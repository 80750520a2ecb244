//! What the laws do not say: what a process refuses to begin with, and what it does while the server is away.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, Republish, Source, SubjectTransform};
use backend_distributed::OpenError;
use backend_distributed::nats::{Nats, NatsConfig, streams};
use bytes::Bytes;
use common::envelope::Lane;
use ports::event_bus::{Consumer, EventBus as _, Outgoing, PublishError, Stream};
use test_servers::Nats as Server;

use crate::event_bus::config;
use crate::install_tls;

const LIVE: Stream = Stream::Inbound(Lane::Live);

fn envelope(text: &str) -> Outgoing {
    Outgoing {
        stream: LIVE,
        subject: "inbound.live.acme".to_owned(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
        dedup_id: None,
    }
}

async fn ready(server: &Server) -> Nats {
    install_tls();
    let nats = Nats::connect(config(server)).await.unwrap();
    nats.migrate().await.unwrap();
    nats
}

fn refusal(result: Result<(), OpenError>) -> String {
    match result {
        Err(OpenError::Unsuitable(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn migrating_twice_changes_nothing_and_says_so() {
    let server = Server::start();
    let nats = ready(&server).await;
    let again = nats.migrate().await.unwrap();
    assert_eq!(again.len(), streams::wanted(1).len());
    assert!(again.iter().all(|line| line.ends_with("as it must be")), "{again:?}");
    nats.verify().await.unwrap();
}

#[tokio::test]
async fn missing_streams_are_refused_with_advice() {
    install_tls();
    let server = Server::start();
    let nats = Nats::connect(config(&server)).await.unwrap();
    assert!(refusal(nats.verify().await).contains("wharf migrate"));
}

#[tokio::test]
async fn a_stream_that_was_changed_by_hand_is_refused_and_mended_by_migrating() {
    let server = Server::start();
    let nats = ready(&server).await;
    let mut inbound = streams::wanted(1).remove(0);
    inbound.max_age = Duration::from_hours(1);
    nats.context().update_stream(inbound).await.unwrap();
    let text = refusal(nats.verify().await);
    assert!(text.contains("inbound") && text.contains("age"), "{text}");
    nats.migrate().await.unwrap();
    nats.verify().await.unwrap();
}

#[tokio::test]
async fn what_sends_messages_elsewhere_is_refused_and_taken_back_by_migrating() {
    let server = Server::start();
    let nats = ready(&server).await;
    let context = nats.context();
    let other = Config { name: "other".to_owned(), subjects: vec!["other.>".to_owned()], ..Config::default() };
    context.create_stream(other).await.unwrap();
    let wanted = || streams::wanted(1).remove(0);
    let transform = SubjectTransform { source: "inbound.live.*".into(), destination: "lost.{{wildcard(1)}}".into() };
    let republish = Republish { source: ">".into(), destination: "shown.>".into(), headers_only: false };
    let source = Source { name: "other".to_owned(), ..Source::default() };
    for (changed, what) in [
        (Config { subject_transform: Some(transform), ..wanted() }, "subject transform"),
        (Config { republish: Some(republish), ..wanted() }, "republishing"),
        (Config { sources: Some(vec![source]), ..wanted() }, "sources"),
        (Config { allow_rollup: true, ..wanted() }, "roll-ups"),
    ] {
        context.update_stream(changed).await.unwrap();
        let text = refusal(nats.verify().await);
        assert!(text.contains(&format!("inbound_live is not as it must be ({what})")), "{text}");
        let done = nats.migrate().await.unwrap();
        assert!(done.contains(&format!("stream inbound_live: changed ({what})")), "{done:?}");
        nats.verify().await.unwrap();
    }
}

fn lazy_server() -> Server {
    Server::start_with(
        "listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor_port}\nmax_payload: 8MB\njetstream { store_dir: \"{folder}/js\" }\n",
    )
}

#[tokio::test]
async fn a_server_that_syncs_lazily_is_refused_unless_the_switch_says_otherwise() {
    install_tls();
    let server = lazy_server();
    let nats = Nats::connect(config(&server)).await.unwrap();
    let text = refusal(nats.migrate().await.map(|_| ()));
    assert!(text.contains("sync_interval: always"), "{text}");
    let unknown = Nats::connect(NatsConfig { monitor_url: None, ..config(&server) }).await.unwrap();
    assert!(refusal(unknown.verify().await).contains("monitor_url"));
    let allowed = Nats::connect(NatsConfig { allow_lazy_sync: true, ..config(&server) }).await.unwrap();
    allowed.migrate().await.unwrap();
    allowed.verify().await.unwrap();
}

#[tokio::test]
async fn the_monitoring_endpoint_of_another_server_proves_nothing() {
    install_tls();
    let (server, other) = (lazy_server(), Server::start());
    let nats = Nats::connect(NatsConfig { monitor_url: Some(other.monitor_url()), ..config(&server) }).await.unwrap();
    assert!(refusal(nats.verify().await).contains("not the monitoring endpoint"));
}

#[tokio::test]
async fn an_address_that_is_no_monitoring_endpoint_is_named() {
    install_tls();
    let server = Server::start();
    // The port of clients, as is easily written.
    let wrong = server.url().replace("nats://", "http://");
    let nats = Nats::connect(NatsConfig { monitor_url: Some(wrong.clone()), ..config(&server) }).await.unwrap();
    let error = nats.verify().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(&wrong) && cause.contains("nats.monitor_url"), "{cause}");
}

#[tokio::test]
async fn small_messages_and_missing_jetstream_are_refused() {
    install_tls();
    let small = Server::start_with(
        "listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor_port}\njetstream { store_dir: \"{folder}/js\", sync_interval: always }\n",
    );
    let nats = Nats::connect(config(&small)).await.unwrap();
    assert!(refusal(nats.verify().await).contains("max_payload"));
    let core = Server::start_with("listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor_port}\nmax_payload: 8MB\n");
    let nats = Nats::connect(config(&core)).await.unwrap();
    assert!(refusal(nats.verify().await).contains("JetStream"));
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_without_repeating_it() {
    let server = Server::start();
    let error =
        Nats::connect(NatsConfig { url: "nats://user:hunter2@:::".into(), ..config(&server) }).await.unwrap_err();
    assert!(error.to_string().contains("nats.url") && !error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn the_user_in_the_address_logs_in_and_a_wrong_password_is_refused() {
    install_tls();
    let server = Server::start_with(
        "listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor_port}\nmax_payload: 8MB\n\
         jetstream { store_dir: \"{folder}/js\", sync_interval: always }\n\
         authorization { user: wharf, password: \"p@ss/word\" }\n",
    );
    let with = |user: &str| {
        let url = server.url().replace("nats://", &format!("nats://{user}@"));
        NatsConfig { url: url.into(), ..config(&server) }
    };
    Nats::connect(with("wharf:p%40ss%2Fword")).await.unwrap().migrate().await.unwrap();
    for wrong in ["wharf:hunter2", "nobody:p%40ss%2Fword"] {
        let refused = Nats::connect(with(wrong)).await.map(|_| ());
        let text = refusal(refused);
        assert!(text.contains("nats.url") && !text.contains("hunter2"), "{text}");
    }
    assert!(matches!(Nats::connect(config(&server)).await, Err(OpenError::Unsuitable(_))), "nobody at all");
}

#[tokio::test]
async fn a_dead_server_is_noticed_at_once_and_everything_goes_on_by_itself() {
    let mut server = Server::start();
    let nats = ready(&server).await;
    let bus = nats.bus();
    assert!(bus.publish(vec![envelope("before")]).await[0].is_ok());
    server.kill();
    let noticed = async {
        while bus.is_connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), noticed).await.unwrap();
    server.start_again();
    let reconnected = async { while bus.publish(vec![envelope("after")]).await[0].is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), reconnected).await.unwrap();
    let consumer = Consumer { name: "normalizer-live", stream: LIVE, ack_wait: Duration::from_secs(30) };
    let pulled = bus.pull(&consumer, 10, Duration::from_secs(5)).await.unwrap();
    assert_eq!(&pulled[0].payload[..], b"before");
    assert!(pulled[1..].iter().all(|delivery| &delivery.payload[..] == b"after") && pulled.len() >= 2);
}

#[tokio::test]
async fn a_server_that_comes_back_without_syncing_is_not_trusted_until_it_syncs_again() {
    install_tls();
    let mut server = Server::start_with(
        "listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor_port}\nmax_payload: 8MB\n\
         jetstream { store_dir: \"{folder}/js\", sync_interval: always }\n",
    );
    let nats = ready(&server).await;
    nats.verify().await.unwrap();
    let bus = nats.bus();
    assert!(bus.is_connected());
    let conf = server.folder().join("nats.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    for (text, trusted) in [(text.replace(", sync_interval: always", ""), false), (text.clone(), true)] {
        server.kill();
        std::fs::write(&conf, text).unwrap();
        server.start_again();
        let answered = async { while nats.context().get_stream(LIVE.name()).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap();
        let published = bus.publish(vec![envelope("x")]).await;
        assert!(trusted || published[0].is_err(), "{published:?}");
        if trusted {
            let trusts = async {
                while !bus.is_connected() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), trusts).await.unwrap();
        } else {
            assert!(!bus.is_connected());
        }
    }
}

#[tokio::test]
async fn a_frozen_server_is_an_error_in_bounded_time() {
    let server = Server::start();
    let nats = ready(&server).await;
    let bus = nats.bus();
    let consumer = Consumer { name: "normalizer-live", stream: LIVE, ack_wait: Duration::from_secs(30) };
    assert!(bus.pull(&consumer, 1, Duration::ZERO).await.unwrap().is_empty());
    server.freeze();
    let (published, pulled) = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::join!(bus.publish(vec![envelope("lost?")]), bus.pull(&consumer, 1, Duration::from_millis(100)))
    })
    .await
    .unwrap();
    assert!(matches!(published[0], Err(PublishError::Unavailable(_))), "{published:?}");
    assert!(pulled.is_err());
    server.thaw();
    let recovered = async { while bus.probe(LIVE).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), recovered).await.unwrap();
    // What was published while nobody answered may have been stored.
    let pulled = bus.pull(&consumer, 10, Duration::from_millis(500)).await.unwrap();
    assert!(pulled.len() <= 1);
}

#[tokio::test]
async fn a_server_that_acknowledges_nothing_is_waited_for_once_however_many_batches_there_are() {
    let server = Server::start();
    let nats = ready(&server).await;
    nats.verify().await.unwrap();
    let bus = nats.bus();
    // Somebody listens, so nobody is told that no stream does.
    nats.context().delete_stream(LIVE.name()).await.unwrap();
    let listening = async_nats::connect(server.url()).await.unwrap();
    let _listener = listening.subscribe("inbound.live.>").await.unwrap();
    listening.flush().await.unwrap();
    let begun = tokio::time::Instant::now();
    let published = bus.publish((0..1_600).map(|_| envelope("lost?")).collect()).await;
    // One acknowledgement is waited for 5 s.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(published.len(), 1_600);
    assert!(published.iter().all(|answer| matches!(answer, Err(PublishError::Unavailable(_)))), "{published:?}");
}

#[tokio::test]
async fn a_server_that_syncs_takes_many_events_as_a_whole() {
    let server = Server::start();
    let nats = ready(&server).await;
    nats.verify().await.unwrap();
    let bus = nats.bus();
    let events = |count: usize| -> Vec<Outgoing> {
        let event =
            |n: &str| Outgoing { stream: Stream::Events, subject: "wharf.events.acme.7.x".to_owned(), ..envelope(n) };
        (0..count).map(|n| event(n.to_string().as_str())).collect()
    };
    let consumer = Consumer { name: "reader", stream: Stream::Events, ack_wait: Duration::from_secs(30) };
    // Few are as cheap one by one.
    assert!(!bus.publish_whole(&events(2)).await.unwrap());
    let batches = async_nats::connect(server.url()).await.unwrap().is_server_compatible(2, 15, 0);
    assert_eq!(bus.publish_whole(&events(300)).await.unwrap(), batches);
    let pulled = bus.pull(&consumer, 400, Duration::from_millis(200)).await.unwrap();
    let texts: Vec<_> = pulled.iter().map(|pulled| std::str::from_utf8(&pulled.payload).unwrap().to_owned()).collect();
    assert_eq!(texts, if batches { (0..300).map(|n| n.to_string()).collect() } else { Vec::new() });
}

#[tokio::test]
async fn a_consumer_that_the_server_has_lost_is_made_again() {
    let server = Server::start();
    let nats = ready(&server).await;
    let bus = nats.bus();
    let consumer = Consumer { name: "normalizer-live", stream: LIVE, ack_wait: Duration::from_secs(30) };
    assert!(bus.pull(&consumer, 1, Duration::ZERO).await.unwrap().is_empty());
    nats.context().delete_consumer_from_stream("normalizer-live", "inbound_live").await.unwrap();
    assert!(bus.publish(vec![envelope("a")]).await[0].is_ok());
    let pulled = async {
        loop {
            if let Ok(pulled) = bus.pull(&consumer, 1, Duration::from_millis(100)).await
                && !pulled.is_empty()
            {
                return pulled;
            }
        }
    };
    assert_eq!(&tokio::time::timeout(Duration::from_secs(20), pulled).await.unwrap()[0].payload[..], b"a");
}

#[tokio::test]
async fn an_ack_of_what_the_server_does_not_know_any_more_ends() {
    let mut server = Server::start();
    let nats = ready(&server).await;
    let bus = nats.bus();
    let consumer = Consumer { name: "normalizer-live", stream: LIVE, ack_wait: Duration::from_secs(2) };
    assert!(bus.publish(vec![envelope("a"), envelope("b")]).await.iter().all(Result::is_ok));
    let held = bus.pull(&consumer, 10, Duration::from_secs(5)).await.unwrap();
    server.kill();
    server.start_again();
    let tokens: Vec<_> = held.iter().map(|delivery| delivery.token.clone()).collect();
    let acked = async { while bus.ack(&consumer, &tokens).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), acked).await.unwrap();
    assert!(bus.publish(vec![envelope("c")]).await[0].is_ok());
    let came = async {
        let mut came = Vec::new();
        while !came.iter().any(|payload: &Bytes| &payload[..] == b"c") {
            let pulled = bus.pull(&consumer, 10, Duration::from_secs(1)).await.unwrap();
            came.extend(pulled.into_iter().map(|delivery| delivery.payload));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), came).await.unwrap();
}

#[tokio::test]
async fn a_pull_is_bounded_by_bytes() {
    let server = Server::start();
    let nats = ready(&server).await;
    let bus = nats.bus();
    let large = Outgoing { payload: Bytes::from(vec![7; 4 << 20]), ..envelope("") };
    for _ in 0..8 {
        assert!(bus.publish(vec![large.clone()]).await[0].is_ok());
    }
    let consumer = Consumer { name: "normalizer-live", stream: LIVE, ack_wait: Duration::from_secs(30) };
    let (mut all, mut pulls) = (0, 0);
    while all < 8 {
        let pulled = bus.pull(&consumer, 256, Duration::from_secs(1)).await.unwrap();
        assert!((1..=5).contains(&pulled.len()), "{} of 4 MiB", pulled.len());
        all += pulled.len();
        pulls += 1;
    }
    assert!(pulls >= 2);
}

#[tokio::test]
async fn publishing_goes_on_when_the_runtime_that_published_first_has_ended() {
    let server = Server::start();
    let nats = ready(&server).await;
    nats.verify().await.unwrap();
    let bus = nats.bus();
    let first = bus.clone();
    let published = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(first.publish(vec![envelope("first")]))
    });
    let published = tokio::task::spawn_blocking(|| published.join().unwrap()).await.unwrap();
    assert!(published[0].is_ok(), "{published:?}");
    let later = bus.publish((0..20).map(|_| envelope("later")).collect());
    let later = tokio::time::timeout(Duration::from_secs(10), later).await.unwrap();
    assert!(later.iter().all(Result::is_ok), "{later:?}");
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_takes_its_messages_one_by_one() {
    let server = Server::start();
    let nats = ready(&server).await;
    nats.verify().await.unwrap();
    let bus = nats.bus();
    let inbound = streams::wanted(1).into_iter().find(|stream| stream.name == LIVE.name()).unwrap();
    nats.context().update_stream(Config { allow_atomic_publish: false, ..inbound }).await.unwrap();
    for _ in 0..2 {
        let published = bus.publish((0..20).map(|_| envelope("a")).collect()).await;
        assert!(published.iter().all(Result::is_ok), "{published:?}");
    }
    let stream = nats.context().get_stream(LIVE.name()).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 40);
}

/// The one promise on which everything rests: what is acknowledged is there, also of a batch with messages that are not.
#[tokio::test]
async fn of_many_messages_over_a_quota_exactly_the_acknowledged_ones_are_stored() {
    let server = Server::start();
    let nats = ready(&server).await;
    nats.verify().await.unwrap();
    let inbound = streams::wanted(1).into_iter().find(|stream| stream.name == LIVE.name()).unwrap();
    nats.context().update_stream(Config { max_messages_per_subject: 30, ..inbound }).await.unwrap();
    let bus = nats.bus();
    let of = |tenant: &str, text: String| Outgoing { subject: format!("inbound.live.{tenant}"), ..envelope(&text) };
    // First all at once, then more that are over the quota from the first on, with the last of another tenant.
    let mut acknowledged = BTreeMap::new();
    for round in 0..3 {
        let mut messages: Vec<_> = (0..40).map(|n| of("acme", format!("acme {round} {n}"))).collect();
        messages.push(of("globex", format!("globex {round}")));
        let texts: Vec<Bytes> = messages.iter().map(|message| message.payload.clone()).collect();
        for (published, text) in bus.publish(messages).await.into_iter().zip(texts) {
            match published {
                Ok(published) => assert_eq!(acknowledged.insert(published.sequence, text), None),
                Err(PublishError::Full { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(acknowledged.len(), 30 + 3);
    let stream = nats.context().get_stream(LIVE.name()).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 33);
    for (sequence, text) in acknowledged {
        assert_eq!(stream.direct_get(sequence).await.unwrap().payload, text, "{sequence}");
    }
}
