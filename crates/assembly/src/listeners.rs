//! The listeners of a process.

mod connection;
mod unread;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpServiceBuilder, Request, Response};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use anyhow::Context as _;
use service::connections::{Connections, Place};
use service::networks::Networks;
use service::tls::Tls;
use service::windows::Addresses;
use service::{Tasks, names};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use connection::{Connection, Measured};
use unread::close_after_unread;

/// How long running requests and workers have after a stop was asked for.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);
/// A request's head must be complete by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A TLS handshake must be complete by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that the system holds until a worker takes them.
const BACKLOG: u32 = 1024;
/// Bytes of answers that the system holds for somebody who does not read them, and as many again for its own use.
const SEND_BUFFER: u32 = 64 << 10;
/// How long the other side may take to close a connection that ended.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A listener to be opened.
pub(crate) struct Listener<'a> {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) workers: usize,
    pub(crate) tls: Option<&'a Tls>,
}

/// What clients may take up of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// Between two requests, a connection is kept so long.
    pub(crate) keep_alive: Duration,
    /// Connections of one address at once.
    pub(crate) connections: usize,
    /// TLS connections that one address may begin in a second.
    pub(crate) handshakes: u32,
    /// Those that may have any number.
    pub(crate) proxies: Networks,
}

/// The listeners that are bound, in order.
pub(crate) struct Listeners {
    servers: Vec<ServerHandle>,
    allowance: Allowance,
    tasks: Tasks,
}

impl Listeners {
    pub(crate) fn new(allowance: Allowance, tasks: &Tasks) -> Self {
        Self { servers: Vec::new(), allowance, tasks: tasks.clone() }
    }

    /// Binds a listener and starts serving, over TLS if that is given.
    pub(crate) fn serve(
        &mut self,
        listener: &Listener<'_>,
        routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> anyhow::Result<SocketAddr> {
        let Listener { name, address, workers, tls } = *listener;
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
        let keep_alive = self.allowance.keep_alive;
        let door = Door {
            connections: Connections::new(self.allowance.connections, self.allowance.proxies.clone()),
            proxies: self.allowance.proxies.clone(),
            handshakes: tls.map(|_| Arc::new((Instant::now(), Addresses::new(self.allowance.handshakes)))),
            idle: keep_alive + HEAD_TIMEOUT,
        };
        let server = match tls.map(Tls::server_config) {
            Some(mut config) => {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let acceptor = TlsAcceptor::from(Arc::new(config));
                builder.listen(name, socket, move || {
                    let acceptor = acceptor.clone();
                    let http = http(keep_alive, closing.clone(), bound).h1(app());
                    door.clone().open(http, async move |connection| handshake(&acceptor, connection).await)
                })
            }
            None => builder.listen(name, socket, move || {
                let http = http(keep_alive, closing.clone(), bound).h1(app());
                door.clone().open(http, async |connection| Some(connection))
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
    // Accepted connections have the same. How far a slow reader has come is only seen when a part of it is free.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// HTTP on a kind of connection, with the time limits of all listeners.
fn http<T, S, C>(keep_alive: Duration, closing: impl Fn() -> C + 'static, bound: SocketAddr) -> HttpServiceBuilder<T, S>
where
    C: Future<Output = ()> + 'static,
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: std::fmt::Debug,
    <S::Service as Service<Request>>::Future: 'static,
{
    HttpServiceBuilder::default()
        .graceful_shutdown_signal(closing)
        .keep_alive(keep_alive)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .local_addr(bound)
}

/// What every connection comes through.
#[derive(Clone)]
struct Door {
    connections: Arc<Connections>,
    proxies: Networks,
    /// What is counted of TLS, since when.
    handshakes: Option<Arc<(Instant, Addresses)>>,
    idle: Duration,
}

impl Door {
    /// A place for a connection, if its address may have one more.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let place = self.connections.enter(address)?;
        if let Some((began, handshakes)) = self.handshakes.as_deref()
            && !self.proxies.contains(address)
            && !handshakes.admit(address, began.elapsed())
        {
            return None;
        }
        Some(place)
    }

    /// A service of connections. Those that have no place are closed before they cost a handshake or a buffer; the others
    /// become what `accept` makes of them, and are served by `http`.
    fn open<F, T>(
        self,
        http: F,
        accept: impl AsyncFn(Connection) -> Option<T> + Clone + 'static,
    ) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = F::InitError>
    where
        F: ServiceFactory<(Measured<T>, Option<SocketAddr>), Config = (), Response = ()> + 'static,
        T: 'static,
    {
        fn_factory(move || {
            let (http, accept, door) = (http.new_service(()), accept.clone(), self.clone());
            async move {
                let http = Rc::new(http.await?);
                Ok(fn_service(move |stream: TcpStream| {
                    let (http, accept, door) = (http.clone(), accept.clone(), door.clone());
                    async move {
                        // Without an address it is gone already.
                        let Ok(peer) = stream.peer_addr() else { return Ok(()) };
                        let Some(_place) = door.enter(peer.ip()) else {
                            metrics::counter!(names::CONNECTIONS_REFUSED).increment(1);
                            return Ok(());
                        };
                        let _ = stream.set_nodelay(true);
                        let (connection, keeper) = Connection::new(stream);
                        if let Some(accepted) = accept(connection).await {
                            let measured = keeper.measured(accepted);
                            keeper.keep(door.idle, http.call((measured, Some(peer)))).await;
                        }
                        Ok(())
                    }
                }))
            }
        })
    }
}

/// TLS, if it comes to that.
async fn handshake(acceptor: &TlsAcceptor, connection: Connection) -> Option<TlsStream<Connection>> {
    let reason = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(connection)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(_)) => "refused",
        Err(_) => "timeout",
    };
    metrics::counter!(names::HANDSHAKES_FAILED, "reason" => reason).increment(1);
    None
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
