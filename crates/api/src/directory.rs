//! `/v1/directory/import`: the one way into the directory.
//!
//! Imports run one at a time from the first read to the end of the write. Two at once could each make keys for the same
//! new tenant, and what was sealed under the keys that lose could never be opened. For the same reason an import runs
//! to its end when its caller hangs up.

use actix_web::web::{Data, Payload};
use actix_web::{HttpResponse, rt};
use serde::Serialize;
use serde_json::error::Category;

use crate::State;
use crate::import::Import;
use crate::plan::plan;
use crate::problem::{FieldError, Problem};

/// The largest document.
const MAX_BYTES: usize = 4 << 20;

#[derive(Serialize)]
struct Imported {
    changed: usize,
    revision: u64,
}

/// `POST /v1/directory/import`
pub(crate) async fn import(state: Data<State>, body: Payload) -> Result<HttpResponse, Problem> {
    let body = match body.to_bytes_limited(MAX_BYTES).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(Problem::bad_request("the body broke off")),
        Err(_) => return Err(Problem::too_large(MAX_BYTES)),
    };
    let import: Import = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    let written = rt::spawn(async move { write(&state, &import).await }).await;
    let imported = written.map_err(|_| Problem::internal("the import broke off; it may or may not be written"))??;
    Ok(HttpResponse::Ok().json(imported))
}

async fn write(state: &State, import: &Import) -> Result<Imported, Problem> {
    let _turn = state.importing.lock().await;
    let current = state.directory.snapshot().await.map_err(|error| Problem::unavailable(&error))?;
    let entries = plan(import, &current, &(state.keys)()).map_err(Problem::invalid)?;
    for warning in import.warnings() {
        tracing::warn!("imported with a doubt: {warning}");
    }
    let changed = entries.len();
    if changed == 0 {
        return Ok(Imported { changed, revision: current.revision });
    }
    let revision = state.directory.write(entries).await.map_err(|error| Problem::unavailable(&error))?;
    tracing::info!(changed, revision, "directory imported");
    Ok(Imported { changed, revision })
}

/// Where the document is wrong. The parser's own words would quote it, and it holds secrets.
fn unreadable(error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => {
            let message = "is not as documented: a key that is unknown, missing or repeated, or a value of another \
                           type (times are RFC 3339, the provider is `meta`)";
            Problem::invalid(vec![FieldError::new(place, message)])
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request(format!("the body is not JSON: {place}"))
        }
    }
}
