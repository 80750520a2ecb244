//! Meta, sending to both gateways until there was enough of it, and trying again until all is taken.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Clock as _, SystemClock};
use serde_json::Value;
use simulator::{
    Delivery, Generator, Mix, Number, Progress, Report, RetrySchedule, Traffic, UpdateRef, Webhook, deliver,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::installation::{APP_SECRET, PATH};

/// POSTs under way at one gateway.
const CONNECTIONS: usize = 16;

/// Tenants and their numbers: several accounts of each, several numbers of each account.
pub(crate) fn numbers() -> Vec<(&'static str, Number)> {
    let mut numbers = Vec::new();
    for (at, tenant) in ["acme", "initech", "umbrella"].into_iter().enumerate() {
        for account in 1..=2 {
            for number in 1..=2 {
                let number = Number {
                    waba_id: format!("30011122200{at}{account}"),
                    phone_number_id: format!("7770001110{at}{account}{number}"),
                    display_phone_number: format!("49151555{at}{account}{number}"),
                };
                numbers.push((tenant, number));
            }
        }
    }
    numbers
}

/// What was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Genuine updates and their tenants.
    pub(crate) genuine: HashMap<UpdateRef, &'static str>,
    /// Updates of webhooks with a wrong signature.
    pub(crate) forged: HashSet<UpdateRef>,
    /// Those webhooks.
    pub(crate) forgeries: Vec<Webhook>,
    /// Webhooks that repeat an earlier one.
    pub(crate) repeats: u64,
}

/// Webhooks for whoever asks first. A repeat need not come to the gateway that had the original.
struct Source {
    generator: Generator,
    left: u64,
    tenants: HashMap<String, &'static str>,
    /// Whether it may end.
    may_end: bool,
    sent: Sent,
}

impl Source {
    fn next(&mut self) -> Option<Webhook> {
        if self.left == 0 && self.may_end {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        let webhook = self.generator.next()?;
        if webhook.forged {
            self.sent.forged.extend(webhook.updates.iter().cloned());
            self.sent.forgeries.push(webhook.clone());
        } else if webhook.repeat {
            self.sent.repeats += 1;
        } else {
            let accounts = accounts(&webhook);
            for update in &webhook.updates {
                let owner =
                    if update.phone_number_id.is_empty() { &accounts[&update.id] } else { &update.phone_number_id };
                self.sent.genuine.insert(update.clone(), self.tenants[owner]);
            }
        }
        Some(webhook)
    }
}

/// The accounts of the updates that name no number, by the ids of those updates.
fn accounts(webhook: &Webhook) -> HashMap<String, String> {
    let mut accounts = HashMap::new();
    if webhook.updates.iter().all(|update| !update.phone_number_id.is_empty()) {
        return accounts;
    }
    let body: Value = serde_json::from_slice(&webhook.body).unwrap();
    for entry in body["entry"].as_array().unwrap() {
        for change in entry["changes"].as_array().unwrap() {
            if let Some(id) = nameless_id(&change["value"]) {
                accounts.insert(id, entry["id"].as_str().unwrap().to_owned());
            }
        }
    }
    accounts
}

/// The one id that is unique in the value of an account-level field.
pub(crate) fn nameless_id(value: &Value) -> Option<String> {
    let ids = [&value["message_template_id"], &value["waba_info"]["ad_account_linked"]];
    let id = ids.into_iter().find(|id| !id.is_null())?;
    Some(id.as_str().map_or_else(|| id.to_string(), str::to_owned))
}

/// A load that runs.
pub(crate) struct Load {
    source: Arc<Mutex<Source>>,
    progress: Vec<watch::Receiver<Progress>>,
    threads: Vec<JoinHandle<Report>>,
}

/// How it went.
pub(crate) struct Outcome {
    pub(crate) sent: Sent,
    pub(crate) reports: Vec<Report>,
}

impl Load {
    /// Starts to send at least `count` webhooks, at `rate` in a second in all.
    pub(crate) fn start(gateways: &[SocketAddr], count: u64, rate: f64) -> Self {
        let mut tenants = HashMap::new();
        for (tenant, number) in numbers() {
            tenants.insert(number.waba_id, tenant);
            tenants.insert(number.phone_number_id, tenant);
        }
        let traffic = Traffic {
            seed: 20,
            count: u64::MAX,
            batch: 3,
            mix: Mix { messages: 45, statuses: 45, other: 10 },
            duplicates: 0.05,
            forged: 0.01,
            numbers: numbers().into_iter().map(|(_, number)| number).collect(),
            senders: 5000,
            mixed_numbers: true,
            start_time: SystemClock.now().as_secs(),
        };
        let generator = Generator::new(traffic, APP_SECRET);
        let source = Source { generator, left: count, tenants, may_end: false, sent: Sent::default() };
        let source = Arc::new(Mutex::new(source));
        let (mut progress, mut threads) = (Vec::new(), Vec::new());
        for gateway in gateways {
            let (sender, receiver) = watch::channel(Progress::default());
            progress.push(receiver);
            let webhooks = source.clone();
            let delivery = delivery(*gateway, rate / f64::from(u32::try_from(gateways.len()).unwrap()));
            threads.push(std::thread::spawn(move || {
                let webhooks = std::iter::from_fn(move || webhooks.lock().unwrap().next());
                run(webhooks, delivery, sender)
            }));
        }
        Self { source, progress, threads }
    }

    /// Webhooks sent, and acknowledged.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let all = self.progress.iter().map(|progress| *progress.borrow());
        all.fold((0, 0), |(sent, acknowledged), each| (sent + each.sent, acknowledged + each.acknowledged))
    }

    /// Lets it end, and waits for that: until everything genuine is acknowledged.
    pub(crate) fn finish(self) -> Outcome {
        self.source.lock().unwrap().may_end = true;
        let reports = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let sent = std::mem::take(&mut self.source.lock().unwrap().sent);
        Outcome { sent, reports }
    }
}

/// Sends webhooks once more, as fast as they are taken.
pub(crate) fn send_again(gateway: SocketAddr, webhooks: Vec<Webhook>) -> Report {
    let (sender, _receiver) = watch::channel(Progress::default());
    run(webhooks.into_iter(), Delivery { rate: None, ..delivery(gateway, 1.0) }, sender)
}

fn run(
    webhooks: impl Iterator<Item = Webhook> + Send,
    delivery: Delivery,
    progress: watch::Sender<Progress>,
) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(deliver(webhooks, delivery, progress, CancellationToken::new())).unwrap()
}

fn delivery(to: SocketAddr, rate: f64) -> Delivery {
    Delivery {
        url: format!("http://{to}{PATH}"),
        connections: CONNECTIONS,
        rate: Some(rate),
        timeout: Duration::from_secs(5),
        // Like Meta's, in a hundredth of the time, and never long in coming.
        retry: RetrySchedule {
            max_pause: Duration::from_secs(1),
            give_up_after: Duration::from_hours(1),
            ..RetrySchedule::meta().scaled(0.01)
        },
        local_addresses: Vec::new(),
        acknowledged_log: None,
        keep_acknowledged: true,
        headers: Vec::new(),
    }
}
