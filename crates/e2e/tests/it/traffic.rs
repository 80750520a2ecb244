//! Signed traffic of every kind, and what comes out of it.

use std::collections::BTreeSet;

use simulator::{Mix, Number, Traffic, UpdateKind};

use crate::feed::{assert_exactly_once, expected_events};
use crate::meta::{DISPLAY, WABA};
use crate::sender::{self, delivery, genuine, traffic};
use crate::wharf::Setup;

#[test]
fn what_is_acknowledged_comes_out_exactly_once_and_what_is_forged_is_refused() {
    let wharf = Setup::new().without_limits().start();
    let traffic = traffic(1, 1500);
    let report = sender::start(traffic.clone(), delivery(wharf.public())).finish();

    let acknowledged: BTreeSet<_> = report.acknowledged.iter().cloned().collect();
    assert!(report.forged_sent > 0);
    assert_eq!(report.statuses.get(&403), Some(&report.forged_refused), "all forged ones, and nothing else");
    assert_eq!(report.forged_sent, report.forged_refused);
    assert_eq!(report.acknowledged_posts, report.posts - report.forged_sent);
    assert_eq!(acknowledged, genuine(traffic), "without a crash everything is acknowledged");

    let events = wharf.settled_events();
    assert_exactly_once(&events, &report.acknowledged, &acknowledged);
    assert_eq!(events.len(), expected_events(&report.acknowledged));
    for kind in [UpdateKind::Message, UpdateKind::Status, UpdateKind::Other] {
        assert!(acknowledged.iter().any(|update| update.kind == kind), "{kind}");
    }

    let repeated = report.acknowledged_updates - events.len() as u64;
    assert!(repeated > 0);
    let metrics = wharf.metrics();
    let stopped_at_the_door = metrics.count("wharf_ingress_updates_total", &[r#"admission="known""#]);
    let folded = metrics.count("wharf_normalizer_updates_total", &[r#"outcome="duplicate""#]);
    assert!(stopped_at_the_door > 0);
    assert!(stopped_at_the_door + folded >= repeated, "{stopped_at_the_door} + {folded} of {repeated}");
    let new = metrics.count("wharf_normalizer_updates_total", &[r#"outcome="new""#]);
    assert_eq!(new, events.len() as u64 + 1, "the marker included");
    assert_eq!(metrics.count("wharf_normalizer_updates_total", &[r#"outcome="dead_letter""#]), 0);
    let refused = metrics.count("wharf_ingress_requests_total", &[r#"status="403""#, r#"signature="invalid""#]);
    assert_eq!(refused, report.forged_refused);
}

#[test]
fn large_batches_over_several_numbers_come_out_whole() {
    let wharf = Setup::new().without_limits().start();
    let numbers = (1..=4).map(|index| Number {
        waba_id: if index < 3 { WABA.into() } else { format!("30011122233355{index}") },
        phone_number_id: format!("77700011122233{index}"),
        display_phone_number: DISPLAY.into(),
    });
    let traffic = Traffic { batch: 250, mixed_numbers: true, numbers: numbers.collect(), ..traffic(2, 12) };
    let report = sender::start(traffic.clone(), delivery(wharf.public())).finish();
    let sent = genuine(traffic);
    let events = wharf.settled_events();
    assert_exactly_once(&events, &report.acknowledged, &sent);
    assert_eq!(events.len(), expected_events(&report.acknowledged));
}

#[test]
fn statuses_of_one_message_come_out_in_the_order_of_arrival() {
    let wharf = Setup::new().without_limits().start();
    let mix = Mix { messages: 0, statuses: 1, other: 0 };
    let traffic = Traffic { batch: 1, mix, duplicates: 0.0, forged: 0.0, ..traffic(3, 200) };
    // One connection: each is sent after the answer to the one before.
    let one = simulator::Delivery { connections: 1, ..delivery(wharf.public()) };
    let report = sender::start(traffic, one).finish();
    let events = wharf.events_when(report.acknowledged.len());
    let out: Vec<_> = events.iter().map(crate::feed::Event::update).collect();
    let ids: BTreeSet<_> = out.iter().map(|update| update.id.as_str()).collect();
    for id in ids {
        let of_message = |updates: &[simulator::UpdateRef]| {
            updates.iter().filter(|update| update.id == id).cloned().collect::<Vec<_>>()
        };
        assert_eq!(of_message(&out), of_message(&report.acknowledged));
    }
}
