//! The other things a batch writes: attempts, parked envelopes, dead letters, raw bytes.
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use bytes::Bytes;
use common::EnvelopeId;
use common::update::Provider;
use ports::event_store::{Batch, CommitOutcome, DeadLetter, Parked, RawObject, RawPending};

use crate::clock::START;
use crate::harness::Harness;
use crate::samples::{key, message};
use crate::scene::{Scene, number, tenant};

async fn commit<H: Harness>(scene: &Scene<H>, batch: Batch) {
    scene.store().commit(batch).await.unwrap();
}

async fn begin<H: Harness>(scene: &Scene<H>, envelope: EnvelopeId) -> u32 {
    scene.store().begin_attempt(envelope).await.unwrap()
}

fn parked(envelope: EnvelopeId) -> Parked {
    Parked {
        envelope,
        tenant: tenant("_unassigned"),
        number: Some(number("777")),
        sealed: Bytes::from_static(b"sealed \0 bytes"),
        ..crate::samples::parked(1)
    }
}

fn dead_letter(n: u32) -> DeadLetter {
    DeadLetter {
        tenant: tenant("acme"),
        provider: Provider::Meta,
        key: key(n),
        envelope: EnvelopeId::fresh(),
        received_at: START,
        reason: "message id too long".to_owned(),
        sealed: Bytes::from_static(b"sealed \0 bytes"),
        message: Some((format!("wamid.{n}"), Some("+491700000001".to_owned()))),
    }
}

fn pending(envelope: EnvelopeId) -> RawPending {
    RawPending { envelope, sealed: Bytes::from(envelope.0.as_bytes().to_vec()) }
}

fn object(envelope: EnvelopeId) -> RawObject {
    RawObject { envelope, object: "raw/2026/11/18/x".to_owned(), offset: 4096, length: 16 }
}

async fn waiting<H: Harness>(scene: &Scene<H>, max: usize) -> Vec<RawPending> {
    scene.store().raw_pending(max).await.unwrap()
}

pub async fn attempts_count_up_for_each_envelope<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two) = (EnvelopeId::fresh(), EnvelopeId::fresh());
    assert_eq!([begin(&scene, one).await, begin(&scene, one).await, begin(&scene, one).await], [1, 2, 3]);
    assert_eq!(begin(&scene, two).await, 1);
}

pub async fn an_attempt_taken_back_does_not_count<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let envelope = EnvelopeId::fresh();
    for _ in 0..5 {
        assert_eq!(begin(&scene, envelope).await, 1);
        scene.store().take_back_attempt(envelope).await.unwrap();
    }
    assert_eq!([begin(&scene, envelope).await, begin(&scene, envelope).await], [1, 2]);
    scene.store().take_back_attempt(envelope).await.unwrap();
    assert_eq!(begin(&scene, envelope).await, 2);
}

pub async fn taking_back_what_never_began_is_fine<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let envelope = EnvelopeId::fresh();
    for _ in 0..3 {
        scene.store().take_back_attempt(envelope).await.unwrap();
    }
    assert_eq!(begin(&scene, envelope).await, 1);
}

pub async fn finished_envelopes_begin_at_one_again<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (done, open, never) = (EnvelopeId::fresh(), EnvelopeId::fresh(), EnvelopeId::fresh());
    for _ in 0..3 {
        begin(&scene, done).await;
        begin(&scene, open).await;
    }
    commit(&scene, Batch { finished: vec![done, never], ..Batch::default() }).await;
    assert_eq!([begin(&scene, done).await, begin(&scene, open).await, begin(&scene, never).await], [1, 4, 1]);
}

/// This is what stops an envelope that kills every process that opens it.
pub async fn attempts_survive_a_restart<H: Harness>() {
    let mut scene = Scene::<H>::open().await;
    let envelope = EnvelopeId::fresh();
    for expected in 1..=4 {
        assert_eq!(begin(&scene, envelope).await, expected);
        scene = scene.restart().await;
    }
}

pub async fn parked_envelopes_are_idempotent<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two) = (EnvelopeId::fresh(), EnvelopeId::fresh());
    commit(&scene, Batch { parked: vec![parked(one), parked(one)], ..Batch::default() }).await;
    commit(&scene, Batch { parked: vec![parked(two), parked(one)], ..Batch::default() }).await;
    assert_eq!(scene.sequence_all().await, 0, "what is parked emits nothing");
}

pub async fn dead_letters_are_idempotent<H: Harness>() {
    let scene = Scene::<H>::open().await;
    commit(&scene, Batch { dead_letters: vec![dead_letter(1), dead_letter(1)], ..Batch::default() }).await;
    commit(&scene, Batch { dead_letters: vec![dead_letter(2), dead_letter(1)], ..Batch::default() }).await;
    assert_eq!(scene.sequence_all().await, 0, "a dead letter emits nothing");
    assert_eq!(scene.commit(vec![message(1)]).await, [CommitOutcome::New], "nor does it use up the key of the update");
}

pub async fn archived_envelopes_are_idempotent<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let envelope = EnvelopeId::fresh();
    for _ in 0..2 {
        commit(&scene, Batch { raw_objects: vec![object(envelope)], ..Batch::default() }).await;
    }
    scene.store().raw_archived(vec![object(envelope)]).await.unwrap();
    assert!(waiting(&scene, 10).await.is_empty());
}

pub async fn raw_bytes_wait_oldest_first<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let ids: Vec<EnvelopeId> = (0..5).map(|_| EnvelopeId::fresh()).collect();
    let all: Vec<RawPending> = ids.iter().copied().map(pending).collect();
    assert!(waiting(&scene, 10).await.is_empty());
    for chunk in all.chunks(2) {
        commit(&scene, Batch { raw_pending: chunk.to_vec(), ..Batch::default() }).await;
        scene.pass(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(waiting(&scene, 10).await, all);
    assert_eq!(waiting(&scene, 3).await, all[..3]);
    assert_eq!(waiting(&scene, 3).await, all[..3], "looking takes nothing away");
}

pub async fn raw_bytes_are_gone_once_archived<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let ids: Vec<EnvelopeId> = (0..3).map(|_| EnvelopeId::fresh()).collect();
    let all: Vec<RawPending> = ids.iter().copied().map(pending).collect();
    commit(&scene, Batch { raw_pending: all.clone(), ..Batch::default() }).await;
    for _ in 0..2 {
        scene.store().raw_archived(vec![object(ids[0]), object(ids[2])]).await.unwrap();
        assert_eq!(waiting(&scene, 10).await, all[1..2]);
    }
    scene.store().raw_archived(vec![]).await.unwrap();
    scene.store().raw_archived(vec![object(ids[1])]).await.unwrap();
    assert!(waiting(&scene, 10).await.is_empty());
}

pub async fn raw_bytes_of_one_envelope_wait_once<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let envelope = EnvelopeId::fresh();
    for _ in 0..2 {
        commit(&scene, Batch { raw_pending: vec![pending(envelope)], ..Batch::default() }).await;
    }
    assert_eq!(waiting(&scene, 10).await, [pending(envelope)]);
}

pub async fn raw_bytes_survive_a_restart<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let (one, two) = (EnvelopeId::fresh(), EnvelopeId::fresh());
    commit(&scene, Batch { raw_pending: vec![pending(one), pending(two)], ..Batch::default() }).await;
    scene.store().raw_archived(vec![object(one)]).await.unwrap();
    let scene = scene.restart().await;
    assert_eq!(waiting(&scene, 10).await, [pending(two)]);
}

pub async fn everything_in_one_batch_is_written<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let ids: Vec<EnvelopeId> = (0..4).map(|_| EnvelopeId::fresh()).collect();
    begin(&scene, ids[0]).await;
    let batch = Batch {
        updates: vec![message(1), message(2)],
        parked: vec![parked(ids[1])],
        dead_letters: vec![dead_letter(3)],
        raw_objects: vec![object(ids[2])],
        raw_pending: vec![pending(ids[3])],
        finished: ids.clone(),
        released: vec![EnvelopeId::fresh()],
    };
    let first = scene.store().commit(batch.clone()).await.unwrap();
    assert_eq!(first.outcomes, [CommitOutcome::New, CommitOutcome::New]);
    let again = scene.store().commit(batch).await.unwrap();
    assert_eq!(again.outcomes, [CommitOutcome::Duplicate, CommitOutcome::Duplicate]);
    assert_eq!(waiting(&scene, 10).await, [pending(ids[3])]);
    assert_eq!(begin(&scene, ids[0]).await, 1);
    assert_eq!(scene.sequence_all().await, 2);
}
