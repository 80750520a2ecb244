//! The API listener: searching messages, statistics, the event feed, and the administration of tenants, apps and tokens.
//!
//! It serves operators and consumers, so every route but health asks for a token, and the module `routes` says of
//! which scope. It reads and writes through ports only and answers every error as problem details (RFC 9457). It is deliberately not part of the gateway: no
//! webhook arrives here, and nothing here is needed for one to be stored. It ends no TLS and binds no socket; whoever
//! wires a process does.

mod access;
mod actions;
mod answer;
mod apps;
mod body;
mod directory;
mod events;
mod import;
mod log;
mod messages;
mod numbers;
mod parked;
mod plan;
mod problem;
mod query;
mod raw;
mod routes;
mod statistics;
mod tenants;
mod tokens;
mod webhooks;

use std::fmt;
use std::sync::Arc;

use actix_web::http::header::HeaderValue;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use common::Clock;
use common::keys::KeyRing;
use object_store::ObjectStore;
use ports::access::Access;
use ports::directory::DirectoryStore;
use ports::feed::Feed;
use ports::message_log::MessageLog;
use ports::parking::Parking;
use ports::raw::RawIndex;
use ports::statistics::Statistics;
use secrecy::SecretString;
use service::health::{Readiness, health_routes, metrics_response};
use service::networks::Networks;
use service::telemetry::Metrics;

pub use import::{Import, ImportApp, ImportNumber, ImportTenant, VerifyTokens};
pub use plan::apply_import;

use access::Tokens;
use directory::Snapshots;
use problem::Problem;
use routes::ApiRoute;

/// What the API needs.
pub struct Deps {
    /// Where `/v1/events` reads.
    pub feed: Arc<dyn Feed>,
    /// Where `/messages` and `/stats` look.
    pub messages: Arc<dyn MessageLog>,
    /// Tenants, apps and numbers.
    pub directory: Arc<dyn DirectoryStore>,
    /// Tokens, and what was done with them.
    pub access: Arc<dyn Access>,
    /// What requests and messages come to.
    pub statistics: Arc<dyn Statistics>,
    /// What is parked.
    pub parking: Arc<dyn Parking>,
    /// Where raw envelopes are.
    pub raw: Arc<dyn RawIndex>,
    /// The blob store that holds most of them.
    pub blobs: Arc<dyn ObjectStore>,
    /// What stands in front of the paths of earlier services; empty for none.
    pub prefix: String,
    /// The key ring of this moment; imported secrets and new tenants' keys are wrapped under its first key.
    pub keys: Arc<dyn Fn() -> Arc<KeyRing> + Send + Sync>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Apps whose secrets and verification tokens the configuration sets anew at each start: they do not change here.
    pub configured_apps: Vec<String>,
    /// Proxies whose word on clients' addresses counts, for the log of actions and for wrong tokens.
    pub trusted_proxies: Networks,
    /// A token that has the scope of an admin without being stored. An empty one opens nothing.
    pub admin_token: SecretString,
    /// Serves `/metrics` when given.
    pub metrics: Option<Metrics>,
    /// What `/ready` shows.
    pub readiness: Readiness,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// What handlers share, over all of a server's threads.
struct State {
    feed: Arc<dyn Feed>,
    messages: Arc<dyn MessageLog>,
    directory: Snapshots,
    keys: Arc<dyn Fn() -> Arc<KeyRing> + Send + Sync>,
    access: Arc<dyn Access>,
    statistics: Arc<dyn Statistics>,
    parking: Arc<dyn Parking>,
    raw: Arc<dyn RawIndex>,
    blobs: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    configured_apps: Vec<String>,
    trusted_proxies: Networks,
    tokens: Tokens,
    routes: Vec<ApiRoute>,
    metrics: Option<Metrics>,
}

/// What [`health_routes`] answers, for methods that it leaves over.
const HEALTH_PATHS: [&str; 4] = ["/health", "/health/live", "/ready", "/health/ready"];

/// All routes of the API listener, for `App::configure`. It claims every path.
pub fn routes(deps: Deps) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let readiness = deps.readiness;
    let state = Arc::new(State {
        feed: deps.feed,
        messages: deps.messages,
        directory: Snapshots::new(deps.directory),
        keys: deps.keys,
        configured_apps: deps.configured_apps,
        trusted_proxies: deps.trusted_proxies,
        tokens: Tokens::new(deps.access.clone(), &deps.admin_token),
        access: deps.access,
        statistics: deps.statistics,
        parking: deps.parking,
        raw: deps.raw,
        blobs: deps.blobs,
        clock: deps.clock,
        routes: routes::all(deps.metrics.is_some(), deps.prefix.trim_end_matches('/')),
        metrics: deps.metrics,
    });
    move |config| {
        let guarded = web::scope("")
            .wrap(from_fn(access::guard))
            .configure(|config| routes::register(&state.routes, config))
            .default_service(web::to(not_found));
        let all = web::scope("")
            .wrap(from_fn(answer::finish))
            .configure(health_routes(readiness.clone()))
            .service(web::resource(HEALTH_PATHS).default_service(web::to(health_is_read_only)))
            .service(guarded);
        config.app_data(Data::from(Arc::clone(&state))).service(all);
    }
}

async fn metrics_page(state: Data<State>) -> Result<HttpResponse, Problem> {
    state.metrics.as_ref().map(metrics_response).ok_or_else(Problem::not_found)
}

async fn health_is_read_only() -> impl Responder {
    Err::<HttpResponse, _>(Problem::method_not_allowed(Some(HeaderValue::from_static("GET"))))
}

async fn not_found() -> impl Responder {
    Err::<HttpResponse, _>(Problem::not_found())
}
