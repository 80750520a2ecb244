//! kill -9 in the middle of traffic: what was answered 200 is there, once.

use simulator::{Delivery, Traffic};

use crate::feed::assert_exactly_once;
use crate::http::Connection;
use crate::meta;
use crate::sender::{self, delivery, genuine, traffic};
use crate::wharf::Setup;

#[test]
fn three_kills_in_a_run_lose_nothing_and_repeat_nothing() {
    let mut wharf = Setup::new().without_limits().start();
    let traffic = Traffic { batch: 2, ..traffic(20, 2400) };
    let sender = sender::start(traffic.clone(), Delivery { rate: Some(600.0), ..delivery(wharf.public()) });
    for acknowledged in [400, 1000, 1600] {
        sender.wait_for(acknowledged);
        wharf = wharf.kill().start();
    }
    let report = sender.finish();
    assert!(report.transport_errors > 0, "a kill cuts connections");
    let sent = genuine(traffic);
    let events = wharf.settled_events();
    assert_exactly_once(&events, &report.acknowledged, &sent);
}

#[test]
fn the_last_answer_before_a_kill_counts() {
    let mut wharf = Setup::new().without_limits().start();
    for round in 0..5 {
        let id = format!("wamid.LAST{round}");
        let mut connection = Connection::open(wharf.public());
        connection.send(&meta::signed(&meta::messages(&[meta::text(&id, "the last words")])));
        let answer = connection.answer().unwrap();
        wharf = {
            let setup = wharf.kill();
            assert_eq!(answer.status, 200);
            setup.start()
        };
        wharf.wait_for_message(&id);
    }
    assert_eq!(wharf.events().len(), 5);
}

#[test]
fn a_cursor_is_still_good_after_a_kill() {
    let wharf = Setup::new().without_limits().start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.ONE", "one")]));
    wharf.wait_for_message("wamid.ONE");
    let first = wharf.page("after=0");
    let wharf = wharf.kill().start();
    let again = wharf.page("after=0");
    assert_eq!(first.events[0].id, again.events[0].id);
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.TWO", "two")]));
    wharf.wait_for_message("wamid.TWO");
    let rest = wharf.page(&format!("after={}", first.next));
    assert_eq!(rest.events.iter().map(crate::feed::Event::name).collect::<Vec<_>>(), ["message.received wamid.TWO"]);
}
