//! One `wharf up` with a data folder of its own, on ports that the system chooses.
//!
//! A [`Setup`] is what survives a stop or a crash: the folder, the environment and, from the first start on, the
//! addresses. A [`Wharf`] is a running process; it ends with its value.

#[path = "wharf/client.rs"]
mod client;
#[path = "wharf/process.rs"]
mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

pub(crate) use self::client::{Metrics, tree};
use self::process::{Log, Process};
use crate::meta::{SECRET, VERIFY_TOKEN};
use crate::{binary, http};

/// Whether the jobs are processes of their own, on servers.
pub(crate) const DISTRIBUTED: bool = false;

/// What `wharf up` depends on by name, and whether it must have it.
const CHECKS: &[Check] = &[("bus", true), ("database", false), ("directory", true), ("secrets", true)];

/// A line of readiness: its name, and whether it is required.
pub(crate) type Check = (&'static str, bool);

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

    /// The public listener is to be here.
    pub(crate) fn listen(self, public: SocketAddr) -> Self {
        Self { public, ..self }
    }

    /// Starts it; returns when it takes webhooks.
    pub(crate) fn start(self) -> Wharf {
        let mut process = Process::spawn(self.command(), &self.log);
        let [public, api, admin] = process.addresses(["webhooks", "API", "metrics"]);
        let configured = self.environment.iter().find(|(name, _)| name == "WHARF_ADMIN_TOKEN");
        let token = match configured {
            Some((_, token)) => token.clone(),
            None => std::fs::read_to_string(self.data().join("admin.token")).unwrap().trim().to_owned(),
        };
        let setup = Self { public, api, admin, ..self };
        Wharf { setup, process, token }
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
        command
    }
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Wharf {
    setup: Setup,
    process: Process,
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

    /// Every listener, and what its process depends on.
    pub(crate) fn listeners(&self) -> Vec<(SocketAddr, &'static [Check])> {
        [self.public(), self.api(), self.admin()].map(|address| (address, CHECKS)).to_vec()
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// How the command line finds the token: it is on the same machine.
    pub(crate) fn credentials(&self) -> [String; 2] {
        ["--data-dir".to_owned(), self.setup.data().display().to_string()]
    }

    /// Standard error so far, of this process and of earlier ones of the setup.
    pub(crate) fn log(&self) -> String {
        self.setup.log.text()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        !self.process.has_ended()
    }

    /// Processor time of the gateway so far, in seconds.
    pub(crate) fn gateway_cpu_seconds(&self) -> u64 {
        self.process.cpu_seconds()
    }

    /// Memory of the gateway, in KiB.
    pub(crate) fn gateway_memory(&self) -> u64 {
        self.process.memory()
    }

    /// Whether a stop has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.log().contains("stopping")
    }

    /// Waits until what was taken before is no longer ahead of what is taken now. Here it never is: one worker, in order.
    #[expect(clippy::unused_self, reason = "the other harness looks at its servers")]
    fn settle(&self) {}

    /// kill -9. What is returned starts again on the same folder and addresses.
    pub(crate) fn kill(mut self) -> Setup {
        self.process.kill();
        self.setup.clone()
    }

    /// Asks it to stop, and goes on.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for its end; the exit code is none if a signal ended it.
    pub(crate) fn wait_for_end(mut self) -> (Setup, Option<i32>) {
        let code = self.process.wait_for_end();
        (self.setup.clone(), code)
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

    pub(crate) fn metrics(&self) -> Metrics {
        let answer = http::get(self.admin(), "/metrics", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics(answer.text().to_owned())
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        self.process.kill();
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panicked at"), "a panic:\n{log}");
        }
    }
}
