//! The HTTP side: routes, reading bodies with a clock and a limit, answers.
//!
//! Answers to webhooks are as small as they can be: `OK`, or a problem (RFC 9457) with a fixed word. Nothing of the
//! request is ever repeated, but the challenge of the handshake, as plain text.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::web::{self, Bytes, BytesMut, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use common::RequestId;
use common::trace::TraceContext;
use futures_util::StreamExt as _;
use providers::meta::{signature, verification};
use service::names;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::gateway::{Answer, Gateway, Incoming};
use crate::limits::Buffered;

/// The paths of Meta's webhooks: with the app's id, without, and the one that the sources print.
const PATHS: [(&str, &str); 3] =
    [("/webhooks/meta", "/webhooks/meta"), ("/webhooks/meta/{app}", "/webhooks/meta"), ("/webhook", "/webhook")];

/// Adds the routes of the gateway.
pub fn routes(gateway: Arc<Gateway>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config.app_data(Data::from(gateway.clone()));
        for (path, endpoint) in PATHS {
            config.service(
                web::resource(path)
                    .app_data(Endpoint(endpoint))
                    .route(web::get().to(verify))
                    .route(web::post().to(receive))
                    .default_service(web::route().to(method_not_allowed)),
            );
        }
    }
}

/// The path without prefix and app, for records.
#[derive(Clone, Copy)]
struct Endpoint(&'static str);

/// The handshake: the challenge for the right token, else 403.
async fn verify(request: HttpRequest, gateway: Data<Gateway>) -> HttpResponse {
    let id = RequestId::fresh();
    let source_ip = source_ip(&request);
    let endpoint = request.app_data::<Endpoint>().map_or("", |endpoint| endpoint.0);
    let recorded = |answer: Answer| {
        gateway.record_early(id, endpoint, source_ip, &answer);
        respond(id, &answer)
    };
    if let Err(answer) = gateway.admit_ip(source_ip) {
        return recorded(answer);
    }
    let app = request.match_info().get("app");
    let challenge = verification::parse_query(request.query_string());
    let accepted = challenge.as_ref().map(|challenge| gateway.accepts_verify_token(app, &challenge.verify_token));
    match (challenge, accepted) {
        (_, Some(None)) => recorded(Answer { status: 503, code: "not-ready", retry_after: Some(1) }),
        (Some(challenge), Some(Some(true))) => {
            gateway.record_early(
                id,
                endpoint,
                source_ip,
                &Answer { status: 200, code: "handshake", retry_after: None },
            );
            HttpResponse::Ok()
                .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
                .insert_header(("x-content-type-options", "nosniff"))
                .insert_header(("x-request-id", id.to_string()))
                .body(challenge.challenge)
        }
        _ => {
            tracing::warn!(request.id = %id, "a verification request was refused");
            recorded(Answer { status: 403, code: "verify-token", retry_after: None })
        }
    }
}

async fn receive(request: HttpRequest, payload: web::Payload, gateway: Data<Gateway>) -> HttpResponse {
    let id = RequestId::fresh();
    let endpoint = request.app_data::<Endpoint>().map_or("", |endpoint| endpoint.0);
    let source_ip = source_ip(&request);
    let refused = |answer: Answer| {
        gateway.record_early(id, endpoint, source_ip, &answer);
        let mut response = respond(id, &answer);
        // The rest of the body is not wanted.
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        response
    };
    let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let trace = TraceContext::continue_or_fresh(trace);
    if let Some(answer) = unacceptable(&request, gateway.config.max_body_bytes) {
        return refused(answer);
    }
    if let Err(answer) = gateway.admit_ip(source_ip) {
        return refused(answer);
    }
    // Held until the answer: a body that waits for the bus is in memory too.
    let (body, _share) = match read(payload.into_inner(), &gateway, announced(&request)).await {
        Ok(read) => read,
        Err(answer) => return refused(answer),
    };
    let incoming = Incoming {
        request: id,
        app: request.match_info().get("app"),
        endpoint,
        signatures: request.headers().get_all(signature::HEADER).map(HeaderValue::as_bytes).collect(),
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
    respond(id, &gateway.receive(incoming).instrument(span).await)
}

/// Refusals that need no byte of the body.
fn unacceptable(request: &HttpRequest, max_body_bytes: usize) -> Option<Answer> {
    let headers = request.headers();
    let encoded = headers.get_all(CONTENT_ENCODING).any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        // A signature over compressed bytes is not what Meta makes, and unpacking is a bomb's door.
        return Some(Answer { status: 415, code: "content-encoding", retry_after: None });
    }
    (announced(request) > max_body_bytes).then_some(Answer { status: 413, code: "too-large", retry_after: None })
}

fn announced(request: &HttpRequest) -> usize {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Reads the whole body, within the limits of size, time and memory. Its share of the memory goes with it.
async fn read(payload: Payload, gateway: &Gateway, announced: usize) -> Result<(Bytes, Buffered<'_>), Answer> {
    const MEMORY: Answer = Answer { status: 503, code: "memory", retry_after: Some(1) };
    let limit = gateway.config.max_body_bytes;
    let mut share = gateway.limits.buffer(announced).ok_or(MEMORY)?;
    let whole = async {
        let mut payload = payload;
        let mut first: Option<Bytes> = None;
        let mut joined = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Answer { status: 400, code: "body", retry_after: None })?;
            let size = first.as_ref().map_or(0, Bytes::len) + joined.len() + chunk.len();
            if size > limit {
                return Err(Answer { status: 413, code: "too-large", retry_after: None });
            }
            // What comes without an announced length is counted as it comes.
            if !share.grow_to(size) {
                return Err(MEMORY);
            }
            match first.take() {
                // Nearly every webhook comes in one piece: no copy.
                None if joined.is_empty() => first = Some(chunk),
                None => joined.extend_from_slice(&chunk),
                Some(begin) => {
                    joined.reserve(announced.clamp(begin.len() + chunk.len(), limit));
                    joined.extend_from_slice(&begin);
                    joined.extend_from_slice(&chunk);
                }
            }
        }
        Ok((first.unwrap_or_else(|| joined.freeze()), share))
    };
    tokio::time::timeout(gateway.config.body_timeout, whole).await.unwrap_or(Err(Answer {
        status: 408,
        code: "body-timeout",
        retry_after: None,
    }))
}

async fn method_not_allowed() -> HttpResponse {
    let mut response = respond(RequestId::fresh(), &Answer { status: 405, code: "method", retry_after: None });
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    response
}

/// Any other path.
pub async fn not_found() -> HttpResponse {
    respond(RequestId::fresh(), &Answer { status: 404, code: "not-found", retry_after: None })
}

fn source_ip(request: &HttpRequest) -> IpAddr {
    match request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()) {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        four @ IpAddr::V4(_) => four,
    }
}

fn respond(id: RequestId, answer: &Answer) -> HttpResponse {
    if answer.status == 200 {
        return HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
            .insert_header(("x-request-id", id.to_string()))
            .body("OK");
    }
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = HttpResponse::build(status);
    if let Some(seconds) = answer.retry_after {
        response.insert_header((RETRY_AFTER, seconds.to_string()));
    }
    response
        .insert_header((CONTENT_TYPE, "application/problem+json"))
        .insert_header(("x-request-id", id.to_string()))
        .body(format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"code":"{}"}}"#,
            status.canonical_reason().unwrap_or("error"),
            answer.status,
            answer.code
        ))
}
