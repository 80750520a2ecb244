//! A disk for nats-server that can be full.
//!
//! Where the test may mount, that is a small tmpfs, which a ballast file fills: the server's writes end with ENOSPC, as
//! on any full disk. Elsewhere its process is forbidden to make files longer (`RLIMIT_FSIZE`), which needs no rights:
//! its writes end with EFBIG. That is a failing write, too, but not a full disk, so the summary says which of the two it
//! was.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum Disk {
    /// A file system of its own.
    Small(Mounted),
    /// The usual one, and limits of the process.
    Limited(PathBuf),
}

/// A mounted tmpfs. It is unmounted when the value, or the test's process, ends.
#[derive(Debug)]
pub(crate) struct Mounted {
    folder: PathBuf,
    ballast: Option<File>,
    watchdog: Child,
}

const WATCH: &str = r#"
trap '' HUP INT TERM
read -r nothing
umount -l "$1"
rmdir "$1"
"#;

impl Disk {
    /// A disk of so many megabytes, mounted below `parent` if that is allowed.
    pub(crate) fn new(parent: &Path, megabytes: u64) -> Self {
        let folder = parent.join("disk");
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&folder);
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return Self::Limited(folder);
        }
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCH, "wharf-test-unmount"]).arg(&folder).current_dir("/").process_group(0);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::Small(Mounted { folder, ballast: None, watchdog: watchdog.spawn().unwrap() })
    }

    /// Where the server may put its files.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Small(mounted) => &mounted.folder,
            Self::Limited(folder) => folder,
        }
    }

    /// What a full disk is here.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Small(_) => "a tmpfs filled by a ballast file (ENOSPC)",
            Self::Limited(_) => "NOT a full disk: mounting is not allowed, so writes failed by RLIMIT_FSIZE (EFBIG)",
        }
    }

    /// Lets writes fail. To be called again and again while they shall: whatever is freed meanwhile is taken, too.
    pub(crate) fn fill(&mut self, server: u32) {
        match self {
            Self::Small(mounted) => mounted.fill(),
            Self::Limited(_) => limit(server, "0:"),
        }
    }

    /// Lets writes succeed again.
    pub(crate) fn free(&mut self, server: u32) {
        match self {
            Self::Small(mounted) => mounted.free(),
            Self::Limited(_) => limit(server, "unlimited:"),
        }
    }
}

impl Mounted {
    fn fill(&mut self) {
        let path = self.folder.join("ballast");
        let ballast = self.ballast.get_or_insert_with(|| File::create(path).unwrap());
        // Down to the last page.
        for size in [1 << 20, 4 << 10] {
            let block = vec![0; size];
            loop {
                match ballast.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the ballast cannot be written: {error}"),
                }
            }
        }
    }

    fn free(&mut self) {
        if self.ballast.take().is_some() {
            fs::remove_file(self.folder.join("ballast")).unwrap();
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Its standard input closes, which is what it waits for.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Changes the soft limit only, so that it can be raised again without rights.
fn limit(process: u32, size: &str) {
    let status = Command::new("prlimit").args(["--pid", &process.to_string(), &format!("--fsize={size}")]).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "prlimit (util-linux) is needed where mounting is not allowed"
    );
}
