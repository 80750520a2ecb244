use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{Generator, Mix, Number, Traffic, sign};

const SECRET: &str = "test_app_secret";

/// What a receiver sees of a POST.
struct Received {
    head: String,
    body: Vec<u8>,
    peer: SocketAddr,
}

impl Received {
    fn genuine(&self) -> bool {
        let signature = format!("{}: {}", post::SIGNATURE, sign(SECRET, &self.body));
        self.head.lines().any(|line| line.eq_ignore_ascii_case(&signature))
    }
}

/// What it does about it: a status line's end and a body, or hanging up.
type Reply = Option<(&'static str, &'static str)>;

const TAKEN: Reply = Some(("200 OK", "OK"));
const REFUSED: Reply = Some(("403 Forbidden", "no"));
const BUSY: Reply = Some(("503 Service Unavailable", "later"));

/// A receiver on a free port that answers each POST with `reply`; ends with the runtime.
#[expect(clippy::disallowed_methods, reason = "its tasks end with the test's runtime")]
async fn receiver(reply: impl FnMut(&Received) -> Reply + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks/whatsapp?a=b", listener.local_addr().unwrap());
    let reply = Arc::new(Mutex::new(reply));
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let reply = Arc::clone(&reply);
            tokio::spawn(async move { serve(stream, peer, &*reply).await });
        }
    });
    url
}

/// Answers on one connection until either side ends it.
async fn serve(mut stream: TcpStream, peer: SocketAddr, reply: &Mutex<impl FnMut(&Received) -> Reply>) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let received = loop {
            if let Some(received) = take_request(&mut buffer, peer) {
                break received;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let (status, body) = { (reply.lock().unwrap())(&received) }?;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn take_request(buffer: &mut Vec<u8>, peer: SocketAddr) -> Option<Received> {
    let end = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let whole = end + length.unwrap_or(0);
    if buffer.len() < whole {
        return None;
    }
    let body = buffer[end..whole].to_vec();
    buffer.drain(..whole);
    Some(Received { head, body, peer })
}

fn traffic(count: u64) -> Traffic {
    Traffic {
        seed: 11,
        count,
        batch: 3,
        mix: Mix { messages: 1, statuses: 1, other: 1 },
        duplicates: 0.1,
        forged: 0.1,
        numbers: vec![Number {
            waba_id: "300".into(),
            phone_number_id: "777".into(),
            display_phone_number: "4915155500011".into(),
        }],
        senders: 50,
        mixed_numbers: false,
        start_time: 1_795_000_000,
    }
}

/// To `url` over eight connections, with pauses of about a millisecond.
fn delivery(url: String) -> Delivery {
    Delivery {
        url,
        connections: 8,
        rate: None,
        timeout: Duration::from_secs(20),
        retry: RetrySchedule {
            first_pause: Duration::from_millis(1),
            factor: 1.5,
            max_pause: Duration::from_millis(5),
            give_up_after: Duration::from_mins(1),
        },
        local_addresses: Vec::new(),
        acknowledged_log: None,
        keep_acknowledged: true,
        headers: Vec::new(),
    }
}

async fn run(count: u64, delivery: Delivery) -> (Report, Progress) {
    let (sender, progress) = watch::channel(Progress::default());
    let webhooks = Generator::new(traffic(count), SECRET);
    let report = deliver(webhooks, delivery, sender, CancellationToken::new()).await.unwrap();
    let progress = *progress.borrow();
    (report, progress)
}

/// The updates of the genuine webhooks of `traffic(count)`, those of repeats again; sorted.
fn genuine(count: u64) -> Vec<UpdateRef> {
    let webhooks = Generator::new(traffic(count), SECRET).filter(|webhook| !webhook.forged);
    let mut updates: Vec<_> = webhooks.flat_map(|webhook| webhook.updates).collect();
    updates.sort();
    updates
}

fn sorted(mut updates: Vec<UpdateRef>) -> Vec<UpdateRef> {
    updates.sort();
    updates
}

#[tokio::test]
async fn retries_until_200_and_logs_what_was_acknowledged() {
    let mut tries: HashMap<Vec<u8>, u32> = HashMap::new();
    let url = receiver(move |received| {
        if !received.genuine() {
            return REFUSED;
        }
        let tries = tries.entry(received.body.clone()).or_default();
        *tries += 1;
        if *tries <= 2 { BUSY } else { TAKEN }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("acknowledged.tsv");
    let (report, progress) = run(400, Delivery { acknowledged_log: Some(log.clone()), ..delivery(url) }).await;

    assert_eq!(report.posts, 400);
    assert!(report.forged_sent > 20);
    assert_eq!(report.forged_refused, report.forged_sent);
    assert_eq!(report.acknowledged_posts, 400 - report.forged_sent);
    assert_eq!(report.statuses[&200], report.acknowledged_posts);
    assert_eq!(report.statuses[&403], report.forged_sent);
    assert_eq!(report.statuses[&503], report.retries);
    assert_eq!((report.gave_up, report.unsettled, report.transport_errors), (0, 0, 0));
    assert!(report.unexpected.is_empty());
    assert!(report.latency.p50 > 0 && report.latency.p50 <= report.latency.p99);
    assert!(report.latency.p99 <= report.latency.max);

    assert_eq!(report.acknowledged_updates, report.acknowledged.len() as u64);
    assert_eq!(sorted(report.acknowledged.clone()), genuine(400));
    let lines = std::fs::read_to_string(&log).unwrap();
    let logged: Vec<UpdateRef> = lines.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(logged, report.acknowledged);

    assert_eq!(progress.sent, 400);
    assert_eq!(progress.acknowledged, report.acknowledged_posts);
    assert_eq!(progress.acknowledged_updates, report.acknowledged_updates);
    assert_eq!((progress.waiting, progress.failed), (0, 0));
}

#[tokio::test]
async fn survives_connections_that_drop() {
    let mut answers = 0_u32;
    let url = receiver(move |received| {
        answers += 1;
        match answers % 4 {
            0 => None,
            _ if received.genuine() => TAKEN,
            _ => REFUSED,
        }
    })
    .await;
    let (report, _) = run(300, delivery(url)).await;
    assert!(report.transport_errors > 50, "{report:?}");
    assert!(!report.transport_causes.is_empty() && report.transport_causes.len() <= 8, "{report:?}");
    assert_eq!(sorted(report.acknowledged), genuine(300));
    let lost = report.forged_sent - report.forged_refused;
    assert_eq!(report.retries + lost, report.transport_errors, "forged ones are not retried");
}

#[tokio::test]
async fn gives_up_at_once_without_a_schedule() {
    let url = receiver(|received| if received.genuine() { BUSY } else { TAKEN }).await;
    let (report, progress) = run(100, Delivery { retry: RetrySchedule::none(), ..delivery(url) }).await;
    assert_eq!(report.retries, 0);
    assert_eq!(report.gave_up, 100 - report.forged_sent);
    assert_eq!(report.unexpected[&503], report.gave_up);
    assert_eq!(report.unexpected[&200], report.forged_sent, "forged ones that were taken");
    assert_eq!(progress.failed, 100);
    assert_eq!(report.latency, Latency::default());
}

#[tokio::test]
async fn a_200_with_another_body_is_final_but_acknowledges_nothing() {
    let url = receiver(|_| Some(("200 OK", "okay"))).await;
    let (report, _) = run(50, delivery(url)).await;
    assert_eq!((report.acknowledged_posts, report.retries), (0, 0));
    assert_eq!(report.unexpected[&200], 50);
}

#[tokio::test]
async fn nobody_listening_is_a_transport_error() {
    // Bound, so that nobody else gets the port, and dropped.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{address}/");
    let (report, progress) = run(10, Delivery { retry: RetrySchedule::none(), ..delivery(url) }).await;
    assert_eq!(report.transport_errors, 10);
    assert!(report.unexpected.is_empty());
    assert_eq!(report.transport_causes.values().sum::<u64>(), 10, "{report:?}");
    assert!(report.transport_causes.keys().all(|cause| cause.contains("refused")), "{report:?}");
    assert_eq!(progress.no_answer, Some("nobody listens at that address (connection refused)"));
}

#[tokio::test]
async fn a_limit_of_the_receiver_is_seen_on_the_way() {
    let mut left = 5;
    let url = receiver(move |received| {
        left -= i32::from(received.genuine() && left > 0);
        if left > 0 { Some(("429 Too Many Requests", "later")) } else { TAKEN }
    })
    .await;
    let (report, progress) = run(20, delivery(url)).await;
    assert!(progress.limited >= 4, "{progress:?}");
    assert_eq!(progress.limited, report.statuses[&429]);
    assert_eq!(progress.no_answer, None);
}

#[tokio::test]
async fn keeps_connections_and_spreads_them_over_source_addresses() {
    let peers = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&peers);
    let url = receiver(move |received| {
        seen.lock().unwrap().insert(received.peer);
        assert!(received.head.starts_with("POST /webhooks/whatsapp?a=b HTTP/1.1\r\n"));
        assert!(received.head.contains("content-type: application/json\r\n"));
        assert!(received.head.contains("x-more: yes\r\n"));
        TAKEN
    })
    .await;
    let addresses: Vec<IpAddr> = (2..5).map(|last| [127, 0, 0, last].into()).collect();
    let delivery = Delivery {
        local_addresses: addresses.clone(),
        headers: vec![("X-More".into(), "yes".into())],
        ..delivery(url)
    };
    let (report, _) = run(300, delivery).await;
    assert_eq!(report.statuses[&200], 300);
    let peers = peers.lock().unwrap();
    assert_eq!(peers.iter().map(SocketAddr::ip).collect::<HashSet<_>>(), addresses.into_iter().collect());
    assert!(peers.len() <= 16, "{} connections for eight slots", peers.len());
}

#[tokio::test]
async fn stops_early_with_the_report_so_far() {
    let stop = CancellationToken::new();
    let (token, answers) = (stop.clone(), AtomicUsize::new(0));
    let url = receiver(move |_| {
        if answers.fetch_add(1, Ordering::Relaxed) == 50 {
            token.cancel();
        }
        BUSY
    })
    .await;
    let (sender, _progress) = watch::channel(Progress::default());
    let endless = Generator::new(Traffic { forged: 0.0, ..traffic(u64::MAX) }, SECRET);
    let report = deliver(endless, delivery(url), sender, stop).await.unwrap();
    assert!(report.unsettled > 0);
    assert_eq!(report.unsettled, report.posts);
}

#[tokio::test]
async fn keeps_to_the_rate() {
    let url = receiver(|_| TAKEN).await;
    let (report, _) = run(60, Delivery { rate: Some(300.0), ..delivery(url) }).await;
    // 60 starts are 59 gaps, of which at most 50 ms are made up for.
    assert!(report.elapsed >= Duration::from_secs_f64(59.0 / 300.0 - 0.05), "{:?}", report.elapsed);
}

#[tokio::test]
async fn refuses_what_cannot_be_sent() {
    let attempt = async |delivery| {
        let (sender, _progress) = watch::channel(Progress::default());
        deliver(Generator::new(traffic(1), SECRET), delivery, sender, CancellationToken::new()).await.unwrap_err()
    };
    let error = attempt(delivery("nowhere".into())).await;
    assert!(matches!(error, DeliverError::Url { .. }));
    let headers = vec![("a b".into(), String::new())];
    let error = attempt(Delivery { headers, ..delivery("http://127.0.0.1/".into()) }).await;
    assert!(matches!(error, DeliverError::Header { .. }));
    let error = attempt(Delivery { rate: Some(0.0), ..delivery("http://127.0.0.1/".into()) }).await;
    assert!(matches!(error, DeliverError::Rate(_)));
    let missing = Some("/nonexistent/folder/log".into());
    let error = attempt(Delivery { acknowledged_log: missing, ..delivery("http://127.0.0.1/".into()) }).await;
    assert!(matches!(error, DeliverError::Log { .. }));
}
