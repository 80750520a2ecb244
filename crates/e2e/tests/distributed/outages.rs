//! Each server gone or frozen while the processes run: what goes on, what is refused, and that all comes back by itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::feed::Event;
use crate::http::Answer;
use crate::meta;
use crate::wait;
use crate::wharf::{Job, Setup, Wharf};

/// Posts a message; the answer and how long it took.
fn post(wharf: &Wharf, id: &str) -> (Answer, Duration) {
    let body = meta::messages(&[meta::text(id, "hello")]);
    let begin = Instant::now();
    let answer = meta::deliver(wharf.public(), &body);
    (answer, begin.elapsed())
}

/// Posts messages that must be taken.
fn take(wharf: &Wharf, ids: impl IntoIterator<Item = String>) -> Vec<String> {
    let ids: Vec<_> = ids.into_iter().collect();
    for id in &ids {
        let (answer, _) = post(wharf, id);
        assert_eq!(answer.status, 200, "{id}: {answer:?}");
    }
    ids
}

/// How ids of tries begin.
const RETRIED: &str = "wamid.TRY";

/// Posts until one is taken; its id.
fn take_when_it_is_back(wharf: &Wharf) -> String {
    let mut tries = 0;
    wait::until("webhooks are taken again", || {
        tries += 1;
        let id = format!("{RETRIED}{tries}");
        (post(wharf, &id).0.status == 200).then_some(id)
    })
}

fn wait_for_readiness(wharf: &Wharf, job: Job, part: &str, status: u16) {
    wait::until(&format!("{job:?}: {part}, {status}"), || {
        let answer = wharf.readiness(job);
        (answer.status == status && answer.text().contains(part)).then_some(())
    });
}

/// Asserts that these have come out, each once, and at most these others.
fn assert_came_out(wharf: &Wharf, taken: &[String], refused: &[String]) {
    for id in taken {
        wharf.wait_for_message(id);
    }
    let mut out: Vec<_> = wharf.events().iter().map(Event::name).collect();
    out.sort();
    let all = out.len();
    out.dedup();
    assert_eq!(out.len(), all, "each once");
    let expected: Vec<_> = taken.iter().chain(refused).map(|id| format!("message.received {id}")).collect();
    // A try before that may have been stored and not answered in time.
    let is_foreign = |name: &&String| !expected.contains(name) && !name.contains(RETRIED);
    let foreign: Vec<_> = out.iter().filter(is_foreign).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(wharf.metrics().count("wharf_normalizer_dead_letters_total", &[]), 0);
}

#[test]
fn without_redis_webhooks_are_taken_and_come_out_once() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    let mut taken = take(&wharf, ["wamid.BEFORE".to_owned()]);
    servers.redis().kill();
    taken.extend(take(&wharf, (0..20).map(|index| format!("wamid.DURING{index}"))));
    // A repetition is the database's to notice.
    take(&wharf, taken.clone());
    wait_for_readiness(&wharf, Job::Gateway, r#""redis":{"ok":false,"required":false}"#, 200);
    assert!(wharf.readiness(Job::Gateway).text().starts_with(r#"{"status":"degraded""#));
    servers.redis().start_again();
    wait_for_readiness(&wharf, Job::Gateway, r#"{"status":"ready""#, 200);
    taken.extend(take(&wharf, ["wamid.AFTER".to_owned()]));
    assert_came_out(&wharf, &taken, &[]);
}

#[test]
fn a_frozen_redis_holds_nobody() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    servers.redis().freeze();
    let begin = Instant::now();
    let taken = take(&wharf, (0..50).map(|index| format!("wamid.DURING{index}")));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "50 webhooks took {took:?}");
    wait_for_readiness(&wharf, Job::Gateway, r#""redis":{"ok":false,"required":false}"#, 200);
    servers.redis().thaw();
    wait_for_readiness(&wharf, Job::Gateway, r#"{"status":"ready""#, 200);
    assert_came_out(&wharf, &taken, &[]);
}

#[test]
fn without_postgresql_webhooks_are_taken_and_come_out_when_it_is_back() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    let mut taken = take(&wharf, ["wamid.BEFORE".to_owned()]);
    wharf.wait_for_message("wamid.BEFORE");
    servers.postgres().kill();
    taken.extend(take(&wharf, (0..200).map(|index| format!("wamid.DURING{index}"))));
    for job in [Job::Api, Job::Normalizer] {
        wait_for_readiness(&wharf, job, r#""database":{"ok":false,"required":true}"#, 503);
    }
    let gateway = wharf.readiness(Job::Gateway);
    assert_eq!(gateway.status, 200, "the gateway does not depend on it: {gateway:?}");
    servers.postgres().start_again();
    taken.extend(take(&wharf, ["wamid.AFTER".to_owned()]));
    for job in [Job::Api, Job::Normalizer] {
        wait_for_readiness(&wharf, job, r#"{"status":"ready""#, 200);
    }
    assert_came_out(&wharf, &taken, &[]);
}

#[test]
fn without_nats_webhooks_are_refused_at_once_until_it_is_back() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    let mut taken = take(&wharf, ["wamid.BEFORE".to_owned()]);
    servers.nats().kill();
    let mut times = Vec::new();
    let refused: Vec<_> = (0..41).map(|index| format!("wamid.DURING{index}")).collect();
    for id in &refused {
        let (answer, took) = post(&wharf, id);
        assert_eq!(answer.status, 503, "{id}: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        times.push(took);
    }
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(50), "half of them took more than {median:?}: {times:?}");
    wait_for_readiness(&wharf, Job::Gateway, r#""bus":{"ok":false,"required":true}"#, 503);
    assert_eq!(crate::http::get(wharf.public(), "/ready", "").status, 503, "the balancer in front sees it too");

    servers.nats().start_again();
    wait_for_readiness(&wharf, Job::Gateway, r#"{"status":"ready""#, 200);
    taken.push(take_when_it_is_back(&wharf));
    assert_came_out(&wharf, &taken, &refused);
}

#[test]
fn what_was_in_hand_when_nats_died_holds_nobody_up() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    let mut taken = take(&wharf, ["wamid.FIRST".to_owned()]);
    wharf.wait_for_message("wamid.FIRST");
    // The normalizer holds one, and cannot go on with it.
    servers.postgres().freeze();
    taken.extend(take(&wharf, ["wamid.IN-HAND".to_owned()]));
    wait::until("it is in hand", || (servers.in_hand("inbound_live", "normalizer-live") > 0).then_some(()));
    servers.nats().kill();
    servers.nats().start_again();
    servers.postgres().thaw();
    // What is acknowledged now was given out by a server that is gone.
    taken.push(take_when_it_is_back(&wharf));
    assert_came_out(&wharf, &taken, &[]);
}

#[test]
fn a_frozen_nats_is_noticed_within_two_seconds() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    let mut taken = take(&wharf, ["wamid.BEFORE".to_owned()]);
    servers.nats().freeze();
    let begin = Instant::now();
    let refused: Vec<_> = (0..20).map(|index| format!("wamid.FIRST{index}")).collect();
    std::thread::scope(|scope| {
        for id in &refused {
            let wharf = &wharf;
            scope.spawn(move || {
                let (answer, took) = post(wharf, id);
                assert_eq!(answer.status, 503, "{id}: {answer:?}");
                assert!(took < Duration::from_millis(2500), "{id}: the answer took {took:?}");
            });
        }
    });
    let noticed = begin.elapsed();
    assert!(noticed < Duration::from_millis(2500), "{noticed:?}");
    let mut late = Vec::new();
    for index in 0..40 {
        let id = format!("wamid.LATER{index}");
        let (answer, took) = post(&wharf, &id);
        assert_eq!(answer.status, 503, "{id}: {answer:?}");
        assert!(took < Duration::from_millis(100), "the breaker is open, and {id} took {took:?}");
        late.push(id);
    }
    wait_for_readiness(&wharf, Job::Gateway, r#""bus":{"ok":false,"required":true}"#, 503);

    servers.nats().thaw();
    taken.push(take_when_it_is_back(&wharf));
    wait_for_readiness(&wharf, Job::Gateway, r#"{"status":"ready""#, 200);
    // What had no acknowledgement in time may be there or not; what was refused unsent is not.
    assert_came_out(&wharf, &taken, &refused);
    assert_eq!(wharf.metrics().count("wharf_normalizer_waiting_envelopes_total", &[]), 0);
}
