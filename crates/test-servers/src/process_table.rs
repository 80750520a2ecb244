//! Which processes there are. PostgreSQL's are sessions of their own, so no signal to a group reaches all of them.

use std::fs;
use std::process::Command;

struct Entry {
    pid: u32,
    parent: u32,
    state: char,
}

impl Entry {
    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// The living children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    all().into_iter().filter(|entry| entry.parent == pid && entry.is_alive()).map(|entry| entry.pid).collect()
}

/// Whether any of these is alive. One that nobody has waited for yet is not.
pub(crate) fn any_alive(pids: &[u32]) -> bool {
    all().iter().any(|entry| entry.is_alive() && pids.contains(&entry.pid))
}

/// Whether any of these is neither stopped nor dead.
pub(crate) fn any_moving(pids: &[u32]) -> bool {
    all().iter().any(|entry| entry.is_alive() && entry.state != 'T' && pids.contains(&entry.pid))
}

fn all() -> Vec<Entry> {
    if cfg!(target_os = "linux") { from_proc() } else { from_ps() }
}

fn from_proc() -> Vec<Entry> {
    let entries = fs::read_dir("/proc").unwrap_or_else(|error| panic!("/proc cannot be read: {error}"));
    let parse = |name: &str| {
        let pid = name.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // "pid (name) state parent …"; the name may contain anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Entry { pid, parent: fields.next()?.parse().ok()?, state })
    };
    entries.filter_map(|entry| parse(entry.ok()?.file_name().to_str()?)).collect()
}

fn from_ps() -> Vec<Entry> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).output();
    let output = output.unwrap_or_else(|error| panic!("ps does not start: {error}"));
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry { pid, parent, state: fields.next()?.chars().next()? })
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect()
}
