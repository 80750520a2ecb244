//! One process of Wharf, on addresses that it keeps over its deaths.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::http;
use crate::wait;

/// What a process is started with, at every start.
#[derive(Debug)]
pub(crate) struct Job {
    /// As in `gateway-2`.
    pub(crate) name: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    /// Its own listener; the normalizer has none.
    listen: Option<SocketAddr>,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Job {
    /// Describes one; it does not run yet.
    pub(crate) fn new(name: &str, program: PathBuf, environment: Vec<(String, String)>, log: PathBuf) -> Self {
        let listen = (!name.starts_with("normalizer")).then(free_address);
        Self { name: name.to_owned(), program, environment, log, listen, admin: free_address(), child: None }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listen.unwrap_or(self.admin)
    }

    /// Starts it; returns when it says that it is ready.
    pub(crate) fn start(&mut self) {
        let log = File::options().append(true).create(true).open(&self.log).unwrap();
        let mut command = Command::new(&self.program);
        if let Some(listen) = self.listen {
            command.arg("--listen").arg(listen.to_string());
        }
        command.arg("--admin-listen").arg(self.admin.to_string());
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait::until(&format!("{} is ready", self.name), || {
            assert!(self.is_running(), "{} ended by itself:\n{}", self.name, self.log());
            let answer = http::get(self.admin, "/health/ready", "")?;
            (answer.status == 200).then_some(())
        });
    }

    /// Whether it is there. Nobody but the test ends it.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// kill -9. Returns when it is dead.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it as an operator does; it must end well.
    pub(crate) fn stop(&mut self) {
        let child = self.child.as_mut().unwrap();
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let status = wait::until(&format!("{} ends", self.name), || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{}:\n{}", self.name, self.log());
        self.child = None;
    }

    /// All that it has said, at all its starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address that nobody listens on, below those from which the system takes ports of outgoing connections (and of the
/// tests' servers): while a process is dead, nobody gets its port by chance, not even whoever tries to connect to it. Nor
/// is it given twice before anybody listens on it.
fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    let (first, count) = (10_000, 10_000);
    let start = RandomState::new().hash_one(std::process::id());
    let port = (0..count).find_map(|step| {
        let port = u16::try_from(first + start.wrapping_add(step) % count).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().filter(|_| given.insert(port)).map(|_| port)
    });
    SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("a free port")))
}
