//! Where the servers' programs are.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The oldest nats-server that has what Wharf asks for; older ones drop unknown settings without a word.
const OLDEST_NATS: (u32, u32) = (2, 11);

/// nats-server, of a version that will do.
pub(crate) fn nats() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let mut too_old = Vec::new();
        for program in programs(&["nats-server"]) {
            let version = version(&program);
            if is_recent(&version) {
                return program;
            }
            too_old.push(format!("; {} is {version}", program.display()));
        }
        let (major, minor) = OLDEST_NATS;
        let what = format!("nats-server {major}.{minor} or later");
        missing(&(what + &too_old.concat()), "https://nats.io/download, brew install nats-server")
    })
}

/// redis-server, or what has taken its place in some distributions.
pub(crate) fn redis() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let found = programs(&["redis-server", "valkey-server"]).into_iter().next();
        found.unwrap_or_else(|| missing("redis-server", "apt install redis-server, brew install redis"))
    })
}

/// The programs of one installation of PostgreSQL.
#[derive(Debug)]
pub(crate) struct PostgresPrograms {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    /// As in `15.18`.
    pub(crate) version: String,
}

/// PostgreSQL.
pub(crate) fn postgres() -> &'static PostgresPrograms {
    static PROGRAMS: OnceLock<PostgresPrograms> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        for folder in postgres_folders() {
            let (initdb, postgres) = (folder.join("initdb"), folder.join("postgres"));
            if initdb.is_file() && postgres.is_file() {
                let version = version(&postgres);
                return PostgresPrograms { initdb, postgres, version };
            }
        }
        missing("PostgreSQL (postgres and initdb)", "apt install postgresql, brew install postgresql")
    })
}

fn missing(what: &str, how: &str) -> ! {
    panic!("{what} is missing: run scripts/get-servers, or install it ({how})")
}

/// Distributions keep PostgreSQL's server out of PATH.
fn postgres_folders() -> Vec<PathBuf> {
    let beside = |program: PathBuf| program.canonicalize().ok()?.parent().map(Path::to_owned);
    let mut folders: Vec<_> = programs(&["postgres"]).into_iter().filter_map(beside).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<_> = entries.map(|entry| entry.path()).filter(|path| begins(path, prefix)).collect();
        // The newest first.
        versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
        folders.extend(versions.into_iter().map(|path| path.join("bin")));
    }
    folders
}

fn begins(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(prefix))
}

fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.trim_start_matches(|character: char| !character.is_ascii_digit()).parse().ok()
}

/// All programs of these names, in the order in which they are to be taken.
fn programs(names: &[&str]) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/servers/bin");
    let folders: Vec<_> = std::env::split_paths(&path).chain([PathBuf::from(cache)]).collect();
    let all = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    all.filter(|program| program.is_file()).collect()
}

/// The first word of `--version` that is a number with dots.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    let mut numbers = words.filter(|word| word.starts_with(|character: char| character.is_ascii_digit()));
    numbers.next().unwrap_or("of an unknown version").to_owned()
}

fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= OLDEST_NATS
}

#[cfg(test)]
mod tests {
    use super::is_recent;

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        for good in ["2.11.0", "2.15.1", "2.11.0-RC.1", "3.0.0"] {
            assert!(is_recent(good), "{good}");
        }
        for bad in ["2.9.10", "2.10.25", "1.99.0", "of an unknown version", ""] {
            assert!(!is_recent(bad), "{bad}");
        }
    }
}
