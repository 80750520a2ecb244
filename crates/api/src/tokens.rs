//! `/api/tokens`: who else may use the API. A token's text is shown once, in the answer that made it.

use std::time::Duration;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use common::TenantId;
use common::access::{Scope, Token, TokenText};
use common::directory::{Directory, TenantStatus};
use ports::access::TokenFilter;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::Caller;
use crate::plan::{MAX_NAME_CHARS, is_name};
use crate::problem::{FieldError, Problem};
use crate::query::Query;
use crate::tenants::known;
use crate::{State, body, log};

/// A token may be made for so many days at most.
const MAX_DAYS: u32 = 3660;
const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

#[derive(Serialize)]
struct Page {
    /// Newest first.
    data: Vec<Token>,
    /// For `before`, to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// `GET /api/tokens`
pub(crate) async fn list(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["tenant", "before", "limit"]);
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let filter = TokenFilter {
        tenant: query.tenant(),
        before: query.read("before", |text| text.parse::<Uuid>().map_err(|_| "must be the `next` of an earlier page")),
        limit: limit + 1,
    };
    query.finish()?;
    let mut data = state.access.tokens(&filter).await?;
    let is_more = data.len() > limit as usize;
    data.truncate(limit as usize);
    let next = data.last().filter(|_| is_more).map(|token| token.id);
    Ok(HttpResponse::Ok().json(Page { data, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    scope: Scope,
    #[serde(default)]
    tenant: Option<String>,
    /// Without it, it does not end by itself.
    #[serde(default)]
    expires_in_days: Option<u32>,
}

#[derive(Serialize)]
struct Made {
    /// Only here.
    token: String,
    #[serde(flatten)]
    made: Token,
}

/// `POST /api/tokens`
pub(crate) async fn create(state: Data<State>, body: Payload) -> Result<HttpResponse, Problem> {
    let scopes = Scope::ALL.map(Scope::as_str).join("`, `");
    let new: New = body::read(body, &format!("`scope` is one of `{scopes}`")).await?;
    let mut problems = Vec::new();
    if !is_name(&new.name) {
        let rule = format!("must be 1 to {MAX_NAME_CHARS} characters, not all white space, without control codes");
        problems.push(FieldError::new("name", rule));
    }
    if new.scope.is_of_tenant() != new.tenant.is_some() {
        let rule = if new.scope.is_of_tenant() {
            "is missing: this scope is of one tenant"
        } else {
            "must be left out: this scope is not of one tenant"
        };
        problems.push(FieldError::new("tenant", rule));
    }
    if new.expires_in_days.is_some_and(|days| !(1..=MAX_DAYS).contains(&days)) {
        problems.push(FieldError::new("expires_in_days", format!("must be a whole number from 1 to {MAX_DAYS}")));
    }
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    let tenant = match &new.tenant {
        None => None,
        Some(id) => {
            let directory = state.directory.snapshot().await?;
            let known = known(&directory, id).ok();
            let known = known.filter(|tenant| !has_left(&directory, &tenant.id));
            let missing = || Problem::invalid(vec![FieldError::new("tenant", "is not registered, or has left")]);
            Some(known.ok_or_else(missing)?.id.clone())
        }
    };
    let (text, now) = (TokenText::fresh(), state.clock.now());
    let expires_at = new.expires_in_days.map(|days| now.plus(Duration::from_hours(24 * u64::from(days))));
    let made = Token {
        id: Uuid::now_v7(),
        name: new.name,
        scope: new.scope,
        tenant,
        created_at: now,
        expires_at,
        revoked_at: None,
    };
    log::target(made.id.to_string());
    let end = made.expires_at.map_or_else(|| "without end".to_owned(), |at| format!("until {at}"));
    log::details(format!("{}, {end}", made.scope.as_str()));
    state.access.add_token(&made, text.hash()).await?;
    if let Some(tenant) = &made.tenant {
        log::tenant(tenant);
        // Whoever sent it off meanwhile may have revoked its tokens before this one was there.
        let directory = state.directory.snapshot().await?;
        if has_left(&directory, tenant) {
            state.access.revoke_token(made.id, now).await?;
            return Err(Problem::invalid(vec![FieldError::new("tenant", "has just left")]));
        }
    }
    state.tokens.forget();
    Ok(HttpResponse::Created().json(Made { token: text.expose().to_owned(), made }))
}

fn has_left(directory: &Directory, tenant: &TenantId) -> bool {
    directory.tenant(tenant).is_none_or(|tenant| tenant.status == TenantStatus::Offboarded)
}

#[derive(Serialize)]
struct Own<'a> {
    id: Option<Uuid>,
    name: &'a str,
    scope: Scope,
    tenant: Option<TenantId>,
}

/// `GET /api/tokens/self`: what the caller's own token is.
pub(crate) async fn own(caller: Caller) -> Result<HttpResponse, Problem> {
    let tenant = caller.sees(None)?;
    Ok(HttpResponse::Ok().json(Own { id: caller.token, name: &caller.name, scope: caller.scope, tenant }))
}

/// `DELETE /api/tokens/{id}`
pub(crate) async fn revoke(state: Data<State>, id: Path<String>) -> Result<HttpResponse, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let found = state.access.revoke_token(id, state.clock.now()).await?;
    state.tokens.forget();
    if found { Ok(HttpResponse::NoContent().finish()) } else { Err(Problem::not_found()) }
}
