//! `/v1/directory/import`.

use std::sync::Arc;

use common::directory::OpenDirectory;

use crate::world::{World, ring};

const IMPORT: &str = "/v1/directory/import";
const DOCUMENT: &str = r#"{
    "tenants": [{"id": "acme", "name": "Acme"}],
    "apps": [{"id": "main", "provider": "meta", "secrets": ["0123456789abcdef"], "verify_tokens": ["v"]}],
    "numbers": [{"phone_number_id": "777", "app": "main", "tenant": "acme"}]
}"#;

#[actix_web::test]
async fn an_import_is_written_once() {
    let world = Arc::new(World::default());
    let first = world.post(IMPORT, DOCUMENT).await;
    assert_eq!((first.status.as_u16(), first.text()), (200, r#"{"changed":3,"revision":1}"#));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(world.post(IMPORT, DOCUMENT).await.text(), r#"{"changed":0,"revision":1}"#);
    assert_eq!(world.post(IMPORT, "{}").await.text(), r#"{"changed":0,"revision":1}"#);
    let open = OpenDirectory::open(&world.directory.lock().unwrap(), &ring()).unwrap();
    assert!(open.app("main").unwrap().accepts_verify_token("v"));
}

#[actix_web::test]
async fn all_problems_come_back_and_nothing_is_written() {
    let world = Arc::new(World::default());
    let document = r#"{"tenants": [{"id": "fine"}, {"id": "LEAK"}],
        "apps": [{"id": "a", "secrets": [], "verify_tokens": []}],
        "numbers": [{"phone_number_id": "1", "app": "b", "tenant": "fine"}]}"#;
    let answer = world.post(IMPORT, document).await;
    assert_eq!(answer.refused_fields(), ["tenants[1].id", "apps[0].secrets", "numbers[0].app"]);
    assert!(!answer.text().contains("LEAK"));
    assert!(world.directory.lock().unwrap().entries.is_empty());
}

#[actix_web::test]
async fn only_an_app_of_meta_must_say_its_verification_tokens() {
    let world = Arc::new(World::default());
    for provider in ["twilio", "generic"] {
        let app = format!(r#"{{"id": "{provider}", "provider": "{provider}", "secrets": ["0123456789abcdef"]}}"#);
        let document = format!(r#"{{"apps": [{app}]}}"#);
        assert_eq!(world.post(IMPORT, document).await.json()["changed"], 1, "{provider}");
        assert_eq!(world.get(&format!("/api/apps/{provider}")).await.json()["verify_tokens"], 0);
    }
    let new = r#"{"id": "more", "provider": "generic", "secrets": ["0123456789abcdef"]}"#;
    assert_eq!(world.post("/api/apps", new).await.status, 201);
    for provider in ["", r#""provider": "meta", "#] {
        let app = format!(r#"{{"id": "a", {provider}"secrets": ["0123456789abcdef"]}}"#);
        let whole = format!(r#"{{"tenants": [{{"id": "Wrong"}}], "apps": [{app}]}}"#);
        assert_eq!(world.post(IMPORT, whole).await.refused_fields(), ["tenants[0].id", "apps[0].verify_tokens"]);
        assert_eq!(world.post("/api/apps", app).await.refused_fields(), ["apps[0].verify_tokens"]);
    }
}

#[actix_web::test]
async fn what_is_not_an_import_is_refused_without_being_repeated() {
    let world = Arc::new(World::default());
    for body in ["", "LEAK", "{", "{\"tenants\": [\"LEAK", "{} LEAK"] {
        let answer = world.post(IMPORT, body.to_owned()).await;
        answer.problem(400);
        assert!(!answer.text().contains("LEAK"));
    }
    assert_eq!(world.post(IMPORT, &b"{\"tenants\":[{\"id\":\"\xff\"}]}"[..]).await.status, 400);
    for body in [
        &"[".repeat(100_000),
        r#""LEAK""#,
        r#"{"LEAK": 1}"#,
        r#"{"tenants": [], "tenants": []}"#,
        r#"{"apps": [{"id": "a", "secrets": "LEAK", "verify_tokens": []}]}"#,
        r#"{"apps": [{"id": "a", "secrets": [{"LEAK": 1}], "verify_tokens": []}]}"#,
        r#"{"apps": [{"id": "a", "provider": "LEAK", "secrets": [], "verify_tokens": []}]}"#,
    ] {
        let answer = world.post(IMPORT, body.to_owned()).await;
        assert_eq!(answer.refused_fields().len(), 1, "{body}");
        assert!(!answer.text().contains("LEAK"), "{}", answer.text());
    }
}

#[actix_web::test]
async fn a_body_may_have_four_mebibytes() {
    let world = Arc::new(World::default());
    let padded = |size: usize| format!("{{}}{}", " ".repeat(size - 2));
    assert_eq!(world.post(IMPORT, padded(4 << 20)).await.status, 200);
    world.post(IMPORT, padded((4 << 20) + 1)).await.problem(413);
}

#[actix_web::test]
async fn imports_take_turns() {
    use actix_web::App;
    use actix_web::test::{TestRequest, call_service, init_service};

    let world = Arc::new(World::default());
    let deps = api::Deps { directory: Arc::new(Slow(Arc::clone(&world))), ..world.deps() };
    let service = init_service(App::new().configure(api::routes(deps))).await;
    let request = || {
        let request = TestRequest::post().uri(IMPORT).insert_header(crate::world::bearer());
        call_service(&service, request.set_payload(DOCUMENT).to_request())
    };
    let (one, two) = tokio::join!(request(), request());
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
    assert_eq!(world.directory.lock().unwrap().revision, 1, "the second found the tenant and made no new keys");
}

/// A directory that lets others run between reading and writing.
struct Slow(Arc<World>);

#[async_trait::async_trait]
impl ports::directory::DirectoryStore for Slow {
    async fn snapshot(&self) -> Result<common::directory::Directory, ports::Unavailable> {
        let snapshot = self.0.snapshot().await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        snapshot
    }

    async fn revision(&self) -> Result<u64, ports::Unavailable> {
        self.0.revision().await
    }

    async fn changed(&self, revision: u64) -> Result<u64, ports::Unavailable> {
        self.0.changed(revision).await
    }

    async fn write(
        &self,
        entries: Vec<common::directory::Entry>,
        read_at: u64,
    ) -> Result<u64, ports::directory::WriteError> {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.0.write(entries, read_at).await
    }
}
