//! `wharf doctor` against servers: all well, and each thing broken by itself.

use std::path::Path;

use test_servers::Nats;

use crate::binary::{self, Finished};
use crate::meta::{SECRET, VERIFY_TOKEN};
use crate::servers::{Server, Servers};
use crate::wharf::{Setup, migrate};

/// Runs it with the configuration of a whole installation, and these changes.
fn examine(servers: &Servers, data: &Path, changes: &[(&str, &str)]) -> Finished {
    let mut command = binary::wharf(&["doctor", "--data-dir"]);
    command.arg(data).envs(servers.environment(&Servers::ALL));
    command.envs([("WHARF__BACKEND__KIND", "distributed"), ("WHARF_ADMIN_TOKEN", "a-token-of-sixteen-or-more")]);
    command.envs([("WHATSAPP_APP_SECRET", SECRET), ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN)]);
    command.envs(changes.iter().copied());
    command.output().unwrap().into()
}

/// Asserts that one line grades this subject so and says all of this.
fn assert_says(found: &Finished, grade: &str, subject: &str, parts: &[&str]) {
    let is_it = |line: &&str| {
        let (of_grade, rest) = line.split_at_checked(9).unwrap_or_default();
        of_grade.trim() == grade && rest.starts_with(subject) && parts.iter().all(|part| rest.contains(part))
    };
    let lines = found.stdout.lines().filter(is_it).count();
    assert_eq!(lines, 1, "one line `{grade} {subject}` with {parts:?}:\n{}{}", found.stdout, found.stderr);
}

fn assert_fails(found: &Finished, subject: &str, parts: &[&str]) {
    assert_eq!(found.code, Some(1), "{found:?}");
    assert_says(found, "FAILED", subject, parts);
    assert_eq!(found.stderr, "", "it speaks on its standard output");
}

/// The number of lines with this grade.
fn graded(found: &Finished, grade: &str) -> usize {
    found.stdout.lines().filter(|line| line.starts_with(grade)).count()
}

#[test]
fn a_healthy_installation_passes() {
    let wharf = Setup::new().start();
    let found = examine(&wharf.servers(), &wharf.setup().data(), &[]);
    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(graded(&found, "FAILED"), 0, "{}", found.stdout);
    for subject in ["configuration", "NATS", "Redis", "PostgreSQL", "directory", "keys", "secrets"] {
        assert_says(&found, "ok", subject, &[]);
    }
    for secret in [SECRET, VERIFY_TOKEN, "a-token-of-sixteen-or-more"] {
        assert!(!found.stdout.contains(secret), "{}", found.stdout);
    }
}

#[test]
fn each_server_that_is_gone_is_named() {
    let setup = Setup::new().start().stop();
    let (servers, data) = (setup.servers(), setup.data());

    servers.redis().kill();
    let found = examine(&servers, &data, &[]);
    assert_eq!(found.code, Some(0), "webhooks are taken without Redis: {found:?}");
    assert_says(&found, "warning", "Redis", &["look at redis.url"]);
    servers.redis().start_again();

    servers.nats().kill();
    let found = examine(&servers, &data, &[]);
    assert_fails(&found, "NATS", &["not reached", "look at nats.url"]);
    assert_eq!(graded(&found, "FAILED"), 1, "one cause, one line:\n{}", found.stdout);
    servers.nats().start_again();

    servers.postgres().kill();
    let found = examine(&servers, &data, &[]);
    assert_fails(&found, "PostgreSQL", &["not reached", "look at postgres.url"]);
    assert_eq!(graded(&found, "FAILED"), 1, "one cause, one line:\n{}", found.stdout);
    servers.postgres().start_again();

    let found = examine(&servers, &data, &[]);
    assert_eq!(found.code, Some(0), "{found:?}");
}

#[test]
fn fresh_servers_are_to_be_migrated() {
    let servers = Servers::start();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let found = examine(&servers, &data, &[]);
    assert_fails(&found, "NATS", &["inbound", "run `wharf migrate`"]);
    assert_fails(&found, "PostgreSQL", &["run `wharf migrate`"]);
    assert_fails(&found, "keys", &["run `wharf migrate`"]);
    assert!(!data.exists(), "it only looks");

    let migrated = migrate(&servers, &data);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    // One half of it is not enough.
    let other = Servers::start();
    let half = |server: Server| other.environment(&[server]);
    let fresh = half(Server::Postgres);
    let changes: Vec<_> = fresh.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let found = examine(&servers, &data, &changes);
    assert_fails(&found, "PostgreSQL", &["run `wharf migrate`"]);
    assert_says(&found, "ok", "NATS", &[]);
    let fresh = half(Server::Nats);
    let changes: Vec<_> = fresh.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let found = examine(&servers, &data, &changes);
    assert_fails(&found, "NATS", &["inbound", "run `wharf migrate`"]);
    assert_says(&found, "ok", "PostgreSQL", &[]);
}

#[test]
fn before_the_first_start_the_directory_is_still_to_come() {
    let setup = Setup::new();
    let found = examine(&setup.servers(), &setup.data(), &[]);
    assert_says(&found, "warning", "directory", &["start `api`"]);
    assert_eq!((found.code, graded(&found, "FAILED")), (Some(0), 0), "{found:?}");
}

/// A NATS as it comes: it syncs every two minutes.
fn lazy_nats() -> Nats {
    Nats::start_with(
        r#"
        listen: "127.0.0.1:{port}"
        http: "127.0.0.1:{monitor_port}"
        max_payload: 8MB
        jetstream { store_dir: "{folder}/jetstream" }
        "#,
    )
}

#[test]
fn a_nats_that_does_not_sync_is_refused() {
    let servers = Servers::with(lazy_nats);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let found = examine(&servers, &data, &[]);
    assert_fails(&found, "NATS", &["sync_interval"]);
    let allowed = [("WHARF__NATS__UNSAFE_LAZY_SYNC", "true"), ("WHARF_MODE", "development")];
    let found = examine(&servers, &data, &allowed);
    assert_fails(&found, "NATS", &["run `wharf migrate`"]);
}

/// A NATS with the payload that it has by default.
fn narrow_nats() -> Nats {
    Nats::start_with(
        r#"
        listen: "127.0.0.1:{port}"
        http: "127.0.0.1:{monitor_port}"
        jetstream { store_dir: "{folder}/jetstream", sync_interval: always }
        "#,
    )
}

#[test]
fn a_nats_that_takes_small_messages_only_is_refused() {
    let servers = Servers::with(narrow_nats);
    let folder = tempfile::tempdir().unwrap();
    let found = examine(&servers, &folder.path().join("data"), &[]);
    assert_fails(&found, "NATS", &["max_payload"]);
}

#[test]
fn a_key_file_of_another_installation_is_recognised() {
    let setup = Setup::new().start().stop();
    let other = setup.file("other.keys", &format!("m9 {}\n", "99".repeat(32)));
    let servers = setup.servers();
    let found = examine(&servers, &setup.data(), &[("WHARF__KEYS__FILE", other.to_str().unwrap())]);
    assert_fails(&found, "keys", &["other.keys", "is not in the key ring"]);
    assert!(!found.stdout.contains("99999999"), "no key is shown: {found:?}");
    assert_eq!(graded(&found, "FAILED"), 1, "one cause, one line:\n{}", found.stdout);
    let gone = setup.data().join("nowhere.keys");
    let found = examine(&servers, &setup.data(), &[("WHARF__KEYS__FILE", gone.to_str().unwrap())]);
    assert_fails(&found, "keys", &["nowhere.keys is missing", "put the copy back"]);
}

#[test]
fn what_is_not_configured_is_listed() {
    let found = binary::run(&["doctor"], &[("WHARF__BACKEND__KIND", "distributed")]);
    assert_eq!(found.code, Some(1), "{found:?}");
    for name in ["WHARF__NATS__URL", "WHARF__NATS__MONITOR_URL", "WHARF__REDIS__URL", "WHARF__POSTGRES__URL"] {
        assert_says(&found, "FAILED", "configuration", &[name]);
    }
}
