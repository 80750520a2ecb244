//! The laws of [`DirectoryStore`](ports::directory::DirectoryStore).
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use common::directory::{App, Assignment, Directory, Entry, Number, Tenant, TenantStatus};
use common::ids::WabaId;
use common::keys::KeyRing;
use common::update::Provider;
use common::{AppId, Timestamp};
use ports::directory::WriteError;

use crate::clock::START;
use crate::harness::Harness;
use crate::scene::{Scene, bounded, is_waiting, number, tenant};

/// One test for each law of the directory.
#[macro_export]
macro_rules! directory_contract {
    ($harness:ident) => {
        $crate::laws!($harness, directory:
            a_new_directory_is_empty,
            what_was_written_is_in_the_snapshot,
            entries_of_every_kind_come_back_as_they_were_written,
            the_last_value_of_a_key_wins,
            the_revision_grows_with_every_write,
            the_snapshot_has_the_revision_of_the_last_write,
            the_revision_alone_is_that_of_the_snapshot,
            writing_the_same_again_changes_nothing_but_the_revision,
            changed_returns_at_once_when_the_directory_is_newer,
            changed_wakes_up_on_a_write,
            every_waiting_reader_wakes_up,
            no_reader_ever_sees_half_a_write,
            concurrent_writes_all_arrive,
            a_write_on_an_older_revision_is_refused_and_changes_nothing,
            of_several_writes_on_one_revision_one_is_done,
            writing_nothing_changes_nothing,
            the_directory_survives_a_restart,
            changed_works_over_a_restart,
        );
    };
}

fn ring() -> KeyRing {
    KeyRing::parse(&KeyRing::generate_file("m1")).unwrap()
}

fn tenant_entry(name: &str) -> Entry {
    Entry::Tenant(Tenant::create(tenant(name), None, &ring()))
}

fn number_entry(id: Option<&str>, owner: &str, from: Timestamp) -> Entry {
    Entry::Number(Number {
        id: id.map(number),
        waba: Some(WabaId::new("888").unwrap()),
        app: AppId::new("app").unwrap(),
        assignments: vec![Assignment { tenant: Some(tenant(owner)), valid_from: from }],
    })
}

/// One of each kind, with every field set.
fn every_kind() -> Vec<Entry> {
    let ring = ring();
    let mut full = Tenant::create(tenant("acme"), Some("Acme \u{1f680} GmbH".to_owned()), &ring);
    full.status = TenantStatus::Suspended;
    full.data_keys.extend(Tenant::create(tenant("acme"), None, &ring).data_keys);
    let app = AppId::new("app").unwrap();
    let mut several = App::create(app, Provider::Meta, &["secret", "older secret"], &["token"], &ring);
    several.default = false;
    let Entry::Number(mut moved) = number_entry(Some("777"), "acme", START) else { unreachable!() };
    moved.assign(Assignment {
        tenant: Some(tenant("other")),
        valid_from: Timestamp::from_millis(START.as_millis() + 1),
    });
    vec![
        Entry::Tenant(full),
        tenant_entry("other"),
        Entry::App(several),
        Entry::Number(moved),
        number_entry(None, "acme", START),
        Entry::SingleTenant(true),
    ]
}

fn by_key(entries: Vec<Entry>) -> BTreeMap<String, Entry> {
    entries.into_iter().map(|entry| (entry.key(), entry)).collect()
}

/// Writes whatever the revision is.
async fn write<H: Harness>(scene: &Scene<H>, entries: Vec<Entry>) -> u64 {
    loop {
        let read_at = snapshot(scene).await.revision;
        match scene.directory().write(entries.clone(), read_at).await {
            Err(WriteError::Outdated) => {}
            written => return written.unwrap(),
        }
    }
}

async fn snapshot<H: Harness>(scene: &Scene<H>) -> Directory {
    scene.directory().snapshot().await.unwrap()
}

async fn changed<H: Harness>(scene: &Scene<H>, revision: u64) -> u64 {
    bounded("the change", scene.directory().changed(revision)).await.unwrap()
}

pub async fn a_new_directory_is_empty<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = snapshot(&scene).await;
    assert!(first.entries.is_empty());
    assert_eq!(snapshot(&scene).await, first, "reading changes nothing");
}

pub async fn what_was_written_is_in_the_snapshot<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (acme, other) = (tenant_entry("acme"), tenant_entry("other"));
    write(&scene, vec![acme.clone()]).await;
    assert_eq!(snapshot(&scene).await.entries, by_key(vec![acme.clone()]));
    write(&scene, vec![other.clone()]).await;
    assert_eq!(snapshot(&scene).await.entries, by_key(vec![acme, other]));
}

pub async fn entries_of_every_kind_come_back_as_they_were_written<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let entries = every_kind();
    write(&scene, entries.clone()).await;
    assert_eq!(snapshot(&scene).await.entries, by_key(entries));
}

pub async fn the_last_value_of_a_key_wins<H: Harness>() {
    let scene = Scene::<H>::open().await;
    write(&scene, vec![number_entry(Some("777"), "acme", START), tenant_entry("acme")]).await;
    write(&scene, vec![number_entry(Some("777"), "other", START)]).await;
    assert_eq!(snapshot(&scene).await.number(&number("777")).unwrap().assignments[0].tenant, Some(tenant("other")));
    // Within one write too.
    let both = ["third", "fourth"].map(|owner| number_entry(Some("777"), owner, START)).to_vec();
    write(&scene, both).await;
    let last = snapshot(&scene).await;
    assert_eq!(last.number(&number("777")).unwrap().assignments[0].tenant, Some(tenant("fourth")));
    assert_eq!(last.entries.len(), 2);
}

pub async fn the_revision_grows_with_every_write<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let mut last = snapshot(&scene).await.revision;
    for n in 0..5 {
        let revision = write(&scene, vec![tenant_entry(&format!("t{n}")), tenant_entry("same")]).await;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
}

pub async fn the_snapshot_has_the_revision_of_the_last_write<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for name in ["a", "b"] {
        let revision = write(&scene, vec![tenant_entry(name), Entry::SingleTenant(false)]).await;
        assert_eq!(snapshot(&scene).await.revision, revision);
    }
}

pub async fn the_revision_alone_is_that_of_the_snapshot<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(scene.directory().revision().await.unwrap(), snapshot(&scene).await.revision);
    let written = write(&scene, vec![tenant_entry("a")]).await;
    assert_eq!(scene.directory().revision().await.unwrap(), written);
    let scene = scene.restart().await;
    assert_eq!(scene.directory().revision().await.unwrap(), written);
    assert_eq!(snapshot(&scene).await.revision, written);
}

pub async fn writing_the_same_again_changes_nothing_but_the_revision<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let entries = every_kind();
    write(&scene, entries.clone()).await;
    write(&scene, entries.clone()).await;
    assert_eq!(snapshot(&scene).await.entries, by_key(entries));
}

pub async fn changed_returns_at_once_when_the_directory_is_newer<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let before = snapshot(&scene).await.revision;
    let first = write(&scene, vec![tenant_entry("a")]).await;
    assert_eq!(changed(&scene, before).await, first);
    let second = write(&scene, vec![tenant_entry("b")]).await;
    assert_eq!(changed(&scene, before).await, second);
    assert_eq!(changed(&scene, first).await, second);
}

pub async fn changed_wakes_up_on_a_write<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let before = write(&scene, vec![tenant_entry("a")]).await;
    let directory = scene.directory();
    let mut waiting = pin!(directory.changed(before));
    is_waiting(&mut waiting).await;
    let written = write(&scene, vec![tenant_entry("b")]).await;
    assert_eq!(bounded("the change", waiting).await.unwrap(), written);
    let now = snapshot(&scene).await;
    assert!(now.revision >= written && now.tenant(&tenant("b")).is_some(), "what changed can be read");
}

pub async fn every_waiting_reader_wakes_up<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let before = snapshot(&scene).await.revision;
    let (one, two) = (scene.directory(), scene.directory());
    let (mut first, mut second) = (pin!(one.changed(before)), pin!(two.changed(before)));
    is_waiting(&mut first).await;
    is_waiting(&mut second).await;
    let written = write(&scene, vec![tenant_entry("a")]).await;
    let both = bounded("both changes", async { tokio::join!(first, second) }).await;
    assert_eq!((both.0.unwrap(), both.1.unwrap()), (written, written));
}

pub async fn no_reader_ever_sees_half_a_write<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let pair = |owner: &str| ["777", "778"].map(|id| number_entry(Some(id), owner, START)).to_vec();
    write(&scene, pair("acme")).await;
    let done = AtomicBool::new(false);
    let writer = async {
        for n in 0..50 {
            write(&scene, pair(&format!("t{n}"))).await;
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::SeqCst);
    };
    let reader = async {
        while !done.load(Ordering::SeqCst) {
            let seen = snapshot(&scene).await;
            let [one, two] = ["777", "778"].map(|id| seen.number(&number(id)).unwrap().assignments.clone());
            assert_eq!(one, two, "of one write");
            tokio::task::yield_now().await;
        }
    };
    bounded("writing and reading", async { tokio::join!(writer, reader) }).await;
}

pub async fn concurrent_writes_all_arrive<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let writes = (0..20).map(async |n| write(&scene, vec![tenant_entry(&format!("t{n}"))]).await);
    let mut revisions = futures_util::future::join_all(writes).await;
    let seen = snapshot(&scene).await;
    assert_eq!(seen.entries.len(), 20);
    assert_eq!(revisions.iter().max(), Some(&seen.revision));
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 20, "each write has a revision of its own");
}

pub async fn the_directory_survives_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    write(&scene, every_kind()).await;
    write(&scene, vec![tenant_entry("acme")]).await;
    let before = snapshot(&scene).await;
    let scene = scene.restart().await;
    assert_eq!(snapshot(&scene).await, before);
    assert!(write(&scene, vec![tenant_entry("later")]).await > before.revision);
}

pub async fn changed_works_over_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let before = snapshot(&scene).await.revision;
    let written = write(&scene, vec![tenant_entry("a")]).await;
    let scene = scene.restart().await;
    assert_eq!(changed(&scene, before).await, written);
}

pub async fn a_write_on_an_older_revision_is_refused_and_changes_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let first = write(&scene, vec![tenant_entry("acme")]).await;
    write(&scene, vec![tenant_entry("other")]).await;
    let before = snapshot(&scene).await;
    for read_at in [0, first, before.revision + 1] {
        let refused = scene.directory().write(vec![tenant_entry("third")], read_at).await;
        assert!(matches!(refused, Err(WriteError::Outdated)), "{read_at}: {refused:?}");
    }
    assert_eq!(snapshot(&scene).await, before);
    scene.directory().write(vec![tenant_entry("third")], before.revision).await.unwrap();
}

pub async fn of_several_writes_on_one_revision_one_is_done<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let read_at = write(&scene, vec![tenant_entry("acme")]).await;
    let writers = (0..8).map(async |_| scene.directory().write(vec![tenant_entry("new")], read_at).await);
    let written = futures_util::future::join_all(writers).await;
    assert_eq!(written.iter().filter(|each| each.is_ok()).count(), 1, "{written:?}");
    assert!(written.iter().all(|each| matches!(each, Ok(_) | Err(WriteError::Outdated))));
}

pub async fn writing_nothing_changes_nothing<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let revision = write(&scene, vec![tenant_entry("acme")]).await;
    for read_at in [0, revision] {
        assert_eq!(scene.directory().write(vec![], read_at).await.unwrap(), revision);
    }
    assert_eq!(snapshot(&scene).await.revision, revision);
}
