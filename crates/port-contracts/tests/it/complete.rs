//! A law that no macro names would never be tested.

use std::collections::BTreeSet;

/// For each port: the file with its macro, and the files with its laws.
const PORTS: [(&str, &[&str]); 9] = [
    (
        include_str!("../../src/event_bus/mod.rs"),
        &[
            include_str!("../../src/event_bus/publishing.rs"),
            include_str!("../../src/event_bus/delivery.rs"),
            include_str!("../../src/event_bus/consumers.rs"),
            include_str!("../../src/event_bus/dedup.rs"),
        ],
    ),
    (
        include_str!("../../src/event_store/mod.rs"),
        &[
            include_str!("../../src/event_store/commit.rs"),
            include_str!("../../src/event_store/identity.rs"),
            include_str!("../../src/event_store/work.rs"),
        ],
    ),
    (include_str!("../../src/admission.rs"), &[include_str!("../../src/admission.rs")]),
    (include_str!("../../src/directory.rs"), &[include_str!("../../src/directory.rs")]),
    (include_str!("../../src/outbox.rs"), &[include_str!("../../src/outbox.rs")]),
    (include_str!("../../src/feed.rs"), &[include_str!("../../src/feed.rs")]),
    (include_str!("../../src/message_log.rs"), &[include_str!("../../src/message_log.rs")]),
    (include_str!("../../src/request_log.rs"), &[include_str!("../../src/request_log.rs")]),
    (include_str!("../../src/statistics.rs"), &[include_str!("../../src/statistics.rs")]),
];

#[test]
fn every_law_is_named_by_the_macro_of_its_port() {
    for (list, files) in PORTS {
        let listed: BTreeSet<&str> = list.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
        let laws = files.iter().flat_map(|file| file.lines()).filter_map(|line| {
            let rest = line.strip_prefix("pub async fn ")?;
            rest.split_once("<H: Harness>").map(|(name, _)| name)
        });
        let unlisted: Vec<&str> = laws.filter(|law| !listed.contains(law)).collect();
        assert!(unlisted.is_empty(), "{unlisted:?}");
    }
}
