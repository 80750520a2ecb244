//! The log of actions: what is written down, of whom, for whom, and when.

use std::task::Poll;
use std::time::Duration;

use actix_web::http::Method;
use common::TenantId;
use common::access::Scope;
use ports::access::ActionFilter;
use serde_json::{Value, json};

use crate::tenants::{call, token, two_tenants, with};
use crate::world::{World, bearer};

#[actix_web::test]
async fn what_changes_something_is_written_down_before_it_is_done() {
    let world = two_tenants().await;
    let bearer = token(&world, Scope::Operator, None).await;
    with(&world, &bearer, Method::PUT, "/api/tenants/acme", r#"{"status":"suspended"}"#).await;
    with(&world, &bearer, Method::PUT, "/api/tenants/nobody", r#"{"status":"suspended"}"#).await;
    with(&world, &bearer, Method::GET, "/api/tenants", "").await;
    let filter = ActionFilter { limit: 2, ..ActionFilter::default() };
    let actions = world.access.0.access().actions(&filter).await.unwrap();
    let told: Vec<_> = actions.iter().map(|each| (&*each.actor, each.target.as_deref(), each.status)).collect();
    assert_eq!(told, [("a token", Some("nobody"), Some(404)), ("a token", Some("acme"), Some(200))]);
    assert_eq!(actions[1].action, "PUT /api/tenants/{tenant}");
    let listed = world.get("/api/actions?tenant=acme&limit=1").await.json();
    assert_eq!(listed["data"][0]["target"], "acme");
    assert!(listed["next"].is_string());
    world.access.0.faults().take_down(port_contracts::Operation::WriteAccess);
    call(&world, Method::PUT, "/api/tenants/acme", json!({"status": "active"})).await.problem(503);
    assert_eq!(world.get("/api/tenants/acme").await.json()["status"], "suspended", "what leaves no trace is not done");
}

/// Target, tenant and details of the newest actions, oldest first.
async fn told(world: &World, count: u32, tenant: Option<&str>) -> Vec<[Option<String>; 3]> {
    let tenant = tenant.and_then(|id| TenantId::new(id).ok());
    let filter = ActionFilter { limit: count, tenant, ..ActionFilter::default() };
    let actions = world.access.0.access().actions(&filter).await.unwrap();
    let told = actions.into_iter().rev();
    told.map(|each| [each.target, each.tenant.map(|tenant| tenant.to_string()), each.details]).collect()
}

#[actix_web::test]
async fn the_log_says_what_was_changed_for_each_tenant_that_it_concerns() {
    let world = two_tenants().await;
    let put = async |uri: &str, body: Value| assert_eq!(call(&world, Method::PUT, uri, body).await.status, 200);
    put("/api/tenants/acme", json!({"status": "paused", "name": "Other"})).await;
    put("/api/tenants/globex/numbers/777", json!({"app": "main", "valid_from": "2026-01-02T03:04:05Z"})).await;
    put("/api/apps/main", json!({"default": false})).await;
    let line = |all: [&str; 3]| all.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    let moved = "number 777: acme -> globex from 2026-01-02T03:04:05Z";
    let expected = [
        line(["acme", "acme", "tenant acme: active -> paused, renamed \"A name\" -> \"Other\""]),
        line(["777", "globex", moved]),
        line(["777", "acme", moved]),
        line(["main", "", "app main: default true -> false"]),
    ];
    assert_eq!(told(&world, 4, None).await, expected);
    assert_eq!(told(&world, 2, Some("acme")).await, [expected[0].clone(), expected[2].clone()]);

    let import = json!({"tenants": [{"id": "third"}], "numbers": [
        {"phone_number_id": "1", "app": "main", "tenant": "third"}, {"phone_number_id": "2", "app": "main", "tenant": "acme"}]});
    call(&world, Method::POST, "/v1/directory/import", import).await;
    let all = told(&world, 3, None).await;
    let whole = all[0][2].as_deref().unwrap();
    assert!(whole.contains("tenant third: registered; number 1: nobody -> third from"), "{whole}");
    assert_eq!((all[1][1].as_deref(), all[2][1].as_deref()), (Some("acme"), Some("third")));
    let (of_acme, of_third) = (all[1][2].as_deref().unwrap(), all[2][2].as_deref().unwrap());
    assert!(of_acme.starts_with("number 2: nobody -> acme from") && !of_acme.contains("third"), "{of_acme}");
    assert!(of_third.contains("tenant third") && !of_third.contains("acme"), "{of_third}");

    put("/api/tenants/third", json!({"name": format!("\"{}", "ü".repeat(100))})).await;
    let renamed = told(&world, 1, None).await[0][2].clone().unwrap();
    assert_eq!(renamed, format!("tenant third: renamed none -> \"\\\"{}\"…", "ü".repeat(63)));

    call(&world, Method::POST, "/api/apps/main/secrets", json!({"secret": "fedcba9876543210"})).await;
    let rotated = told(&world, 1, None).await[0][2].clone().unwrap();
    assert!(rotated.starts_with("app main: secrets, 2 accepted, old ones until 20"), "{rotated}");
}

#[actix_web::test]
async fn what_concerns_many_tenants_is_written_down_at_once() {
    let world = two_tenants().await;
    let import = json!({
        "tenants": (0..1200).map(|n| json!({"id": format!("t{n:04}")})).collect::<Vec<_>>(),
        "numbers": (0..1200).map(|n| {
            json!({"phone_number_id": format!("1{n:04}"), "app": "main", "tenant": format!("t{n:04}")})
        }).collect::<Vec<_>>(),
    });
    let writes = || world.access.0.faults().calls(port_contracts::Operation::WriteAccess);
    let before = writes();
    assert_eq!(call(&world, Method::POST, "/v1/directory/import", import).await.status, 200);
    assert_eq!(writes() - before, 4, "before it is done, how it ended, and all that it concerns, a thousand at once");
    let rows = told(&world, 2000, None).await;
    assert_eq!(rows.iter().filter(|row| row[1].as_ref().is_some_and(|tenant| tenant.starts_with('t'))).count(), 1200);
    let last = rows.last().unwrap().clone().map(Option::unwrap);
    assert_eq!(last[1], "t1199");
    assert!(last[2].starts_with("tenant t1199: registered; number 11199: nobody -> t1199 from"), "{last:?}");
}

#[actix_web::test]
async fn what_is_taken_away_is_not_hidden_behind_what_is_new() {
    let world = two_tenants().await;
    let import = json!({
        "tenants": (0..500).map(|n| json!({"id": format!("t{n:03}")})).collect::<Vec<_>>(),
        "numbers": [{"phone_number_id": "777", "app": "main", "tenant": "globex", "valid_from": "2026-01-02T03:04:05Z"}],
    });
    assert_eq!(call(&world, Method::POST, "/v1/directory/import", import).await.status, 200);
    let rows = told(&world, 2000, None).await;
    let moved = "number 777: acme -> globex from 2026-01-02T03:04:05Z";
    let whole = rows.iter().rfind(|row| row[1].is_none()).unwrap()[2].clone().unwrap();
    assert!(whole.starts_with(moved) && whole.ends_with(" more"), "{whole}");
    for tenant in ["acme", "globex"] {
        assert_eq!(told(&world, 1, Some(tenant)).await[0][2].as_deref(), Some(moved));
    }
}

#[actix_web::test]
async fn what_is_changed_for_somebody_who_hangs_up_is_written_down_too() {
    use actix_web::App;
    use actix_web::dev::Service as _;
    use actix_web::test::{TestRequest, init_service};

    let world = two_tenants().await;
    let service = init_service(App::new().configure(api::routes(world.deps()))).await;
    let move_it = TestRequest::put()
        .uri("/api/tenants/globex/numbers/777")
        .insert_header(bearer())
        .set_payload(r#"{"app":"main","valid_from":"2026-01-02T03:04:05Z"}"#);
    let mut asked = Box::pin(service.call(move_it.to_request()));
    let moved = "number 777: acme -> globex from 2026-01-02T03:04:05Z";
    let rows = async || told(&world, 1000, None).await.len();
    let before = rows().await;
    // Until it is written down that it begins, and no longer.
    while rows().await == before {
        let polled = std::future::poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx)));
        assert!(polled.await.is_pending());
    }
    drop(asked);
    let written = async {
        while rows().await < before + 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("it is written down");
    for tenant in ["acme", "globex"] {
        assert_eq!(told(&world, 1, Some(tenant)).await[0][2].as_deref(), Some(moved));
    }
}

#[actix_web::test]
async fn what_a_token_may_not_do_is_written_down_as_an_attempt() {
    let world = two_tenants().await;
    let bearer = token(&world, Scope::Operator, None).await;
    with(&world, &bearer, Method::POST, "/api/tokens", r#"{"name":"n","scope":"admin"}"#).await.problem(403);
    let filter = ActionFilter { limit: 1, ..ActionFilter::default() };
    let actions = world.access.0.access().actions(&filter).await.unwrap();
    assert_eq!((&*actions[0].action, actions[0].status), ("POST /api/tokens", Some(403)));
}

#[actix_web::test]
async fn a_token_fills_no_log_with_what_it_may_not_do() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    let world = two_tenants().await;
    let one = token(&world, Scope::TenantSender, Some("acme")).await;
    let two = token(&world, Scope::TenantSender, Some("acme")).await;
    let service = init_service(App::new().configure(api::routes(world.deps()))).await;
    let status = async |bearer: &str, request: TestRequest| {
        let response = call_service(&service, request.insert_header(("authorization", bearer)).to_request()).await;
        let wait = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), wait)
    };
    let attempt = || TestRequest::post().uri("/api/tokens");
    let before = told(&world, 1000, None).await.len();
    for _ in 0..60 {
        assert_eq!(status(&one, attempt()).await, (403, None));
    }
    for _ in 0..3 {
        assert_eq!(status(&one, attempt()).await, (429, Some("60".to_owned())));
    }
    assert_eq!(told(&world, 1000, None).await.len() - before, 60);
    assert_eq!(status(&one, TestRequest::get().uri("/api/tokens/self")).await.0, 200, "what is open to it stays open");
    assert_eq!(status(&one, TestRequest::get().uri("/api/tokens")).await.0, 403, "of this nothing is written down");
    assert_eq!(status(&two, attempt()).await.0, 403);
    assert_eq!(told(&world, 1000, None).await.len() - before, 61);
    let reader = token(&world, Scope::TenantReader, Some("acme")).await;
    let look = || TestRequest::get().uri("/api/raw/00000000-0000-0000-0000-000000000000");
    for _ in 0..60 {
        assert_eq!(status(&reader, look()).await.0, 404);
    }
    assert_eq!(status(&reader, look()).await, (429, Some("60".to_owned())));
    assert_eq!(status(bearer().1, look()).await.0, 404, "who may more looks on");
}

#[actix_web::test]
async fn the_log_says_to_what_and_from_where_also_where_the_path_does_not() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    let world = two_tenants().await;
    let new = json!({"name": "n", "scope": "tenant-reader", "tenant": "acme"});
    let made = call(&world, Method::POST, "/api/tokens", new).await.json();
    call(&world, Method::POST, "/api/tenants", json!({"id": "new"})).await;
    call(&world, Method::POST, "/api/tenants", json!({"id": "new"})).await.problem(409);
    call(&world, Method::POST, "/api/parked/release", json!({"tenant": "acme", "reason": "throttled"})).await;
    call(&world, Method::POST, "/api/parked/release", json!({"all": true})).await;
    let text = |text: &str| Some(text.to_owned());
    let token = [made["id"].as_str().map(str::to_owned), text("acme"), text("tenant-reader, without end")];
    let new = [text("new"), text("new"), text("tenant new: registered")];
    let release = [text("tenant=acme reason=throttled"), text("acme"), text("0 due")];
    let expected = [token, new, [None, None, None], release, [text("all"), None, text("0 due")]];
    assert_eq!(told(&world, 5, None).await, expected);

    let service = init_service(App::new().configure(api::routes(world.deps()))).await;
    for (peer, seen) in [("192.0.2.9:1", "203.0.113.7"), ("198.51.100.9:1", "198.51.100.9")] {
        let request = TestRequest::post().uri("/api/parked/release").peer_addr(peer.parse().unwrap());
        let forwarded = [("x-forwarded-for", "10.0.0.1, 203.0.113.7"), bearer()];
        let request = forwarded.into_iter().fold(request, TestRequest::insert_header).set_payload(r#"{"all":true}"#);
        assert_eq!(call_service(&service, request.to_request()).await.status().as_u16(), 202);
        let filter = ActionFilter { limit: 1, ..ActionFilter::default() };
        let actions = world.access.0.access().actions(&filter).await.unwrap();
        assert_eq!(actions[0].source_ip.to_string(), seen);
    }
}
