//! Sends signed webhooks at a fixed rate, whatever the answers take, and notes for each how long its answer took and
//! when its event arrived on the bus. `scripts/bench-distributed` makes latencies of it.
//!
//! `open_loop ADDRESS PATH SECRET RATE SECONDS SENDERS SEED WABA:NUMBER[,…] OUTPUT [NATS_URL]`: one line a webhook: the
//! second (since 1970) it was sent at, the status (0: none), milliseconds until the answer, and, with NATS_URL,
//! milliseconds until the event came to a subscriber, or `-`.
//!
//! A rate that waited for answers would send less just when the receiver is slow, and would not see most of the damage.
//! So a request takes an idle connection or a new one. Requests are made beforehand.
#![expect(clippy::disallowed_methods, reason = "a measuring tool: real clocks, and tasks that end with it")]

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use serde::Deserialize;
use simulator::{Generator, Traffic};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for events after the last answer.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// Message id and, for a status, the status: what an event is known by.
type Key = (String, Option<String>);

#[derive(Default)]
struct Sample {
    sent: Option<Instant>,
    sent_at: f64,
    status: u16,
    answered: Option<Duration>,
    arrived: Option<Duration>,
}

struct Run {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    samples: Mutex<Vec<Sample>>,
}

impl Run {
    fn note(&self, index: usize, change: impl FnOnce(&mut Sample)) {
        change(&mut self.samples.lock().unwrap_or_else(PoisonError::into_inner)[index]);
    }

    async fn post(&self, index: usize, request: &[u8]) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let sent = Instant::now();
        let sent_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.note(index, |sample| (sample.sent, sample.sent_at) = (Some(sent), sent_at));
        let answer = tokio::time::timeout(PATIENCE, exchange(self.address, idle, request)).await;
        let took = sent.elapsed();
        let status = match answer {
            Ok(Ok((status, connection))) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(connection);
                status
            }
            _ => 0,
        };
        self.note(index, |sample| (sample.status, sample.answered) = (status, Some(took)));
    }
}

/// One request and its answer; the connection comes back if it can be used again.
async fn exchange(
    address: SocketAddr,
    idle: Option<TcpStream>,
    request: &[u8],
) -> std::io::Result<(u16, Option<TcpStream>)> {
    let mut connection = match idle {
        Some(idle) => idle,
        None => connect(address).await?,
    };
    connection.write_all(request).await?;
    let mut answer = Vec::with_capacity(512);
    loop {
        if connection.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((status, length, keeps)) = head(&answer)
            && answer.len() >= length
        {
            return Ok((status, keeps.then_some(connection)));
        }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// Status, length of the whole answer and whether the connection stays, once the head is there.
fn head(answer: &[u8]) -> Option<(u16, usize, bool)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).ok()?.to_ascii_lowercase();
    let status = head.get(9..12)?.parse().ok()?;
    let length: usize = head.split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
    Some((status, end + length, !head.contains("connection: close")))
}

#[derive(Deserialize)]
struct Event {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    message_id: String,
    status: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, secret, rate, seconds, senders, seed, numbers, output, nats @ ..] = arguments.as_slice() else {
        return Err("usage: open_loop ADDRESS PATH SECRET RATE SECONDS SENDERS SEED NUMBERS OUTPUT [NATS_URL]".into());
    };
    let (rate, seconds): (f64, f64) = (rate.parse()?, seconds.parse()?);
    let traffic = Traffic {
        seed: seed.parse()?,
        // Whole webhooks.
        count: format!("{:.0}", rate * seconds).parse()?,
        numbers: numbers.split(',').map(str::parse).collect::<Result<_, _>>()?,
        senders: senders.parse()?,
        start_time: i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?,
        ..Traffic::default()
    };
    let (mut requests, mut keys) = (Vec::new(), HashMap::new());
    for webhook in Generator::new(traffic, secret) {
        for update in webhook.updates {
            keys.insert((update.id, update.status), requests.len());
        }
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             x-hub-signature-256: {}\r\ncontent-length: {}\r\n\r\n",
            webhook.signature,
            webhook.body.len()
        );
        requests.push([head.as_bytes(), &webhook.body].concat());
    }
    let address = address.parse()?;
    let samples = requests.iter().map(|_| Sample::default()).collect();
    let run = Arc::new(Run { address, idle: Mutex::default(), samples: Mutex::new(samples) });
    let expected = requests.len();
    let listening = match nats.first() {
        Some(url) => {
            let client = async_nats::connect(url).await.map_err(std::io::Error::other)?;
            let events = client.subscribe("wharf.events.>").await?;
            // The subscription is at the server before the first webhook is sent.
            client.flush().await?;
            Some(tokio::spawn(listen(events, keys, run.clone(), expected)))
        }
        None => None,
    };
    send(&run, requests, rate).await;
    if let Some(listening) = listening {
        let _ = tokio::time::timeout(STRAGGLERS, listening).await;
    }
    write(&run, output)?;
    Ok(())
}

/// Starts each request at its moment and returns when all are answered.
async fn send(run: &Arc<Run>, requests: Vec<Vec<u8>>, rate: f64) {
    let begun = tokio::time::Instant::now();
    let mut under_way = tokio::task::JoinSet::new();
    for (index, request) in requests.into_iter().enumerate() {
        tokio::time::sleep_until(begun + Duration::from_secs_f64(index as f64 / rate)).await;
        let run = run.clone();
        under_way.spawn(async move { run.post(index, &request).await });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}

/// Notes events as they come, until all are there.
async fn listen(
    mut events: async_nats::Subscriber,
    mut expected: HashMap<Key, usize>,
    run: Arc<Run>,
    mut missing: usize,
) {
    while missing > 0 {
        let Some(message) = events.next().await else { return };
        let arrived = Instant::now();
        let Ok(Event { data }) = serde_json::from_slice(&message.payload) else { continue };
        let Some(index) = expected.remove(&(data.message_id, data.status)) else { continue };
        missing -= 1;
        run.note(index, |sample| sample.arrived = sample.sent.map(|sent| arrived - sent));
    }
}

fn write(run: &Run, output: &str) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(output)?);
    let milliseconds = |duration: Option<Duration>| {
        duration.map_or_else(|| "-".to_owned(), |duration| format!("{:.3}", duration.as_secs_f64() * 1000.0))
    };
    for sample in &*run.samples.lock().unwrap_or_else(PoisonError::into_inner) {
        let (answered, arrived) = (milliseconds(sample.answered), milliseconds(sample.arrived));
        writeln!(file, "{:.6} {} {answered} {arrived}", sample.sent_at, sample.status)?;
    }
    file.flush()
}
