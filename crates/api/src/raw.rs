//! `/api/raw/{id}`: a webhook as it came in, opened for those who are entitled. Each look is written down before.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::clock::rfc3339;
use common::directory::OpenDirectory;
use common::envelope::{self, Disposition};
use common::{EnvelopeId, TenantId, Timestamp, sealing};
use object_store::ObjectStoreExt as _;
use ports::raw::RawPlace;
use serde::Serialize;

use crate::access::Caller;
use crate::problem::Problem;
use crate::{State, log};

#[derive(Serialize)]
struct Shown<'a> {
    raw_payload_ref: String,
    #[serde(with = "rfc3339")]
    received_at: Timestamp,
    provider: &'a str,
    app: &'a str,
    tenant: &'a TenantId,
    number: Option<&'a str>,
    disposition: String,
    source_ip: String,
    updates: u32,
    /// Of the whole request, which may have been cut into several envelopes.
    body_sha256: &'a str,
    /// The bytes, if they are text.
    payload: Option<&'a str>,
    /// The bytes in base64, if they are none.
    payload_base64: Option<String>,
}

/// The answer to a path that names no webhook, whether it is there or not.
pub(crate) fn no_reference() -> Problem {
    Problem::wrong_part("id", "is no envelope's id; a reference looks like wharf:raw/<envelope id>")
}

/// `GET /api/raw/{id}`
pub(crate) async fn show(state: Data<State>, caller: Caller, id: Path<String>) -> Result<HttpResponse, Problem> {
    let envelope: EnvelopeId = id.parse().map_err(|_| no_reference())?;
    let place = state.raw.find(envelope).await?.ok_or_else(Problem::not_found)?;
    let sealed = match place {
        RawPlace::Here(sealed) => sealed,
        RawPlace::Object(object) => {
            let range = object.offset..object.offset + object.length;
            let path = object_store::path::Path::from(object.object.as_str());
            match state.blobs.get_range(&path, range).await {
                Ok(bytes) => bytes,
                // Its time was over a moment ago.
                Err(object_store::Error::NotFound { .. }) => return Err(Problem::not_found()),
                Err(error) => return Err(ports::Unavailable::new("the blob store", error).into()),
            }
        }
    };
    open(&state, &caller, &sealed).await
}

async fn open(state: &State, caller: &Caller, sealed: &Bytes) -> Result<HttpResponse, Problem> {
    let parts = envelope::decode(sealed).map_err(|_| Problem::internal("the stored bytes are no envelope"))?;
    let header = &parts.header;
    caller.may_see(&header.tenant)?;
    log::tenant(&header.tenant);
    let snapshot = state.directory.snapshot().await?;
    let directory = OpenDirectory::open(&snapshot, &(state.keys)())
        .map_err(|_| Problem::internal("the directory does not open under the keys of this process"))?;
    let key = directory.tenant(&header.tenant).and_then(|keys| keys.data_key(&header.key));
    let key = key.ok_or_else(|| Problem::internal("the key that it is sealed under is not known"))?;
    let payload = sealing::open(&parts, key).map_err(|_| Problem::internal("the envelope does not open"))?;
    let text = std::str::from_utf8(&payload).ok();
    Ok(HttpResponse::Ok().json(Shown {
        raw_payload_ref: header.id.raw_payload_ref(),
        received_at: header.received_at,
        provider: header.provider.as_str(),
        app: header.app.as_str(),
        tenant: &header.tenant,
        number: header.number.as_ref().map(common::NumberId::as_str),
        disposition: match header.disposition {
            Disposition::Deliver => "deliver".to_owned(),
            Disposition::Parked(reason) => format!("parked ({})", reason.as_str()),
            Disposition::Refused => "refused".to_owned(),
        },
        source_ip: header.source_ip.to_string(),
        updates: header.updates,
        body_sha256: &header.body_sha256,
        payload_base64: text.is_none().then(|| STANDARD.encode(&payload)),
        payload: text,
    }))
}
