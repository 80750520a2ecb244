//! Small webhooks, one after another, to each gateway: they show when it answered 200 and when it did not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Clock as _, SystemClock};
use serde_json::json;
use simulator::{Number, UpdateKind, UpdateRef};
use tokio::time::Instant;

use crate::http;
use crate::installation::{APP_SECRET, PATH};

/// Between two probes, and between two tries of one.
const PAUSE: Duration = Duration::from_millis(20);

/// A 200.
#[derive(Clone, Copy, Debug)]
struct Hit {
    gateway: usize,
    sent: Instant,
    answered: Instant,
}

/// Probes under way.
#[derive(Debug)]
pub(crate) struct Probes {
    hits: Arc<Mutex<Vec<Hit>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<UpdateRef>>>,
}

impl Probes {
    /// Starts them. `number` is whom they are addressed to.
    pub(crate) fn start(gateways: &[SocketAddr], number: &Number) -> Self {
        let hits = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (gateway, address) in gateways.iter().copied().enumerate() {
            let (hits, stop, number) = (hits.clone(), stop.clone(), number.clone());
            threads.push(std::thread::spawn(move || probe(gateway, address, &number, &hits, &stop)));
        }
        Self { hits, stop, threads }
    }

    /// When all gateways had answered 200 to something that was sent at `moment` or later.
    pub(crate) fn answered_since(&self, moment: Instant) -> Option<Instant> {
        let hits = self.hits.lock().unwrap();
        let recent = || hits.iter().rev().take_while(|hit| hit.answered >= moment);
        let first = |gateway| {
            let own = recent().filter(|hit| hit.gateway == gateway && hit.sent >= moment);
            own.map(|hit| hit.answered).min()
        };
        (0..self.threads.len()).map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The longest time without a 200 from any gateway.
    pub(crate) fn longest_silence(&self, from: Instant, to: Instant) -> Duration {
        let hits = self.hits.lock().unwrap();
        let mut moments: Vec<_> = hits.iter().map(|hit| hit.answered).filter(|at| (from..=to).contains(at)).collect();
        moments.extend([from, to]);
        moments.sort();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Ends them, once each is answered; what they sent.
    pub(crate) fn finish(self) -> Vec<UpdateRef> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn probe(
    gateway: usize,
    address: SocketAddr,
    number: &Number,
    hits: &Mutex<Vec<Hit>>,
    stop: &AtomicBool,
) -> Vec<UpdateRef> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("wamid.PROBE.{gateway}.{}", acknowledged.len());
        let body = body(number, &id);
        let headers = format!(
            "Content-Type: application/json\r\nX-Hub-Signature-256: {}\r\n",
            simulator::sign(APP_SECRET, &body)
        );
        loop {
            let sent = Instant::now();
            let answer = http::exchange(address, "POST", PATH, &headers, &body);
            if answer.is_some_and(|answer| answer.status == 200) {
                hits.lock().unwrap().push(Hit { gateway, sent, answered: Instant::now() });
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let phone_number_id = number.phone_number_id.clone();
        acknowledged.push(UpdateRef { kind: UpdateKind::Message, phone_number_id, id, status: None });
        std::thread::sleep(PAUSE);
    }
    acknowledged
}

fn body(number: &Number, id: &str) -> Vec<u8> {
    let Number { waba_id, phone_number_id, display_phone_number } = number;
    let at = SystemClock.now().as_secs().to_string();
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": display_phone_number, "phone_number_id": phone_number_id},
        "messages": [{"from": "351910000001", "id": id, "timestamp": at, "type": "text", "text": {"body": "still there?"}}],
    });
    let changes = json!([{"field": "messages", "value": value}]);
    json!({"object": "whatsapp_business_account", "entry": [{"id": waba_id, "changes": changes}]})
        .to_string()
        .into_bytes()
}
