//! The laws of [`Admission`](ports::admission::Admission).
//!
//! No law says what is still known after a restart: admission may forget at any moment.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use std::time::Duration;

use common::{EventKey, Fingerprint};
use ports::admission::{Candidate, Remembered, SenderLimit, Verdict};

use crate::harness::Harness;
use crate::samples::key;
use crate::scene::{Scene, tenant};

/// One test for each law of admission.
#[macro_export]
macro_rules! admission_contract {
    ($harness:ident) => {
        $crate::laws!($harness, admission:
            a_key_is_new_until_it_is_remembered,
            a_key_is_known_only_with_the_same_bytes,
            a_key_is_known_to_its_tenant_only,
            an_update_without_a_key_is_never_known,
            remembering_is_idempotent,
            remembering_nothing_is_fine,
            a_key_is_remembered_for_a_day,
            verdicts_come_in_the_order_of_the_candidates,
            asking_about_nothing_is_fine,
            a_sender_is_over_the_limit_after_max_new_messages,
            several_of_one_sender_in_one_call_are_counted_one_by_one,
            known_updates_do_not_count_and_are_never_over_the_limit,
            an_update_asked_about_again_counts_once,
            an_update_twice_in_one_call_counts_once,
            an_update_without_a_key_counts_each_time,
            senders_are_counted_apart,
            tenants_are_counted_apart,
            a_candidate_without_a_sender_is_never_over_the_limit,
            the_window_starts_with_the_first_message_and_ends_by_the_clock,
            concurrent_calls_let_in_no_more_than_the_limit,
            a_restart_at_worst_forgets,
        );
    };
}

const LIMIT: SenderLimit = SenderLimit { max: 3, window: Duration::from_mins(1) };
const NEW: Verdict = Verdict { known: false, over_limit: false };
const KNOWN: Verdict = Verdict { known: true, over_limit: false };
const OVER: Verdict = Verdict { known: false, over_limit: true };

fn sender(n: u8) -> EventKey {
    EventKey([n; 16])
}

/// The `n`th update of `acme`, from nobody in particular.
fn candidate(n: u32) -> Candidate {
    Candidate { tenant: tenant("acme"), key: Some(key(n)), fingerprint: Fingerprint([1; 16]), sender: None }
}

/// The `n`th update of `acme`, from this sender.
fn from(who: u8, n: u32) -> Candidate {
    Candidate { sender: Some(sender(who)), ..candidate(n) }
}

async fn admit<H: Harness>(scene: &Scene<H>, candidates: &[Candidate]) -> Vec<Verdict> {
    let verdicts = scene.admission().admit(candidates, LIMIT).await.unwrap();
    assert_eq!(verdicts.len(), candidates.len(), "one verdict for each candidate");
    verdicts
}

async fn remember<H: Harness>(scene: &Scene<H>, candidates: &[Candidate]) {
    let keys: Vec<Remembered> = candidates
        .iter()
        .map(|each| Remembered { tenant: each.tenant.clone(), key: each.key.unwrap(), fingerprint: each.fingerprint })
        .collect();
    scene.admission().remember(&keys).await.unwrap();
}

pub async fn a_key_is_new_until_it_is_remembered<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(admit(&scene, &[candidate(1)]).await, [NEW]);
    assert_eq!(admit(&scene, &[candidate(1)]).await, [NEW], "asking does not make it known");
    remember(&scene, &[candidate(1)]).await;
    assert_eq!(admit(&scene, &[candidate(1), candidate(2)]).await, [KNOWN, NEW]);
}

pub async fn a_key_is_known_only_with_the_same_bytes<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[candidate(1)]).await;
    let other = Candidate { fingerprint: Fingerprint([2; 16]), ..candidate(1) };
    assert_eq!(admit(&scene, &[other, candidate(1)]).await, [NEW, KNOWN]);
}

pub async fn a_key_is_known_to_its_tenant_only<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[candidate(1)]).await;
    let other = Candidate { tenant: tenant("other"), ..candidate(1) };
    assert_eq!(admit(&scene, &[other]).await, [NEW]);
}

pub async fn an_update_without_a_key_is_never_known<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[candidate(1)]).await;
    let keyless = Candidate { key: None, ..candidate(1) };
    assert_eq!(admit(&scene, &[keyless.clone(), keyless.clone()]).await, [NEW, NEW]);
    assert_eq!(admit(&scene, &[keyless]).await, [NEW]);
}

pub async fn remembering_is_idempotent<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[candidate(1), candidate(1)]).await;
    remember(&scene, &[candidate(1)]).await;
    assert_eq!(admit(&scene, &[candidate(1)]).await, [KNOWN]);
}

pub async fn remembering_nothing_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[]).await;
}

pub async fn a_key_is_remembered_for_a_day<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[candidate(1)]).await;
    scene.pass(Duration::from_hours(23)).await;
    assert_eq!(admit(&scene, &[candidate(1)]).await, [KNOWN]);
}

pub async fn verdicts_come_in_the_order_of_the_candidates<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let candidates: Vec<Candidate> = (0..1000).map(candidate).collect();
    let remembered: Vec<Candidate> = candidates.iter().skip(1).step_by(3).cloned().collect();
    remember(&scene, &remembered).await;
    let expected: Vec<Verdict> = (0..1000).map(|n| if n % 3 == 1 { KNOWN } else { NEW }).collect();
    assert_eq!(admit(&scene, &candidates).await, expected);
}

pub async fn asking_about_nothing_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert!(admit(&scene, &[]).await.is_empty());
}

pub async fn a_sender_is_over_the_limit_after_max_new_messages<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for n in 1..=3 {
        assert_eq!(admit(&scene, &[from(1, n)]).await, [NEW], "message {n}");
    }
    for n in 4..=5 {
        assert_eq!(admit(&scene, &[from(1, n)]).await, [OVER], "message {n}");
    }
}

pub async fn several_of_one_sender_in_one_call_are_counted_one_by_one<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let five: Vec<Candidate> = (1..=5).map(|n| from(1, n)).collect();
    assert_eq!(admit(&scene, &five).await, [NEW, NEW, NEW, OVER, OVER]);
}

pub async fn known_updates_do_not_count_and_are_never_over_the_limit<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let old: Vec<Candidate> = (1..=10).map(|n| from(1, n)).collect();
    remember(&scene, &old).await;
    assert_eq!(admit(&scene, &old).await, [KNOWN; 10]);
    let new: Vec<Candidate> = (11..=14).map(|n| from(1, n)).collect();
    assert_eq!(admit(&scene, &new).await, [NEW, NEW, NEW, OVER]);
    assert_eq!(admit(&scene, &old).await, [KNOWN; 10]);
}

/// The gateway's publish failed, and the sender tries again: its retries must not use up its limit.
pub async fn an_update_asked_about_again_counts_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    for _ in 0..10 {
        assert_eq!(admit(&scene, &[from(1, 1)]).await, [NEW]);
    }
    assert_eq!(admit(&scene, &[from(1, 2), from(1, 3), from(1, 4)]).await, [NEW, NEW, OVER]);
    assert_eq!(admit(&scene, &[from(1, 1), from(1, 2), from(1, 3)]).await, [NEW; 3], "each keeps its place");
    assert_eq!(admit(&scene, &[from(1, 4)]).await, [OVER]);
}

pub async fn an_update_twice_in_one_call_counts_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let call = [from(1, 1), from(1, 1), from(1, 2), from(1, 3), from(1, 4)];
    assert_eq!(admit(&scene, &call).await, [NEW, NEW, NEW, NEW, OVER]);
}

pub async fn an_update_without_a_key_counts_each_time<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let keyless = Candidate { key: None, ..from(1, 1) };
    assert_eq!(admit(&scene, &[keyless.clone(), keyless.clone(), keyless.clone()]).await, [NEW; 3]);
    assert_eq!(admit(&scene, &[keyless]).await, [OVER]);
}

pub async fn senders_are_counted_apart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let call = [from(1, 1), from(2, 2), from(1, 3), from(1, 4), from(1, 5), from(2, 6)];
    assert_eq!(admit(&scene, &call).await, [NEW, NEW, NEW, NEW, OVER, NEW]);
}

pub async fn tenants_are_counted_apart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let other = |n| Candidate { tenant: tenant("other"), ..from(1, n) };
    assert_eq!(admit(&scene, &[from(1, 1), from(1, 2), from(1, 3), other(4)]).await, [NEW; 4]);
    assert_eq!(admit(&scene, &[other(5), other(6), from(1, 7), other(8)]).await, [NEW, NEW, OVER, OVER]);
}

pub async fn a_candidate_without_a_sender_is_never_over_the_limit<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let many: Vec<Candidate> = (1..=50).map(candidate).collect();
    assert_eq!(admit(&scene, &many).await, [NEW; 50]);
}

pub async fn the_window_starts_with_the_first_message_and_ends_by_the_clock<H: Harness>() {
    let scene = Scene::<H>::open().await;
    // Not at a round time of the clock.
    scene.pass(Duration::from_secs(17)).await;
    assert_eq!(admit(&scene, &[from(1, 1)]).await, [NEW]);
    scene.pass(Duration::from_secs(30)).await;
    assert_eq!(admit(&scene, &[from(1, 2), from(1, 3), from(1, 4)]).await, [NEW, NEW, OVER]);
    scene.pass(Duration::from_secs(25)).await;
    assert_eq!(admit(&scene, &[from(1, 5)]).await, [OVER]);
    scene.pass(Duration::from_secs(6)).await;
    assert_eq!(admit(&scene, &[from(1, 4), from(1, 5), from(1, 6), from(1, 7)]).await, [NEW, NEW, NEW, OVER]);
}

pub async fn concurrent_calls_let_in_no_more_than_the_limit<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let calls = (1..=20).map(async |n| admit(&scene, &[from(1, n)]).await[0]);
    let verdicts = futures_util::future::join_all(calls).await;
    assert_eq!(verdicts.iter().filter(|each| **each == NEW).count(), 3, "{verdicts:?}");
}

pub async fn a_restart_at_worst_forgets<H: Harness>() {
    let scene = Scene::<H>::open().await;
    remember(&scene, &[candidate(1)]).await;
    let scene = scene.restart().await;
    assert_eq!(admit(&scene, &[candidate(2)]).await, [NEW]);
    remember(&scene, &[candidate(1)]).await;
    assert_eq!(admit(&scene, &[candidate(1)]).await, [KNOWN]);
}
