//! redis-server that keeps nothing.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::binaries;
use crate::port::Port;
use crate::process::{self, Launch, Process};

/// A running redis-server. It stores nothing: after a kill it is empty.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: Port,
    folder: TempDir,
}

impl Redis {
    /// Starts an empty one.
    pub fn start() -> Self {
        loop {
            let (port, folder) = (Port::free(), process::temporary_folder("redis"));
            if let Some(process) = launch(folder.path()).first(command(folder.path(), &port), || answers(&port)) {
                return Self { process, port, folder };
            }
        }
    }

    /// As in `redis://127.0.0.1:20001`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// kill -9. Returns when it is dead.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it on the same port, empty. Returns when it answers.
    pub fn start_again(&mut self) {
        self.kill();
        let folder = self.folder.path();
        self.process = launch(folder).again(|| command(folder, &self.port), || answers(&self.port));
    }

    /// Stops it in mid-work: connections stay, nothing answers. Returns when it stands still.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Whether the process is there, be it frozen.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The process, or the last one if it was killed.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has written, at all its starts.
    pub fn log(&self) -> String {
        process::log(self.folder.path())
    }
}

fn launch(folder: &Path) -> Launch<'_> {
    Launch { name: "redis-server", folder, last_signal: "KILL" }
}

fn command(folder: &Path, port: &Port) -> Command {
    let mut command = Command::new(binaries::redis());
    command.args(["--bind", "127.0.0.1", "--port", &port.number().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(folder);
    command
}

fn answers(port: &Port) -> bool {
    process::ask(port.address(), b"PING\r\n") == b"+PONG\r\n"
}
