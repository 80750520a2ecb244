//! A gateway on fakes, and the webhooks it gets.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, test, web};
use common::directory::{App as DirectoryApp, Assignment, Directory, Entry, Number, OpenDirectory, Tenant};
use common::envelope::{Disposition, Lane, decode};
use common::keys::KeyRing;
use common::record::RequestRecord;
use common::update::Provider;
use common::{AppId, NumberId, TenantId, Timestamp};
use ingress::{Config, Deps, Gateway};
use port_contracts::ManualClock;
use port_contracts::memory::{Faults, MemoryBackend, Operation};
use ports::event_bus::Stream;
use service::Tasks;

/// Short, so that a frozen bus does not hold the tests.
pub(crate) const DEADLINE: Duration = Duration::from_millis(60);

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Scene {
    pub(crate) backend: MemoryBackend,
    pub(crate) clock: Arc<ManualClock>,
    gateway: Arc<Gateway>,
    tasks: Tasks,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    pub(crate) retry_after: Option<String>,
}

fn directory() -> OpenDirectory {
    let ring = KeyRing::parse(&KeyRing::generate_file("m1")).unwrap();
    let tenant = |id: &str| TenantId::new(id).unwrap();
    let app = |id: &str, secret: &str| {
        Entry::App(DirectoryApp::create(AppId::new(id).unwrap(), Provider::Meta, &[secret], &["verify"], &ring))
    };
    let number = |id: &str, owner: &str| {
        Entry::Number(Number {
            id: Some(NumberId::new(id).unwrap()),
            waba: None,
            app: AppId::new("main").unwrap(),
            assignments: vec![Assignment { tenant: Some(tenant(owner)), valid_from: Timestamp::default() }],
        })
    };
    let entries = [
        Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring)),
        Entry::Tenant(Tenant::create(tenant("acme"), None, &ring)),
        Entry::Tenant(Tenant::create(tenant("beta"), None, &ring)),
        app("main", "secret"),
        app("other", "other-secret"),
        number("777000111222333", "acme"),
        number("888", "beta"),
    ];
    let entries = entries.into_iter().map(|entry| (entry.key(), entry)).collect();
    OpenDirectory::open(&Directory { revision: 1, entries }, &ring).unwrap()
}

impl Scene {
    pub(crate) fn open() -> Self {
        Self::start(Some(Arc::new(directory())), 100_000, PATIENCE)
    }

    /// Answers after a short deadline at the latest.
    pub(crate) fn impatient() -> Self {
        Self::start(Some(Arc::new(directory())), 100_000, DEADLINE)
    }

    pub(crate) fn with_address_limit(per_second: u32) -> Self {
        Self::start(Some(Arc::new(directory())), per_second, PATIENCE)
    }

    pub(crate) fn without_directory() -> Self {
        Self::start(None, 100_000, PATIENCE)
    }

    fn start(directory: Option<Arc<OpenDirectory>>, per_ip: u32, deadline: Duration) -> Self {
        let clock = ManualClock::new();
        let backend = MemoryBackend::new(clock.clone());
        let tasks = Tasks::new();
        let config = Config {
            deadline,
            per_ip_limit_per_second: per_ip,
            global_limit_per_second: 100_000,
            record_interval: Duration::from_hours(1),
            ..Config::default()
        };
        let deps = Deps {
            bus: backend.bus(),
            admission: backend.admission(),
            directory: Arc::new(move || directory.clone()),
            clock: clock.clone(),
        };
        let gateway = Gateway::start(config, deps, &tasks);
        Self { backend, clock, gateway, tasks }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.backend.faults().clone()
    }

    async fn call(&self, request: test::TestRequest) -> Answer {
        let app =
            App::new().configure(ingress::routes(self.gateway.clone())).default_service(web::to(ingress::not_found));
        let app = test::init_service(app).await;
        let response = test::call_service(&app, request.to_request()).await;
        let status = response.status();
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let body = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        Answer { status, body, retry_after }
    }

    pub(crate) async fn post(&self, path: &str, body: &str, signature: Option<&str>) -> Answer {
        let mut request = test::TestRequest::post().uri(path).set_payload(body.to_owned());
        if let Some(signature) = signature {
            request = request.insert_header(("x-hub-signature-256", signature));
        }
        self.call(request).await
    }

    pub(crate) async fn send(&self, body: &str) -> Answer {
        self.post("/webhooks/meta", body, Some(&signature("secret", body))).await
    }

    pub(crate) async fn send_with(&self, body: &str, signature: Option<&str>) -> Answer {
        self.post("/webhook", body, signature).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.call(test::TestRequest::get().uri(uri)).await
    }

    /// The dispositions of what is on the bus, in order.
    pub(crate) fn dispositions(&self) -> Vec<Disposition> {
        let published = self.backend.published(Stream::Inbound(Lane::Live));
        published.iter().map(|message| decode(&message.payload).unwrap().header.disposition).collect()
    }

    /// Waits until keys were remembered, in however many calls.
    pub(crate) async fn remembered(&self, _keys: usize) {
        let faults = self.backend.faults();
        tokio::time::timeout(Duration::from_secs(5), faults.called(Operation::Remember, 1)).await.unwrap();
        // The call is counted when it begins; the one worker thread lets it end before anything else runs.
        tokio::task::yield_now().await;
    }

    /// The request records, after they were flushed.
    pub(crate) async fn records(&self) -> Vec<RequestRecord> {
        self.tasks.stop();
        assert!(self.tasks.wait(Duration::from_secs(5)).await);
        let published = self.backend.published(Stream::Audit);
        let batches = published
            .iter()
            .map(|message| serde_json::from_slice::<common::record::RecordBatch>(&message.payload).unwrap().records);
        batches.flatten().collect()
    }
}

pub(crate) fn signature(secret: &str, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(ring::hmac::sign(&key, body.as_bytes())))
}

fn entry(number: &str, list: &str) -> String {
    format!(
        r#"{{"id":"w","changes":[{{"value":{{"metadata":{{"phone_number_id":"{number}"}},{list}}},"field":"messages"}}]}}"#
    )
}

fn text(id: &str) -> String {
    format!(
        r#""messages":[{{"from":"351910000001","id":"{id}","timestamp":"1795000000","type":"text","text":{{"body":"hello"}}}}]"#
    )
}

/// A webhook with one text message.
pub(crate) fn message(id: &str) -> String {
    format!(r#"{{"object":"whatsapp_business_account","entry":[{}]}}"#, entry("777000111222333", &text(id)))
}

/// A webhook with one text message for each of two tenants.
pub(crate) fn two_tenants(first: &str, second: &str) -> String {
    format!(r#"{{"entry":[{},{}]}}"#, entry("777000111222333", &text(first)), entry("888", &text(second)))
}

/// A webhook with statuses.
pub(crate) fn statuses(prefix: &str, count: usize) -> String {
    let padding = "x".repeat(100);
    let status = |n| {
        format!(
            r#"{{"id":"{prefix}{n}","status":"sent","timestamp":"1795000000","recipient_id":"351910000001","biz_opaque_callback_data":"{padding}"}}"#
        )
    };
    let list = (0..count).map(status).collect::<Vec<_>>().join(",");
    format!(r#"{{"entry":[{}]}}"#, entry("777000111222333", &format!(r#""statuses":[{list}]"#)))
}
