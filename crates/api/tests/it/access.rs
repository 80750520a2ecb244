//! Who gets in, and what those see who ask for something that is not there.

use std::sync::Arc;

use actix_web::http::Method;

use crate::world::{World, bearer};

fn world() -> Arc<World> {
    Arc::default()
}

#[actix_web::test]
async fn everything_but_health_asks_for_the_token() {
    let routes = [
        (Method::GET, "/messages"),
        (Method::GET, "/stats"),
        (Method::GET, "/v1/events"),
        (Method::POST, "/v1/directory/import"),
        (Method::GET, "/metrics"),
        (Method::GET, "/nowhere"),
        (Method::GET, "/"),
        (Method::DELETE, "/messages"),
        (Method::GET, "/health/other"),
    ];
    let wrong: [&[(&str, &str)]; 5] = [
        &[],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Basic the-admin-token")],
        &[("authorization", "the-admin-token")],
        &[bearer(), bearer()],
    ];
    for (method, uri) in routes {
        for headers in wrong {
            let answer = world().send(method.clone(), uri, headers, "").await;
            answer.problem(401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(world().get("/messages?token=the-admin-token").await.status, 422);
}

#[actix_web::test]
async fn health_is_open_and_says_what_is_missing() {
    let world = world();
    world.readiness.report("database", true, true);
    for uri in ["/health", "/health/live"] {
        let answer = world.send(Method::GET, uri, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, r#"{"status":"ok"}"#));
    }
    for uri in ["/ready", "/health/ready"] {
        let answer = world.send(Method::GET, uri, &[], "").await;
        assert_eq!(answer.text(), r#"{"status":"ready","checks":{"database":{"ok":true,"required":true}}}"#);
    }
    world.readiness.report("database", true, false);
    let answer = world.send(Method::GET, "/ready", &[], "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["status"], "not_ready");
}

#[actix_web::test]
async fn what_is_not_there_is_a_problem() {
    for uri in
        ["/nowhere", "/", "/messages/", "/messages/1", "/v1", "/metrics", "/%2e%2e/messages", "/%ff", "//messages"]
    {
        world().get(uri).await.problem(404);
    }
}

#[actix_web::test]
async fn a_wrong_method_is_told_the_right_one() {
    for (method, uri, allow) in [
        (Method::POST, "/messages", "GET"),
        (Method::DELETE, "/stats", "GET"),
        (Method::PUT, "/v1/events", "GET"),
        (Method::GET, "/v1/directory/import", "POST"),
        (Method::POST, "/health", "GET"),
    ] {
        let answer = world().send(method, uri, &[bearer()], "").await;
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allow), "{uri}");
    }
}

#[actix_web::test]
async fn metrics_are_served_when_there_are_any() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    let world = world();
    let metrics = service::telemetry::Metrics::install().unwrap();
    let deps = api::Deps { metrics: Some(metrics), ..world.deps() };
    assert!(!format!("{deps:?}").contains(crate::world::TOKEN));
    let service = init_service(App::new().configure(api::routes(deps))).await;
    let with = call_service(&service, TestRequest::get().uri("/metrics").insert_header(bearer()).to_request()).await;
    assert_eq!(with.status(), 200);
    assert_eq!(with.headers().get("content-type").unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    let without = call_service(&service, TestRequest::get().uri("/metrics").to_request()).await;
    assert_eq!(without.status(), 401);
}

#[actix_web::test]
async fn what_is_down_is_a_503_that_says_when_to_come_back() {
    let world = Arc::new(World { down: true, ..World::default() });
    for answer in [
        world.get("/messages").await,
        world.get("/stats").await,
        world.get("/v1/events").await,
        world.post("/v1/directory/import", "{}").await,
    ] {
        let problem = answer.problem(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(problem["detail"], "the database is unavailable; try again");
        assert!(!answer.text().contains("LEAK"), "causes are for the log");
    }
}
