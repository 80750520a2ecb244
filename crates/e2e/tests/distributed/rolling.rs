//! A rolling restart under load: every process is stopped and started again, one after the other, while webhooks come in at
//! two gateways.

use crate::feed::{assert_exactly_once, expected_events};
use crate::sender::{self, delivery, genuine, traffic};
use crate::wharf::{Job, Setup};

#[test]
fn a_rolling_restart_under_load_costs_a_retry_at_most_and_loses_nothing() {
    let mut wharf = Setup::new().without_limits().start();
    let second = wharf.add(Job::Gateway);
    wharf.add(Job::Normalizer);
    let doors = [(wharf.public(), 80), (second, 81)];
    // Nothing is forged: a gateway without a directory cannot tell, and says 503 to it.
    let traffics = doors.map(|(door, seed)| (door, simulator::Traffic { forged: 0.0, ..traffic(seed, 2000) }));
    let mut senders = Vec::new();
    for (door, traffic) in &traffics {
        senders.push(sender::start(traffic.clone(), simulator::Delivery { rate: Some(150.0), ..delivery(*door) }));
    }
    for part in 0..wharf.len() {
        let before: Vec<_> = senders.iter().map(sender::Sender::acknowledged).collect();
        wharf.restart(part);
        // Both doors are open again, and what came meanwhile is in.
        for (sender, before) in senders.iter().zip(before) {
            sender.wait_for((before + 100).min(1900));
        }
    }
    let reports: Vec<_> = senders.into_iter().map(sender::Sender::finish).collect();
    for report in &reports {
        // No balancer is in front that waits for readiness: while a gateway starts, connections are refused, and then
        // webhooks until it has the directory. The next try, here or at the other door, is taken.
        assert!(report.statuses.keys().all(|status| [200, 503].contains(status)), "{:?}", report.statuses);
    }
    let acknowledged: Vec<_> = reports.into_iter().flat_map(|report| report.acknowledged).collect();
    wharf.events_when(expected_events(&acknowledged));
    let sent = traffics.into_iter().flat_map(|(_, traffic)| genuine(traffic)).collect();
    assert_exactly_once(&wharf.settled_events(), &acknowledged, &sent);
    wharf.stop();
}
