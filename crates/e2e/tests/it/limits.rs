//! Requests per second, from one address and overall. A second begins with the first request, so what a burst may take
//! is exact.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::{Answer, Connection, post};
use crate::meta;
use crate::wait;
use crate::wharf::{Setup, Wharf};

/// Sends all requests at once over one connection from an address; the answers and how long it took.
fn burst(wharf: &Wharf, from: [u8; 4], requests: &[Vec<u8>]) -> (Vec<Answer>, Duration) {
    let mut connection = Connection::open_from(IpAddr::V4(Ipv4Addr::from(from)), wharf.public());
    let start = Instant::now();
    connection.send(&requests.concat());
    let answers = requests.iter().map(|_| connection.answer().expect("an answer to each")).collect();
    (answers, start.elapsed())
}

/// Asserts that a limit of this name let the first `limit` through and refused the rest of the second.
fn assert_limited(answers: &[Answer], took: Duration, name: &str, limit: usize) {
    let (policy, left) = (format!(r#""{name}";q={limit};w=1"#), format!(r#""{name}";r=0;t=1"#));
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert!(took < Duration::from_secs(1), "this machine is too slow for a burst: {took:?}");
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status == 429, index >= limit, "number {} of {statuses:?}", index + 1);
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
            assert_eq!(answer.header("ratelimit-policy"), Some(policy.as_str()), "{answer:?}");
            assert_eq!(answer.header("ratelimit"), Some(left.as_str()), "{answer:?}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
    }
}

#[test]
fn the_51st_request_of_a_second_from_one_address_is_refused() {
    let wharf = Setup::new().start();
    // The cheapest request there is, so that the burst is short.
    let knock = format!("GET {} HTTP/1.1\r\nHost: wharf\r\n\r\n", meta::PATH).into_bytes();
    let (answers, took) = burst(&wharf, [127, 0, 0, 2], &vec![knock.clone(); 70]);
    assert_limited(&answers, took, "address-limit", 50);
    assert_eq!(answers[0].status, 403);
    let (others, _) = burst(&wharf, [127, 0, 0, 3], &vec![knock.clone(); 50]);
    assert!(others.iter().all(|answer| answer.status == 403), "another address goes on: {others:?}");
    // The answer told when to come back.
    wait::within(Duration::from_secs(2), "the second ends", || {
        (burst(&wharf, [127, 0, 0, 2], std::slice::from_ref(&knock)).0[0].status == 403).then_some(())
    });
}

#[test]
fn signed_and_forged_webhooks_count_alike_for_an_address() {
    let wharf = Setup::new().set("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", "5").start();
    let body = meta::messages(&[meta::text("wamid.A", "hello")]);
    let forged = post(meta::PATH, &meta::signature("wrong", &body), &body);
    let (answers, _) = burst(&wharf, [127, 0, 0, 2], &vec![forged; 5]);
    assert!(answers.iter().all(|answer| answer.status == 403), "{answers:?}");
    let mut connection = Connection::open_from([127, 0, 0, 2].into(), wharf.public());
    connection.send(&meta::signed(&body));
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (429, Some("close")), "{answer:?}");
    let mut connection = Connection::open_from([127, 0, 0, 3].into(), wharf.public());
    connection.send(&meta::signed(&body));
    assert_eq!(connection.answer().unwrap().status, 200);
    // Health is for the machine's own monitoring and is not limited.
    let health = b"GET /health HTTP/1.1\r\nHost: wharf\r\n\r\n".to_vec();
    let (answers, _) = burst(&wharf, [127, 0, 0, 2], &vec![health; 20]);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

#[test]
fn the_global_limit_counts_verified_webhooks_of_all_addresses() {
    let wharf = Setup::new().set("WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND", "4").start();
    let body = meta::messages(&[meta::text("wamid.A", "hello")]);
    let forged = post(meta::PATH, &meta::signature("wrong", &body), &body);
    let (answers, _) = burst(&wharf, [127, 0, 0, 2], &vec![forged; 20]);
    assert!(answers.iter().all(|answer| answer.status == 403), "forged ones take nothing: {answers:?}");
    let start = Instant::now();
    let (mut answers, _) = burst(&wharf, [127, 0, 0, 3], &vec![meta::signed(&body); 3]);
    answers.extend(burst(&wharf, [127, 0, 0, 4], &vec![meta::signed(&body); 9]).0);
    assert_limited(&answers, start.elapsed(), "global-limit", 4);
    let metrics = wharf.metrics();
    let refused = answers.iter().filter(|answer| answer.status == 429).count() as u64;
    assert_eq!(metrics.count("wharf_ingress_requests_total", &[r#"status="429""#]), refused);
}

#[test]
fn an_address_has_so_many_connections_and_others_still_come_in() {
    const MAX: usize = 8;
    let wharf = Setup::new().without_limits().set("WHARF__INGRESS__CONNECTIONS_PER_IP", &MAX.to_string()).start();
    let health = b"GET /health HTTP/1.1\r\nHost: wharf\r\n\r\n";
    let knock = |from: [u8; 4]| {
        let mut connection = Connection::open_from(from.into(), wharf.public());
        connection.send(health);
        let answer = connection.answer();
        (connection, answer.map(|answer| answer.status))
    };
    let mut held: Vec<_> = (0..MAX).map(|_| knock([127, 0, 0, 2])).collect();
    assert!(held.iter().all(|(_, status)| *status == Some(200)), "{held:?}");
    for _ in 0..20 {
        assert_eq!(knock([127, 0, 0, 2]).1, None, "the ninth is closed without an answer");
    }
    assert_eq!(knock([127, 0, 0, 3]).1, Some(200), "another address has its own");
    assert_eq!(wharf.metrics().count("wharf_connections_refused_total", &[]), 20);
    drop(held.pop());
    wait::until("the place is free again", || (knock([127, 0, 0, 2]).1 == Some(200)).then_some(()));
    // What is asked on the way to nowhere counts for the address too.
    let wharf = Setup::new().set("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", "5").start();
    for target in ["GET /nothing", "DELETE /webhook"] {
        let knock = format!("{target} HTTP/1.1\r\nHost: wharf\r\n\r\n").into_bytes();
        let (answers, took) = burst(&wharf, [127, 0, 0, u8::try_from(target.len()).unwrap()], &vec![knock; 8]);
        assert_limited(&answers, took, "address-limit", 5);
    }
}
