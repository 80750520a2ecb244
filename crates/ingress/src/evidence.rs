//! What is kept of a webhook that did not pass the check of its signature, where that is switched on: all that one needs
//! to find out why, sealed under the reserved tenant's key like any webhook that nobody owns.
//!
//! It travels as an envelope that can only be looked at ([`Disposition::Refused`]).

use actix_web::http::header::{AUTHORIZATION, COOKIE, HeaderMap, PROXY_AUTHORIZATION};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::directory::OpenDirectory;
use common::envelope::{Disposition, Header, Lane, Packing};
use common::record::SignatureStatus;
use common::sealing::seal;
use common::update::Provider;
use common::{AppId, EnvelopeId, TenantId, Timestamp};
use ports::event_bus::{Outgoing, Stream};
use ring::digest;
use serde::Serialize;

use crate::gateway::Incoming;
use crate::verification::{Tried, tried};

/// Of more than this the beginning is kept, in bytes: somebody who sends rubbish does not choose how much of it is stored.
const MAX_BODY: usize = 64 << 10;
const MAX_PATH: usize = 4 << 10;
const MAX_HEADERS: usize = 16 << 10;
/// Headers that hold secrets of the client's; that they were there is enough.
const SECRET: [actix_web::http::header::HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

#[derive(Serialize)]
struct Evidence<'a> {
    signature: &'static str,
    method: &'static str,
    path: &'a str,
    headers: Vec<(&'a str, String)>,
    /// The bytes, if they are text.
    body: Option<&'a str>,
    /// The bytes in base64, if they are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    /// Of the whole, if only the beginning is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_size: Option<usize>,
    tried: Vec<Tried<'a>>,
}

/// The envelope of a refused webhook, and its id; `None` while the directory has no keys for the reserved tenant.
pub(crate) fn envelope(
    directory: &OpenDirectory,
    incoming: &Incoming<'_>,
    status: SignatureStatus,
    public_url: Option<&str>,
    at: Timestamp,
) -> Option<(EnvelopeId, Outgoing)> {
    let tenant = TenantId::unassigned();
    let key = directory.tenant(&tenant)?.sealing();
    let (body, rest) = incoming.body.split_at(incoming.body.len().min(MAX_BODY));
    // What JSON writes as escapes of six characters is as well kept as bytes.
    let is_plain = |text: &&str| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    let text = std::str::from_utf8(body).ok().filter(is_plain);
    let path = incoming.target.path_and_query;
    let evidence = Evidence {
        signature: status.as_str(),
        method: if incoming.target.is_get { "GET" } else { "POST" },
        path: &path[..path.floor_char_boundary(MAX_PATH)],
        headers: headers(incoming.headers),
        body: text,
        body_base64: text.is_none().then(|| STANDARD.encode(body)),
        body_size: (!rest.is_empty()).then_some(incoming.body.len()),
        tried: tried(directory, incoming, public_url, at),
    };
    let payload = serde_json::to_vec(&evidence).ok()?;
    let named = incoming.app.and_then(|name| AppId::new(name).ok());
    let header = Header {
        id: EnvelopeId::fresh(),
        request: incoming.request,
        provider: incoming.claimed().unwrap_or(Provider::Meta),
        // Nobody's secret signed it.
        app: named.or_else(|| AppId::new("none").ok())?,
        tenant,
        number: None,
        received_at: at,
        disposition: Disposition::Refused,
        lane: Lane::Live,
        source_ip: incoming.source_ip,
        body_sha256: hex::encode(digest::digest(&digest::SHA256, &incoming.body)),
        key: key.id().to_owned(),
        packing: Packing::Plain,
        size: 0,
        updates: 0,
        trace: incoming.trace,
        delivery: None,
    };
    let (id, lane) = (header.id, header.lane);
    let subject = format!("inbound.{}.{}", lane.as_str(), header.tenant);
    let payload = Bytes::from(seal(header, &payload, key));
    Some((id, Outgoing { stream: Stream::Inbound(lane), subject, payload, dedup_id: None }))
}

fn headers(headers: &HeaderMap) -> Vec<(&str, String)> {
    let mut left = MAX_HEADERS;
    let fitting = headers.iter().take_while(move |(name, value)| {
        let size = name.as_str().len() + value.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    });
    let shown = fitting.map(|(name, value)| {
        let value = if SECRET.contains(name) {
            "(not kept)".to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        (name.as_str(), value)
    });
    shown.collect()
}
