//! What every answer has in common: headers, the form of errors and a line in the log.
//!
//! The line names method, route pattern and status and nothing else: paths, query strings and headers are the caller's
//! and may hold phone numbers or secrets.

use actix_web::Error;
use actix_web::ResponseError as _;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::web::Data;

use service::names;

use crate::State;
use crate::problem::{self, Problem};

/// Finishes every answer of the listener.
pub(crate) async fn finish(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = state.clock.monotonic();
    let method = request.method().clone();
    let mut response = next.call(request).await?.map_into_boxed_body();
    if is_bare_error(&response) {
        let problem = bare_error(&response);
        response = response.into_response(problem.error_response());
    }
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let elapsed = state.clock.monotonic().saturating_sub(started);
    metrics::counter!(names::API_REQUESTS, "status" => response.status().as_str().to_owned()).increment(1);
    metrics::histogram!(names::API_ANSWER_SECONDS).record(elapsed.as_secs_f64());
    tracing::debug!(
        http.method = %method,
        http.route = response.request().match_pattern().as_deref().unwrap_or("none"),
        http.status = response.status().as_u16(),
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        "API request"
    );
    Ok(response)
}

/// Whether the framework made this error: ours are problem details or (readiness) JSON.
fn is_bare_error(response: &ServiceResponse<BoxBody>) -> bool {
    let is_json = |value: &HeaderValue| value == problem::CONTENT_TYPE || value == "application/json";
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    is_error && !response.headers().get(CONTENT_TYPE).is_some_and(is_json)
}

fn bare_error(response: &ServiceResponse<BoxBody>) -> Problem {
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(response.headers().get(ALLOW).cloned()),
        status => Problem::plain(status),
    }
}
