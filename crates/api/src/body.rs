//! JSON bodies, read strictly: what is unknown is refused, and nothing of it is ever repeated, since it may be a secret.

use std::time::Duration;

use actix_web::web::Payload;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::{FieldError, Problem};

/// The largest body, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// A body must be complete by then.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a document; `hint` says what its values look like, for a caller that got one wrong.
pub(crate) async fn read<T: DeserializeOwned>(body: Payload, hint: &str) -> Result<T, Problem> {
    let body = match tokio::time::timeout(TIMEOUT, body.to_bytes_limited(MAX_BYTES)).await {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(_))) => return Err(Problem::bad_request("the body broke off")),
        Ok(Err(_)) => return Err(Problem::too_large(MAX_BYTES)),
        Err(_) => return Err(Problem::too_slow(TIMEOUT)),
    };
    serde_json::from_slice(&body).map_err(|error| unreadable(&error, hint))
}

/// Where the document is wrong. The parser's own words would quote it.
fn unreadable(error: &serde_json::Error, hint: &str) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => {
            let message = format!(
                "is not as documented: a key that is unknown, missing or repeated, or a value of another type ({hint})"
            );
            Problem::invalid(vec![FieldError::new(place, message)])
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request(format!("the body is not JSON: {place}"))
        }
    }
}
