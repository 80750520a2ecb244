//! A normalizer with its backend, directory and blob folder, and the webhooks that tests send through it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use common::directory::{App, Assignment, Directory, Entry, Number, OpenDirectory, Tenant, TenantKeys};
use common::envelope::{self, Disposition, Header, Lane, Packing};
use common::keys::KeyRing;
use common::sealing;
use common::trace::TraceContext;
use common::update::Provider;
use common::{AppId, EnvelopeId, NumberId, RequestId, TenantId, Timestamp};
use normalizer::{Config, Deps, Normalizer, Settled, Work, consumer_live};
use object_store::local::LocalFileSystem;
use port_contracts::clock::START;
use port_contracts::{ManualClock, MemoryBackend};
use ports::event_bus::{Delivery, Outgoing, Stream};
use ports::outbox::Fence;
use service::Tasks;
use tokio::sync::Notify;
use uuid::Uuid;

/// Longer than anything that must happen takes, on a busy machine too.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// When every envelope of the tests was received.
pub(crate) const RECEIVED_AT: Timestamp = START;

pub(crate) struct Scene {
    pub(crate) backend: MemoryBackend,
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) normalizer: Normalizer,
    pub(crate) tasks: Tasks,
    pub(crate) wake: Arc<Notify>,
    pub(crate) folder: tempfile::TempDir,
    ring: KeyRing,
    entries: RwLock<Directory>,
    open: Arc<RwLock<Option<Arc<OpenDirectory>>>>,
}

impl Scene {
    /// Tenants `acme` (number 777) and `other` (number 888) under app `app`; number 666 is of app `strange`.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            archive_at_once: 1,
            outbox_poll: Duration::from_millis(5),
            raw_sweep: Duration::from_millis(20),
            gauges: Duration::from_millis(20),
            stop_grace: Duration::from_millis(50),
            ..Config::default()
        };
        change(&mut config);
        let clock = ManualClock::new();
        let backend = MemoryBackend::new(Arc::clone(&clock));
        let folder = tempfile::tempdir().unwrap();
        let open: Arc<RwLock<Option<Arc<OpenDirectory>>>> = Arc::default();
        let handle = Arc::clone(&open);
        let deps = Deps {
            bus: backend.bus(),
            store: backend.store(),
            outbox: backend.outbox(),
            parking: backend.parking(),
            raw: backend.raw(),
            request_log: backend.request_log(),
            directory: Arc::new(move || handle.read().unwrap().clone()),
            blobs: Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap()),
            clock,
        };
        let ring = KeyRing::parse(&KeyRing::generate_file("m1")).unwrap();
        let wake = Arc::new(Notify::new());
        let normalizer = Normalizer::new(config.clone(), &deps, Arc::clone(&wake));
        let scene = Self {
            backend,
            config,
            deps,
            normalizer,
            tasks: Tasks::new(),
            wake,
            folder,
            ring,
            entries: RwLock::default(),
            open,
        };
        for name in ["acme", "other", "_unassigned"] {
            scene.add_tenant(name);
        }
        for name in ["app", "strange"] {
            let app = App::create(AppId::new(name).unwrap(), Provider::Meta, &["secret"], &["token"], &scene.ring);
            scene.enter(Entry::App(app));
        }
        scene.number("777", "app", &[("acme", Timestamp::default())]);
        scene.number("888", "app", &[("other", Timestamp::default())]);
        scene.number("666", "strange", &[("other", Timestamp::default())]);
        scene
    }

    pub(crate) fn add_tenant(&self, name: &str) {
        self.enter(Entry::Tenant(Tenant::create(tenant(name), None, &self.ring)));
    }

    /// A number and its owners over time.
    pub(crate) fn number(&self, id: &str, app: &str, owners: &[(&str, Timestamp)]) {
        self.enter(Entry::Number(Number {
            id: Some(NumberId::new(id).unwrap()),
            waba: None,
            app: AppId::new(app).unwrap(),
            assignments: owners
                .iter()
                .map(|(name, valid_from)| Assignment { tenant: Some(tenant(name)), valid_from: *valid_from })
                .collect(),
        }));
    }

    pub(crate) fn enter(&self, entry: Entry) {
        let mut directory = self.entries.write().unwrap();
        directory.revision += 1;
        directory.entries.insert(entry.key(), entry);
        *self.open.write().unwrap() = Some(Arc::new(OpenDirectory::open(&directory, &self.ring).unwrap()));
    }

    /// A tenant as the directory has it, or as it would be if it were there.
    pub(crate) fn tenant_entry(&self, name: &str) -> Tenant {
        let known = self.entries.read().unwrap().tenant(&tenant(name)).cloned();
        known.unwrap_or_else(|| Tenant::create(tenant(name), None, &self.ring))
    }

    pub(crate) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The files of the blob store.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    pub(crate) fn forget_the_directory(&self) {
        *self.open.write().unwrap() = None;
    }

    pub(crate) fn keys(&self, name: &str) -> Arc<TenantKeys> {
        let open = self.open.read().unwrap();
        Arc::clone(open.as_ref().unwrap().tenant(&tenant(name)).unwrap())
    }

    pub(crate) fn header(&self, name: &str) -> Header {
        Header {
            id: EnvelopeId::fresh(),
            request: RequestId::fresh(),
            provider: Provider::Meta,
            app: AppId::new("app").unwrap(),
            tenant: tenant(name),
            number: Some(NumberId::new("777").unwrap()),
            received_at: RECEIVED_AT,
            disposition: Disposition::Deliver,
            lane: Lane::Live,
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            body_sha256: "00".repeat(32),
            key: self.keys(name).sealing().id().to_owned(),
            packing: Packing::Plain,
            size: 0,
            updates: 1,
            trace: TraceContext::fresh(),
            delivery: None,
        }
    }

    /// Seals a body for a tenant.
    pub(crate) fn seal(&self, header: Header, body: &str) -> Bytes {
        let keys = self.keys(header.tenant.as_str());
        sealing::seal(header, body.as_bytes(), keys.sealing()).into()
    }

    /// What is in an envelope that is sealed under a tenant's key, with its header.
    pub(crate) fn opened(&self, sealed: &[u8]) -> (Header, String) {
        let parts = envelope::decode(sealed).unwrap();
        let keys = self.keys(parts.header.tenant.as_str());
        let body = sealing::open(&parts, keys.data_key(&parts.header.key).unwrap()).unwrap();
        (parts.header, String::from_utf8(body).unwrap())
    }

    /// Puts bytes on the live lane.
    pub(crate) async fn publish(&self, payload: impl Into<Bytes>) {
        let subject = "inbound.live.acme".to_owned();
        let message =
            Outgoing { stream: Stream::Inbound(Lane::Live), subject, payload: payload.into(), dedup_id: None };
        self.backend.bus().publish(vec![message]).await.remove(0).unwrap();
    }

    /// Seals a body for `acme` and puts it on the live lane.
    pub(crate) async fn send(&self, body: &str) -> EnvelopeId {
        let header = self.header("acme");
        let id = header.id;
        self.publish(self.seal(header, body)).await;
        id
    }

    /// Pulls everything that is there.
    pub(crate) async fn pull(&self) -> Vec<Delivery> {
        let consumer = consumer_live(&self.config);
        let pull = self.deps.bus.pull(&consumer, 1000, Duration::ZERO);
        bounded("a pull", pull).await.unwrap()
    }

    /// Handles deliveries without acknowledging them.
    pub(crate) async fn handle(&self, deliveries: Vec<Delivery>) -> Settled {
        let mut all = Settled::default();
        for mut work in Work::split(deliveries, &self.config) {
            let settled = bounded("a step", self.normalizer.handle(&mut work)).await.unwrap();
            all.done.extend(settled.done);
            all.waiting.extend(settled.waiting);
            all.events += settled.events;
        }
        all
    }

    /// Pulls, handles and acknowledges.
    pub(crate) async fn step(&self) -> Settled {
        let settled = self.handle(self.pull().await).await;
        self.deps.bus.ack(&consumer_live(&self.config), &settled.done).await.unwrap();
        settled
    }

    /// Starts every loop.
    pub(crate) fn start(&self) {
        normalizer::start(self.config.clone(), self.deps.clone(), &self.tasks, Arc::clone(&self.wake));
    }

    /// Asks the loops to stop and waits until they have.
    pub(crate) async fn stop(&self) {
        self.tasks.stop();
        assert!(self.tasks.wait(Duration::from_secs(5)).await, "every loop ends promptly");
    }

    /// Messages on the live lane that are not acknowledged.
    pub(crate) async fn depth(&self) -> u64 {
        self.deps.bus.backlog(&consumer_live(&self.config)).await.unwrap().depth
    }

    /// Gives events positions, as another process would.
    pub(crate) async fn sequence(&self, owner: u128) -> Fence {
        let outbox = self.backend.outbox();
        let fence = outbox.acquire_sequencer(Uuid::from_u128(owner), Duration::from_secs(10)).await.unwrap().unwrap();
        outbox.sequence(fence, 1000).await.unwrap();
        fence
    }

    /// Polls until the condition holds; fails instead of hanging.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        bounded(what, async {
            while !condition(self).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    pub(crate) fn raw_folder(&self) -> PathBuf {
        self.folder.path().join(normalizer::RAW_FOLDER)
    }

    /// Makes every put into the blob folder fail.
    pub(crate) fn take_blobs_down(&self) {
        std::fs::write(self.raw_folder(), "a file where the folder should be").unwrap();
    }

    pub(crate) fn restore_blobs(&self) {
        std::fs::remove_file(self.raw_folder()).unwrap();
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.deps.clock.now()
    }
}

/// Fails instead of hanging.
pub(crate) async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A webhook of number 777 with these elements in a list.
pub(crate) fn webhook(list: &str, elements: &[String]) -> String {
    of_number("777", list, elements)
}

pub(crate) fn of_number(number: &str, list: &str, elements: &[String]) -> String {
    format!(r#"{{"object":"whatsapp_business_account","entry":[{}]}}"#, entry(number, list, elements))
}

pub(crate) fn entry(number: &str, list: &str, elements: &[String]) -> String {
    format!(
        r#"{{"id":"300","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"4915155500011","phone_number_id":"{number}"}},"{list}":[{}]}},"field":"messages"}}]}}"#,
        elements.join(",")
    )
}

/// The `n`th text message, from +4915100000<n>.
pub(crate) fn text(n: u32) -> String {
    format!(
        r#"{{"from":"4915100000{n:03}","id":"wamid.{n:05}","timestamp":"1794999999","type":"text","text":{{"body":"private words {n}"}}}}"#
    )
}

pub(crate) fn status(n: u32, state: &str) -> String {
    format!(r#"{{"id":"wamid.out.{n}","status":"{state}","timestamp":"1794999999","recipient_id":"4915100000{n:03}"}}"#)
}

/// The ids of the messages that were stored, in order.
pub(crate) fn message_ids(backend: &MemoryBackend) -> Vec<String> {
    let id = |update: &ports::event_store::NewUpdate| match &update.event.detail {
        ports::event_store::Detail::Message { id, .. } => Some(id.clone()),
        _ => None,
    };
    backend.committed().iter().filter_map(id).collect()
}
