//! `/api/tenants`: who there is, and what becomes of their webhooks.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Path, Payload};
use common::clock::rfc3339;
use common::directory::{Assignment, Directory, Entry, Number, Tenant, TenantStatus};
use common::ids::WabaId;
use common::{NumberId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::access::Caller;
use crate::directory::change;
use crate::plan::{MAX_NAME_CHARS, is_name};
use crate::problem::{FieldError, Problem};
use crate::query::Query;
use crate::{State, body, log};

const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

/// A tenant as callers see it.
#[derive(Serialize)]
pub(crate) struct Shown<'d> {
    id: &'d TenantId,
    name: Option<&'d str>,
    status: TenantStatus,
    numbers: Vec<ShownNumber<'d>>,
}

/// A number that a tenant has now.
#[derive(Serialize)]
struct ShownNumber<'d> {
    /// `None` stands for every number of the app that has no owner of its own.
    phone_number_id: Option<&'d NumberId>,
    waba_id: Option<&'d WabaId>,
    app: &'d str,
    #[serde(with = "rfc3339")]
    valid_from: Timestamp,
}

#[derive(Serialize)]
struct Page<'d> {
    data: Vec<Shown<'d>>,
    /// The id to ask on from; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'d TenantId>,
}

/// The numbers of each tenant at a moment.
fn owned(directory: &Directory, at: Timestamp) -> BTreeMap<&TenantId, Vec<ShownNumber<'_>>> {
    let mut owned: BTreeMap<&TenantId, Vec<ShownNumber<'_>>> = BTreeMap::new();
    for number in numbers(directory) {
        let Some(current) = number.assignment_at(at) else { continue };
        let Some(tenant) = &current.tenant else { continue };
        owned.entry(tenant).or_default().push(ShownNumber {
            phone_number_id: number.id.as_ref(),
            waba_id: number.waba.as_ref(),
            app: number.app.as_str(),
            valid_from: current.valid_from,
        });
    }
    owned
}

fn numbers(directory: &Directory) -> impl Iterator<Item = &Number> {
    directory.entries.values().filter_map(|entry| if let Entry::Number(number) = entry { Some(number) } else { None })
}

fn tenants(directory: &Directory) -> impl Iterator<Item = &Tenant> {
    let tenants = directory.entries.values();
    let tenants = tenants.filter_map(|entry| if let Entry::Tenant(tenant) = entry { Some(tenant) } else { None });
    tenants.filter(|tenant| !tenant.id.is_unassigned())
}

fn shown<'d>(tenant: &'d Tenant, owned: &mut BTreeMap<&TenantId, Vec<ShownNumber<'d>>>) -> Shown<'d> {
    Shown {
        id: &tenant.id,
        name: tenant.name.as_deref(),
        status: tenant.status,
        numbers: owned.remove(&tenant.id).unwrap_or_default(),
    }
}

/// The tenant of this id, if callers may know of it.
pub(crate) fn known<'d>(directory: &'d Directory, id: &str) -> Result<&'d Tenant, Problem> {
    let id: TenantId = id.parse().map_err(|_| Problem::not_found())?;
    directory.tenant(&id).filter(|_| !id.is_unassigned()).ok_or_else(Problem::not_found)
}

/// `GET /api/tenants`
pub(crate) async fn list(state: Data<State>, request: actix_web::HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["waba", "number", "status", "after", "limit"]);
    let waba = query.read("waba", |text| text.parse::<WabaId>().map_err(|error| error.to_string()));
    let number = query.read("number", |text| text.parse::<NumberId>().map_err(|error| error.to_string()));
    let status = query.read("status", status);
    let after = query.read("after", |text| text.parse::<TenantId>().map_err(|error| error.to_string()));
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    let directory = state.directory.snapshot().await?;
    let mut owned = owned(&directory, state.clock.now());
    let found = tenants(&directory).filter(|tenant| after.as_ref().is_none_or(|after| tenant.id > *after));
    let found = found.filter(|tenant| status.is_none_or(|status| tenant.status == status)).filter(|tenant| {
        let has = |matches: &dyn Fn(&ShownNumber<'_>) -> bool| {
            owned.get(&tenant.id).is_some_and(|numbers| numbers.iter().any(matches))
        };
        (waba.is_none() || has(&|each| each.waba_id == waba.as_ref()))
            && (number.is_none() || has(&|each| each.phone_number_id == number.as_ref()))
    });
    let mut found: Vec<&Tenant> = found.take(limit + 1).collect();
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| is_more).map(|tenant| &tenant.id);
    let data = found.iter().map(|tenant| shown(tenant, &mut owned)).collect();
    Ok(HttpResponse::Ok().json(Page { data, next }))
}

fn status(text: &str) -> Result<TenantStatus, String> {
    let names = TenantStatus::ALL.map(TenantStatus::as_str);
    let found = TenantStatus::ALL.into_iter().find(|status| status.as_str() == text);
    found.ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

/// `GET /api/tenants/{tenant}`
pub(crate) async fn show(state: Data<State>, caller: Caller, id: Path<String>) -> Result<HttpResponse, Problem> {
    let directory = state.directory.snapshot().await?;
    let tenant = known(&directory, &id)?;
    caller.may_see(&tenant.id)?;
    Ok(HttpResponse::Ok().json(shown(tenant, &mut owned(&directory, state.clock.now()))))
}

/// Answers with the tenant as it is now.
pub(crate) async fn answer(
    state: &State,
    id: &TenantId,
    mut response: actix_web::HttpResponseBuilder,
) -> Result<HttpResponse, Problem> {
    let directory = state.directory.snapshot().await?;
    Ok(response.json(shown(known(&directory, id.as_str())?, &mut owned(&directory, state.clock.now()))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    id: String,
    #[serde(default)]
    name: Option<String>,
}

fn check_name(name: Option<&str>) -> Result<(), Problem> {
    if name.is_none_or(is_name) {
        return Ok(());
    }
    let rule = format!("must be 1 to {MAX_NAME_CHARS} characters, not all white space, without control codes");
    Err(Problem::invalid(vec![FieldError::new("name", rule)]))
}

/// `POST /api/tenants`
pub(crate) async fn create(state: Data<State>, body: Payload) -> Result<HttpResponse, Problem> {
    let new: New = body::read(body, "`id` and `name` are texts").await?;
    let id: TenantId = new
        .id
        .parse()
        .map_err(|error: common::ids::IdError| Problem::invalid(vec![FieldError::new("id", error.to_string())]))?;
    if id.is_unassigned() {
        return Err(Problem::invalid(vec![FieldError::new("id", "is reserved for what belongs to nobody")]));
    }
    check_name(new.name.as_deref())?;
    let made = id.clone();
    change(&state, move |current, ring| {
        if current.tenant(&made).is_some() {
            return Err(Problem::conflict("there is a tenant of this id"));
        }
        Ok((vec![Entry::Tenant(Tenant::create(made.clone(), new.name.clone(), ring))], ()))
    })
    .await?;
    let mut response = HttpResponse::Created();
    response.insert_header((LOCATION, format!("/api/tenants/{id}")));
    log::target(id.as_str());
    log::tenant(&id);
    answer(&state, &id, response).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    status: Option<TenantStatus>,
}

/// `PUT /api/tenants/{tenant}`: what is left out stays.
pub(crate) async fn update(state: Data<State>, id: Path<String>, body: Payload) -> Result<HttpResponse, Problem> {
    let changes: Changes = body::read(body, "`status` is `active`, `paused` or `suspended`").await?;
    check_name(changes.name.as_deref())?;
    if changes.status == Some(TenantStatus::Offboarded) {
        let message = "a tenant is offboarded by DELETE, which also takes its numbers and tokens";
        return Err(Problem::invalid(vec![FieldError::new("status", message)]));
    }
    let (_, id) = change(&state, move |current, _| {
        let mut tenant = known(current, &id)?.clone();
        if tenant.status == TenantStatus::Offboarded && changes.status.is_some() {
            return Err(Problem::conflict("the tenant has left; register it under a new id"));
        }
        tenant.name = changes.name.clone().or(tenant.name);
        tenant.status = changes.status.unwrap_or(tenant.status);
        let id = tenant.id.clone();
        let is_new = current.tenant(&id) != Some(&tenant);
        Ok((is_new.then_some(Entry::Tenant(tenant)).into_iter().collect(), id))
    })
    .await?;
    answer(&state, &id, HttpResponse::Ok()).await
}

#[derive(Serialize)]
struct Offboarded {
    id: TenantId,
    status: TenantStatus,
    numbers_released: usize,
    tokens_revoked: u64,
}

/// `DELETE /api/tenants/{tenant}`: its numbers belong to nobody from now on, its tokens open nothing. What is stored stays
/// until its retention ends; keys stay with it.
pub(crate) async fn offboard(state: Data<State>, id: Path<String>) -> Result<HttpResponse, Problem> {
    let (id, now) = (id.into_inner(), state.clock.now());
    let (_, (id, numbers_released)) = change(&state, move |current, _| {
        let tenant = known(current, &id)?;
        let own = numbers(current).filter(|number| number.owner_at(now) == Some(&tenant.id)).cloned();
        let mut entries: Vec<Entry> = own
            .map(|mut number| {
                number.assign(Assignment { tenant: None, valid_from: now });
                Entry::Number(number)
            })
            .collect();
        let released = entries.len();
        if tenant.status != TenantStatus::Offboarded {
            entries.push(Entry::Tenant(Tenant { status: TenantStatus::Offboarded, ..tenant.clone() }));
        }
        Ok((entries, (tenant.id.clone(), released)))
    })
    .await?;
    let tokens_revoked = state.access.revoke_tokens_of(&id, now).await?;
    state.tokens.forget();
    Ok(HttpResponse::Ok().json(Offboarded { id, status: TenantStatus::Offboarded, numbers_released, tokens_revoked }))
}
