//! A stop by signal: what is under way is answered, nothing acknowledged is lost.

use crate::feed::assert_exactly_once;
use crate::http::{Connection, exchange};
use crate::meta::{self, NUMBER};
use crate::sender::{self, delivery, genuine, traffic};
use crate::wait;
use crate::wharf::Setup;

#[test]
fn a_stop_under_load_is_a_success_and_loses_nothing() {
    let wharf = Setup::new().without_limits().start();
    let traffic = traffic(30, 1200);
    let sender = sender::start(traffic.clone(), delivery(wharf.public()));
    sender.wait_for(300);
    let wharf = wharf.stop().start();
    let report = sender.finish();
    let sent = genuine(traffic);
    let events = wharf.settled_events();
    assert_exactly_once(&events, &report.acknowledged, &sent);
    assert!(!report.statuses.contains_key(&500), "{:?}", report.statuses);
}

#[test]
fn a_request_that_has_begun_is_answered_before_the_process_ends() {
    let wharf = Setup::new().without_limits().start();
    let begun: Vec<_> = (0..8)
        .map(|index| {
            let body = meta::messages_to(NUMBER, &[meta::text(&format!("wamid.BEGUN{index}"), "to be continued")]);
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: wharf\r\nExpect: 100-continue\r\nContent-Length: {}\r\n{}\r\n",
                meta::PATH,
                body.len(),
                meta::signature(meta::SECRET, &body)
            );
            let mut connection = Connection::open(wharf.public());
            connection.send(head.as_bytes());
            // Its handler is at work.
            assert_eq!(connection.answer().map(|answer| answer.status), Some(100));
            connection.send(&body[..10]);
            (connection, body)
        })
        .collect();
    wharf.terminate();
    wait::until("the stop has begun", || wharf.is_stopping().then_some(()));
    for (mut connection, body) in begun {
        connection.send(&body[10..]);
        let answer = connection.answer().expect("an answer to what has begun");
        assert_eq!((answer.status, answer.text()), (200, "OK"), "{answer:?}");
    }
    let (setup, code) = wharf.wait_for_end();
    assert_eq!(code, Some(0));
    let wharf = setup.start();
    let mut names: Vec<_> = wharf.events_when(8).iter().map(crate::feed::Event::name).collect();
    names.sort();
    assert_eq!(names, (0..8).map(|index| format!("message.received wamid.BEGUN{index}")).collect::<Vec<_>>());
}

#[test]
fn an_idle_process_stops_at_once_and_starts_again() {
    let wharf = Setup::new().start();
    // An idle connection that is kept open does not hold it.
    let mut idle = Connection::open(wharf.public());
    idle.send(b"GET /health HTTP/1.1\r\nHost: wharf\r\n\r\n");
    assert_eq!(idle.answer().unwrap().status, 200);
    wharf.terminate();
    let start = tokio::time::Instant::now();
    let (setup, code) = wharf.wait_for_end();
    assert_eq!(code, Some(0));
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    let wharf = setup.start();
    assert_eq!(exchange(wharf.public(), b"GET /ready HTTP/1.1\r\nHost: wharf\r\n\r\n").unwrap().status, 200);
}
