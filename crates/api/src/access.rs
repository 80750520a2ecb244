//! Who may do what: every request is authenticated, allowed or refused by its route's scopes, and, if it changes
//! something or opens something sealed, written down before it is done.
//!
//! This guards a whole scope, not single handlers, so a new route is closed unless [`routes`](mod@crate::routes) opens it,
//! and unknown paths tell nothing to strangers. Beside the tokens that are stored there is one of the configuration,
//! with the scope of an admin: with it the first ones are made.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, ResponseError as _, rt};
use common::TenantId;
use common::access::{Action, Scope, Token, TokenHash};
use moka::sync::Cache;
use percent_encoding::percent_decode_str;
use ports::access::Access;
use secrecy::{ExposeSecret as _, SecretString};
use service::client::client_address;
use service::networks::Networks;
use uuid::Uuid;

use crate::log::Log;
use crate::problem::Problem;
use crate::routes::ApiRoute;
use crate::{State, log};

/// A token that was looked up is known for so long: a revocation by another process takes effect within it.
const REMEMBERED: Duration = Duration::from_secs(5);
const MAX_REMEMBERED: u64 = 10_000;
/// A token that was valid within this time is looked up whatever comes from its address: others there, behind the same
/// proxy, must not lock it out.
const TRUSTED: Duration = Duration::from_hours(24);
/// Refused requests of one address within [`FAILURES_FOR`] before its unknown tokens are not even looked up.
const MAX_FAILURES: u32 = 30;
/// What one token may try that its scope does not open, and a tenant's how often look at raw webhooks, within
/// [`FAILURES_FOR`] before that is no longer written down: a token of small scope must not fill the log.
const MAX_ATTEMPTS: u32 = 60;
const FAILURES_FOR: Duration = Duration::from_mins(1);
/// Addresses, and tokens, whose failures are counted at once.
const MAX_COUNTED: u64 = 10_000;
/// Actions that are written down by one statement.
const AT_ONCE: usize = 1000;
/// The longest part of a path that is written down as what something was done to.
const MAX_TARGET: usize = 64;

/// The name under which the token of the configuration acts.
const CONFIGURATION: &str = "configuration";

/// What tokens there are.
pub(crate) struct Tokens {
    stored: Arc<dyn Access>,
    /// The configuration's; `None` if it is empty, which opens nothing.
    admin: Option<TokenHash>,
    known: Cache<TokenHash, Option<Arc<Token>>>,
    trusted: Cache<TokenHash, ()>,
    failures: Failures<IpAddr>,
    /// By token; `None` is the configuration's.
    attempts: Failures<Option<Uuid>>,
}

/// What went wrong within [`FAILURES_FOR`] of the first time, for each of those who did it.
struct Failures<K> {
    counts: Cache<K, Arc<AtomicU32>>,
    max: u32,
}

/// How often somebody failed before this time.
#[derive(PartialEq, Eq)]
enum Failed {
    Never,
    Seldom,
    /// As often as he may: for the first time more than that.
    Enough,
    TooOften,
}

impl<K: Hash + Eq + Send + Sync + 'static> Failures<K> {
    fn new(max: u32) -> Self {
        Self { counts: Cache::builder().max_capacity(MAX_COUNTED).time_to_live(FAILURES_FOR).build(), max }
    }

    /// Whether as many are counted as may be.
    fn are_too_many(&self, of: &K) -> bool {
        self.counts.get(of).is_some_and(|count| count.load(Ordering::Relaxed) >= self.max)
    }

    /// Counts one more.
    fn count(&self, of: K) -> Failed {
        match self.counts.get_with(of, Arc::default).fetch_add(1, Ordering::Relaxed) {
            0 => Failed::Never,
            before if before < self.max => Failed::Seldom,
            before if before == self.max => Failed::Enough,
            _ => Failed::TooOften,
        }
    }
}

/// Why a request was not let in.
enum Stranger {
    Unauthorized,
    TooMany,
    Problem(Problem),
}

impl Tokens {
    pub(crate) fn new(stored: Arc<dyn Access>, admin: &SecretString) -> Self {
        let admin = admin.expose_secret();
        Self {
            stored,
            admin: (!admin.is_empty()).then(|| TokenHash::of(admin.as_bytes())),
            known: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(REMEMBERED).build(),
            trusted: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(TRUSTED).build(),
            failures: Failures::new(MAX_FAILURES),
            attempts: Failures::new(MAX_ATTEMPTS),
        }
    }

    /// Forgets what was looked up, after a change.
    pub(crate) fn forget(&self) {
        self.known.invalidate_all();
    }

    async fn caller(&self, state: &State, headers: &HeaderMap, from: IpAddr) -> Result<Caller, Stranger> {
        let Some(presented) = presented(headers) else { return Err(self.failed(from)) };
        // Hashes of 256 bits: how they compare tells nothing of a token.
        let hash = TokenHash::of(presented);
        if self.admin == Some(hash) {
            return Ok(Caller { token: None, name: CONFIGURATION.to_owned(), scope: Scope::Admin, tenant: None });
        }
        let token = match self.known.get(&hash) {
            Some(known) => known,
            None if self.failures.are_too_many(&from) && !self.trusted.contains_key(&hash) => {
                return Err(self.failed(from));
            }
            None => {
                let found = self.stored.find_token(hash).await.map_err(|error| Stranger::Problem(error.into()))?;
                let found = found.map(Arc::new);
                self.known.insert(hash, found.clone());
                found
            }
        };
        let Some(token) = token.filter(|token| token.is_valid_at(state.clock.now())) else {
            return Err(self.failed(from));
        };
        self.trusted.insert(hash, ());
        Ok(Caller { token: Some(token.id), name: token.name.clone(), scope: token.scope, tenant: token.tenant.clone() })
    }

    fn failed(&self, from: IpAddr) -> Stranger {
        match self.failures.count(from) {
            Failed::Never => tracing::warn!(client.address = %from, "an API request without a valid token"),
            Failed::Enough => {
                tracing::warn!(client.address = %from, "more of them; this address has to wait");
                return Stranger::TooMany;
            }
            Failed::Seldom => {}
            Failed::TooOften => return Stranger::TooMany,
        }
        Stranger::Unauthorized
    }

    /// Counts what would fill the log of actions; the answer, if it is too much.
    fn tried(&self, caller: &Caller) -> Result<(), Problem> {
        let failed = self.attempts.count(caller.token);
        if failed == Failed::Enough {
            tracing::warn!(token = caller.name, "a token fills the log of actions; it has to wait");
        }
        if matches!(failed, Failed::Never | Failed::Seldom) {
            return Ok(());
        }
        Err(Problem::too_many("this token has filled the log of actions enough for now", FAILURES_FOR))
    }
}

/// The token of exactly one `Authorization: Bearer` header; the scheme's case does not matter (RFC 9110, section 11.1).
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) token: Option<Uuid>,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    tenant: Option<TenantId>,
}

impl Caller {
    /// Whose data a list shows: what was asked for, or the caller's own, and never another's.
    pub(crate) fn sees(&self, asked: Option<TenantId>) -> Result<Option<TenantId>, Problem> {
        match (&self.tenant, asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(asked)) if asked == *own => Ok(Some(asked)),
            (Some(_), Some(_)) => Err(Problem::forbidden("this token is of another tenant")),
        }
    }

    /// Refuses what is another tenant's as if it were not there.
    pub(crate) fn may_see(&self, tenant: &TenantId) -> Result<(), Problem> {
        if self.tenant.as_ref().is_none_or(|own| own == tenant) { Ok(()) } else { Err(Problem::not_found()) }
    }
}

/// Handlers take the caller as an argument. Behind the guard there always is one.
impl FromRequest for Caller {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(request.extensions().get::<Self>().cloned().ok_or_else(Problem::unauthorized))
    }
}

/// See the module's documentation.
pub(crate) async fn guard(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let from = client(&request, &state.trusted_proxies);
    let caller = match state.tokens.caller(&state, request.headers(), from).await {
        Ok(caller) => caller,
        Err(stranger) => {
            let problem = match stranger {
                Stranger::Unauthorized => Problem::unauthorized(),
                Stranger::TooMany => {
                    Problem::too_many("too many requests with unknown tokens come from this address", FAILURES_FOR)
                }
                Stranger::Problem(problem) => problem,
            };
            return Ok(request.into_response(problem.error_response()));
        }
    };
    let pattern = request.match_pattern().unwrap_or_default();
    let Some(route) = state.routes.iter().find(|route| route.method == *request.method() && route.pattern == pattern)
    else {
        // Nothing is here, or another method is.
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let action = match route.is_logged.then(|| action(&state, &request, &caller, from, route)).transpose() {
        Ok(action) => action,
        Err(problem) => return Ok(request.into_response(problem.error_response())),
    };
    if !route.scopes.contains(&caller.scope) {
        if let Some(action) = action {
            if let Err(problem) = state.tokens.tried(&caller) {
                return Ok(request.into_response(problem.error_response()));
            }
            // An attempt; what is refused needs no trace to be refused.
            write_down(&state, &[Action { status: Some(StatusCode::FORBIDDEN.as_u16()), ..action }]).await;
        }
        let problem = Problem::forbidden("this token's scope does not open this");
        return Ok(request.into_response(problem.error_response()));
    }
    let is_tenants_look = *request.method() == Method::GET && caller.tenant.is_some();
    if action.is_some()
        && is_tenants_look
        && let Err(problem) = state.tokens.tried(&caller)
    {
        return Ok(request.into_response(problem.error_response()));
    }
    request.extensions_mut().insert(caller);
    let Some(action) = action else { return Ok(next.call(request).await?.map_into_boxed_body()) };
    if let Err(error) = state.tokens.stored.begin_actions(std::slice::from_ref(&action)).await {
        // What leaves no trace is not done.
        return Ok(request.into_response(Problem::unavailable(&error).error_response()));
    }
    // To its end, also when the caller hangs up: what is changed then must be written down.
    let finished = rt::spawn(finish(state, action, log::collect(next.call(request))));
    finished.await.unwrap_or_else(|_| Err(Problem::internal("the request was not handled to its end").into()))
}

/// Waits for a request that is handled, and writes down what came of it.
async fn finish<B: MessageBody + 'static>(
    state: Data<State>,
    action: Action,
    handled: impl Future<Output = (Result<ServiceResponse<B>, Error>, Log)> + 'static,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let (response, log) = handled.await;
    let response = response?.map_into_boxed_body();
    let (status, done) = (response.status().as_u16(), log.done());
    if let Err(error) = state.tokens.stored.finish_action(action.id, status, &done).await {
        tracing::warn!(error = &error as &dyn std::error::Error, action = %action.id, "how an action ended is not recorded");
    }
    let own = action.tenant.as_ref().or(done.tenant.as_ref());
    let others = log.others(own).into_iter().map(|(tenant, details)| {
        let (id, target) = (Uuid::now_v7(), action.target.clone().or_else(|| done.target.clone()));
        Action { id, target, details, tenant: Some(tenant), status: Some(status), ..action.clone() }
    });
    for part in others.collect::<Vec<_>>().chunks(AT_ONCE) {
        write_down(&state, part).await;
    }
    Ok(response)
}

/// Writes down what is over, all of one request.
async fn write_down(state: &State, actions: &[Action]) {
    let Some(first) = actions.first() else { return };
    if let Err(error) = state.tokens.stored.begin_actions(actions).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, action = first.action, actions = actions.len(), "actions are not recorded");
    }
}

/// The client's address: as the nearest trusted proxy saw it, if the connection comes from one.
fn client(request: &ServiceRequest, proxies: &Networks) -> IpAddr {
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()).to_canonical();
    let lines = |name: &str| request.headers().get_all(name).map(HeaderValue::as_bytes).collect::<Vec<_>>();
    if proxies.contains(peer) {
        client_address(peer, lines("x-forwarded-for"), lines("forwarded"), proxies)
    } else {
        peer
    }
}

/// The action, or the answer to one whose path names what cannot be.
fn action(
    state: &State,
    request: &ServiceRequest,
    caller: &Caller,
    source_ip: IpAddr,
    route: &ApiRoute,
) -> Result<Action, Problem> {
    let pattern = route.pattern.as_str();
    // Before the handler is found the framework does not know them.
    let of_path = |name: &str| match parameter(pattern, request.path(), name) {
        Some(text) => decoded(text).map(Some).ok_or_else(route.unnamed),
        None => Ok(None),
    };
    let (tenant, target) = (of_path("tenant")?, of_path("id")?.or(of_path("number")?));
    Ok(Action {
        id: Uuid::now_v7(),
        at: state.clock.now(),
        token: caller.token,
        actor: caller.name.clone(),
        action: format!("{} {pattern}", request.method()),
        tenant: tenant.as_ref().and_then(|text| text.parse().ok()).or_else(|| caller.tenant.clone()),
        target: target.or(tenant),
        details: None,
        source_ip,
        status: None,
    })
}

/// The part of a path that stands where its pattern has `{name}`.
fn parameter<'p>(pattern: &str, path: &'p str, name: &str) -> Option<&'p str> {
    let mut both = pattern.split('/').zip(path.split('/'));
    let found = both.find(|(part, _)| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) == Some(name));
    found.map(|(_, text)| text)
}

/// An id of a path as its handler will see it (`%2B1415…` is `+1415…`), if it is short and plain as ids are.
fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_.:".contains(&byte);
    (text.len() <= MAX_TARGET && text.bytes().all(is_plain)).then(|| text.into_owned())
}

/// Whether requests of a method are written down unless their route says otherwise.
pub(crate) fn changes_something(method: &Method) -> bool {
    *method != Method::GET
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(values: &[&'static [u8]]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        presented(&headers).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_token_is_what_one_bearer_header_holds() {
        assert_eq!(token(&[b"Bearer s3cret"]).unwrap(), b"s3cret");
        assert_eq!(token(&[b"bearer  s3cret"]).unwrap(), b"s3cret");
        for wrong in [&b""[..], b"s3cret", b"Basic s3cret", b"Bearer", b"Bearer ", b"Bearers3cret"] {
            assert_eq!(token(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!(token(&[b"Bearer s3cret", b"Bearer s3cret"]), None);
        assert_eq!(token(&[]), None);
    }

    #[test]
    fn only_plain_ids_can_be_written_down() {
        for (text, id) in
            [("acme-1", "acme-1"), ("+14155550100", "+14155550100"), ("%2b1415", "+1415"), ("%61cme", "acme")]
        {
            assert_eq!(decoded(text).as_deref(), Some(id));
        }
        for text in ["a b", "é", "%C3%A9", "%2F", "%25", "%", "%ff", &"a".repeat(65)] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
