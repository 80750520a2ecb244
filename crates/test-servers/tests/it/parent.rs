//! What needs a process besides the test: its death, and the preparation of a template by many at once.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use test_servers::{Nats, Postgres, Redis};

use crate::alive::{is_alive, wait_for};
use crate::clients::sql;

/// Tells a child of these tests where to work.
const WORK: &str = "TEST_SERVERS_WORK";

/// One of the tests below that are ignored, as a process of its own.
fn child(name: &str, work: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("parent::{name}"), "--ignored", "--nocapture"]).env(WORK, work);
    command.env("TMPDIR", work).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// A folder that servers of another user can reach.
fn work() -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    work
}

fn given_work() -> Option<PathBuf> {
    std::env::var_os(WORK).map(PathBuf::from)
}

/// The servers' folders.
fn folders(work: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().path());
    let prefixes = ["wharf-test-nats-", "wharf-test-redis-", "wharf-test-postgres-"];
    let is_folder = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    entries.filter(is_folder).collect()
}

#[test]
#[ignore = "the other process of a test below"]
fn has_servers_until_it_is_killed() {
    if given_work().is_none() {
        return;
    }
    let (nats, redis, postgres) = (Nats::start(), Redis::start(), Postgres::start());
    let mut pids = sql(&postgres.url(), "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
    pids.extend([nats.pid(), redis.pid(), postgres.pid()].map(|pid| pid.to_string()));
    let mut line = String::new();
    println!("\npids {}", pids.join(" "));
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut line).unwrap();
    if line.trim() == "freeze" {
        nats.freeze();
        redis.freeze();
        postgres.freeze();
    }
    println!("\nready");
    loop {
        std::thread::park();
    }
}

fn nothing_stays_when_the_test_dies(order: &str) {
    let work = work();
    let mut child = child("has_servers_until_it_is_killed", work.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pids = lines.find_map(|line| Some(line.strip_prefix("pids ")?.to_owned())).unwrap();
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    writeln!(child.stdin.as_ref().unwrap(), "{order}").unwrap();
    assert!(lines.any(|line| line == "ready"));
    assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    assert_eq!(folders(work.path()).len(), 3);

    child.kill().unwrap();
    child.wait().unwrap();

    wait_for("the servers are gone", || !pids.iter().any(|pid| is_alive(*pid)));
    wait_for("their folders are gone", || folders(work.path()).is_empty());
}

#[test]
fn nothing_stays_when_the_test_is_killed() {
    nothing_stays_when_the_test_dies("");
}

#[test]
fn nothing_stays_when_the_test_is_killed_while_all_is_frozen() {
    nothing_stays_when_the_test_dies("freeze");
}

#[test]
#[ignore = "the other process of a test below"]
fn has_a_prepared_database() {
    let Some(work) = given_work() else { return };
    let name = work.file_name().unwrap().to_str().unwrap().replace('.', "-");
    let postgres = Postgres::start_prepared(&format!("test{name}"), |url| {
        let mut log = fs::File::options().create(true).append(true).open(work.join("prepared")).unwrap();
        log.write_all(b"once\n").unwrap();
        sql(url, "CREATE TABLE prepared AS SELECT 9 AS value");
    });
    assert_eq!(sql(&postgres.url(), "SELECT value FROM prepared"), ["9"]);
    // Nobody sees what another one does with his copy.
    sql(&postgres.url(), "DROP TABLE prepared");
}

#[test]
fn a_database_is_prepared_once_by_many_processes() {
    let work = work();
    let children: Vec<_> = (0..3).map(|_| child("has_a_prepared_database", work.path())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
    assert_eq!(fs::read_to_string(work.path().join("prepared")).unwrap(), "once\n");
    // The template of this test is of no use to anybody.
    let own = std::env::current_exe().unwrap();
    let templates = own.ancestors().nth(3).unwrap().join("test-servers");
    let name = work.path().file_name().unwrap().to_str().unwrap().replace('.', "-");
    for entry in fs::read_dir(templates).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().starts_with(&format!("test{name}-")) {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}
