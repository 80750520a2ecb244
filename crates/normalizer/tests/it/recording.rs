//! The recorder.

use std::net::{IpAddr, Ipv4Addr};

use common::RequestId;
use common::record::{Outcome, RecordBatch, RequestRecord, SignatureStatus};
use common::update::Provider;
use port_contracts::Operation;
use port_contracts::clock::START;
use ports::event_bus::{Outgoing, Stream};
use uuid::Uuid;

use crate::scene::Scene;

fn batch(records: usize) -> RecordBatch {
    let record = || RequestRecord {
        request: RequestId::fresh(),
        received_at: START,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        provider: Provider::Meta,
        endpoint: "/webhooks/meta".to_owned(),
        app: None,
        tenant: None,
        event: Some(port_contracts::samples::key(1)),
        event_type: Some("message".to_owned()),
        event_count: 1,
        signature: SignatureStatus::Valid,
        http_status: 200,
        outcome: Outcome::Accepted,
        reason: None,
        suspicious: false,
        processing_ms: 1.5,
        weight: 1,
        messages: Vec::new(),
    };
    RecordBatch { id: Uuid::now_v7(), records: (0..records).map(|_| record()).collect() }
}

async fn publish(scene: &Scene, payload: Vec<u8>) {
    let message =
        Outgoing { stream: Stream::Audit, subject: "audit".to_owned(), payload: payload.into(), dedup_id: None };
    scene.backend.bus().publish(vec![message]).await.remove(0).unwrap();
}

async fn depth(scene: &Scene) -> u64 {
    scene.deps.bus.backlog(&normalizer::consumer_recorder(&scene.config)).await.unwrap().depth
}

#[tokio::test]
async fn records_are_stored_once_though_their_batch_comes_twice() {
    let scene = Scene::new();
    let one = serde_json::to_vec(&batch(2)).unwrap();
    for payload in [one.clone(), serde_json::to_vec(&batch(3)).unwrap(), one] {
        publish(&scene, payload).await;
    }
    scene.backend.faults().lose_next_answers(Operation::Record, 2);
    scene.start();
    scene.until("all is acknowledged", async |scene| depth(scene).await == 0).await;
    assert_eq!((scene.backend.record_batches().len(), scene.backend.records().len()), (2, 5));
    scene.stop().await;
}

#[tokio::test]
async fn records_that_cannot_be_read_do_not_hold_up_the_others() {
    let scene = Scene::new();
    publish(&scene, b"{".to_vec()).await;
    publish(&scene, serde_json::to_vec(&batch(1)).unwrap()).await;
    scene.start();
    scene.until("all is acknowledged", async |scene| depth(scene).await == 0).await;
    assert_eq!(scene.backend.records().len(), 1);
    scene.stop().await;
}

#[tokio::test]
async fn while_the_database_is_down_records_wait() {
    let scene = Scene::new();
    scene.backend.faults().take_down(Operation::Record);
    publish(&scene, serde_json::to_vec(&batch(1)).unwrap()).await;
    scene.start();
    scene.until("it is tried again", async |scene| scene.backend.faults().calls(Operation::Record) > 3).await;
    assert_eq!(depth(&scene).await, 1);
    scene.backend.faults().restore(Operation::Record);
    scene.until("all is acknowledged", async |scene| depth(scene).await == 0).await;
    assert_eq!(scene.backend.records().len(), 1);
    scene.stop().await;
}
