//! Several processes of a job on the same servers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::feed::{assert_exactly_once, expected_events};
use crate::http::Connection;
use crate::meta;
use crate::sender::{self, delivery, genuine, traffic};
use crate::wait;
use crate::wharf::{Job, Setup};

#[test]
fn two_gateways_and_two_normalizers_hand_everything_out_once() {
    let mut wharf = Setup::new().without_limits().start();
    let second = wharf.add(Job::Gateway);
    wharf.add(Job::Normalizer);
    // The same webhooks at both doors at once: a retry that overtakes, for all of them.
    let traffic = traffic(70, 600);
    let senders = [wharf.public(), second].map(|to| sender::start(traffic.clone(), delivery(to)));
    let acknowledged: Vec<_> = senders.into_iter().flat_map(|sender| sender.finish().acknowledged).collect();
    let expected = expected_events(&acknowledged);
    wharf.events_when(expected);
    let sent = genuine(traffic);
    let events = wharf.settled_events();
    assert_exactly_once(&events, &acknowledged, &sent);
    assert_eq!(events.len(), expected);

    let new = wharf.metrics().count("wharf_normalizer_updates_total", &[r#"outcome="new""#]);
    assert_eq!(new, expected as u64 + 1, "the marker included");
    assert!(wharf.is_alive());
    wharf.stop();
}

#[test]
fn two_gateways_know_the_same_directory() {
    let mut wharf = Setup::new().without_limits().start();
    let second = wharf.add(Job::Gateway);
    let document = r#"
        tenants = [{ id = "acme" }]
        apps = [{ id = "acme-app", secrets = ["secret-of-acme-0123456789"], verify_tokens = ["token-of-acme"] }]
        numbers = [{ phone_number_id = "1001", waba_id = "9001", app = "acme-app", tenant = "acme" }]
    "#;
    let file = wharf.setup().file("import.toml", document);
    let imported = crate::tenants::import(&wharf, &file);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    for (index, door) in [wharf.public(), second].into_iter().enumerate() {
        let target = "/webhooks/meta/acme-app?hub.mode=subscribe&hub.verify_token=token-of-acme&hub.challenge=1";
        crate::wait::until("the gateway knows the app", || {
            (crate::http::get(door, target, "").status == 200).then_some(())
        });
        let id = format!("wamid.DOOR{index}");
        let body = meta::messages_to("1001", &[meta::text(&id, "hello")]);
        assert_eq!(meta::deliver_to(door, meta::PATH, "secret-of-acme-0123456789", &body).status, 200);
        wharf.wait_for_message(&id);
    }
    assert!(wharf.events().iter().all(|event| event.tenant == "acme"));
}

/// How many of these are taken at once, none of them a second time.
fn taken_of(count: usize, to: SocketAddr) -> usize {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let mut connection = Connection::open(to);
    let all = (0..count).flat_map(|_| {
        let id = format!("wamid.N{}", SENT.fetch_add(1, Ordering::Relaxed));
        meta::signed(&meta::messages(&[meta::text(&id, "hello")]))
    });
    connection.send(&all.collect::<Vec<_>>());
    let answers = (0..count).map(|_| connection.answer().unwrap().status);
    answers.filter(|status| *status == 200).count()
}

#[test]
fn two_gateways_share_the_limit_of_all() {
    const LIMIT: usize = 40;
    let setup = Setup::new().without_limits().set("WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND", &LIMIT.to_string());
    let mut wharf = setup.start();
    let (first, second) = (wharf.public(), wharf.add(Job::Gateway));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                taken_of(LIMIT, first);
            }
        });
        // More than its half is only left to it while the first one takes less.
        wait::until("the second takes its half only", || (taken_of(LIMIT * 2, second) <= LIMIT / 2).then_some(()));
        is_over.store(true, Ordering::Relaxed);
    });
    wait::until("the second has all of it", || (taken_of(LIMIT * 2, second) >= LIMIT).then_some(()));
}
