//! The master key is changed while traffic goes on, and the old one taken away.

use std::fs;

use crate::feed::{Event, assert_exactly_once};
use crate::meta;
use crate::sender::{self, delivery, genuine, traffic};
use crate::wait;
use crate::wharf::{Setup, Wharf};

fn key_lines(wharf: &Wharf) -> (std::path::PathBuf, String) {
    let path = wharf.setup().data().join("master.keys");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

/// Replaces a file at once, as an operator's tool should.
fn replace(path: &std::path::Path, text: &str) {
    let new = path.with_extension("incoming");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
fn a_new_master_key_takes_over_during_traffic_and_the_old_one_can_go() {
    let wharf = Setup::new().without_limits().start();
    let (path, old) = key_lines(&wharf);
    let traffic = traffic(40, 1600);
    let paced = simulator::Delivery { rate: Some(400.0), ..delivery(wharf.public()) };
    let sender = sender::start(traffic.clone(), paced);
    sender.wait_for(100);

    let new = format!("m2 {}\n", "5a".repeat(32));
    replace(&path, &format!("{new}{old}"));
    wait::until("the directory is under the new key", || {
        wharf.log().contains("the directory is under the new master key").then_some(())
    });
    let report = sender.finish();
    assert!(!report.statuses.keys().any(|status| *status >= 500), "nobody noticed: {:?}", report.statuses);
    assert_eq!(report.retries, 0);
    let sent = genuine(traffic);
    let before = wharf.settled_events();
    assert_exactly_once(&before, &report.acknowledged, &sent);

    // Some wait on the bus while the old key goes.
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.LAST", "under way")]));
    let setup = wharf.stop();
    replace(&path, &new);
    let wharf = setup.start();
    wharf.wait_for_message("wamid.LAST");
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.NEXT", "afterwards")]));
    wharf.wait_for_message("wamid.NEXT");
    let ids = |events: &[Event]| events.iter().map(|event| event.id.clone()).collect::<Vec<_>>();
    let after = wharf.events();
    assert_eq!(ids(&after[..before.len()]), ids(&before), "what was there reads as before");
    // The marker, the last one and the next one.
    assert_eq!(after.len(), before.len() + 3);
    // Event keys do not depend on the master key: what was seen before is still known.
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.LAST", "under way")]));
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.END", "the end")]));
    wharf.wait_for_message("wamid.END");
    assert_eq!(wharf.events().len(), before.len() + 4);
}

#[test]
fn a_key_file_with_a_mistake_changes_nothing() {
    let wharf = Setup::new().start();
    let (path, old) = key_lines(&wharf);
    replace(&path, "m2 not-a-key\n");
    wait::until("the mistake is reported", || wharf.log().contains("the keys in use stay").then_some(()));
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.A", "hello")]));
    wharf.wait_for_message("wamid.A");
    replace(&path, &old);
}

#[test]
fn without_the_key_of_what_is_stored_it_does_not_start() {
    let wharf = Setup::new().start();
    let (path, old) = key_lines(&wharf);
    let setup = wharf.stop();
    replace(&path, &format!("m9 {}\n", "99".repeat(32)));
    let failed = setup.fail_to_start();
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let id = old.lines().last().unwrap().split_whitespace().next().unwrap();
    let missing = format!("`{id}` is not in the key ring");
    assert!(failed.stderr.contains(&missing), "it says which key is missing: {failed:?}");
    assert!(!failed.stderr.contains("99999999"), "and shows none: {failed:?}");
    replace(&path, &old);
    setup.start();
}

#[test]
fn a_key_file_that_does_not_open_the_directory_is_not_taken() {
    let wharf = Setup::new().start();
    let (path, old) = key_lines(&wharf);
    replace(&path, &format!("other {}\n", "ab".repeat(32)));
    wait::until("the wrong file is reported", || wharf.log().contains("does not open the directory").then_some(()));
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.A", "hello")]));
    wharf.wait_for_message("wamid.A");
    // Nothing was wrapped under the wrong key meanwhile: the right one opens everything.
    replace(&path, &old);
    let wharf = wharf.stop().start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.B", "again")]));
    wharf.wait_for_message("wamid.B");
}
