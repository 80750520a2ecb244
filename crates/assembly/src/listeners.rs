//! The listeners of a process.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::{HttpServiceBuilder, Request, Response, TlsAcceptorConfig};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, apply_fn_factory, map_config};
use actix_tls::accept::{TlsError, max_concurrent_tls_connect};
use actix_web::dev::{AppConfig, Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use anyhow::Context as _;
use service::connections::Connections;
use service::tls::Tls;
use service::{Tasks, names};
use tokio::net::{TcpSocket, TcpStream};

use crate::unread::close_after_unread;

/// How long running requests and workers have after a stop was asked for.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
/// Idle connections are kept this long: longer than a proxy in front keeps them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A request's head must be complete by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A TLS handshake must be complete by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// TLS handshakes under way at once in each worker; while there are more, it accepts nothing. More than one address can have.
const HANDSHAKES: usize = 2048;
/// Connections that the system holds until a worker takes them.
const BACKLOG: u32 = 1024;
/// How long the other side may take to close a connection that ended.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A listener to be opened.
pub(crate) struct Listener<'a> {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) workers: usize,
    pub(crate) tls: Option<&'a Tls>,
    /// Who counts the connections of each address; without it nobody does.
    pub(crate) connections: Option<Arc<Connections>>,
}

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
        listener: Listener<'_>,
        routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> anyhow::Result<SocketAddr> {
        let Listener { name, address, workers, tls, connections } = listener;
        let socket = bind(address)
            .with_context(|| format!("cannot listen on {address} ({name}); is something else running there?"))?;
        let bound = socket.local_addr().unwrap_or(address);
        let builder = Server::build()
            .workers(workers)
            .max_concurrent_connections(places() / workers.max(1))
            .shutdown_timeout(DRAIN.as_secs())
            .disable_signals();
        let signal = builder.graceful_shutdown_signal();
        let closing = move || {
            let signal = signal.clone();
            async move { signal.notified().await }
        };
        let app = move || {
            let app = App::new().wrap(from_fn(close_after_unread)).configure(routes.clone());
            map_config(app, |()| AppConfig::default())
        };
        let server = match tls.map(Tls::server_config) {
            Some(config) => {
                max_concurrent_tls_connect(HANDSHAKES);
                builder.listen(name, socket, move || {
                    let patience = TlsAcceptorConfig::default().handshake_timeout(HANDSHAKE_TIMEOUT);
                    let http =
                        http(closing.clone(), bound).finish(app()).rustls_0_23_with_config(config.clone(), patience);
                    guarded(http, connections.clone(), |error| {
                        let reason = match error {
                            TlsError::Timeout => "timeout",
                            TlsError::Tls(_) => "refused",
                            TlsError::Service(_) => return,
                        };
                        metrics::counter!(names::HANDSHAKES_FAILED, "reason" => reason).increment(1);
                    })
                })
            }
            None => builder.listen(name, socket, move || {
                guarded(http(closing.clone(), bound).finish(app()).tcp(), connections.clone(), |_| {})
            }),
        };
        let server = server.with_context(|| format!("cannot serve on {address} ({name})"))?.run();
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

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// HTTP on a kind of connection, with the time limits of all listeners.
fn http<T, S, C>(closing: impl Fn() -> C + 'static, bound: SocketAddr) -> HttpServiceBuilder<T, S>
where
    C: Future<Output = ()> + 'static,
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: std::fmt::Debug,
    <S::Service as Service<Request>>::Future: 'static,
{
    HttpServiceBuilder::default()
        .graceful_shutdown_signal(closing)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .local_addr(bound)
}

/// Connections that have no place are closed, before they cost a handshake or a buffer.
fn guarded<F, I>(
    factory: I,
    connections: Option<Arc<Connections>>,
    failed: impl Fn(&F::Error) + Copy + 'static,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = F::Error, InitError = F::InitError>
where
    I: IntoServiceFactory<F, TcpStream>,
    F: ServiceFactory<TcpStream, Config = (), Response = ()>,
{
    apply_fn_factory(factory, move |stream: TcpStream, service: &F::Service| {
        let served = match (&connections, stream.peer_addr()) {
            (None, _) => Some((None, service.call(stream))),
            (Some(connections), Ok(peer)) => {
                connections.enter(peer.ip()).map(|place| (Some(place), service.call(stream)))
            }
            // It is gone already.
            (Some(_), Err(_)) => None,
        };
        async move {
            let Some((_place, served)) = served else {
                metrics::counter!(names::CONNECTIONS_REFUSED).increment(1);
                return Ok(());
            };
            served.await.inspect_err(failed)
        }
    })
}

/// Connections of one listener at most: a quarter of the files that the process may open, so that three listeners leave the
/// last quarter to databases and blobs. More connections wait in the system's queue.
pub(crate) fn places() -> usize {
    #[cfg(unix)]
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    #[cfg(not(unix))]
    let files = 4096_u64;
    usize::try_from(files / 4).unwrap_or(usize::MAX).clamp(128, 50_000)
}
