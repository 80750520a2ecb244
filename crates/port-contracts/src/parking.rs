//! The laws of [`Parking`](ports::parking::Parking).
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::time::Duration;

use common::envelope::ParkReason;
use common::{EnvelopeId, NumberId, Timestamp};
use ports::event_store::{Batch, Pace, Parked};
use ports::parking::{Due, ParkedFilter, ParkedRow};
use uuid::Uuid;

use crate::clock::START;
use crate::harness::Harness;
use crate::samples::{key, parked};
use crate::scene::{Scene, number, tenant};

/// One test for each law of parking.
#[macro_export]
macro_rules! parking_contract {
    ($harness:ident) => {
        $crate::laws!($harness, parking:
            what_is_parked_is_listed_in_the_order_of_its_receipt,
            filters_hold_together,
            groups_sum_up,
            what_is_due_is_taken_once_and_again_after_its_lease,
            what_was_parked_for_the_directory_is_due_only_when_asked_for,
            what_is_due_later_waits,
            throttled_ones_are_due_at_the_pace_of_their_sender,
            a_forced_one_says_so_until_it_is_put_back,
            what_is_forced_while_somebody_looks_at_it_stays_forced,
            many_become_due_at_once,
            what_is_released_is_gone_with_the_commit_that_stores_it,
            the_oldest_expire_in_portions,
            parked_envelopes_survive_a_restart,
        );
    };
}

const MINUTE: Duration = Duration::from_mins(1);

fn envelope(n: u128) -> EnvelopeId {
    EnvelopeId(Uuid::from_u128(n))
}

fn at(minutes: u32) -> Timestamp {
    START.plus(MINUTE * minutes)
}

/// Parks the `n`th envelope, received in the `n`th minute.
fn one(n: u32, owner: &str, reason: ParkReason, to: Option<&str>) -> Parked {
    Parked {
        envelope: envelope(n.into()),
        tenant: tenant(owner),
        reason,
        number: to.map(number),
        received_at: at(n),
        ..parked(n)
    }
}

async fn park<H: Harness>(scene: &Scene<H>, parked: Vec<Parked>) {
    scene.store().commit(Batch { parked, ..Batch::default() }).await.unwrap();
}

async fn list<H: Harness>(scene: &Scene<H>, filter: &ParkedFilter) -> Vec<u128> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = scene.parking().list(filter, after, 2).await.unwrap();
        let Some(last) = page.last() else { return found };
        after = Some((last.received_at, last.envelope));
        found.extend(page.iter().map(|row| row.envelope.0.as_u128()));
    }
}

async fn take<H: Harness>(scene: &Scene<H>) -> Vec<Due> {
    scene.parking().take_due(scene.now(), 10, MINUTE).await.unwrap()
}

fn ids(due: &[Due]) -> Vec<u128> {
    due.iter().map(|due| due.row.envelope.0.as_u128()).collect()
}

fn all() -> ParkedFilter {
    ParkedFilter::default()
}

async fn several<H: Harness>() -> Scene<H> {
    use ParkReason::{Suspended, UnknownTenant};
    let scene = Scene::<H>::open().await;
    let rows = vec![
        one(3, "_unassigned", UnknownTenant, Some("777")),
        one(1, "_unassigned", UnknownTenant, Some("777")),
        one(2, "acme", Suspended, Some("888")),
        one(4, "_unassigned", UnknownTenant, None),
    ];
    park(&scene, rows).await;
    scene
}

pub async fn what_is_parked_is_listed_in_the_order_of_its_receipt<H: Harness>() {
    let scene = several::<H>().await;
    assert_eq!(list(&scene, &all()).await, [1, 2, 3, 4]);
    let row = scene.parking().list(&all(), None, 10).await.unwrap().remove(1);
    let expected = ParkedRow {
        envelope: envelope(2),
        tenant: tenant("acme"),
        reason: ParkReason::Suspended,
        number: Some(number("888")),
        received_at: at(2),
        updates: parked(2).updates,
        due_at: None,
    };
    assert_eq!(row, expected);
}

pub async fn filters_hold_together<H: Harness>() {
    let scene = several::<H>().await;
    let unknown = ParkedFilter { reason: Some(ParkReason::UnknownTenant), ..all() };
    assert_eq!(list(&scene, &unknown).await, [1, 3, 4]);
    assert_eq!(list(&scene, &ParkedFilter { number: Some(number("777")), ..unknown.clone() }).await, [1, 3]);
    assert_eq!(list(&scene, &ParkedFilter { tenant: Some(tenant("acme")), ..unknown }).await, [0; 0]);
    assert_eq!(list(&scene, &ParkedFilter { tenant: Some(tenant("acme")), ..all() }).await, [2]);
    assert_eq!(list(&scene, &ParkedFilter { envelope: Some(envelope(4)), ..all() }).await, [4]);
}

pub async fn groups_sum_up<H: Harness>() {
    use ParkReason::{Suspended, UnknownTenant};
    let scene = several::<H>().await;
    let groups = scene.parking().groups().await.unwrap();
    let told: Vec<_> = groups
        .iter()
        .map(|group| {
            (group.tenant.as_str(), group.reason, group.number.as_ref().map(NumberId::as_str), group.envelopes)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("_unassigned", UnknownTenant, None, 1),
            ("_unassigned", UnknownTenant, Some("777"), 2),
            ("acme", Suspended, Some("888"), 1),
        ]
    );
    assert_eq!(groups[1].oldest, at(1));
    assert_eq!(groups[1].updates, u64::from(parked(1).updates) + u64::from(parked(3).updates));
}

pub async fn what_is_due_is_taken_once_and_again_after_its_lease<H: Harness>() {
    let scene = several::<H>().await;
    assert_eq!(scene.parking().make_due(&all(), START, false).await.unwrap(), 4);
    let taken = take(&scene).await;
    assert_eq!(ids(&taken), [1, 2, 3, 4]);
    assert_eq!(taken[0].sealed, parked(1).sealed);
    assert!(take(&scene).await.is_empty());
    scene.pass(MINUTE * 2).await;
    assert_eq!(ids(&take(&scene).await), [1, 2, 3, 4]);
}

pub async fn what_was_parked_for_the_directory_is_due_only_when_asked_for<H: Harness>() {
    let scene = several::<H>().await;
    scene.pass(MINUTE * 10).await;
    assert!(take(&scene).await.is_empty());
    let filter = ParkedFilter { number: Some(number("777")), ..all() };
    assert_eq!(scene.parking().make_due(&filter, START, false).await.unwrap(), 2);
    assert_eq!(ids(&take(&scene).await), [1, 3]);
}

pub async fn what_is_due_later_waits<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let soon = Parked { due_at: Some(START.plus(MINUTE)), ..one(1, "acme", ParkReason::Throttled, None) };
    let late = Parked { due_at: Some(START.plus(MINUTE * 60)), ..one(2, "acme", ParkReason::Throttled, None) };
    park(&scene, vec![soon, late]).await;
    assert!(take(&scene).await.is_empty());
    scene.pass(MINUTE * 2).await;
    assert_eq!(ids(&take(&scene).await), [1]);
    scene.parking().put_back(&[envelope(1)], Some(START.plus(MINUTE * 50))).await.unwrap();
    assert!(take(&scene).await.is_empty());
    assert_eq!(list(&scene, &all()).await, [1, 2]);
}

pub async fn throttled_ones_are_due_at_the_pace_of_their_sender<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let of = |n: u32, sender: u32| {
        let pace = Some(Pace { sender: key(sender), max: 2, window: MINUTE });
        Parked { received_at: START, pace, ..one(n, "acme", ParkReason::Throttled, None) }
    };
    park(&scene, vec![of(1, 1), of(2, 1), of(3, 2)]).await;
    park(&scene, vec![of(4, 1), of(5, 1), of(6, 1), of(1, 1)]).await;
    let rows = scene.parking().list(&all(), None, 10).await.unwrap();
    let due: Vec<_> = rows.iter().map(|row| (row.envelope, row.due_at.unwrap())).collect();
    assert_eq!(due, [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)].map(|(n, minutes)| (envelope(n), at(minutes))));
}

pub async fn a_forced_one_says_so_until_it_is_put_back<H: Harness>() {
    let scene = several::<H>().await;
    let filter = ParkedFilter { envelope: Some(envelope(2)), ..all() };
    assert_eq!(scene.parking().make_due(&filter, START, true).await.unwrap(), 1);
    scene.parking().make_due(&all(), START, false).await.unwrap();
    let forced: Vec<_> = take(&scene).await.iter().map(|due| (due.row.envelope, due.is_forced)).collect();
    assert_eq!(forced, [1, 2, 3, 4].map(|n| (envelope(n), n == 2)));
    scene.parking().put_back(&[envelope(2)], Some(START)).await.unwrap();
    assert!(!take(&scene).await[0].is_forced);
}

pub async fn what_is_forced_while_somebody_looks_at_it_stays_forced<H: Harness>() {
    let scene = several::<H>().await;
    scene.parking().make_due(&all(), START, false).await.unwrap();
    assert_eq!(ids(&take(&scene).await), [1, 2, 3, 4]);
    let filter = ParkedFilter { envelope: Some(envelope(2)), ..all() };
    assert_eq!(scene.parking().make_due(&filter, START, true).await.unwrap(), 1);
    scene.parking().put_back(&[envelope(1), envelope(2)], None).await.unwrap();
    let taken: Vec<_> = take(&scene).await.iter().map(|due| (due.row.envelope, due.is_forced)).collect();
    assert_eq!(taken, [(envelope(2), true)]);
}

pub async fn many_become_due_at_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for portion in 0..3_u32 {
        let each = |n: u32| one(portion * 4_500 + n, "acme", ParkReason::Paused, None);
        park(&scene, (1..=4_500).map(each).collect()).await;
    }
    park(&scene, vec![one(20_000, "other", ParkReason::Paused, None)]).await;
    let filter = ParkedFilter { tenant: Some(tenant("acme")), ..all() };
    assert_eq!(scene.parking().make_due(&filter, START, false).await.unwrap(), 13_500);
    let taken = scene.parking().take_due(START, 20_000, MINUTE).await.unwrap();
    assert_eq!(taken.len(), 13_500);
}

pub async fn what_is_released_is_gone_with_the_commit_that_stores_it<H: Harness>() {
    let scene = several::<H>().await;
    let batch = Batch { released: vec![envelope(1), envelope(4), envelope(99)], ..Batch::default() };
    scene.store().commit(batch).await.unwrap();
    assert_eq!(list(&scene, &all()).await, [2, 3]);
}

pub async fn the_oldest_expire_in_portions<H: Harness>() {
    let scene = several::<H>().await;
    let expire = async |max| {
        let expired = scene.parking().expire(at(4), max).await.unwrap();
        expired.iter().map(|row| row.envelope.0.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(expire(2).await, [1, 2]);
    assert_eq!(expire(2).await, [3]);
    assert_eq!(list(&scene, &all()).await, [4]);
}

pub async fn parked_envelopes_survive_a_restart<H: Harness>() {
    let scene = several::<H>().await;
    scene.parking().make_due(&all(), START, true).await.unwrap();
    let scene = scene.restart().await;
    let taken = take(&scene).await;
    assert_eq!(ids(&taken), [1, 2, 3, 4]);
    assert!(taken.iter().all(|due| due.is_forced));
}
