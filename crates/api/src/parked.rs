//! `/api/parked`: what is kept until released. An operator lets out what he wants; what has no owner stays all the same.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use common::clock::rfc3339;
use common::envelope::ParkReason;
use common::{EnvelopeId, NumberId, TenantId, Timestamp};
use ports::parking::{ParkedFilter, ParkedGroup, ParkedRow};
use serde::{Deserialize, Serialize};

use crate::access::Caller;
use crate::problem::{FieldError, Problem};
use crate::query::Query;
use crate::{State, body, log};

const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

#[derive(Serialize)]
struct Shown {
    envelope: EnvelopeId,
    raw_payload_ref: String,
    tenant: TenantId,
    reason: ParkReason,
    number: Option<NumberId>,
    #[serde(with = "rfc3339")]
    received_at: Timestamp,
    updates: u32,
    #[serde(with = "rfc3339::option")]
    due_at: Option<Timestamp>,
}

impl From<ParkedRow> for Shown {
    fn from(row: ParkedRow) -> Self {
        Self {
            envelope: row.envelope,
            raw_payload_ref: row.envelope.raw_payload_ref(),
            tenant: row.tenant,
            reason: row.reason,
            number: row.number,
            received_at: row.received_at,
            updates: row.updates,
            due_at: row.due_at,
        }
    }
}

#[derive(Serialize)]
struct Page {
    data: Vec<Shown>,
    /// For `after`, to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn reason(text: &str) -> Result<ParkReason, String> {
    let names = ParkReason::ALL.map(ParkReason::as_str).join(", ");
    ParkReason::from_name(text).ok_or_else(|| format!("must be one of {names}"))
}

fn cursor(text: &str) -> Result<(Timestamp, EnvelopeId), &'static str> {
    let (millis, envelope) = text.split_once('.').ok_or("must be the `next` of an earlier page")?;
    let parsed = millis.parse().ok().zip(envelope.parse().ok());
    let (millis, envelope) = parsed.ok_or("must be the `next` of an earlier page")?;
    Ok((Timestamp::from_millis(millis), envelope))
}

/// `GET /api/parked`
pub(crate) async fn list(state: Data<State>, caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["tenant", "reason", "number", "after", "limit"]);
    let tenant = query.tenant();
    let filter = ParkedFilter {
        envelope: None,
        tenant,
        reason: query.read("reason", reason),
        number: query.read("number", |text| text.parse::<NumberId>().map_err(|error| error.to_string())),
    };
    let after = query.read("after", cursor);
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    let filter = ParkedFilter { tenant: caller.sees(filter.tenant)?, ..filter };
    let mut rows = state.parking.list(&filter, after, limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| is_more).map(|row| format!("{}.{}", row.received_at.as_millis(), row.envelope));
    Ok(HttpResponse::Ok().json(Page { data: rows.into_iter().map(Shown::from).collect(), next }))
}

#[derive(Serialize)]
struct Group {
    tenant: TenantId,
    reason: ParkReason,
    number: Option<NumberId>,
    envelopes: u64,
    updates: u64,
    #[serde(with = "rfc3339")]
    oldest: Timestamp,
}

#[derive(Serialize)]
struct Groups {
    data: Vec<Group>,
}

/// `GET /api/parked/groups`
pub(crate) async fn groups(state: Data<State>) -> Result<HttpResponse, Problem> {
    let group = |group: ParkedGroup| Group {
        tenant: group.tenant,
        reason: group.reason,
        number: group.number,
        envelopes: group.envelopes,
        updates: group.updates,
        oldest: group.oldest,
    };
    let data = state.parking.groups().await?.into_iter().map(group).collect();
    Ok(HttpResponse::Ok().json(Groups { data }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    envelope: Option<EnvelopeId>,
    #[serde(default)]
    tenant: Option<TenantId>,
    #[serde(default)]
    reason: Option<ParkReason>,
    #[serde(default)]
    number: Option<NumberId>,
    /// Said when nothing narrows it.
    #[serde(default)]
    all: bool,
}

#[derive(Serialize)]
struct Marked {
    /// How many are looked at within seconds.
    due: u64,
}

/// `POST /api/parked/release`: the normalizer lets them out within seconds, but for those that nobody owns.
pub(crate) async fn release(state: Data<State>, body: Payload) -> Result<HttpResponse, Problem> {
    let wanted: Wanted = body::read(body, "`envelope` is an id, `tenant`, `reason` and `number` are texts").await?;
    let filter =
        ParkedFilter { envelope: wanted.envelope, tenant: wanted.tenant, reason: wanted.reason, number: wanted.number };
    if (filter == ParkedFilter::default()) != wanted.all {
        let message = "name what to release (`envelope`, `tenant`, `reason`, `number`), or say `all: true`";
        return Err(Problem::invalid(vec![FieldError::new("body", message)]));
    }
    let due = state.parking.make_due(&filter, state.clock.now(), true).await?;
    log::target(described(&filter));
    log::details(format!("{due} due"));
    if let Some(tenant) = &filter.tenant {
        log::tenant(tenant);
    }
    Ok(HttpResponse::Accepted().json(Marked { due }))
}

/// A filter as the log has it.
fn described(filter: &ParkedFilter) -> String {
    let parts = [
        filter.envelope.map(|envelope| format!("envelope={}", envelope.0)),
        filter.tenant.as_ref().map(|tenant| format!("tenant={tenant}")),
        filter.reason.map(|reason| format!("reason={}", reason.as_str())),
        filter.number.as_ref().map(|number| format!("number={}", number.as_str())),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
}
