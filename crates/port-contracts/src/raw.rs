//! The laws of [`RawIndex`](ports::raw::RawIndex).
#![expect(missing_docs, reason = "the name of a law is its sentence")]

use bytes::Bytes;
use common::EnvelopeId;
use ports::event_store::{Batch, RawObject, RawPending};
use ports::raw::RawPlace;
use uuid::Uuid;

use crate::harness::Harness;
use crate::samples::parked;
use crate::scene::Scene;

/// One test for each law of raw envelopes.
#[macro_export]
macro_rules! raw_contract {
    ($harness:ident) => {
        $crate::laws!($harness, raw:
            an_archived_envelope_is_found_in_its_object,
            one_that_waits_for_the_blob_store_is_here,
            a_parked_one_is_here_when_it_is_nowhere_else,
            what_is_not_kept_is_not_found,
            objects_below_a_path_are_forgotten_in_portions,
        );
    };
}

fn envelope(n: u128) -> EnvelopeId {
    EnvelopeId(Uuid::from_u128(n))
}

fn object(n: u128, path: &str) -> RawObject {
    RawObject { envelope: envelope(n), object: path.to_owned(), offset: 7, length: 9 }
}

async fn find<H: Harness>(scene: &Scene<H>, n: u128) -> Option<RawPlace> {
    scene.raw().find(envelope(n)).await.unwrap()
}

async fn archive<H: Harness>(scene: &Scene<H>, raw_objects: Vec<RawObject>) {
    scene.store().commit(Batch { raw_objects, ..Batch::default() }).await.unwrap();
}

pub async fn an_archived_envelope_is_found_in_its_object<H: Harness>() {
    let scene = Scene::<H>::open().await;
    archive(&scene, vec![object(1, "raw/a"), object(2, "raw/b")]).await;
    assert_eq!(find(&scene, 2).await, Some(RawPlace::Object(object(2, "raw/b"))));
}

pub async fn one_that_waits_for_the_blob_store_is_here<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let raw_pending = vec![RawPending { envelope: envelope(1), sealed: Bytes::from_static(b"sealed") }];
    scene.store().commit(Batch { raw_pending, ..Batch::default() }).await.unwrap();
    assert_eq!(find(&scene, 1).await, Some(RawPlace::Here(Bytes::from_static(b"sealed"))));
    scene.store().raw_archived(vec![object(1, "raw/a")]).await.unwrap();
    assert_eq!(find(&scene, 1).await, Some(RawPlace::Object(object(1, "raw/a"))));
}

pub async fn a_parked_one_is_here_when_it_is_nowhere_else<H: Harness>() {
    let scene = Scene::<H>::open().await;
    let one = parked(1);
    scene.store().commit(Batch { parked: vec![one.clone()], ..Batch::default() }).await.unwrap();
    assert_eq!(scene.raw().find(one.envelope).await.unwrap(), Some(RawPlace::Here(one.sealed)));
}

pub async fn what_is_not_kept_is_not_found<H: Harness>() {
    let scene = Scene::<H>::open().await;
    assert_eq!(find(&scene, 1).await, None);
}

pub async fn objects_below_a_path_are_forgotten_in_portions<H: Harness>() {
    let scene = Scene::<H>::open().await;
    archive(&scene, vec![object(1, "raw/2026/01"), object(2, "raw/2026/02"), object(3, "raw/2026/03")]).await;
    assert_eq!(scene.raw().forget_below("raw/2026/03", 1).await.unwrap(), 1);
    assert_eq!(scene.raw().forget_below("raw/2026/03", 10).await.unwrap(), 1);
    assert_eq!(scene.raw().forget_below("raw/2026/03", 10).await.unwrap(), 0);
    assert!(find(&scene, 3).await.is_some());
    assert!(find(&scene, 1).await.is_none() && find(&scene, 2).await.is_none());
}
