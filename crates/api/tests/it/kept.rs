//! Parked envelopes and raw ones, and the statistics of requests.

use std::sync::Arc;

use actix_web::http::Method;
use common::access::{Scope, Token, TokenText};
use common::directory::{Entry, Tenant};
use common::envelope::{Disposition, Header, Lane, Packing, ParkReason};
use common::trace::TraceContext;
use common::update::Provider;
use common::{AppId, Clock as _, EnvelopeId, RequestId, SystemClock, TenantId};
use ports::access::ActionFilter;
use ports::directory::DirectoryStore as _;
use ports::event_store::{Batch, Parked, RawPending};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, World, bearer, ring};

const BODY: &str = r#"{"object":"whatsapp_business_account"}"#;

/// A world in which a webhook of `acme` is parked, and its bytes are kept.
async fn with_parked() -> (Arc<World>, EnvelopeId) {
    let world = Arc::new(World::default());
    let id = TenantId::new("acme").unwrap();
    let tenant = Tenant::create(id.clone(), None, &ring());
    world.write(vec![Entry::Tenant(tenant)], 0).await.unwrap();
    let directory = world.snapshot().await.unwrap();
    let open = common::directory::OpenDirectory::open(&directory, &ring()).unwrap();
    let key = open.tenant(&id).unwrap().sealing();
    let header = Header {
        id: EnvelopeId::fresh(),
        request: RequestId::fresh(),
        provider: Provider::Meta,
        app: AppId::new("app").unwrap(),
        tenant: id.clone(),
        number: None,
        received_at: SystemClock.now(),
        disposition: Disposition::Parked(ParkReason::Suspended),
        lane: Lane::Live,
        source_ip: "192.0.2.1".parse().unwrap(),
        body_sha256: "00".repeat(32),
        key: key.id().to_owned(),
        packing: Packing::Plain,
        size: 0,
        updates: 1,
        trace: TraceContext::continue_or_fresh(None),
        delivery: None,
    };
    let envelope = header.id;
    let sealed: bytes::Bytes = common::sealing::seal(header, BODY.as_bytes(), key).into();
    let parked = Parked {
        envelope,
        tenant: id,
        reason: ParkReason::Suspended,
        sealed: sealed.clone(),
        ..port_contracts::samples::parked(1)
    };
    let batch = Batch { parked: vec![parked], raw_pending: vec![RawPending { envelope, sealed }], ..Batch::default() };
    world.access.0.store().commit(batch).await.unwrap();
    (world, envelope)
}

async fn reader(world: &Arc<World>, tenant: &str) -> String {
    let text = TokenText::fresh();
    let token = Token {
        id: Uuid::now_v7(),
        name: "reader".to_owned(),
        scope: Scope::TenantReader,
        tenant: TenantId::new(tenant).ok(),
        created_at: SystemClock.now(),
        expires_at: None,
        revoked_at: None,
    };
    world.access.0.access().add_token(&token, text.hash()).await.unwrap();
    format!("Bearer {}", text.expose())
}

async fn release(world: &Arc<World>, body: Value) -> Answer {
    world.send(Method::POST, "/api/parked/release", &[bearer()], body.to_string()).await
}

#[actix_web::test]
async fn parked_envelopes_are_listed_summed_up_and_released() {
    let (world, envelope) = with_parked().await;
    let listed = world.get("/api/parked?reason=suspended&tenant=acme").await.json();
    assert_eq!(listed["data"][0]["envelope"], envelope.to_string());
    assert_eq!(listed["data"][0]["raw_payload_ref"], format!("wharf:raw/{envelope}"));
    assert!(listed["data"][0]["due_at"].is_null());
    assert_eq!(world.get("/api/parked?reason=throttled").await.json()["data"], json!([]));
    assert_eq!(world.get("/api/parked/groups").await.json()["data"][0]["envelopes"], 1);
    for wrong in [json!({}), json!({"all": true, "tenant": "acme"}), json!({"reason": "nonsense"}), json!({"all": 1})] {
        release(&world, wrong).await.problem(422);
    }
    assert_eq!(world.get("/api/parked?reason=nonsense").await.status, 422);
    let marked = release(&world, json!({"envelope": envelope})).await;
    assert_eq!((marked.status.as_u16(), marked.json()), (202, json!({"due": 1})));
    assert!(world.get("/api/parked").await.json()["data"][0]["due_at"].is_string());
    assert_eq!(release(&world, json!({"tenant": "nobody"})).await.json(), json!({"due": 0}));
}

#[actix_web::test]
async fn another_tenants_reader_sees_nothing_parked() {
    let (world, _) = with_parked().await;
    for (tenant, seen) in [("acme", 1), ("globex", 0)] {
        let own = reader(&world, tenant).await;
        for uri in ["/api/parked".to_owned(), format!("/api/parked?tenant={tenant}")] {
            let listed = world.send(Method::GET, &uri, &[("authorization", &own)], "").await.json();
            assert_eq!(listed["data"].as_array().unwrap().len(), seen, "{tenant} {uri}");
        }
    }
}

#[actix_web::test]
async fn a_look_at_raw_bytes_is_written_down() {
    let (world, envelope) = with_parked().await;
    let uri = format!("/api/raw/{envelope}");
    let shown = world.get(&uri).await.json();
    assert_eq!((&shown["payload"], &shown["tenant"]), (&json!(BODY), &json!("acme")));
    assert_eq!(shown["disposition"], "parked (suspended)");
    let own = reader(&world, "acme").await;
    assert_eq!(world.send(Method::GET, &uri, &[("authorization", &own)], "").await.status, 200);
    let other = reader(&world, "globex").await;
    world.send(Method::GET, &uri, &[("authorization", &other)], "").await.problem(404);
    world.get(&format!("/api/raw/{}", Uuid::nil())).await.problem(404);
    let said = world.get("/api/raw/nonsense").await;
    assert_eq!(said.refused_fields(), ["id"]);
    assert!(said.json()["detail"].as_str().unwrap().contains("wharf:raw/<envelope id>"), "{}", said.text());
    for unnamed in ["what%20is%20it", "%ff", "wharf:raw%2Fnonsense"] {
        assert_eq!(world.get(&format!("/api/raw/{unnamed}")).await.refused_fields(), ["id"], "{unnamed}");
    }
    let filter = ActionFilter { limit: 10, ..ActionFilter::default() };
    let actions = world.access.0.access().actions(&filter).await.unwrap();
    assert_eq!(actions.len(), 5, "also those that found nothing");
    assert!(actions.iter().all(|action| action.action == "GET /api/raw/{id}"));
    assert_eq!(actions[4].target, Some(envelope.to_string()));
    assert_eq!(actions[4].tenant, Some(TenantId::new("acme").unwrap()), "an operator's look at a tenant's");
    world.access.0.faults().take_down(port_contracts::Operation::WriteAccess);
    world.get(&uri).await.problem(503);
}

#[actix_web::test]
async fn statistics_of_requests_have_the_documented_shape() {
    let world = Arc::new(World::default());
    let empty = json!({"success": true, "data": {"processing": [], "security": [], "performance": []}});
    for uri in ["/api/v1/whatsapp-hardened/stats", "/stats?hours=24", "/stats?source=meta&hours=720"] {
        assert_eq!(world.get(uri).await.json(), empty, "{uri}");
    }
    for (uri, field) in [("hours=0", "hours"), ("hours=721", "hours"), ("source=telegram", "source")] {
        assert_eq!(world.refused(&format!("/stats?{uri}")).await, [field]);
    }
    let report = world.get("/api/security?hours=24").await.json();
    assert_eq!((&report["requests"], &report["suspicious"]), (&json!(0), &json!([])));
}
