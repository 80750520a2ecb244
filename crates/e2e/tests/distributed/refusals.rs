//! Processes that cannot run say why and what to do, and end.

use std::path::Path;
use std::process::Command;

use crate::binary::{self, Finished};
use crate::servers::Servers;
use crate::wharf::{Setup, migrate};

const JOBS: [&str; 3] = ["gateway", "normalizer", "api"];

fn job(name: &str, data: &Path) -> Command {
    let mut command = binary::program(name);
    command.arg("--data-dir").arg(data).args(["--admin-listen", "127.0.0.1:0"]);
    if name != "normalizer" {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.env("WHARF_ADMIN_TOKEN", "a-token-of-sixteen-or-more");
    command
}

fn run(command: &mut Command) -> Finished {
    command.output().unwrap().into()
}

#[test]
fn nothing_starts_before_the_servers_are_migrated() {
    let servers = Servers::start();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for name in JOBS {
        let refused = run(job(name, &data).envs(servers.environment(&Servers::ALL)));
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        assert!(refused.stderr.contains("run `wharf migrate`"), "{name}: {refused:?}");
        assert!(!data.exists(), "{name} has begun nothing");
    }
}

#[test]
fn nothing_starts_without_the_key_file() {
    let servers = Servers::start();
    let folder = tempfile::tempdir().unwrap();
    let migrated = migrate(&servers, &folder.path().join("data"));
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    for part in ["master.keys", "keep a copy", "inbound"] {
        assert!(migrated.stdout.contains(part), "{part}: {migrated:?}");
    }
    let elsewhere = folder.path().join("elsewhere");
    for name in JOBS {
        let refused = run(job(name, &elsewhere).envs(servers.environment(&Servers::ALL)));
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        assert!(refused.stderr.contains("WHARF__KEYS__FILE"), "{name}: {refused:?}");
        assert!(!elsewhere.join("master.keys").exists(), "{name} makes none of its own");
    }
}

#[test]
fn a_second_migration_changes_nothing_and_keeps_the_keys() {
    let setup = Setup::new();
    let servers = setup.servers();
    let keys = std::fs::read_to_string(setup.keys()).unwrap();
    let again = migrate(&servers, &setup.data());
    assert_eq!(again.code, Some(0), "{again:?}");
    for line in again.stdout.lines().filter(|line| line.starts_with("stream ")) {
        assert!(line.ends_with("as it must be"), "{again:?}");
    }
    assert_eq!(std::fs::read_to_string(setup.keys()).unwrap(), keys);
    // Elsewhere, where the keys of what is sealed are not known, it makes no others.
    setup.clone().start().stop();
    let elsewhere = migrate(&servers, &setup.data().join("elsewhere"));
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("put it back"), "{elsewhere:?}");
    assert!(!setup.data().join("elsewhere").join("master.keys").exists());
}

#[test]
fn a_job_of_its_own_is_never_embedded() {
    let folder = tempfile::tempdir().unwrap();
    for name in JOBS {
        let refused = run(job(name, folder.path()).env("WHARF__BACKEND__KIND", "embedded"));
        assert_eq!(refused.code, Some(64), "{name}: {refused:?}");
        for part in ["backend.kind", "wharf up", "WHARF__BACKEND__KIND=distributed"] {
            assert!(refused.stderr.contains(part), "{name}, {part}: {refused:?}");
        }
    }
}

#[test]
fn all_addresses_that_are_missing_are_listed() {
    let table = [
        ("gateway", &["WHARF__NATS__URL", "WHARF__NATS__MONITOR_URL", "WHARF__REDIS__URL"][..]),
        ("normalizer", &["WHARF__NATS__URL", "WHARF__NATS__MONITOR_URL", "WHARF__POSTGRES__URL"]),
        ("api", &["WHARF__NATS__URL", "WHARF__NATS__MONITOR_URL", "WHARF__POSTGRES__URL", "WHARF_ADMIN_TOKEN"]),
    ];
    for (name, missing) in table {
        let refused = run(&mut binary::program(name));
        assert_eq!(refused.code, Some(64), "{name}: {refused:?}");
        for part in missing {
            assert!(refused.stderr.contains(part), "{name} does not ask for {part}: {refused:?}");
        }
        assert_eq!(refused.stderr.lines().skip(1).count(), missing.len(), "{name}: {refused:?}");
    }
    let refused = binary::run(&["migrate"], &[("WHARF__BACKEND__KIND", "distributed")]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    for part in ["WHARF__NATS__URL", "WHARF__POSTGRES__URL"] {
        assert!(refused.stderr.contains(part), "migrate does not ask for {part}: {refused:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_and_named() {
    let setup = Setup::new();
    let servers = setup.servers();
    let data = setup.data();
    let start = |name: &str| {
        run(job(name, &data).envs(servers.environment(&Servers::ALL)).env("WHARF__STARTUP__WAIT_SECONDS", "1"))
    };
    servers.postgres().kill();
    for name in ["normalizer", "api"] {
        let refused = start(name);
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        assert!(refused.stderr.contains("error: PostgreSQL does not answer"), "{name}: {refused:?}");
    }
    servers.nats().kill();
    for name in JOBS {
        let refused = start(name);
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        assert!(refused.stderr.contains("error: NATS does not answer"), "{name}: {refused:?}");
    }
}
