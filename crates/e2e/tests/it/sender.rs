//! The simulator as a sender beside the test's own thread.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use simulator::{Delivery, Generator, Mix, Number, Progress, Report, RetrySchedule, Traffic, UpdateRef};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::meta::{self, DISPLAY, NUMBER, PATH, SECRET, WABA};
use crate::wait;

/// Webhooks under way.
pub(crate) struct Sender {
    progress: watch::Receiver<Progress>,
    thread: JoinHandle<Report>,
}

/// Traffic of all kinds to the usual number.
pub(crate) fn traffic(seed: u64, count: u64) -> Traffic {
    Traffic {
        seed,
        count,
        batch: 3,
        mix: Mix { messages: 40, statuses: 45, other: 15 },
        duplicates: 0.05,
        forged: 0.01,
        numbers: vec![Number {
            waba_id: WABA.into(),
            phone_number_id: NUMBER.into(),
            display_phone_number: DISPLAY.into(),
        }],
        senders: 200,
        mixed_numbers: false,
        start_time: meta::now(),
    }
}

/// To a process, with retries that do not take days.
pub(crate) fn delivery(to: SocketAddr) -> Delivery {
    Delivery {
        url: format!("http://{to}{PATH}"),
        connections: 8,
        rate: None,
        timeout: Duration::from_secs(5),
        retry: RetrySchedule {
            first_pause: Duration::from_millis(50),
            factor: 1.5,
            max_pause: Duration::from_millis(300),
            give_up_after: Duration::from_mins(1),
        },
        local_addresses: Vec::new(),
        acknowledged_log: None,
        keep_acknowledged: true,
        headers: Vec::new(),
    }
}

/// Starts to send.
pub(crate) fn start(traffic: Traffic, delivery: Delivery) -> Sender {
    let (sender, progress) = watch::channel(Progress::default());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let webhooks = Generator::new(traffic, SECRET);
        runtime.block_on(simulator::deliver(webhooks, delivery, sender, CancellationToken::new())).unwrap()
    });
    Sender { progress, thread }
}

impl Sender {
    /// Webhooks acknowledged so far.
    #[allow(dead_code, reason = "for scenarios of one of the two targets")]
    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.borrow().acknowledged
    }

    /// Waits until so many webhooks are acknowledged.
    pub(crate) fn wait_for(&self, acknowledged: u64) {
        wait::until(&format!("{acknowledged} webhooks acknowledged"), || {
            (self.progress.borrow().acknowledged >= acknowledged).then_some(())
        });
    }

    /// Waits for the end. Everything genuine must have been acknowledged, and of what is forged nothing (while nobody
    /// listens it is not refused either).
    pub(crate) fn finish(self) -> Report {
        let report = self.thread.join().unwrap();
        assert_eq!((report.gave_up, report.unsettled), (0, 0), "{:?}", report.statuses);
        assert!(report.unexpected.is_empty(), "{:?}", report.unexpected);
        report
    }
}

/// All genuine updates of a run.
pub(crate) fn genuine(traffic: Traffic) -> BTreeSet<UpdateRef> {
    let genuine = Generator::new(traffic, SECRET).filter(|webhook| !webhook.forged);
    genuine.flat_map(|webhook| webhook.updates).collect()
}
