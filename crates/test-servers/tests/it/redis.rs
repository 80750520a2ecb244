use test_servers::Redis;

use crate::alive::is_alive;
use crate::clients::{ask, ask_on, assert_silent, connect};

#[test]
fn answers() {
    let redis = Redis::start();
    assert_eq!(ask(&redis.url(), "PING\r\n"), "+PONG\r\n");
    assert!(redis.log().contains("Ready to accept connections"), "{}", redis.log());
}

#[test]
fn keeps_its_port_over_a_kill_and_nothing_else() {
    let mut redis = Redis::start();
    let (url, pid) = (redis.url(), redis.pid());
    assert_eq!(ask(&url, "SET key value\r\n"), "+OK\r\n");
    redis.kill();
    assert!(!redis.is_running());
    assert!(!is_alive(pid));
    redis.start_again();
    assert!(redis.is_running());
    assert_eq!(redis.url(), url);
    assert_eq!(ask(&url, "DBSIZE\r\n"), ":0\r\n");
}

#[test]
fn is_silent_while_it_is_frozen() {
    let redis = Redis::start();
    let mut stream = connect(&redis.url());
    redis.freeze();
    assert_silent(&mut stream, "PING\r\n");
    redis.thaw();
    assert_eq!(ask_on(&mut stream, "").unwrap(), "+PONG\r\n");
}

#[test]
fn nothing_stays_of_it_and_two_do_not_meet() {
    let (one, other) = (Redis::start(), Redis::start());
    assert_eq!(ask(&one.url(), "SET key value\r\n"), "+OK\r\n");
    assert_eq!(ask(&other.url(), "DBSIZE\r\n"), ":0\r\n");
    let pid = one.pid();
    drop(one);
    assert!(!is_alive(pid));
}
