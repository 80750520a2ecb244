//! `/api/tenants/{tenant}/numbers`: which numbers a tenant has, and since when.
//!
//! A number that nobody had belongs to its first tenant for all time, so what was parked for it is handed out. One that
//! moves belongs to the new tenant from the move on: what was received before stays where it was.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Payload};
use common::clock::rfc3339;
use common::directory::{Assignment, Entry, Number};
use common::ids::WabaId;
use common::{AppId, NumberId, Timestamp};
use serde::Deserialize;

use crate::directory::change;
use crate::problem::{FieldError, Problem};
use crate::tenants::{answer, known};
use crate::{State, body};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    app: String,
    #[serde(default)]
    waba_id: Option<String>,
    /// Without one: always if nobody had the number before, else now.
    #[serde(default, with = "rfc3339::option")]
    valid_from: Option<Timestamp>,
}

/// `PUT /api/tenants/{tenant}/numbers/{number}`: gives the tenant a number, from another one too.
pub(crate) async fn assign(
    state: Data<State>,
    path: Path<(String, String)>,
    body: Payload,
) -> Result<HttpResponse, Problem> {
    let wanted: Wanted = body::read(body, "`app` and `waba_id` are texts, `valid_from` is RFC 3339").await?;
    let (tenant, number) = path.into_inner();
    let mut problems = Vec::new();
    let mut noted = |field: &str, error: String| problems.push(FieldError::new(field, error));
    let id = number.parse::<NumberId>().map_err(|error| noted("number", error.to_string())).ok();
    let app = wanted.app.parse::<AppId>().map_err(|error| noted("app", error.to_string())).ok();
    let waba = wanted.waba_id.as_deref().map(str::parse::<WabaId>).transpose();
    let waba = waba.map_err(|error| noted("waba_id", error.to_string())).ok().flatten();
    let (Some(id), Some(app)) = (id, app) else { return Err(Problem::invalid(problems)) };
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    let now = state.clock.now();
    let (_, tenant) = change(&state, move |current, _| {
        let tenant = known(current, &tenant)?;
        if tenant.status == common::directory::TenantStatus::Offboarded {
            return Err(Problem::conflict("the tenant has left"));
        }
        if current.app(&app).is_none() {
            return Err(Problem::invalid(vec![FieldError::new("app", "is not registered")]));
        }
        let fresh = || Number { id: Some(id.clone()), waba: None, app: app.clone(), assignments: Vec::new() };
        let mut number = current.number(&id).cloned().unwrap_or_else(fresh);
        if number.app != app {
            return Err(Problem::invalid(vec![FieldError::new("app", "the number is registered under another app")]));
        }
        let has_it = number.owner_at(now) == Some(&tenant.id);
        if wanted.valid_from.is_some() || !has_it {
            let first = number.assignments.is_empty();
            let valid_from = wanted.valid_from.unwrap_or(if first { Timestamp::default() } else { now });
            number.assign(Assignment { tenant: Some(tenant.id.clone()), valid_from });
        }
        number.waba = waba.clone().or(number.waba);
        let is_new = current.number(&id) != Some(&number);
        Ok((is_new.then_some(Entry::Number(number)).into_iter().collect(), tenant.id.clone()))
    })
    .await?;
    answer(&state, &tenant, HttpResponse::Ok()).await
}

/// `DELETE /api/tenants/{tenant}/numbers/{number}`: from now on it belongs to nobody, and what comes for it is parked.
pub(crate) async fn release(state: Data<State>, path: Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let (tenant, number) = path.into_inner();
    let now = state.clock.now();
    let (_, tenant) = change(&state, move |current, _| {
        let tenant = known(current, &tenant)?;
        let id: NumberId = number.parse().map_err(|_| Problem::not_found())?;
        let owned = current.number(&id).filter(|number| number.owner_at(now) == Some(&tenant.id));
        let mut number = owned.ok_or_else(Problem::not_found)?.clone();
        number.assign(Assignment { tenant: None, valid_from: now });
        Ok((vec![Entry::Number(number)], tenant.id.clone()))
    })
    .await?;
    answer(&state, &tenant, HttpResponse::Ok()).await
}
