//! Tenants, numbers, apps and tokens; and that a token opens what its scope says and shows its own tenant alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::Method;
use async_trait::async_trait;
use common::access::{Scope, Token, TokenText};
use common::directory::{Directory, Entry, Tenant, TenantStatus};
use common::{Clock as _, SystemClock, TenantId};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Answer, World, bearer};

pub(crate) async fn call(world: &Arc<World>, method: Method, uri: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.send(method, uri, &[bearer()], body).await
}

/// A world with two tenants that have a number each, of one app.
pub(crate) async fn two_tenants() -> Arc<World> {
    let world = Arc::new(World::default());
    for id in ["acme", "globex"] {
        let made = call(&world, Method::POST, "/api/tenants", json!({"id": id, "name": "A name"})).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert_eq!(made.header("location"), Some(&*format!("/api/tenants/{id}")));
    }
    let app = json!({"id": "main", "secrets": ["0123456789abcdef"], "verify_tokens": ["v"]});
    assert_eq!(call(&world, Method::POST, "/api/apps", app).await.status, 201);
    for (tenant, number) in [("acme", "777"), ("globex", "888")] {
        let assigned = json!({"app": "main", "waba_id": format!("w{number}")});
        let uri = format!("/api/tenants/{tenant}/numbers/{number}");
        assert_eq!(call(&world, Method::PUT, &uri, assigned).await.status, 200);
    }
    world
}

pub(crate) async fn token(world: &World, scope: Scope, tenant: Option<&str>) -> String {
    let text = TokenText::fresh();
    let token = Token {
        id: Uuid::now_v7(),
        name: "a token".to_owned(),
        scope,
        tenant: tenant.map(|id| TenantId::new(id).unwrap()),
        created_at: SystemClock.now(),
        expires_at: None,
        revoked_at: None,
    };
    world.access.0.access().add_token(&token, text.hash()).await.unwrap();
    format!("Bearer {}", text.expose())
}

pub(crate) async fn with(world: &Arc<World>, token: &str, method: Method, uri: &str, body: &str) -> Answer {
    world.send(method, uri, &[("authorization", token)], body.to_owned()).await
}

#[actix_web::test]
async fn a_tenant_is_made_changed_listed_and_found() {
    let world = two_tenants().await;
    let all = world.get("/api/tenants").await.json();
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    let acme = &all["data"][0];
    assert_eq!((&acme["id"], &acme["name"], &acme["status"]), (&json!("acme"), &json!("A name"), &json!("active")));
    assert_eq!(acme["numbers"][0]["phone_number_id"], "777");
    assert_eq!(acme["numbers"][0]["valid_from"], "1970-01-01T00:00:00Z", "what was parked for it is its own");
    for (query, found) in [("waba=w888", "globex"), ("number=777", "acme"), ("status=active&after=acme", "globex")] {
        let answer = world.get(&format!("/api/tenants?{query}")).await.json();
        assert_eq!(answer["data"][0]["id"], found, "{query}");
        assert_eq!(answer["data"].as_array().unwrap().len(), 1, "{query}");
    }
    let first = world.get("/api/tenants?limit=1").await.json();
    assert_eq!((&first["data"][0]["id"], &first["next"]), (&json!("acme"), &json!("acme")));
    let changed = call(&world, Method::PUT, "/api/tenants/acme", json!({"status": "paused"})).await.json();
    assert_eq!((&changed["status"], &changed["name"]), (&json!("paused"), &json!("A name")));
    let again = call(&world, Method::POST, "/api/tenants", json!({"id": "acme"})).await;
    again.problem(409);
    for (body, field) in [
        (json!({"id": "Acme"}), "id"),
        (json!({"id": "_unassigned"}), "id"),
        (json!({"id": "a", "name": " "}), "name"),
        (json!({"id": "a", "name": "acme\u{202e}"}), "name"),
        (json!({"id": "a", "extra": 1}), "line 1, column 8"),
    ] {
        let refused = call(&world, Method::POST, "/api/tenants", body.clone()).await;
        assert!(refused.refused_fields()[0].starts_with(&field[..2]), "{body}");
    }
    for uri in ["/api/tenants/nobody", "/api/tenants/_unassigned", "/api/tenants/%20"] {
        world.get(uri).await.problem(404);
    }
}

#[actix_web::test]
async fn an_id_that_is_written_otherwise_is_the_same_id_in_the_log_too() {
    let world = two_tenants().await;
    let uri = "/api/tenants/acme/numbers/%2B14155550100";
    let assigned = call(&world, Method::PUT, uri, json!({"app": "main"})).await.json();
    assert_eq!(assigned["numbers"][0]["phone_number_id"], "+14155550100");
    assert_eq!(world.get("/api/actions?limit=1").await.json()["data"][0]["target"], "+14155550100");
    assert_eq!(call(&world, Method::DELETE, uri, Value::Null).await.status, 200);
    assert_eq!(call(&world, Method::DELETE, "/api/tenants/%61cme", Value::Null).await.status, 200);
    let listed = world.get("/api/actions?limit=1&tenant=acme").await.json();
    assert_eq!(listed["data"][0]["target"], "acme");
    for uri in ["/api/tenants/glo%20bex", "/api/tenants/globex%2F", "/api/tenants/%ff", "/api/tenants/%E2%80%AEglobex"]
    {
        call(&world, Method::DELETE, uri, Value::Null).await.problem(404);
    }
    assert_eq!(world.get("/api/tenants/globex").await.json()["status"], "active");
}

#[actix_web::test]
async fn an_import_gives_nothing_to_a_tenant_who_has_left() {
    let world = two_tenants().await;
    call(&world, Method::DELETE, "/api/tenants/acme", Value::Null).await;
    let import = json!({"numbers": [{"phone_number_id": "777", "app": "main", "tenant": "acme"}]});
    let refused = call(&world, Method::POST, "/v1/directory/import", import).await;
    assert!(refused.refused_fields()[0].starts_with("numbers[0].tenant"));
}

#[actix_web::test]
async fn a_number_moves_and_is_released() {
    let world = two_tenants().await;
    let moved = call(&world, Method::PUT, "/api/tenants/globex/numbers/777", json!({"app": "main"})).await.json();
    assert_eq!(moved["numbers"].as_array().unwrap().len(), 2);
    assert_ne!(moved["numbers"][0]["valid_from"], "1970-01-01T00:00:00Z", "what came before stays where it was");
    assert_eq!(world.get("/api/tenants/acme").await.json()["numbers"], json!([]));
    call(&world, Method::DELETE, "/api/tenants/acme/numbers/777", Value::Null).await.problem(404);
    let released = call(&world, Method::DELETE, "/api/tenants/globex/numbers/777", Value::Null).await.json();
    assert_eq!(released["numbers"].as_array().unwrap().len(), 1);
    call(&world, Method::PUT, "/api/tenants/acme/numbers/999", json!({"app": "nowhere"})).await.problem(422);
    call(&world, Method::PUT, "/api/tenants/nobody/numbers/999", json!({"app": "main"})).await.problem(404);
}

#[actix_web::test]
async fn an_offboarded_tenant_has_no_number_and_no_token_and_does_not_come_back() {
    let world = two_tenants().await;
    let own = token(&world, Scope::TenantReader, Some("acme")).await;
    assert_eq!(with(&world, &own, Method::GET, "/messages", "").await.status, 200);
    let gone = call(&world, Method::DELETE, "/api/tenants/acme", Value::Null).await.json();
    assert_eq!(
        (&gone["status"], &gone["numbers_released"], &gone["tokens_revoked"]),
        (&json!("offboarded"), &json!(1), &json!(1))
    );
    with(&world, &own, Method::GET, "/messages", "").await.problem(401);
    call(&world, Method::PUT, "/api/tenants/acme", json!({"status": "active"})).await.problem(409);
    call(&world, Method::PUT, "/api/tenants/acme/numbers/777", json!({"app": "main"})).await.problem(409);
    let again = call(&world, Method::DELETE, "/api/tenants/acme", Value::Null).await.json();
    assert_eq!(again["numbers_released"], 0);
}

#[actix_web::test]
async fn the_directory_is_read_again_when_it_has_changed_and_only_then() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_and_read_body_json, init_service};

    let world = two_tenants().await;
    let service = init_service(App::new().configure(api::routes(world.deps()))).await;
    let name = async |request: TestRequest| {
        let request = request.uri("/api/tenants/acme").insert_header(bearer()).to_request();
        let tenant: Value = call_and_read_body_json(&service, request).await;
        tenant["name"].as_str().unwrap().to_owned()
    };
    let before = world.looks.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(name(TestRequest::get()).await, "A name");
    }
    assert_eq!(world.looks.load(Ordering::Relaxed) - before, 1);
    assert_eq!(name(TestRequest::put().set_payload(r#"{"name":"Here"}"#)).await, "Here");
    // By another process.
    let seen = world.snapshot().await.unwrap();
    let acme = seen.tenant(&TenantId::new("acme").unwrap()).unwrap().clone();
    let renamed = Entry::Tenant(Tenant { name: Some("There".to_owned()), ..acme });
    world.write(vec![renamed], seen.revision).await.unwrap();
    assert_eq!(name(TestRequest::get()).await, "There");
}

#[actix_web::test]
async fn long_lists_come_in_pages() {
    let world = two_tenants().await;
    for id in ["a", "z"] {
        let app = json!({"id": id, "provider": "generic", "secrets": ["0123456789abcdef"]});
        assert_eq!(call(&world, Method::POST, "/api/apps", app).await.status, 201);
    }
    for n in 0..4 {
        token(&world, Scope::TenantReader, Some(if n == 2 { "globex" } else { "acme" })).await;
    }
    let uris = ["/api/tenants?", "/api/apps?", "/api/tokens?", "/api/tokens?tenant=acme&", "/api/actions?"];
    for (uri, on) in uris.into_iter().zip(["after", "after", "before", "before", "before"]) {
        let whole = world.get(uri).await.json();
        assert!(whole.get("next").is_none(), "{whole}");
        let whole = whole["data"].as_array().unwrap().clone();
        assert!(whole.len() >= 2);
        let (mut seen, mut from) = (Vec::new(), String::new());
        loop {
            let page = world.get(&format!("{uri}limit=1{from}")).await.json();
            seen.extend(page["data"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { break };
            assert_eq!(next, page["data"][0]["id"]);
            from = format!("&{on}={next}");
        }
        assert_eq!(seen, whole, "{uri}");
        for wrong in ["limit=0", "limit=1001", &format!("{on}=%20")] {
            world.get(&format!("{uri}{wrong}")).await.problem(422);
        }
    }
    assert_eq!(world.get("/api/apps").await.json()["data"][1]["numbers"], 2);
}

#[actix_web::test]
async fn what_the_next_start_would_set_back_does_not_change_here() {
    let world = two_tenants().await;
    let app = json!({"id": "from-configuration", "secrets": ["0123456789abcdef"], "verify_tokens": ["token"]});
    assert_eq!(call(&world, Method::POST, "/api/apps", app).await.status, 201);
    let uri = "/api/apps/from-configuration";
    let rotation = json!({"secret": "fedcba9876543210"});
    let refused = call(&world, Method::POST, &format!("{uri}/secrets"), rotation).await.problem(409);
    assert!(refused["detail"].as_str().unwrap().contains("WHATSAPP_APP_SECRET"), "{refused}");
    call(&world, Method::PUT, uri, json!({"verify_tokens": ["another"]})).await.problem(409);
    call(&world, Method::DELETE, uri, Value::Null).await.problem(409);
    let changed = call(&world, Method::PUT, uri, json!({"public_url": "https://hooks.example.com"})).await.json();
    assert_eq!(changed["public_url"], "https://hooks.example.com");
}

#[actix_web::test]
async fn a_secret_rotates_with_overlap_and_never_comes_out() {
    let world = two_tenants().await;
    let uri = "/api/apps/main/secrets";
    let rotated = call(&world, Method::POST, uri, json!({"secret": "fedcba9876543210"})).await.json();
    assert_eq!(rotated["secrets"].as_array().unwrap().len(), 2);
    assert!(rotated["secrets"][0]["accepted_until"].is_null());
    assert!(rotated["secrets"][1]["accepted_until"].is_string());
    let ended = json!({"secret": "a-third-one-1234", "overlap_hours": 0});
    let ended = call(&world, Method::POST, uri, ended).await.json();
    assert_eq!(ended["secrets"].as_array().unwrap().len(), 1);
    call(&world, Method::POST, uri, json!({"secret": " "})).await.problem(422);
    call(&world, Method::DELETE, "/api/apps/main", Value::Null).await.problem(409);
    for tenant in ["acme", "globex"] {
        call(&world, Method::DELETE, &format!("/api/tenants/{tenant}"), Value::Null).await;
    }
    let retired = call(&world, Method::DELETE, "/api/apps/main", Value::Null).await.json();
    assert_eq!((&retired["secrets"], &retired["default"]), (&json!([]), &json!(false)));
    for answer in [world.get("/api/apps").await, world.get("/api/apps/main").await, world.get("/api/actions").await] {
        for secret in ["fedcba9876543210", "0123456789abcdef", "a-third-one"] {
            assert!(!answer.text().contains(secret));
        }
    }
}

#[actix_web::test]
async fn an_app_of_twilio_has_an_account_and_an_address() {
    let world = Arc::new(World::default());
    let app = json!({"id": "tw", "provider": "twilio", "secrets": ["0123456789abcdef"], "verify_tokens": [],
                     "account": "AC00000000000000000000000000000001", "public_url": "https://hooks.example.com"});
    assert_eq!(call(&world, Method::POST, "/api/apps", app).await.json()["public_url"], "https://hooks.example.com");
    for wrong in ["hooks.example.com", "https://hooks.example.com/path", "ftp://x", "https://a:b@hooks.example.com", ""]
    {
        call(&world, Method::PUT, "/api/apps/tw", json!({"public_url": wrong})).await.problem(422);
    }
    let changed = call(&world, Method::PUT, "/api/apps/tw", json!({"default": false})).await.json();
    assert_eq!(
        (&changed["default"], &changed["account"]),
        (&json!(false), &json!("AC00000000000000000000000000000001"))
    );
}

#[actix_web::test]
async fn a_token_is_shown_once_ends_and_is_revoked() {
    let world = two_tenants().await;
    let new = json!({"name": "dashboard", "scope": "tenant-reader", "tenant": "acme", "expires_in_days": 30});
    let made = call(&world, Method::POST, "/api/tokens", new).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    let text = made["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {text}");
    let own = with(&world, &bearer, Method::GET, "/api/tokens/self", "").await.json();
    assert_eq!((&own["scope"], &own["tenant"]), (&json!("tenant-reader"), &json!("acme")));
    assert!(!world.get("/api/tokens").await.text().contains(&text));
    let id = made["id"].as_str().unwrap();
    assert_eq!(call(&world, Method::DELETE, &format!("/api/tokens/{id}"), Value::Null).await.status, 204);
    with(&world, &bearer, Method::GET, "/api/tokens/self", "").await.problem(401);
    assert!(world.get("/api/tokens?tenant=acme").await.json()["data"][0]["revoked_at"].is_string());
    call(&world, Method::DELETE, &format!("/api/tokens/{}", Uuid::nil()), Value::Null).await.problem(404);
    for wrong in [
        json!({"name": "x", "scope": "tenant-reader"}),
        json!({"name": "x", "scope": "admin", "tenant": "acme"}),
        json!({"name": "x", "scope": "tenant-reader", "tenant": "nobody"}),
        json!({"name": "", "scope": "admin"}),
        json!({"name": "x", "scope": "root"}),
        json!({"name": "x", "scope": "admin", "expires_in_days": 0}),
    ] {
        call(&world, Method::POST, "/api/tokens", wrong).await.problem(422);
    }
}

/// Every route with the scopes that open it, as documented. What is not open is 403, whatever the request holds.
#[actix_web::test]
async fn each_route_opens_to_its_scopes_alone() {
    use Scope::{Admin, Operator, TenantReader};
    const READ: &[Scope] = &[Admin, Operator, TenantReader];
    const OPERATE: &[Scope] = &[Admin, Operator];
    const ADMIN: &[Scope] = &[Admin];
    let routes: &[(Method, &str, &[Scope])] = &[
        (Method::GET, "/messages", READ),
        (Method::GET, "/stats", READ),
        (Method::GET, "/v1/events", READ),
        (Method::POST, "/v1/directory/import", ADMIN),
        (Method::GET, "/api/tenants", OPERATE),
        (Method::POST, "/api/tenants", ADMIN),
        (Method::GET, "/api/tenants/acme", &Scope::ALL),
        (Method::PUT, "/api/tenants/acme", OPERATE),
        (Method::PUT, "/api/tenants/acme/numbers/777", OPERATE),
        (Method::DELETE, "/api/tenants/acme/numbers/777", OPERATE),
        (Method::DELETE, "/api/tenants/acme", ADMIN),
        (Method::GET, "/api/apps", OPERATE),
        (Method::POST, "/api/apps", ADMIN),
        (Method::GET, "/api/apps/main", OPERATE),
        (Method::PUT, "/api/apps/main", ADMIN),
        (Method::POST, "/api/apps/main/secrets", ADMIN),
        (Method::DELETE, "/api/apps/main", ADMIN),
        (Method::GET, "/api/tokens", ADMIN),
        (Method::POST, "/api/tokens", ADMIN),
        (Method::GET, "/api/tokens/self", &Scope::ALL),
        (Method::DELETE, "/api/tokens/00000000-0000-0000-0000-000000000000", ADMIN),
        (Method::GET, "/api/actions", OPERATE),
        (Method::GET, "/api/parked", READ),
        (Method::GET, "/api/parked/groups", OPERATE),
        (Method::POST, "/api/parked/release", OPERATE),
        (Method::GET, "/api/webhooks", READ),
        (Method::GET, "/api/raw/00000000-0000-0000-0000-000000000000", READ),
        (Method::GET, "/api/security", OPERATE),
        (Method::GET, "/api/v1/whatsapp-hardened/stats", OPERATE),
        (Method::GET, "/stats?hours=1", OPERATE),
    ];
    // Each that is documented. The page of metrics is not served here, and `/stats` stands here for two.
    let documented = include_str!("../../../../docs/api.md").lines();
    let is_route =
        |line: &&str| ["GET", "POST", "PUT", "DELETE"].iter().any(|it| line.starts_with(&format!("| `{it} /")));
    assert_eq!(documented.filter(is_route).count(), routes.len());
    for scope in Scope::ALL {
        for (method, uri, scopes) in routes {
            let world = two_tenants().await;
            let bearer = token(&world, scope, scope.is_of_tenant().then_some("acme")).await;
            let answer = with(&world, &bearer, method.clone(), uri, "").await;
            let is_open = answer.status != 403;
            assert_eq!(is_open, scopes.contains(&scope), "{scope} {method} {uri}: {}", answer.text());
        }
    }
}

/// On every route that a tenant's token opens, what is another's is refused or not there, and its own is all it asks of.
#[actix_web::test]
async fn another_tenants_token_sees_nothing() {
    for scope in [Scope::TenantReader, Scope::TenantSender] {
        let world = two_tenants().await;
        let bearer = token(&world, scope, Some("globex")).await;
        with(&world, &bearer, Method::GET, "/api/tenants/acme", "").await.problem(404);
        assert_eq!(with(&world, &bearer, Method::GET, "/api/tenants/globex", "").await.status, 200);
        for path in ["/messages", "/stats", "/v1/events", "/api/parked", "/api/webhooks"] {
            with(&world, &bearer, Method::GET, &format!("{path}?tenant=acme"), "").await.problem(403);
        }
        assert!(world.searched.lock().unwrap().is_empty() && world.summed.lock().unwrap().is_empty());
    }
    let world = two_tenants().await;
    let bearer = token(&world, Scope::TenantReader, Some("globex")).await;
    for uri in
        ["/messages", "/stats", "/v1/events", "/api/webhooks", "/messages?tenant=globex", "/api/webhooks?tenant=globex"]
    {
        assert_eq!(with(&world, &bearer, Method::GET, uri, "").await.status, 200, "{uri}");
    }
    let own = TenantId::new("globex").unwrap();
    let searched = world.searched.lock().unwrap();
    assert_eq!(searched.len(), 4);
    assert!(searched.iter().all(|filter| filter.tenant.as_ref() == Some(&own)));
    assert_eq!(*world.summed.lock().unwrap(), [Some(own.clone())]);
    assert_eq!(world.read.lock().unwrap()[0].2.tenant, Some(own));
}

#[actix_web::test]
async fn an_address_that_guesses_has_to_wait_and_locks_nobody_out() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    let world = two_tenants().await;
    let (known, new) = (token(&world, Scope::Operator, None).await, token(&world, Scope::Operator, None).await);
    let service = init_service(App::new().configure(api::routes(world.deps()))).await;
    let status = async |bearer: &str| {
        let request = TestRequest::get().uri("/api/tenants").insert_header(("authorization", bearer));
        let response = call_service(&service, request.to_request()).await;
        let wait = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), wait)
    };
    assert_eq!(status(&known).await.0, 200);
    for n in 0..30 {
        assert_eq!(status(&format!("Bearer wrong-{n}")).await, (401, None));
    }
    assert_eq!(status("Bearer wrong-again").await, (429, Some("60".to_owned())));
    assert_eq!(status(&new).await.0, 429);
    assert_eq!(status(&known).await.0, 200);
    assert_eq!(status("Bearer the-admin-token").await.0, 200);
}

/// A directory in which a tenant leaves just after somebody looked.
struct LeavesAfterALook {
    world: Arc<World>,
    left: AtomicBool,
}

#[async_trait]
impl DirectoryStore for LeavesAfterALook {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        let seen = self.world.snapshot().await?;
        if !self.left.swap(true, Ordering::Relaxed) {
            let acme = TenantId::new("acme").unwrap();
            let left = Tenant { status: TenantStatus::Offboarded, ..seen.tenant(&acme).unwrap().clone() };
            self.world.write(vec![Entry::Tenant(left)], seen.revision).await.unwrap();
            self.world.access.0.access().revoke_tokens_of(&acme, SystemClock.now()).await?;
        }
        Ok(seen)
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        self.world.revision().await
    }

    async fn changed(&self, revision: u64) -> Result<u64, Unavailable> {
        self.world.changed(revision).await
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        self.world.write(entries, read_at).await
    }
}

#[actix_web::test]
async fn no_token_outlives_a_tenant_that_leaves_meanwhile() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    let world = two_tenants().await;
    let directory = Arc::new(LeavesAfterALook { world: world.clone(), left: AtomicBool::new(false) });
    let service = init_service(App::new().configure(api::routes(api::Deps { directory, ..world.deps() }))).await;
    let body = r#"{"name":"n","scope":"tenant-reader","tenant":"acme"}"#;
    let request = TestRequest::post().uri("/api/tokens").insert_header(bearer()).set_payload(body);
    assert_eq!(call_service(&service, request.to_request()).await.status().as_u16(), 422);
    let kept = world.get("/api/tokens?tenant=acme").await.json();
    assert!(kept["data"].as_array().unwrap().iter().all(|token| token["revoked_at"].is_string()), "{kept}");
}
