//! A server's process, and the watchdog that outlives the test to end it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tempfile::TempDir;

use crate::wait::{Bound, PATIENCE};

/// Pids of processes that were stopped and are not children of the test, for the watchdog.
const FROZEN: &str = "frozen";

/// Where a server keeps all it has; deleted with the value.
pub(crate) fn temporary_folder(name: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(&format!("wharf-test-{name}-")).tempdir();
    folder.unwrap_or_else(|error| panic!("no temporary folder for {name}: {error}"))
}

/// What a server's process is started with; the same at every start.
pub(crate) struct Launch<'a> {
    pub(crate) name: &'static str,
    /// Holds the log, is the working folder, and is deleted by the watchdog.
    pub(crate) folder: &'a Path,
    /// The signal by which the watchdog ends it.
    pub(crate) last_signal: &'static str,
}

impl Launch<'_> {
    /// Starts it on ports that nobody has seen yet: none if one of them has been taken meanwhile.
    pub(crate) fn first(&self, command: Command, answers: impl Fn() -> bool) -> Option<Process> {
        self.start(command, &answers, &Bound::new(PATIENCE))
    }

    /// Starts it on ports that are known and therefore must be had.
    pub(crate) fn again(&self, command: impl Fn() -> Command, answers: impl Fn() -> bool) -> Process {
        let bound = Bound::new(PATIENCE);
        loop {
            if let Some(process) = self.start(command(), &answers, &bound) {
                return process;
            }
            assert!(!bound.is_over(), "{}: somebody took the port:\n{}", self.name, log(self.folder));
            bound.pause();
        }
    }

    fn start(&self, command: Command, answers: &impl Fn() -> bool, bound: &Bound) -> Option<Process> {
        let before = log(self.folder).len();
        let mut process = self.spawn(command);
        loop {
            let answers = answers();
            if !process.is_running() {
                let log = log(self.folder);
                let taken = log.get(before..).unwrap_or(&log).to_lowercase().contains("address already in use");
                assert!(taken, "{} ended early:\n{log}", self.name);
                return None;
            }
            if answers {
                return Some(process);
            }
            assert!(!bound.is_over(), "{} does not answer within {PATIENCE:?}:\n{}", self.name, log(self.folder));
            bound.pause();
        }
    }

    fn spawn(&self, mut command: Command) -> Process {
        let path = log_file(self.folder);
        let log = File::options().append(true).create(true).open(&path);
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let copy = log.try_clone().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // A group of its own: Ctrl-C is for the test, whose end the watchdog sees. PostgreSQL on macOS wants a locale.
        command.current_dir(self.folder).env("LC_ALL", "C").process_group(0);
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let watchdog = Watchdog::start(child.id(), self);
        Process { child, watchdog, has_ended: false }
    }
}

/// All that the server has written, at all its starts.
pub(crate) fn log(folder: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log_file(folder)).unwrap_or_default()).into_owned()
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// A process that was started. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watchdog: Watchdog,
    /// It was waited for, so its pid may be somebody else's by now.
    has_ended: bool,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        if !self.has_ended && self.child.try_wait().is_ok_and(|status| status.is_some()) {
            self.ended();
        }
        !self.has_ended
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if !self.has_ended {
            send(self.pid(), signal);
        }
    }

    /// Stops it. Returns when all its threads stand still: the signal alone leaves them time for an answer.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        if let Some(pid) = known(self.pid())
            && !self.has_ended
        {
            // Looking only: a second freeze finds the same, and a death is seen by whoever waits for it.
            let what = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while rustix::process::waitid(WaitId::Pid(pid), what).err() == Some(rustix::io::Errno::INTR) {}
        }
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// kill -9, and waits for the end.
    pub(crate) fn kill(&mut self) {
        if !self.has_ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.ended();
        }
    }

    fn ended(&mut self) {
        self.has_ended = true;
        self.watchdog.dismiss();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process that may have ended meanwhile.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = known(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn known(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Leaves word for the watchdog that these were stopped.
pub(crate) fn note_frozen(folder: &Path, pids: &[u32]) {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    fs::write(folder.join(FROZEN), list).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
}

/// Those of which [`note_frozen`] left word; they are forgotten.
pub(crate) fn take_frozen(folder: &Path) -> Vec<u32> {
    let list = fs::read_to_string(folder.join(FROZEN)).unwrap_or_default();
    let _ = fs::remove_file(folder.join(FROZEN));
    list.split(' ').filter_map(|pid| pid.parse().ok()).collect()
}

/// A shell whose standard input ends with the test's process, however that ends. Then it ends the server and deletes
/// the folder. It is in a group of its own, so that whoever kills the test with its group does not kill it too.
#[derive(Debug)]
struct Watchdog(Option<Child>);

const WATCH: &str = r#"
trap '' HUP INT TERM
read -r nothing
if [ -s "$3/frozen" ]; then kill -CONT $(cat "$3/frozen"); fi
kill -CONT "$1"
kill -"$2" "$1"
tries=0
while kill -0 "$1" && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$1"
rm -rf "$3"
"#;

impl Watchdog {
    fn start(pid: u32, launch: &Launch<'_>) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "wharf-test-watchdog", &pid.to_string(), launch.last_signal]).arg(launch.folder);
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(Some(command.spawn().unwrap_or_else(|error| panic!("sh does not start: {error}"))))
    }

    /// The server has ended otherwise.
    fn dismiss(&mut self) {
        if let Some(mut shell) = self.0.take() {
            // Waiting would close its standard input before it is dead.
            let input = shell.stdin.take();
            let _ = shell.kill();
            let _ = shell.wait();
            drop(input);
        }
    }
}

/// Sends a few bytes; the beginning of the answer, or nothing.
pub(crate) fn ask(address: SocketAddr, question: &[u8]) -> Vec<u8> {
    let exchange = || {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(question)?;
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer)?;
        answer.truncate(count);
        std::io::Result::Ok(answer)
    };
    exchange().unwrap_or_default()
}
