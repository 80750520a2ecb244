//! What the gateway answers: as little as can be, or a problem (RFC 9457) with a fixed word.
//!
//! Nothing of a request is ever repeated, but the challenge of the handshake, as plain text.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use common::RequestId;
use common::update::Provider;
use providers::generic::message::FieldProblem;
use serde::Serialize;

/// What is answered, and what the record says beside it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// A fixed word for machines; empty with 200.
    pub(crate) code: &'static str,
    pub(crate) retry_after: Option<u64>,
    /// The limit of requests in a second that was reached.
    limit: Option<u32>,
    /// What is wrong with a body that is signed and not as it must be.
    errors: Vec<FieldProblem>,
}

impl Answer {
    pub(crate) const OK: Self = Self::refused(200, "");

    const fn new(status: u16, code: &'static str, retry_after: Option<u64>, limit: Option<u32>) -> Self {
        Self { status, code, retry_after, limit, errors: Vec::new() }
    }

    pub(crate) const fn refused(status: u16, code: &'static str) -> Self {
        Self::new(status, code, None, None)
    }

    pub(crate) const fn later(status: u16, code: &'static str, seconds: u64) -> Self {
        Self::new(status, code, Some(seconds), None)
    }

    /// Over a limit of so many requests in a second.
    pub(crate) const fn over(limit: u32, code: &'static str, seconds: u64) -> Self {
        Self::new(429, code, Some(seconds), Some(limit))
    }

    pub(crate) fn invalid(errors: Vec<FieldProblem>) -> Self {
        Self { errors, ..Self::refused(422, "body") }
    }

    /// The answer in the form that the provider expects: Twilio warns of a body that is no TwiML.
    pub(crate) fn respond(&self, id: RequestId, provider: Provider) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let mut response = HttpResponse::build(status);
        response.insert_header(("x-request-id", id.to_string()));
        if status == StatusCode::OK {
            return match provider {
                Provider::Meta => response.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body("OK"),
                Provider::Twilio => response.finish(),
                Provider::Generic => {
                    response.insert_header((CONTENT_TYPE, "application/json")).body(r#"{"status":"ok"}"#)
                }
            };
        }
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Some(limit) = self.limit {
            // The fields of the IETF's draft "RateLimit header fields for HTTP".
            response.insert_header(("ratelimit-policy", format!("\"{}\";q={limit};w=1", self.code)));
            let wait = self.retry_after.unwrap_or(1);
            response.insert_header(("ratelimit", format!("\"{}\";r=0;t={wait}", self.code)));
        }
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("error"),
            status: self.status,
            code: self.code,
            errors: &self.errors,
        };
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        response.body(serde_json::to_vec(&problem).unwrap_or_default())
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldProblem],
}
