//! `/v1/directory/import`: the one way into the directory.
//!
//! What is written depends on what was read, so an import that somebody else came before is planned again. It runs to its
//! end when its caller hangs up.

use actix_web::web::{Data, Payload};
use actix_web::{HttpResponse, rt};
use common::directory::Directory;
use ports::directory::{Updated, update};
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
    let planned = |current: &Directory| plan(import, current, &(state.keys)()).map_err(Problem::invalid);
    let Updated { changed, revision } = update(&*state.directory, planned).await?;
    for warning in import.warnings() {
        tracing::warn!("imported with a doubt: {warning}");
    }
    if changed > 0 {
        tracing::info!(changed, revision, "directory imported");
    }
    Ok(Imported { changed, revision })
}

/// Where the document is wrong. The parser's own words would quote it, and it holds secrets.
fn unreadable(error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => {
            let message = "is not as documented: a key that is unknown, missing or repeated, or a value of another \
                           type (times are RFC 3339, a provider is `meta`, `twilio` or `generic`)";
            Problem::invalid(vec![FieldError::new(place, message)])
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request(format!("the body is not JSON: {place}"))
        }
    }
}
