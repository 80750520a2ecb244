//! Wharf as `gateway`, `normalizer` and `api`, on servers of its own, on ports that the system chooses.
//!
//! A [`Setup`] is what survives a stop or a crash: the servers, the folder, the environment and, from the first start on,
//! the addresses. A [`Wharf`] is the running processes; they end with its value.

#[path = "../it/wharf/client.rs"]
mod client;
#[path = "../it/wharf/process.rs"]
mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

pub(crate) use self::client::{Metrics, tree};
pub(crate) use self::process::{Log, Process};
use crate::meta::{SECRET, VERIFY_TOKEN};
use crate::servers::{Server, Servers};
use crate::{binary, http, wait};

/// Whether the jobs are processes of their own, on servers.
pub(crate) const DISTRIBUTED: bool = true;

/// The token of the API where a scenario names none.
const TOKEN: &str = "e2e-admin-token-of-every-replica";

/// A line of readiness: its name, and whether it is required.
pub(crate) type Check = (&'static str, bool);

/// A job with a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Api,
    Normalizer,
    Gateway,
}

impl Job {
    /// In the order in which an operator starts them.
    const ALL: [Self; 3] = [Self::Api, Self::Normalizer, Self::Gateway];

    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Normalizer => "normalizer",
            Self::Gateway => "gateway",
        }
    }

    /// The servers that it is told of. It must do without the others.
    const fn servers(self) -> &'static [Server] {
        match self {
            Self::Api | Self::Normalizer => &[Server::Nats, Server::Postgres],
            Self::Gateway => &[Server::Nats, Server::Redis],
        }
    }

    /// What it depends on by name.
    const fn checks(self) -> &'static [Check] {
        match self {
            Self::Api => &[("bus", false), ("database", true), ("directory", true)],
            Self::Normalizer => &[("bus", true), ("database", true), ("directory", true)],
            Self::Gateway => &[("bus", true), ("directory", true), ("redis", false), ("secrets", true)],
        }
    }

    /// Whether a setting concerns it: nobody is told more than he needs.
    fn reads(self, name: &str) -> bool {
        let is_of_provider =
            ["WHATSAPP_", "META_APP_SECRET", "TWILIO_A", "WEBHOOK_SECRET"].iter().any(|start| name.starts_with(start));
        let is_of_gateway = ["WHARF__INGRESS__", "WHARF__LISTEN__TLS__", "WEBHOOK_RATE", "TWILIO_SKIP"]
            .iter()
            .any(|start| name.starts_with(start));
        match self {
            Self::Api => !is_of_gateway && name != "WHARF__REDIS__URL",
            Self::Normalizer => {
                !is_of_provider && !is_of_gateway && !["WHARF_ADMIN_TOKEN", "WHARF__REDIS__URL"].contains(&name)
            }
            Self::Gateway => !is_of_provider && !["WHARF_ADMIN_TOKEN", "WHARF__POSTGRES__URL"].contains(&name),
        }
    }
}

/// Where the processes of a setup are to listen: anywhere at first, then where they were.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    public: SocketAddr,
    api: SocketAddr,
    /// In the order of [`Job::ALL`].
    admin: [SocketAddr; 3],
}

/// What Wharf is started with. Copies share servers and folder.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    servers: Arc<Mutex<Option<Arc<Servers>>>>,
    folder: Arc<TempDir>,
    environment: Vec<(String, String)>,
    addresses: Addresses,
    /// In the order of [`Job::ALL`].
    logs: [Log; 3],
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
            servers: Arc::default(),
            folder: Arc::new(tempfile::tempdir().unwrap()),
            environment: Vec::new(),
            addresses: Addresses { public: anywhere, api: anywhere, admin: [anywhere; 3] },
            logs: Default::default(),
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

    /// The folder that all processes are given. Its parent is a place for other files of the scenario.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The file of master keys, of which every process has a copy.
    pub(crate) fn keys(&self) -> PathBuf {
        self.data().join("master.keys")
    }

    /// A file that is not in the data folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The public listener is to be here.
    pub(crate) fn listen(mut self, public: SocketAddr) -> Self {
        self.addresses.public = public;
        self
    }

    /// The servers; at the first call they are started and prepared by `wharf migrate`.
    pub(crate) fn servers(&self) -> Arc<Servers> {
        let mut place = self.servers.lock().unwrap();
        let servers = place.get_or_insert_with(|| {
            let servers = Arc::new(Servers::start());
            let migrated = migrate(&servers, &self.data());
            assert_eq!(migrated.code, Some(0), "{migrated:?}");
            servers
        });
        servers.clone()
    }

    /// Starts it; returns when it takes webhooks.
    pub(crate) fn start(self) -> Wharf {
        let mut parts: Vec<_> = Job::ALL.into_iter().map(|job| self.spawn(job)).collect();
        for part in &mut parts {
            part.find();
        }
        let [api, normalizer, gateway] = &parts[..] else { unreachable!() };
        let addresses = Addresses {
            public: gateway.listener.unwrap(),
            api: api.listener.unwrap(),
            admin: [api.admin, normalizer.admin, gateway.admin],
        };
        let configured = self.environment.iter().find(|(name, _)| name == "WHARF_ADMIN_TOKEN");
        let token = configured.map_or(TOKEN, |(_, token)| token).to_owned();
        let wharf = Wharf { parts, setup: Self { addresses, ..self }, token };
        wait::until("the gateway has the directory", || {
            let ready = http::get(wharf.admin(), "/ready", "");
            ready.text().contains(r#""directory":{"ok":true"#).then_some(())
        });
        wharf
    }

    /// Starts it although it cannot run; returns how the first process that gives up ended, and what it said.
    pub(crate) fn fail_to_start(&self) -> binary::Finished {
        let begin = self.logs.clone().map(|log| log.text().len());
        let mut parts: Vec<_> = Job::ALL.into_iter().map(|job| self.spawn(job)).collect();
        let ended =
            wait::until("one of the processes gives up", || parts.iter_mut().position(|part| part.process.has_ended()));
        let code = parts[ended].process.wait_for_end();
        binary::Finished { code, stdout: String::new(), stderr: self.logs[ended].since(begin[ended]) }
    }

    fn spawn(&self, job: Job) -> Part {
        let index = Job::ALL.iter().position(|each| *each == job).unwrap();
        let listen = match job {
            Job::Api => Some(self.addresses.api),
            Job::Normalizer => None,
            Job::Gateway => Some(self.addresses.public),
        };
        self.spawn_at(job, listen, self.addresses.admin[index], &self.logs[index])
    }

    fn spawn_at(&self, job: Job, listen: Option<SocketAddr>, admin: SocketAddr, log: &Log) -> Part {
        let servers = self.servers();
        let mut command = binary::program(job.name());
        command.arg("--data-dir").arg(self.data()).arg("--admin-listen").arg(admin.to_string());
        command.args(listen.iter().flat_map(|listen| ["--listen".to_owned(), listen.to_string()]));
        command.envs(servers.environment(job.servers())).env("WHARF__KEYS__FILE", self.keys());
        // What a killed normalizer held comes again soon.
        command.env("WHARF__NORMALIZER__ACK_WAIT_SECONDS", "3");
        if job.reads("WHARF_ADMIN_TOKEN") {
            command.env("WHARF_ADMIN_TOKEN", TOKEN);
        }
        command.envs(self.environment.iter().filter(|(name, _)| job.reads(name)).map(|(name, value)| (name, value)));
        Part { job, process: Process::spawn(command, log), listener: listen, admin }
    }
}

/// `wharf migrate`.
pub(crate) fn migrate(servers: &Servers, data: &Path) -> binary::Finished {
    let mut command: Command = binary::wharf(&["migrate", "--data-dir"]);
    command.arg(data).env("WHARF__BACKEND__KIND", "distributed");
    command.envs(servers.environment(&[Server::Nats, Server::Postgres]));
    command.output().unwrap().into()
}

/// A running process.
#[derive(Debug)]
struct Part {
    job: Job,
    process: Process,
    listener: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Part {
    /// Waits for its banner.
    fn find(&mut self) {
        if self.job == Job::Normalizer {
            [self.admin] = self.process.addresses(["metrics"]);
        } else {
            let label = if self.job == Job::Api { "API" } else { "webhooks" };
            let [listener, admin] = self.process.addresses([label, "metrics"]);
            (self.listener, self.admin) = (Some(listener), admin);
        }
    }
}

/// The running processes.
#[derive(Debug)]
pub(crate) struct Wharf {
    // They go before their servers.
    parts: Vec<Part>,
    setup: Setup,
    /// The admin token.
    pub(crate) token: String,
}

impl Wharf {
    pub(crate) fn public(&self) -> SocketAddr {
        self.setup.addresses.public
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.setup.addresses.api
    }

    /// Health and metrics of the gateway.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.setup.addresses.admin[2]
    }

    /// Every listener, and what its process depends on.
    pub(crate) fn listeners(&self) -> Vec<(SocketAddr, &'static [Check])> {
        let of = |part: &Part| [part.listener, Some(part.admin)].map(|address| Some((address?, part.job.checks())));
        self.parts.iter().flat_map(of).flatten().collect()
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    fn gateway(&self) -> &Part {
        self.parts.iter().find(|part| part.job == Job::Gateway).unwrap()
    }

    /// Processor time of the gateway so far, in seconds.
    pub(crate) fn gateway_cpu_seconds(&self) -> u64 {
        self.gateway().process.cpu_seconds()
    }

    /// Memory of the gateway, in KiB.
    pub(crate) fn gateway_memory(&self) -> u64 {
        self.gateway().process.memory()
    }

    pub(crate) fn servers(&self) -> Arc<Servers> {
        self.setup.servers()
    }

    /// How the command line gets the token: it may be anywhere.
    pub(crate) fn credentials(&self) -> [String; 2] {
        ["--token".to_owned(), self.token.clone()]
    }

    /// Starts one more process of a job; the address of its listener, or of its health and metrics if it has none.
    pub(crate) fn add(&mut self, job: Job) -> SocketAddr {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listen = (job != Job::Normalizer).then_some(anywhere);
        let log = &self.setup.logs[Job::ALL.iter().position(|each| *each == job).unwrap()];
        let mut part = self.setup.spawn_at(job, listen, anywhere, log);
        part.find();
        wait::until("the new process is ready", || (http::get(part.admin, "/ready", "").status == 200).then_some(()));
        let address = part.listener.unwrap_or(part.admin);
        self.parts.push(part);
        address
    }

    /// How many processes there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Stops one of the processes as an operator does, and starts it again where it was.
    pub(crate) fn restart(&mut self, index: usize) {
        let part = &mut self.parts[index];
        part.process.terminate();
        assert_eq!(part.process.wait_for_end(), Some(0), "a stop is a success:\n{}", self.setup.log());
        let (job, listener, admin) = (part.job, part.listener, part.admin);
        let log = &self.setup.logs[Job::ALL.iter().position(|each| *each == job).unwrap()];
        let mut part = self.setup.spawn_at(job, listener, admin, log);
        part.find();
        wait::until("the process is ready", || (http::get(part.admin, "/ready", "").status == 200).then_some(()));
        self.parts[index] = part;
    }

    /// Standard error so far, of these processes and of earlier ones of the setup.
    pub(crate) fn log(&self) -> String {
        self.setup.log()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.parts.iter_mut().all(|part| !part.process.has_ended())
    }

    /// Whether a stop has begun everywhere.
    pub(crate) fn is_stopping(&self) -> bool {
        self.setup.logs.iter().all(|log| log.text().contains("stopping"))
    }

    /// Waits until what was taken before is no longer ahead of what is taken now: what a killed normalizer held comes
    /// again late, and several do not keep an order.
    fn settle(&self) {
        let servers = self.servers();
        wait::until("nothing is left on the bus", || {
            (servers.waiting("inbound_live", "normalizer-live") == 0).then_some(())
        });
    }

    /// kill -9. What is returned starts again on the same servers, folder and addresses.
    pub(crate) fn kill(mut self) -> Setup {
        for part in &mut self.parts {
            part.process.kill();
        }
        self.setup.clone()
    }

    /// Asks all to stop, and goes on.
    pub(crate) fn terminate(&self) {
        for part in &self.parts {
            part.process.terminate();
        }
    }

    /// Waits for the end of all; the exit code is that of the first that did not end well, none if a signal ended it.
    pub(crate) fn wait_for_end(mut self) -> (Setup, Option<i32>) {
        let codes: Vec<_> = self.parts.iter_mut().map(|part| part.process.wait_for_end()).collect();
        let code = codes.into_iter().find(|code| *code != Some(0)).unwrap_or(Some(0));
        (self.setup.clone(), code)
    }

    /// Stops it as an operator does.
    pub(crate) fn stop(self) -> Setup {
        self.terminate();
        let (setup, code) = self.wait_for_end();
        assert_eq!(code, Some(0), "a stop is a success:\n{}", setup.log());
        setup
    }

    /// Stops it; all that it has said.
    pub(crate) fn stop_and_read_log(self) -> String {
        self.stop().log()
    }

    /// The figures of all processes.
    pub(crate) fn metrics(&self) -> Metrics {
        let page = |part: &Part| {
            let answer = http::get(part.admin, "/metrics", "");
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.text().to_owned()
        };
        Metrics(self.parts.iter().map(page).collect())
    }

    /// What a process says of its readiness.
    pub(crate) fn readiness(&self, job: Job) -> http::Answer {
        let part = self.parts.iter().find(|part| part.job == job).unwrap();
        http::get(part.admin, "/ready", "")
    }
}

impl Setup {
    /// All logs, one after the other.
    fn log(&self) -> String {
        self.logs.iter().map(Log::text).collect()
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        for part in &mut self.parts {
            part.process.kill();
        }
        if !std::thread::panicking() {
            let log = self.log();
            assert!(!log.contains("panicked at"), "a panic:\n{log}");
        }
    }
}
