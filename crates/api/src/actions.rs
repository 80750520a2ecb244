//! `/api/actions`: what was done through the API, by whom.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use common::access::Action;
use ports::access::ActionFilter;
use serde::Serialize;
use uuid::Uuid;

use crate::State;
use crate::problem::Problem;
use crate::query::Query;

const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

#[derive(Serialize)]
struct Page {
    /// Newest first.
    data: Vec<Action>,
    /// For `before`, to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// `GET /api/actions`
pub(crate) async fn list(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["tenant", "before", "limit"]);
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let filter = ActionFilter {
        tenant: query.tenant(),
        before: query.read("before", |text| text.parse::<Uuid>().map_err(|_| "must be the `next` of an earlier page")),
        limit: limit + 1,
    };
    query.finish()?;
    let mut data = state.access.actions(&filter).await?;
    let is_more = data.len() > limit as usize;
    data.truncate(limit as usize);
    let next = data.last().filter(|_| is_more).map(|action| action.id);
    Ok(HttpResponse::Ok().json(Page { data, next }))
}
