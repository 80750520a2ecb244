//! PostgreSQL with a database of its own.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::port::Port;
use crate::process::{self, Launch, Process};
use crate::wait::{self, PATIENCE};
use crate::{binaries, data_folder, process_table};

/// Settings of the server.
///
/// `fsync=off` and `full_page_writes=off` are about the death of the machine. These servers' processes are killed, and
/// what a process has written the system keeps. `synchronous_commit` stays on: it is what writes before it answers.
/// Shared memory is in files of the data folder, because a killed server would leave it elsewhere.
const SETTINGS: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "full_page_writes=off",
    "dynamic_shared_memory_type=mmap",
    "shared_buffers=16MB",
    "max_connections=50",
    "min_wal_size=2MB",
    "max_wal_size=256MB",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// A running PostgreSQL. Database and user are `wharf`, the encoding is UTF-8, the locale is C. There is no other
/// database, not even a template: who needs a second one starts a second server, which is as quick.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: Port,
    folder: TempDir,
}

impl Postgres {
    /// Starts one with an empty database.
    pub fn start() -> Self {
        Self::start_prepared("empty", |_| {})
    }

    /// Starts one with a database as `prepare`, which is given the URL, leaves it. That is done once for a name, then
    /// copied: a name stands for a content for ever, so put a hash of the migrations into it. Connections must be
    /// closed when `prepare` returns.
    pub fn start_prepared(name: &str, prepare: impl FnOnce(&str)) -> Self {
        let version = &binaries::postgres().version;
        let template = data_folder::template(name, version, || {
            let mut server = Self::on(make_data);
            prepare(&server.url());
            server.stop();
            (data(server.folder.path()), server)
        });
        Self::on(|folder| data_folder::copy(&template, &data(folder), data_folder::other_user()))
    }

    /// Starts one on the data folder that is made in the given folder.
    fn on(make: impl Fn(&Path)) -> Self {
        loop {
            let (port, folder) = (Port::free(), process::temporary_folder("postgres"));
            let user = data_folder::other_user();
            chown(folder.path(), user, user).unwrap_or_else(|error| panic!("{}: {error}", folder.path().display()));
            make(folder.path());
            let started = launch(folder.path()).first(command(folder.path(), &port), || answers(port.address()));
            if let Some(process) = started {
                return Self { process, port, folder };
            }
        }
    }

    /// As in `postgres://wharf@127.0.0.1:20001/wharf`.
    pub fn url(&self) -> String {
        format!("postgres://wharf@{}/wharf", self.port.address())
    }

    /// kill -9 for all its processes at once. Returns when they are dead.
    pub fn kill(&mut self) {
        if !self.is_running() {
            return;
        }
        // Stopped, it starts no further process while they are looked for.
        self.process.freeze();
        let children = process_table::children(self.pid());
        for child in &children {
            process::send(*child, Signal::KILL);
        }
        self.process.kill();
        self.wait_for(&children);
        self.clear_away();
    }

    /// Stops it in order: open transactions are rolled back, everything is written. Returns when it has ended.
    pub fn stop(&mut self) {
        self.thaw();
        self.process.signal(Signal::INT);
        let stopped = wait::holds_within(PATIENCE, || !self.process.is_running());
        assert!(stopped, "PostgreSQL does not stop within {PATIENCE:?}:\n{}", self.log());
    }

    /// Starts it on the same port and data. Returns when it answers.
    pub fn start_again(&mut self) {
        self.kill();
        let folder = self.folder.path();
        self.process = launch(folder).again(|| command(folder, &self.port), || answers(self.port.address()));
    }

    /// Stops all its processes in mid-work: connections stay, nothing answers. Returns when they stand still.
    pub fn freeze(&self) {
        self.process.freeze();
        let children = process_table::children(self.pid());
        process::note_frozen(self.folder.path(), &children);
        for child in &children {
            process::send(*child, Signal::STOP);
        }
        let frozen = wait::holds_within(PATIENCE, || !process_table::any_moving(&children));
        assert!(frozen, "processes of PostgreSQL do not stop:\n{}", self.log());
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        for child in process::take_frozen(self.folder.path()) {
            process::send(child, Signal::CONT);
        }
        self.process.thaw();
    }

    /// Whether the main process is there, be it frozen.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The main process, or the last one if it was killed.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has written, at all its starts.
    pub fn log(&self) -> String {
        process::log(self.folder.path())
    }

    fn wait_for(&self, pids: &[u32]) {
        let gone = wait::holds_within(PATIENCE, || !process_table::any_alive(pids));
        assert!(gone, "processes of PostgreSQL do not die:\n{}", self.log());
    }

    /// What a killed server leaves: its lock file, which may name a pid that somebody else has by now, and a small
    /// segment of shared memory, which the lock file names in its seventh line.
    fn clear_away(&self) {
        let _ = process::take_frozen(self.folder.path());
        let lock = data(self.folder.path()).join("postmaster.pid");
        let text = fs::read_to_string(&lock).unwrap_or_default();
        if let Some(segment) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let remove =
                Command::new("ipcrm").args(["-m", segment]).stderr(Stdio::null()).stdout(Stdio::null()).status();
            drop(remove);
        }
        let _ = fs::remove_file(lock);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        // An immediate stop is as quick as a kill and leaves no shared memory behind.
        self.thaw();
        let children = process_table::children(self.pid());
        self.process.signal(Signal::QUIT);
        if wait::holds_within(Duration::from_secs(5), || !self.process.is_running()) {
            wait::holds_within(Duration::from_secs(5), || !process_table::any_alive(&children));
        } else {
            self.kill();
        }
    }
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn launch(folder: &Path) -> Launch<'_> {
    Launch { name: "PostgreSQL", folder, last_signal: "QUIT" }
}

fn command(folder: &Path, port: &Port) -> Command {
    let mut command = as_other_user(&binaries::postgres().postgres, folder);
    command.arg("-D").arg(data(folder)).args(["-p", &port.number().to_string()]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command
}

fn as_other_user(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    if let Some(user) = data_folder::other_user() {
        command.uid(user).gid(user);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
}

/// A data folder with an empty database `wharf`.
fn make_data(folder: &Path) {
    let data = data(folder);
    let mut initdb = as_other_user(&binaries::postgres().initdb, folder);
    initdb.arg("-D").arg(&data).args(["--username=wharf", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    // Small, because it is copied for every test.
    initdb.args(["--wal-segsize=1", "--no-sync"]);
    finish(initdb, "");
    // One database instead of three is a third to copy. This way needs no client.
    let rename = "ALTER DATABASE postgres RENAME TO wharf\n";
    let drop = |name: &str| format!("ALTER DATABASE {name} IS_TEMPLATE false\nDROP DATABASE {name}\n");
    for (database, statements) in [("template1", drop("template0") + rename), ("wharf", drop("template1"))] {
        let mut single = as_other_user(&binaries::postgres().postgres, folder);
        single.arg("--single").arg("-D").arg(&data).args(["-c", "fsync=off", database]);
        finish(single, &statements);
    }
}

fn finish(mut command: Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // The single-user server ends well whatever became of the statement.
    assert!(output.status.success() && !said.contains("ERROR:"), "{command:?}: {}:\n{said}", output.status);
}

/// Whether it lets in a client. It takes connections before that, only to say that it is starting.
fn answers(address: SocketAddr) -> bool {
    let mut hello = Vec::new();
    hello.extend(196_608_u32.to_be_bytes());
    hello.extend(b"user\0wharf\0database\0wharf\0\0");
    let length = u32::try_from(hello.len() + 4).unwrap_or_default();
    let hello = [length.to_be_bytes().as_slice(), &hello].concat();
    process::ask(address, &hello).first() == Some(&b'R')
}
