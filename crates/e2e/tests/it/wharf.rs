//! One `wharf up` with a data folder of its own, on ports that the system chooses.
//!
//! A [`Setup`] is what survives a stop or a crash: the folder, the environment and, from the first start on, the
//! addresses. A [`Wharf`] is a running process; it ends with its value.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::feed::{Event, Page};
use crate::http::{self, Answer};
use crate::meta::{SECRET, VERIFY_TOKEN};
use crate::{binary, meta, wait};

/// What a process is started with. Copies share the folder.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    folder: Arc<TempDir>,
    environment: Vec<(String, String)>,
    public: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
    log: Log,
}

/// Standard error of all processes of a setup, in order.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Setup {
    /// The default app is configured; limits are the defaults.
    pub(crate) fn new() -> Self {
        Self::without_provider().set("WHATSAPP_APP_SECRET", SECRET).set("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN)
    }

    /// Nothing is configured.
    pub(crate) fn without_provider() -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            environment: Vec::new(),
            public: anywhere,
            api: anywhere,
            admin: anywhere,
            log: Log::default(),
        }
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No limit gets in the way of traffic.
    pub(crate) fn without_limits(self) -> Self {
        self.set("WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND", "1000000")
            .set("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", "1000000")
            .set("WEBHOOK_RATE_LIMIT_MAX", "1000000")
    }

    /// The data folder. Its parent is a place for other files of the scenario.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file that is not in the data folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts it; returns when it takes webhooks.
    pub(crate) fn start(self) -> Wharf {
        let before = self.log.text().len();
        let mut child = self.command().spawn().unwrap();
        let reader = follow(&mut child, self.log.clone());
        let addresses = wait::until("`wharf up` says where it is", || {
            let log = self.log.text();
            let found = addresses(&log[before..]);
            let ended = child.try_wait().unwrap().is_some();
            assert!(found.is_some() || !ended, "`wharf up` ended early:\n{log}");
            found
        });
        let [public, api, admin] = addresses;
        let configured = self.environment.iter().find(|(name, _)| name == "WHARF_ADMIN_TOKEN");
        let token = match configured {
            Some((_, token)) => token.clone(),
            None => std::fs::read_to_string(self.data().join("admin.token")).unwrap().trim().to_owned(),
        };
        let setup = Self { public, api, admin, ..self };
        Wharf { setup, child, reader: Some(reader), token }
    }

    /// Starts it although it cannot run; returns its exit code and what it said.
    pub(crate) fn fail_to_start(&self) -> binary::Finished {
        self.command().output().unwrap().into()
    }

    fn command(&self) -> Command {
        let mut command = binary::wharf(&["up", "--data-dir"]);
        command.arg(self.data());
        for (flag, address) in [("--listen", self.public), ("--api-listen", self.api), ("--admin-listen", self.admin)] {
            command.arg(flag).arg(address.to_string());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

fn follow(child: &mut Child, log: Log) -> JoinHandle<()> {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            log.0.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// The three addresses of the banner.
fn addresses(log: &str) -> Option<[SocketAddr; 3]> {
    let find = |label: &str| {
        let rest = log.lines().find_map(|line| line.trim_start().strip_prefix(label))?;
        let rest = rest.trim_start().strip_prefix("http://")?;
        rest.split(['/', ' ']).next()?.parse().ok()
    };
    let found = [find("webhooks ")?, find("API ")?, find("metrics ")?];
    // The banner is complete when its last line is there.
    log.contains("  keys  ").then_some(found)
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Wharf {
    setup: Setup,
    child: Child,
    reader: Option<JoinHandle<()>>,
    /// The admin token.
    pub(crate) token: String,
}

impl Wharf {
    pub(crate) fn public(&self) -> SocketAddr {
        self.setup.public
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.setup.api
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.setup.admin
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Standard error so far, of this process and of earlier ones of the setup.
    pub(crate) fn log(&self) -> String {
        self.setup.log.text()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// kill -9. What is returned starts again on the same folder and addresses.
    pub(crate) fn kill(mut self) -> Setup {
        self.child.kill().unwrap();
        self.wait();
        self.setup.clone()
    }

    /// Asks it to stop, and goes on.
    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end; the exit code is none if a signal ended it.
    pub(crate) fn wait_for_end(mut self) -> (Setup, Option<i32>) {
        let status = wait::until("the process ends", || self.child.try_wait().unwrap());
        self.wait();
        (self.setup.clone(), status.code())
    }

    /// Stops it as an operator does.
    pub(crate) fn stop(self) -> Setup {
        self.terminate();
        let (setup, code) = self.wait_for_end();
        assert_eq!(code, Some(0), "a stop is a success:\n{}", setup.log.text());
        setup
    }

    /// Stops it; all that it has said.
    pub(crate) fn stop_and_read_log(self) -> String {
        self.stop().log.text()
    }

    fn wait(&mut self) {
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

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
        let marker = "wamid.MARKER";
        meta::accepted(self.public(), &meta::messages(&[meta::text(marker, "all before this")]));
        self.wait_for_message(marker);
        let mut events = self.events();
        events.retain(|event| event.data.message_id.as_deref() != Some(marker));
        events
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let answer = http::get(self.admin(), "/metrics", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics(answer.text().to_owned())
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.wait();
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panicked at"), "a panic:\n{log}");
        }
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
