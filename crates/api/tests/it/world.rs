//! Stand-ins and a client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::test::{TestRequest, call_service, init_service, read_body};

use actix_web::{App, http::Method};
use api::Deps;
use async_trait::async_trait;
use bytes::Bytes;
use common::directory::{Directory, Entry};
use common::keys::KeyRing;
use common::{SystemClock, TenantId};
use port_contracts::{ManualClock, MemoryBackend};
use ports::Unavailable;
use ports::directory::{DirectoryStore, WriteError};
use ports::feed::{Feed, FeedFilter, FeedPage, Position};
use ports::message_log::{MessageFilter, MessageLog, MessagePage, MessageTotals};
use serde_json::Value;
use service::health::Readiness;

pub(crate) const TOKEN: &str = "the-admin-token";

/// All ports at once.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) down: bool,
    pub(crate) page: MessagePage,
    pub(crate) totals: MessageTotals,
    pub(crate) feed: Option<FeedPage>,
    pub(crate) directory: Mutex<Directory>,
    /// How often the directory was read.
    pub(crate) looks: AtomicUsize,
    pub(crate) searched: Mutex<Vec<MessageFilter>>,
    pub(crate) summed: Mutex<Vec<Option<TenantId>>>,
    pub(crate) read: Mutex<Vec<(Position, usize, FeedFilter)>>,
    pub(crate) readiness: Readiness,
    pub(crate) access: Tokens,
}

/// What tokens there are, in memory.
pub(crate) struct Tokens(pub(crate) MemoryBackend);

impl Default for Tokens {
    fn default() -> Self {
        Self(MemoryBackend::new(ManualClock::new()))
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl World {
    fn up(&self) -> Result<(), Unavailable> {
        if self.down { Err(Unavailable::new("the database", "dial LEAK: refused")) } else { Ok(()) }
    }

    /// What the API gets of this world.
    pub(crate) fn deps(self: &Arc<Self>) -> Deps {
        let ring = Arc::new(ring());
        Deps {
            feed: Arc::clone(self) as _,
            messages: Arc::clone(self) as _,
            directory: Arc::clone(self) as _,
            access: self.access.0.access(),
            statistics: self.access.0.statistics(),
            parking: self.access.0.parking(),
            raw: self.access.0.raw(),
            blobs: Arc::new(object_store::memory::InMemory::new()),
            prefix: "/api/v1/whatsapp-hardened".to_owned(),
            keys: Arc::new(move || Arc::clone(&ring)),
            clock: Arc::new(SystemClock),
            trusted_proxies: "192.0.2.0/24".parse().unwrap(),
            configured_apps: vec!["from-configuration".to_owned()],
            admin_token: TOKEN.into(),
            metrics: None,
            readiness: self.readiness.clone(),
        }
    }

    /// Sends a request with these headers and this body, to an API of its own.
    pub(crate) async fn send(
        self: &Arc<Self>,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let service = init_service(App::new().configure(api::routes(self.deps()))).await;
        let mut request = TestRequest::with_uri(uri).method(method).set_payload(body);
        for header in headers {
            request = request.append_header(*header);
        }
        let response = call_service(&service, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, body: read_body(response).await };
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        if status.is_client_error() {
            answer.problem(status.as_u16());
        }
        answer
    }

    pub(crate) async fn get(self: &Arc<Self>, uri: &str) -> Answer {
        self.send(Method::GET, uri, &[bearer()], "").await
    }

    pub(crate) async fn post(self: &Arc<Self>, uri: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, uri, &[bearer()], body).await
    }

    /// Asks for something that is refused with 422 and returns the fields it names.
    pub(crate) async fn refused(self: &Arc<Self>, uri: &str) -> Vec<String> {
        self.get(uri).await.refused_fields()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    /// The body, if it is problem details of this status.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let body = self.json();
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["status"], status);
        assert_eq!(body["title"], self.status.canonical_reason().unwrap());
        body
    }

    pub(crate) fn refused_fields(&self) -> Vec<String> {
        let body = self.problem(422);
        let errors = body["errors"].as_array().unwrap();
        assert!(errors.iter().all(|error| error["message"].as_str().is_some_and(|message| !message.is_empty())));
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn bearer() -> (&'static str, &'static str) {
    (AUTHORIZATION.as_str(), "Bearer the-admin-token")
}

pub(crate) fn ring() -> KeyRing {
    KeyRing::parse(&format!("m1 {}\n", "11".repeat(32))).unwrap()
}

#[async_trait]
impl MessageLog for World {
    async fn search(&self, filter: &MessageFilter) -> Result<MessagePage, Unavailable> {
        self.up()?;
        self.searched.lock().unwrap().push(filter.clone());
        Ok(self.page.clone())
    }

    async fn totals(&self, tenant: Option<&TenantId>) -> Result<MessageTotals, Unavailable> {
        self.up()?;
        self.summed.lock().unwrap().push(tenant.cloned());
        Ok(self.totals.clone())
    }
}

#[async_trait]
impl Feed for World {
    async fn read(&self, after: Position, limit: usize, filter: &FeedFilter) -> Result<FeedPage, Unavailable> {
        self.up()?;
        self.read.lock().unwrap().push((after, limit, filter.clone()));
        Ok(self.feed.clone().unwrap_or(FeedPage { events: Vec::new(), next: after }))
    }
}

#[async_trait]
impl DirectoryStore for World {
    async fn snapshot(&self) -> Result<Directory, Unavailable> {
        self.up()?;
        self.looks.fetch_add(1, Ordering::Relaxed);
        Ok(self.directory.lock().unwrap().clone())
    }

    async fn revision(&self) -> Result<u64, Unavailable> {
        self.up()?;
        Ok(self.directory.lock().unwrap().revision)
    }

    async fn changed(&self, _: u64) -> Result<u64, Unavailable> {
        unreachable!("the API never watches the directory")
    }

    async fn write(&self, entries: Vec<Entry>, read_at: u64) -> Result<u64, WriteError> {
        self.up()?;
        let mut directory = self.directory.lock().unwrap();
        if directory.revision != read_at {
            return Err(WriteError::Outdated);
        }
        directory.revision += 1;
        directory.entries.extend(entries.into_iter().map(|entry| (entry.key(), entry)));
        Ok(directory.revision)
    }
}
