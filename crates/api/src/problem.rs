//! Errors as callers see them: problem details (RFC 9457), one shape for every status.
//!
//! The words are fixed or ours. What a caller sent is never repeated, except names that are known here: a request may
//! hold secrets in any place, and answers end up in logs and terminals.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use ports::Unavailable;
use serde::Serialize;

/// The content type of problem details.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// Which: a parameter's name or a path into the document.
    pub(crate) field: String,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// An error answer.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    allow: Option<HeaderValue>,
    retry_after: Option<u64>,
}

/// The body, in the order in which it is written.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::unavailable(&error)
    }
}

impl Problem {
    /// A status without further words.
    pub(crate) const fn plain(status: StatusCode) -> Self {
        Self { status, detail: None, errors: Vec::new(), allow: None, retry_after: None }
    }

    fn with_detail(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..Self::plain(status) }
    }

    /// No token, or not the right one. Which of them it was is nobody's business.
    pub(crate) fn unauthorized() -> Self {
        Self::with_detail(StatusCode::UNAUTHORIZED, "this needs the header `Authorization: Bearer <token>`")
    }

    /// The token is known and does not open this.
    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::with_detail(StatusCode::FORBIDDEN, detail)
    }

    /// Too many requests of a kind; after this time they are looked at again.
    pub(crate) fn too_many(detail: &'static str, wait: Duration) -> Self {
        Self { retry_after: Some(wait.as_secs()), ..Self::with_detail(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// What is asked for cannot be as things are.
    pub(crate) fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with_detail(StatusCode::CONFLICT, detail)
    }

    /// There is nothing here.
    pub(crate) const fn not_found() -> Self {
        Self::plain(StatusCode::NOT_FOUND)
    }

    /// The method is not one of those in `allow`.
    pub(crate) fn method_not_allowed(allow: Option<HeaderValue>) -> Self {
        Self { allow, ..Self::plain(StatusCode::METHOD_NOT_ALLOWED) }
    }

    /// The body is larger than `limit` bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::with_detail(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have at most {limit} bytes"))
    }

    /// The body takes longer than this.
    pub(crate) fn too_slow(limit: Duration) -> Self {
        let detail = format!("the body must be complete within {} s", limit.as_secs());
        Self::with_detail(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// The request cannot be understood at all.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with_detail(StatusCode::BAD_REQUEST, detail)
    }

    /// The request is understood, and these fields of it are wrong.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::plain(StatusCode::UNPROCESSABLE_ENTITY) }
    }

    /// Something behind a port is down. Logs why, once, here: callers learn only what.
    pub(crate) fn unavailable(error: &Unavailable) -> Self {
        tracing::warn!(error = %Chain(error), "an API request found a dependency unavailable");
        let problem = Self::with_detail(StatusCode::SERVICE_UNAVAILABLE, format!("{error}; try again"));
        Self { retry_after: Some(1), ..problem }
    }

    /// A part of the path cannot be what its route asks for.
    pub(crate) fn wrong_part(name: &'static str, message: &'static str) -> Self {
        Self { detail: Some(message.into()), ..Self::invalid(vec![FieldError::new(name, message)]) }
    }

    /// A mistake of ours. What is known of it has been logged.
    pub(crate) fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with_detail(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "problem {}", self.status.as_u16())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((ALLOW, allow.clone()));
        }
        response.content_type(CONTENT_TYPE).json(Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            errors: &self.errors,
        })
    }
}

/// An error with all its causes.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
