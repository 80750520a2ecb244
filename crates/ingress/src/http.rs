//! The HTTP side: routes, and reading bodies with a clock and a limit.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use actix_web::web::{self, Bytes, BytesMut, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use common::RequestId;
use common::trace::TraceContext;
use common::update::Provider;
use futures_util::StreamExt as _;
use providers::meta::verification;
use providers::twilio;
use service::names;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::answer::Answer;
use crate::gateway::{Gateway, Incoming, VERIFY_TOKEN};
use crate::limits::Buffered;
use crate::verification::HEADERS;

/// The largest body of a provider that sends one message at a time, in bytes.
const SMALL_BODY: usize = 256 << 10;
/// The largest form, in bytes. Twilio signs all of it after each spelling of the address, so it is what costs most to check;
/// a message has at most 1600 characters.
const FORM: usize = 64 << 10;

/// A path that webhooks come to.
#[derive(Clone, Copy)]
struct Door {
    path: &'static str,
    /// The path without prefix and app, for records.
    endpoint: &'static str,
    /// Whose webhooks; `None` if the signature decides.
    provider: Option<Provider>,
    /// Whether the path is served under the prefix too.
    is_prefixed: bool,
}

impl Door {
    const fn new(path: &'static str, endpoint: &'static str, provider: Option<Provider>) -> Self {
        Self { path, endpoint, provider, is_prefixed: false }
    }

    const fn prefixed(self) -> Self {
        Self { is_prefixed: true, ..self }
    }

    /// Whose it is where nothing else says so.
    fn usual(&self) -> Provider {
        self.provider.unwrap_or(Provider::Meta)
    }

    fn methods(&self) -> &'static str {
        if self.provider == Some(Provider::Generic) { "POST" } else { "GET, POST" }
    }
}

/// One canonical path a provider, with the app's id and without, and those of earlier services.
const DOORS: [Door; 9] = [
    Door::new("/webhooks/meta", "/webhooks/meta", Some(Provider::Meta)),
    Door::new("/webhooks/meta/{app}", "/webhooks/meta", Some(Provider::Meta)),
    Door::new("/webhooks/twilio", "/webhooks/twilio", Some(Provider::Twilio)),
    Door::new("/webhooks/twilio/{app}", "/webhooks/twilio", Some(Provider::Twilio)),
    Door::new("/webhooks/generic", "/webhooks/generic", Some(Provider::Generic)),
    Door::new("/webhooks/generic/{app}", "/webhooks/generic", Some(Provider::Generic)),
    Door::new("/webhook", "/webhook", None).prefixed(),
    Door::new("/whatsapp/webhook", "/whatsapp/webhook", Some(Provider::Meta)),
    Door::new("/twilio/webhook", "/twilio/webhook", Some(Provider::Twilio)).prefixed(),
];

/// Adds the routes of the gateway.
pub fn routes(gateway: Arc<Gateway>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config.app_data(Data::from(gateway.clone()));
        let prefix = gateway.config.prefix.trim_end_matches('/');
        for door in DOORS {
            let prefixed = (door.is_prefixed && !prefix.is_empty()).then(|| format!("{prefix}{}", door.path));
            for path in prefixed.into_iter().chain([door.path.to_owned()]) {
                let resource = web::resource(path).app_data(door).route(web::post().to(receive));
                let resource = match door.provider {
                    Some(Provider::Meta) | None => resource.route(web::get().to(handshake)),
                    Some(Provider::Twilio) => resource.route(web::get().to(receive)),
                    Some(Provider::Generic) => resource,
                };
                config.service(resource.default_service(web::route().to(method_not_allowed)));
            }
        }
    }
}

fn door(request: &HttpRequest) -> Door {
    request.app_data::<Door>().copied().unwrap_or(DOORS[0])
}

/// Whether a request may come at all, from where it comes.
fn admit(request: &HttpRequest, gateway: &Gateway, provider: Option<Provider>) -> (IpAddr, Result<(), Answer>) {
    let front = &gateway.config.front;
    let client = front.client(request);
    let is_meta = provider.is_none_or(|provider| provider == Provider::Meta);
    (client, front.admit(request, client, is_meta).and_then(|()| gateway.admit_ip(client)))
}

/// The handshake: the challenge for the right token, else 403.
async fn handshake(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    let (id, door) = (RequestId::fresh(), door(&request));
    let (source_ip, admitted) = admit(&request, &gateway, door.provider);
    let recorded = |answer: Answer| {
        gateway.record_early(id, Provider::Meta, door.endpoint, source_ip, &answer);
        answer.respond(id, Provider::Meta)
    };
    if let Err(answer) = admitted {
        return recorded(answer);
    }
    let app = request.match_info().get("app");
    let challenge = verification::parse_query(request.query_string());
    let accepted = challenge.as_ref().map(|challenge| gateway.accepts_verify_token(app, &challenge.verify_token));
    match (challenge, accepted) {
        (_, Some(None)) => recorded(Answer::later(503, "not-ready", 1)),
        (Some(challenge), Some(Some(true))) => {
            gateway.record_early(id, Provider::Meta, door.endpoint, source_ip, &Answer::refused(200, "handshake"));
            HttpResponse::Ok()
                .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
                .insert_header(("x-content-type-options", "nosniff"))
                .insert_header(("x-request-id", id.to_string()))
                .body(challenge.challenge)
        }
        _ => {
            if gateway.may_warn() {
                tracing::warn!(request.id = %id, "a verification request was refused");
            }
            recorded(Answer::refused(403, VERIFY_TOKEN))
        }
    }
}

async fn receive(request: HttpRequest, payload: web::Payload, gateway: Data<Gateway>) -> HttpResponse {
    let (id, door) = (RequestId::fresh(), door(&request));
    let signatures = signatures(&request);
    let provider = door.provider.or(match signatures[..] {
        [(provider, _)] => Some(provider),
        _ => None,
    });
    let (source_ip, admitted) = admit(&request, &gateway, provider);
    let refused = |answer: Answer| {
        let provider = provider.unwrap_or(door.usual());
        gateway.record_early(id, provider, door.endpoint, source_ip, &answer);
        let mut response = answer.respond(id, provider);
        // The rest of the body is not wanted.
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        response
    };
    let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let trace = TraceContext::continue_or_fresh(trace);
    let limit = match provider {
        Some(Provider::Twilio) if is_form(&request) => gateway.config.max_body_bytes.min(FORM),
        Some(Provider::Twilio | Provider::Generic) => gateway.config.max_body_bytes.min(SMALL_BODY),
        Some(Provider::Meta) | None => gateway.config.max_body_bytes,
    };
    if let Some(answer) = unacceptable(&request, limit) {
        return refused(answer);
    }
    if let Err(answer) = admitted {
        return refused(answer);
    }
    let is_get = request.method() == Method::GET;
    // Held until the answer: a body that waits for the bus is in memory too.
    let (body, _share) = match read(payload.into_inner(), &gateway, limit).await {
        // What would be in the body is in the address.
        Ok((_, share)) if is_get => (Bytes::copy_from_slice(request.query_string().as_bytes()), share),
        Ok(read) => read,
        Err(answer) => return refused(answer),
    };
    let incoming = Incoming {
        request: id,
        provider: door.provider,
        app: request.match_info().get("app"),
        endpoint: door.endpoint,
        signatures,
        headers: request.headers(),
        content_type: content_type(&request),
        target: gateway.config.front.target(&request, is_get),
        body,
        source_ip,
        trace,
        read_at: Instant::now(),
    };
    // Not at the usual level: making it would cost as much as sealing the envelope. What is logged on the way names the
    // request itself.
    let span = tracing::debug_span!(
        target: "ingress",
        names::SPAN_REQUEST,
        request.id = %id,
        trace.id = format_args!("{:032x}", trace.trace_id)
    );
    let (answer, provider) = gateway.receive(incoming).instrument(span).await;
    answer.respond(id, provider)
}

fn content_type(request: &HttpRequest) -> Option<&str> {
    request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

fn is_form(request: &HttpRequest) -> bool {
    content_type(request).is_some_and(twilio::signature::is_form)
}

/// The signatures of a request, of whatever provider.
fn signatures(request: &HttpRequest) -> Vec<(Provider, &[u8])> {
    let headers = request.headers();
    let of = |(provider, name)| headers.get_all(name).map(move |value| (provider, value.as_bytes()));
    HEADERS.into_iter().flat_map(of).collect()
}

/// Refusals that need no byte of the body.
fn unacceptable(request: &HttpRequest, max_body_bytes: usize) -> Option<Answer> {
    let headers = request.headers();
    let encoded = headers.get_all(CONTENT_ENCODING).any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        // A signature over compressed bytes is not what Meta makes, and unpacking is a bomb's door.
        return Some(Answer::refused(415, "content-encoding"));
    }
    (announced(request) > max_body_bytes).then(|| Answer::refused(413, "too-large"))
}

fn announced(request: &HttpRequest) -> usize {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Reads the whole body, within the limits of size, time and memory. Its share of the memory goes with it.
async fn read(payload: Payload, gateway: &Gateway, limit: usize) -> Result<(Bytes, Buffered<'_>), Answer> {
    const MEMORY: Answer = Answer::later(503, "memory", 1);
    // What is announced costs nothing yet: whoever announces much and sends nothing takes nothing from others.
    let mut share = gateway.limits.buffer(0).ok_or(MEMORY)?;
    let whole = async {
        let mut payload = payload;
        let mut first: Option<Bytes> = None;
        let mut joined = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Answer::refused(400, "body"))?;
            let size = first.as_ref().map_or(0, Bytes::len) + joined.len() + chunk.len();
            if size > limit {
                return Err(Answer::refused(413, "too-large"));
            }
            if !share.grow_to(size) {
                return Err(MEMORY);
            }
            match first.take() {
                // Nearly every webhook comes in one piece: no copy.
                None if joined.is_empty() => first = Some(chunk),
                None => joined.extend_from_slice(&chunk),
                Some(begin) => {
                    joined.reserve(begin.len() + chunk.len());
                    joined.extend_from_slice(&begin);
                    joined.extend_from_slice(&chunk);
                }
            }
        }
        Ok((first.unwrap_or_else(|| joined.freeze()), share))
    };
    let read = tokio::time::timeout(gateway.config.body_timeout, whole).await;
    read.unwrap_or_else(|_| Err(Answer::refused(408, "body-timeout")))
}

async fn method_not_allowed(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    let door = door(&request);
    let mut response = nowhere(&request, &gateway, Answer::refused(405, "method"), door.usual());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(door.methods()));
    response
}

/// Any other path.
pub async fn not_found(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    nowhere(&request, &gateway, Answer::refused(404, "not-found"), Provider::Meta)
}

/// What leads nowhere counts for its address like everything else.
fn nowhere(request: &HttpRequest, gateway: &Gateway, answer: Answer, provider: Provider) -> HttpResponse {
    let client = gateway.config.front.client(request);
    gateway.admit_ip(client).err().unwrap_or(answer).respond(RequestId::fresh(), provider)
}
