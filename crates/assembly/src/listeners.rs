//! The listeners of a process.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use service::Tasks;
use service::tls::Tls;

/// How long running requests and workers have after a stop was asked for.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
/// Idle connections are kept this long: longer than a proxy in front keeps them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A request's head must be complete by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The listeners that are bound, in order.
pub(crate) struct Listeners {
    servers: Vec<ServerHandle>,
    tasks: Tasks,
}

impl Listeners {
    pub(crate) fn new(tasks: &Tasks) -> Self {
        Self { servers: Vec::new(), tasks: tasks.clone() }
    }

    /// Binds a listener and starts serving, over TLS if that is given.
    pub(crate) fn serve(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        workers: usize,
        tls: Option<&Tls>,
        routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> anyhow::Result<SocketAddr> {
        let server = HttpServer::new(move || App::new().configure(routes.clone()))
            .workers(workers)
            .max_connections(connections_per_worker(workers))
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIMEOUT)
            .shutdown_timeout(DRAIN.as_secs())
            .disable_signals();
        let server = match tls {
            Some(tls) => server.bind_rustls_0_23(address, tls.server_config()),
            None => server.bind(address),
        };
        let server =
            server.with_context(|| format!("cannot listen on {address} ({name}); is something else running there?"))?;
        let bound = server.addrs().first().copied().unwrap_or(address);
        let server = server.run();
        self.servers.push(server.handle());
        self.tasks.spawn(name, async move {
            if let Err(error) = server.await {
                tracing::error!(listener = name, error = &error as &dyn std::error::Error, "a listener failed");
            }
        });
        Ok(bound)
    }

    /// Closes them one after another; requests under way are answered first.
    pub(crate) async fn stop(&self) {
        for server in &self.servers {
            server.stop(true).await;
        }
    }
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
