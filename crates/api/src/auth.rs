//! The bearer token: one secret that opens everything but health.
//!
//! It guards a whole scope, not single routes, so that a new route is closed unless somebody moves it out, and unknown
//! paths tell nothing to strangers. It is deliberately not a user system: there are no roles and no tenants in it.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, ResponseError as _};
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

use crate::State;
use crate::problem::Problem;

/// The admin token, kept as a tag: comparing tags takes the same time for every wrong token of any length.
pub(crate) struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
    empty: bool,
}

impl Token {
    pub(crate) fn new(secret: &SecretString) -> Self {
        let secret = secret.expose_secret();
        // The key need not be secret: it only makes inputs of equal length for the comparison.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"wharf/api/admin-token/v1");
        Self { tag: hmac::sign(&key, secret.as_bytes()), empty: secret.is_empty(), key }
    }

    /// Whether the headers carry the token, in exactly one `Authorization` header.
    fn opens(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION);
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some(presented) = bearer(value.as_bytes()) else { return false };
        hmac::verify(&self.key, presented, self.tag.as_ref()).is_ok() && !self.empty
    }
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Lets requests with the token through and answers all others 401.
pub(crate) async fn guard(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if state.token.opens(request.headers()) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    Ok(request.into_response(Problem::unauthorized().error_response()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn opens(secret: &str, values: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        Token::new(&SecretString::from(secret)).opens(&headers)
    }

    #[test]
    fn only_the_token_opens() {
        assert!(opens("s3cret", &[b"Bearer s3cret"]));
        assert!(opens("s3cret", &[b"bearer  s3cret"]));
        let wrong: [&[u8]; 9] = [
            b"",
            b"s3cret",
            b"Basic s3cret",
            b"Bearer",
            b"Bearer ",
            b"Bearers3cret",
            b"Bearer s3cre",
            b"Bearer s3crets",
            b"Bearer \xff",
        ];
        for value in wrong {
            assert!(!opens("s3cret", &[value]), "{value:?}");
        }
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        for value in [&b"Bearer "[..], b"Bearer", b"Bearer x", b""] {
            assert!(!opens("", &[value]), "{value:?}");
        }
        assert!(!opens("s3cret", &[]));
    }

    #[test]
    fn two_headers_open_nothing() {
        assert!(!opens("s3cret", &[b"Bearer s3cret", b"Bearer s3cret"]));
    }
}
