//! `wharf up`: all jobs in one process, started in order, stopped in reverse.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use backend_embedded::{DataFolder, Embedded};
use common::directory::OpenDirectory;
use common::update::Provider;
use common::{Clock, SystemClock};
use object_store::local::LocalFileSystem;
use secrecy::SecretString;
use service::Tasks;
use service::directory::DirectoryWatch;
use service::health::{Readiness, health_routes, metrics_route};
use service::keys::KeyFile;
use service::telemetry::{self, LogFormat, Metrics};

use crate::bootstrap;
use crate::config::{BackendKind, Config, Mode};

/// How long running requests and workers have after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(20);
/// Idle connections are kept this long: longer than a proxy in front keeps them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A request's head must be complete by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A running Wharf.
pub(crate) struct Running {
    /// Where the public listener is.
    pub(crate) public: SocketAddr,
    /// Where the API is.
    pub(crate) api: SocketAddr,
    /// Where health and metrics are.
    pub(crate) admin: SocketAddr,
    /// The API's token.
    pub(crate) token: SecretString,
    /// Where the token is kept, if in a file.
    pub(crate) token_file: Option<PathBuf>,
    key_file: PathBuf,
    key_file_is_new: bool,
    servers: Vec<ServerHandle>,
    readiness: Readiness,
    drain_pause: Duration,
    tasks: Tasks,
    backend: Embedded,
    directory: Arc<DirectoryWatch>,
    _folder: DataFolder,
}

/// Starts all jobs. When it returns, webhooks are taken. What was started is stopped again if something fails.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Running> {
    let tasks = Tasks::new();
    let mut opened = None;
    let started = start_all(config, &tasks, &mut opened).await;
    if started.is_err() {
        tasks.stop();
        tasks.wait(DRAIN).await;
        if let Some(backend) = opened {
            backend.close().await;
        }
    }
    started
}

async fn start_all(config: &Config, tasks: &Tasks, opened: &mut Option<Embedded>) -> anyhow::Result<Running> {
    let BackendKind::Embedded = config.backend.kind;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Metrics::install().context("cannot install the metrics recorder")?;
    let folder = DataFolder::lock(&config.data_dir)?;
    let key_file = config.key_file();
    let (token, token_file) = bootstrap::admin_token(config, folder.path())?;
    let data_file = config.data_file().map_err(anyhow::Error::msg)?;
    if let Some(parent) = data_file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    bootstrap::complete(folder.path(), &data_file)?;
    let backend = Embedded::open(&folder, &data_file, clock.clone()).await.context("cannot open the databases")?;
    *opened = Some(backend.clone());
    let (keys, key_file_is_new) = bootstrap::keys(&key_file, &*backend.directory).await?;
    let keys = Arc::new(keys);
    bootstrap::directory(&*backend.directory, &keys.ring(), config, clock.now()).await?;

    let readiness = Readiness::new();
    metrics.keep_up(tasks);
    let store = backend.directory.clone();
    keys.watch(tasks, move |ring| {
        use ports::directory::DirectoryStore as _;
        let store = store.clone();
        async move {
            OpenDirectory::open(&store.snapshot().await?, &ring)?;
            Ok(())
        }
    });
    let directory_writer = Arc::new(tokio::sync::Mutex::new(()));
    rewrap_on_change(&backend, &keys, &directory_writer, tasks);
    let directory = watch_directory(&backend, &keys, &readiness, tasks);
    let current: Arc<dyn Fn() -> Option<Arc<OpenDirectory>> + Send + Sync> = {
        let directory = directory.clone();
        Arc::new(move || directory.current())
    };
    let blobs = config.data_dir.join("blobs");
    std::fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
    let blobs = LocalFileSystem::new_with_prefix(blobs).context("cannot use the folder of blobs")?.with_fsync(true);
    normalizer::start(
        config.normalizer(),
        normalizer::Deps {
            bus: backend.bus.clone(),
            store: backend.store.clone(),
            outbox: backend.outbox.clone(),
            request_log: backend.request_log.clone(),
            directory: current.clone(),
            blobs: Arc::new(blobs),
            clock: clock.clone(),
        },
        tasks,
        Arc::new(tokio::sync::Notify::new()),
    );
    let gateway = ingress::Gateway::start(
        config.ingress(),
        ingress::Deps {
            bus: backend.bus.clone(),
            admission: backend.admission.clone(),
            directory: current,
            clock: clock.clone(),
        },
        tasks,
    );
    watch_servers(gateway.clone(), &backend, &readiness, tasks);

    let gateway_routes = ingress::routes(gateway);
    let health = health_routes(readiness.clone());
    let api_routes = {
        let keys = keys.clone();
        api::routes(api::Deps {
            feed: backend.feed.clone(),
            messages: backend.message_log.clone(),
            directory: backend.directory.clone(),
            keys: Arc::new(move || keys.ring()),
            clock,
            directory_writer,
            admin_token: token.clone(),
            metrics: Some(metrics.clone()),
            readiness: readiness.clone(),
        })
    };
    let mut servers = Vec::new();
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let public_health = health.clone();
    let public = serve(&mut servers, tasks, "public", config.listen.public, workers, move |app| {
        gateway_routes(app);
        public_health(app);
        app.default_service(web::to(ingress::not_found));
    })?;
    let api = serve(&mut servers, tasks, "API", config.listen.api, 1, api_routes)?;
    let admin_metrics = metrics_route(metrics);
    let admin = serve(&mut servers, tasks, "admin", config.listen.admin, 1, move |app| {
        health(app);
        admin_metrics(app);
    })?;
    Ok(Running {
        public,
        api,
        admin,
        token,
        token_file,
        key_file,
        key_file_is_new,
        servers,
        readiness,
        drain_pause: Duration::from_millis(config.listen.drain_pause_ms),
        tasks: tasks.clone(),
        backend,
        directory,
        _folder: folder,
    })
}

/// Binds a listener and starts serving.
fn serve(
    servers: &mut Vec<ServerHandle>,
    tasks: &Tasks,
    name: &'static str,
    address: SocketAddr,
    workers: usize,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<SocketAddr> {
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(workers)
        .max_connections(connections_per_worker(workers))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(DRAIN.as_secs())
        .disable_signals()
        .bind(address)
        .with_context(|| format!("cannot listen on {address} ({name}); is something else running there?"))?;
    let bound = server.addrs().first().copied().unwrap_or(address);
    let server = server.run();
    servers.push(server.handle());
    tasks.spawn(name, async move {
        if let Err(error) = server.await {
            tracing::error!(listener = name, error = &error as &dyn std::error::Error, "a listener failed");
        }
    });
    Ok(bound)
}

/// Connections of one worker at most: together a quarter of the files that the process may open, so that three listeners
/// leave the last quarter to databases and blobs. More connections wait in the system's queue.
fn connections_per_worker(workers: usize) -> usize {
    #[cfg(unix)]
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    #[cfg(not(unix))]
    let files = 4096_u64;
    usize::try_from(files / 4).unwrap_or(usize::MAX).clamp(128, 50_000) / workers.max(1)
}

fn watch_directory(
    backend: &Embedded,
    keys: &Arc<KeyFile>,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Arc<DirectoryWatch> {
    readiness.report("directory", true, false);
    readiness.report("secrets", true, false);
    let readiness = readiness.clone();
    DirectoryWatch::start(backend.directory.clone(), keys.clone(), tasks, move |directory| {
        readiness.report("directory", true, true);
        readiness.report("secrets", true, directory.has_secrets(Provider::Meta));
    })
}

/// Looks at the bus and the database once a second. Without the database webhooks are taken all the same.
fn watch_servers(gateway: Arc<ingress::Gateway>, backend: &Embedded, readiness: &Readiness, tasks: &Tasks) {
    use ports::outbox::Outbox as _;
    readiness.report("bus", true, true);
    readiness.report("database", false, true);
    let outbox = backend.outbox.clone();
    let (readiness, stopping) = (readiness.clone(), tasks.clone());
    tasks.spawn("readiness", async move {
        loop {
            tokio::select! {
                () = stopping.stopping() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            readiness.report("bus", true, gateway.is_bus_up());
            let asked = tokio::time::timeout(Duration::from_secs(1), outbox.unpublished()).await;
            readiness.report("database", false, matches!(asked, Ok(Ok(_))));
        }
    });
}

/// Brings everything under a new active master key as soon as the key file names one.
fn rewrap_on_change(
    backend: &Embedded,
    keys: &Arc<KeyFile>,
    directory_writer: &Arc<tokio::sync::Mutex<()>>,
    tasks: &Tasks,
) {
    let (store, mut changes, stopping) = (backend.directory.clone(), keys.subscribe(), tasks.clone());
    let directory_writer = directory_writer.clone();
    tasks.spawn("rewrap", async move {
        use ports::directory::DirectoryStore as _;
        loop {
            tokio::select! {
                () = stopping.stopping() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            let ring = changes.borrow_and_update().clone();
            let result = async {
                let _turn = directory_writer.lock().await;
                let entries = store.snapshot().await?.rewrap(&ring)?;
                let count = entries.len();
                if count > 0 {
                    store.write(entries).await?;
                }
                anyhow::Ok(count)
            }
            .await;
            match result {
                Ok(0) => {}
                Ok(count) => tracing::info!(entries = count, "the directory is under the new master key"),
                Err(error) => tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "cannot bring the directory under the new master key; the old one must stay"
                ),
            }
        }
    });
}

impl Running {
    /// Resolves when a task of the process has ended unexpectedly.
    pub(crate) async fn failed(&self) {
        self.tasks.failed().await;
    }

    /// Whether a provider has a secret.
    pub(crate) async fn has_secrets(&self) -> bool {
        // The first load is under way while the listeners start.
        let loaded = async {
            loop {
                if let Some(directory) = self.directory.current() {
                    return directory.has_secrets(Provider::Meta);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), loaded).await.unwrap_or(false)
    }

    /// Stops in order: readiness, listeners with their running requests, workers, databases. False if something took
    /// too long and was cut off.
    pub(crate) async fn stop(self) -> bool {
        self.readiness.drain();
        tokio::time::sleep(self.drain_pause).await;
        for server in &self.servers {
            server.stop(true).await;
        }
        self.tasks.stop();
        let complete = self.tasks.wait(DRAIN).await;
        self.backend.close().await;
        complete
    }
}

/// The command.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
pub(crate) async fn run(config: Config, notes: Vec<String>) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(config.log_level(), config.log_format().unwrap_or(LogFormat::Auto));
    let version = if config.app.version.is_empty() { env!("CARGO_PKG_VERSION") } else { &config.app.version };
    tracing::info!(app = config.app.name, version, mode = ?config.mode, "starting");
    for note in notes {
        tracing::warn!("{note}");
    }
    if config.meta.has_outbound_settings() {
        tracing::warn!("settings for sending messages are understood, but this version does not send");
    }
    if config.mode == Mode::Production && !config.listen.public.ip().is_loopback() {
        tracing::warn!("the public listener speaks plain HTTP; put a TLS proxy in front of it");
    }
    let running = start(&config).await?;
    eprintln!("{}", banner(&running, &config).await);
    tokio::select! {
        () = service::stop::wait_for_signal() => tracing::info!("stopping; a second signal stops at once"),
        () = running.failed() => {
            running.stop().await;
            anyhow::bail!("a job ended unexpectedly; the log says which");
        }
    }
    tokio::select! {
        complete = running.stop() => {
            if !complete {
                tracing::warn!("some work did not end in time; it will be done after the next start");
            }
            Ok(ExitCode::SUCCESS)
        }
        () = service::stop::wait_for_signal() => Ok(ExitCode::FAILURE),
    }
}

/// This program, as a shell finds it.
pub(crate) fn program() -> String {
    std::env::current_exe().map_or_else(|_| "wharf".to_owned(), |path| path.display().to_string())
}

async fn banner(running: &Running, config: &Config) -> String {
    let token = match &running.token_file {
        Some(path) => format!("token in {}", path.display()),
        None => "token as configured".to_owned(),
    };
    let new = if running.key_file_is_new { " (new: keep a copy, without it nothing stored can be read)" } else { "" };
    let mut text = format!(
        "\n  webhooks   http://{}/webhooks/meta\n  API        http://{}   ({token})\n  metrics    http://{}/metrics\n  \
         data       {}\n  keys       {}{new}\n",
        running.public,
        running.api,
        running.admin,
        config.data_dir.display(),
        running.key_file.display(),
    );
    if running.has_secrets().await {
        let _ = write!(
            text,
            "\n  Send a signed message (it signs with WHATSAPP_APP_SECRET from the environment, or --secret):\n    \
             {} simulate send --url http://{}/webhooks/meta --messages 1 --statuses 0\n",
            program(),
            running.public
        );
    } else {
        let _ = write!(
            text,
            "\n  No provider has a secret yet, so every webhook is refused. Either set WHATSAPP_APP_SECRET and\n  \
             WHATSAPP_VERIFY_TOKEN and start again, or register tenants:\n    {0} tenants import FILE\n  \
             To see Wharf at work without either:\n    {0} demo\n",
            program()
        );
        let _ = writeln!(text, "{} demo", program());
    }
    text
}

/// `wharf migrate`.
#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let folder = DataFolder::lock(&config.data_dir)?;
    let data_file = config.data_file().map_err(anyhow::Error::msg)?;
    Embedded::migrate(&folder, &data_file).await.context("cannot migrate the databases")?;
    println!("the databases in {} are up to date", config.data_dir.display());
    Ok(ExitCode::SUCCESS)
}
