//! What scenarios ask a running Wharf, however many processes it is.

use std::path::{Path, PathBuf};

use super::Wharf;
use crate::feed::{Event, Page};
use crate::http::{self, Answer};
use crate::{meta, wait};

impl Wharf {
    /// A GET on the API listener with the token.
    pub(crate) fn ask(&self, target: &str) -> Answer {
        http::get(self.api(), target, &format!("Authorization: Bearer {}\r\n", self.token))
    }

    /// The same, when it must be answered well.
    pub(crate) fn ask_json(&self, target: &str) -> serde_json::Value {
        let answer = self.ask(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.json()
    }

    /// A page of the feed.
    pub(crate) fn page(&self, query: &str) -> Page {
        let answer = self.ask(&format!("/v1/events?{query}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The whole feed.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events_after("0").0
    }

    /// The rest of the feed, and the cursor behind it.
    fn events_after(&self, cursor: &str) -> (Vec<Event>, String) {
        let (mut events, mut cursor) = (Vec::new(), cursor.to_owned());
        loop {
            let page = self.page(&format!("limit=1000&after={cursor}"));
            cursor = page.next;
            if page.events.is_empty() {
                return (events, cursor);
            }
            events.extend(page.events);
        }
    }

    /// The feed, once it has as many events.
    pub(crate) fn events_when(&self, count: usize) -> Vec<Event> {
        let (mut events, mut cursor) = (Vec::new(), "0".to_owned());
        wait::until(&format!("{count} events in the feed"), || {
            let (more, next) = self.events_after(&cursor);
            events.extend(more);
            cursor = next;
            (events.len() >= count).then_some(())
        });
        events
    }

    /// Waits until a message has come out. It is normalised in the order of arrival, so all that was answered before
    /// it was sent has been dealt with.
    pub(crate) fn wait_for_message(&self, id: &str) {
        let mut cursor = "0".to_owned();
        wait::until(&format!("the message {id}"), || {
            let (events, next) = self.events_after(&cursor);
            cursor = next;
            events.iter().any(|event| event.data.message_id.as_deref() == Some(id)).then_some(())
        });
    }

    /// The feed, once all has been dealt with that was answered so far.
    pub(crate) fn settled_events(&self) -> Vec<Event> {
        self.settle();
        let marker = "wamid.MARKER";
        meta::accepted(self.public(), &meta::messages(&[meta::text(marker, "all before this")]));
        self.wait_for_message(marker);
        let mut events = self.events();
        events.retain(|event| event.data.message_id.as_deref() != Some(marker));
        events
    }
}

/// Prometheus' text.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum over all series of a metric that have these labels, each written as `name="value"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let of_this_metric = rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label));
            of_this_metric.then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        });
        series.sum()
    }

    /// The same for what is counted in whole numbers.
    pub(crate) fn count(&self, name: &str, labels: &[&str]) -> u64 {
        let sum = self.sum(name, labels);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are small and positive")]
        let count = sum as u64;
        count
    }
}

/// All files and folders below a folder, itself included.
pub(crate) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        if path.is_dir() {
            found.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}
