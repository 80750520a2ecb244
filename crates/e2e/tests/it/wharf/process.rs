//! A process of ours: started, listened to, ended.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::wait;

/// Standard error of processes that were started one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// What has been said since it had this length.
    pub(crate) fn since(&self, length: usize) -> String {
        self.0.lock().unwrap()[length..].to_owned()
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    reader: Option<JoinHandle<()>>,
    log: Log,
    /// The length of the log when it started.
    begin: usize,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: &Log) -> Self {
        let begin = log.text().len();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let reader = Some(follow(&mut child, log.clone()));
        Self { child, reader, log: log.clone(), begin }
    }

    /// What the system tells of it.
    fn told(&self, what: &str) -> String {
        let ps = Command::new("ps").args(["-o", what, "-p", &self.child.id().to_string()]).output().unwrap();
        String::from_utf8(ps.stdout).unwrap()
    }

    /// Memory that it has, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.told("rss=").trim().parse().unwrap()
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> u64 {
        let time = self.told("time=");
        // [days-]hours:minutes:seconds[.hundredths]
        let parts = time.trim().split(['-', ':']).map(|part| part.split('.').next().unwrap().parse::<u64>().unwrap());
        parts.fold(0, |sum, part| sum * 60 + part)
    }

    /// The addresses of its banner behind these labels, once it has said all.
    pub(crate) fn addresses<const N: usize>(&mut self, labels: [&str; N]) -> [SocketAddr; N] {
        wait::until("the process says where it is", || {
            let has_ended = self.has_ended();
            let said = self.log.since(self.begin);
            // The banner is complete when its last line is there.
            if said.contains("  keys  ") {
                return Some(
                    labels.map(|label| address(&said, label).unwrap_or_else(|| panic!("no {label}:\n{said}"))),
                );
            }
            assert!(!has_ended, "it ended early:\n{said}");
            None
        })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.reap();
    }

    /// Asks it to stop, and goes on.
    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end; the exit code is none if a signal ended it.
    pub(crate) fn wait_for_end(&mut self) -> Option<i32> {
        let status = wait::until("the process ends", || self.child.try_wait().unwrap());
        self.reap();
        status.code()
    }

    fn reap(&mut self) {
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
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

/// The address behind a label of the banner.
fn address(said: &str, label: &str) -> Option<SocketAddr> {
    let rest = said.lines().find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix(' '))?;
    let rest = rest.trim_start().strip_prefix("http://")?;
    rest.split(['/', ' ']).next()?.parse().ok()
}
