//! nats-server with JetStream.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::binaries;
use crate::port::Port;
use crate::process::{self, Launch, Process};

/// What is answered is on disk (`sync_interval`), as Wharf demands of a server that it may lose.
const CONFIG: &str = r#"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
max_payload: 8MB
jetstream {
    store_dir: "{folder}/jetstream"
    sync_interval: always
}
"#;

/// A running nats-server.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    port: Port,
    monitor: Port,
    folder: TempDir,
}

impl Nats {
    /// Starts one with JetStream, which syncs every write, a monitoring port, and a payload of at most 8 MB.
    pub fn start() -> Self {
        Self::start_with(CONFIG)
    }

    /// Starts one with a configuration of the caller's, in which `{port}`, `{monitor_port}` and `{folder}` are
    /// replaced. It must listen on 127.0.0.1.
    pub fn start_with(config: &str) -> Self {
        loop {
            let (port, monitor, folder) = (Port::free(), Port::free(), process::temporary_folder("nats"));
            let config = config.replace("{port}", &port.number().to_string());
            let config = config.replace("{monitor_port}", &monitor.number().to_string());
            let config = config.replace("{folder}", &folder.path().display().to_string());
            fs::write(folder.path().join("nats.conf"), config)
                .unwrap_or_else(|error| panic!("the configuration cannot be written: {error}"));
            if let Some(process) = launch(folder.path()).first(command(folder.path()), || answers(&port)) {
                return Self { process, port, monitor, folder };
            }
        }
    }

    /// As in `nats://127.0.0.1:20001`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// The HTTP address of its own figures, as in `http://127.0.0.1:20002`.
    pub fn monitor_url(&self) -> String {
        format!("http://{}", self.monitor.address())
    }

    /// kill -9. Returns when it is dead.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it on the same ports and folder. Returns when it answers.
    pub fn start_again(&mut self) {
        self.kill();
        let folder = self.folder.path();
        self.process = launch(folder).again(|| command(folder), || answers(&self.port));
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

    /// Where its configuration and its streams are. Deleted at the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn launch(folder: &Path) -> Launch<'_> {
    Launch { name: "nats-server", folder, last_signal: "KILL" }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(binaries::nats());
    command.arg("--config").arg(folder.join("nats.conf"));
    command
}

/// The server speaks first, once it takes clients.
fn answers(port: &Port) -> bool {
    process::ask(port.address(), b"").starts_with(b"INFO ")
}
