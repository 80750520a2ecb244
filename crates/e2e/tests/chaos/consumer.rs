//! A consumer of the feed, as an integrator writes one: it asks for the next page, again and again, and when nobody
//! answers it asks once more with the same cursor.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use simulator::{UpdateKind, UpdateRef};

use crate::installation::TOKEN;
use crate::{http, load};

/// Before it asks again.
const PAUSE: Duration = Duration::from_millis(50);

/// An event, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) update: UpdateRef,
}

/// All that was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) events: Vec<Event>,
    /// Cursors before and after each page that was not empty, and how many events it had.
    pub(crate) pages: Vec<(u64, u64, usize)>,
    /// Times that nobody answered.
    pub(crate) failures: usize,
}

/// A consumer that runs.
#[derive(Debug)]
pub(crate) struct Consumer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: JoinHandle<Read>,
}

impl Consumer {
    /// Begins with the beginning of the feed.
    pub(crate) fn start(api: SocketAddr) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            read(api, |read| {
                counted.store(read.events.len(), Ordering::Relaxed);
                !stopped.load(Ordering::Relaxed)
            })
        });
        Self { stop, count, thread }
    }

    /// How many events it has.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets it end at the end of the feed.
    pub(crate) fn finish(self) -> Read {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The whole feed, as it is now.
pub(crate) fn read_all(api: SocketAddr) -> Read {
    read(api, |_| false)
}

/// Reads until there is nothing more and `go_on` says no.
fn read(api: SocketAddr, mut go_on: impl FnMut(&Read) -> bool) -> Read {
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    let (mut read, mut cursor) = (Read::default(), 0);
    loop {
        let go_on = go_on(&read);
        let answer = http::get(api, &format!("/v1/events?limit=1000&after={cursor}"), &headers);
        let Some(answer) = answer.filter(|answer| answer.status == 200) else {
            read.failures += 1;
            std::thread::sleep(PAUSE);
            continue;
        };
        let page: Page = serde_json::from_slice(&answer.body).unwrap();
        let next = page.next.parse().unwrap();
        if page.events.is_empty() {
            if !go_on {
                return read;
            }
            std::thread::sleep(PAUSE);
        } else {
            read.pages.push((cursor, next, page.events.len()));
            read.events.extend(page.events.iter().map(Raw::event));
        }
        cursor = next;
    }
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Raw>,
    next: String,
}

#[derive(Deserialize)]
struct Raw {
    id: String,
    tenant: String,
    r#type: String,
    data: Data,
}

/// What names an update in an event's data.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Data {
    message_id: Option<String>,
    id: Option<String>,
    status: Option<String>,
    number: Number,
    raw: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Number {
    phone_number_id: Option<String>,
}

impl Raw {
    fn event(&self) -> Event {
        Event { id: self.id.clone(), tenant: self.tenant.clone(), update: self.data.update(&self.r#type) }
    }
}

impl Data {
    /// The simulator's name of the update that an event of this type and with this data is of.
    pub(crate) fn update(&self, event_type: &str) -> UpdateRef {
        let (kind, id) = match event_type {
            "wharf.message.received" => (UpdateKind::Message, self.message_id.clone().unwrap()),
            "wharf.message.status" => (UpdateKind::Status, self.message_id.clone().unwrap()),
            "wharf.unsupported" => (UpdateKind::Other, self.unsupported_id()),
            other => panic!("an event of the type {other}"),
        };
        let phone_number_id = self.number.phone_number_id.clone().unwrap_or_default();
        UpdateRef { kind, phone_number_id, id, status: self.status.clone() }
    }

    /// Its own id, or the one unique id in its value.
    fn unsupported_id(&self) -> String {
        self.id.clone().unwrap_or_else(|| {
            let raw: Value = serde_json::from_str(self.raw.as_ref().unwrap().get()).unwrap();
            load::nameless_id(&raw["value"]).unwrap_or_else(|| panic!("no id in {raw}"))
        })
    }
}
