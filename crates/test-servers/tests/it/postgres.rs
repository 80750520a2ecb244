use test_servers::Postgres;

use crate::alive::{is_alive, wait_for};
use crate::clients::{Sql, assert_silent, sql};

/// All processes of the server that it knows of, the main process among them.
fn processes(postgres: &Postgres) -> Vec<u32> {
    let rows = sql(&postgres.url(), "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
    let mut pids: Vec<u32> = rows.iter().map(|pid| pid.parse().unwrap()).collect();
    pids.push(postgres.pid());
    pids
}

#[test]
fn has_an_empty_database_of_utf8() {
    let postgres = Postgres::start();
    assert_eq!(sql(&postgres.url(), "SHOW server_encoding"), ["UTF8"]);
    assert_eq!(sql(&postgres.url(), "SELECT current_database() || current_user"), ["wharfwharf"]);
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(sql(&postgres.url(), tables), ["0"]);
    // What it answers as stored it has written.
    assert_eq!(sql(&postgres.url(), "SHOW synchronous_commit"), ["on"]);
}

#[test]
fn keeps_port_and_data_over_a_kill() {
    let mut postgres = Postgres::start();
    let url = postgres.url();
    sql(&url, "CREATE TABLE kept (value int)");
    sql(&url, "INSERT INTO kept VALUES (7)");
    let mut open = Sql::connect(&url);
    open.ask("SELECT 1");
    let all = processes(&postgres);
    assert!(all.len() > 3, "{all:?}");

    postgres.kill();
    assert!(!postgres.is_running());
    assert!(!all.iter().any(|pid| is_alive(*pid)), "all of them are dead");
    open.stream().set_read_timeout(None).unwrap();
    open.rows().expect_err("the connection is gone");
    postgres.start_again();

    assert_eq!(postgres.url(), url);
    assert_eq!(sql(&url, "SELECT value FROM kept"), ["7"]);
    assert!(postgres.log().contains("automatic recovery in progress"), "{}", postgres.log());
}

#[test]
fn starts_again_after_a_stop_without_recovery() {
    let mut postgres = Postgres::start();
    sql(&postgres.url(), "CREATE TABLE kept AS SELECT 8 AS value");
    let _open = Sql::connect(&postgres.url());
    postgres.stop();
    assert!(!postgres.is_running());
    postgres.start_again();
    assert_eq!(sql(&postgres.url(), "SELECT value FROM kept"), ["8"]);
    assert!(!postgres.log().contains("automatic recovery in progress"), "{}", postgres.log());
}

#[test]
fn is_silent_while_it_is_frozen() {
    let mut postgres = Postgres::start();
    let mut session = Sql::connect(&postgres.url());
    postgres.freeze();
    session.send("SELECT 'late'");
    assert_silent(session.stream(), "");
    assert!(postgres.is_running());
    postgres.thaw();
    assert_eq!(session.rows().unwrap(), ["late"]);
}

#[test]
fn may_be_killed_while_it_is_frozen() {
    let mut postgres = Postgres::start();
    let all = processes(&postgres);
    postgres.freeze();
    postgres.kill();
    assert!(!all.iter().any(|pid| is_alive(*pid)));
    postgres.start_again();
    assert_eq!(sql(&postgres.url(), "SELECT 1"), ["1"]);
}

#[test]
fn nothing_stays_of_it_be_it_frozen() {
    for freeze in [false, true] {
        let postgres = Postgres::start();
        let all = processes(&postgres);
        if freeze {
            postgres.freeze();
        }
        drop(postgres);
        wait_for("all processes are gone", || !all.iter().any(|pid| is_alive(*pid)));
    }
}

#[test]
fn two_do_not_meet() {
    let (one, other) = (Postgres::start(), Postgres::start());
    sql(&one.url(), "CREATE TABLE one ()");
    assert_eq!(sql(&other.url(), "SELECT count(*) FROM pg_class WHERE relname = 'one'"), ["0"]);
}
