//! `/v1/events`: the feed, read on from a cursor.
//!
//! A consumer stores the `next` of the page it has handled and asks with it again. The cursor is opaque to it; here it
//! is the feed's position. Nothing is remembered per consumer, and nothing is pushed.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use ports::feed::{FeedEvent, FeedFilter, Position};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::State;
use crate::access::Caller;
use crate::problem::Problem;
use crate::query::Query;

const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;
const MAX_TYPE_LENGTH: usize = 128;

#[derive(Serialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: String,
}

/// `GET /v1/events`
pub(crate) async fn read(state: Data<State>, caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["after", "limit", "type", "tenant"]);
    // A reader that starts has no cursor; an empty tenant, in contrast, is a mistake that must not show every tenant.
    query.forget_empty(&["after", "limit", "type"]);
    let after = query.read("after", cursor).unwrap_or(0);
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let mut filter = FeedFilter { tenant: query.tenant(), event_type: query.read("type", event_type) };
    query.finish()?;
    filter.tenant = caller.sees(filter.tenant)?;
    let page = state.feed.read(after, limit, &filter).await.map_err(|error| Problem::unavailable(&error))?;
    let events = page.events.iter().map(cloud_event).collect::<Result<_, _>>()?;
    Ok(HttpResponse::Ok().json(Page { events, next: page.next.to_string() }))
}

fn cursor(text: &str) -> Result<Position, &'static str> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits).ok_or("must be the `next` of an earlier page")
}

/// Any type of the right form: newer software may have stored types that this one does not know.
fn event_type(text: &str) -> Result<String, &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if (1..=MAX_TYPE_LENGTH).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err("must be an event type such as wharf.message.received")
}

/// An event that cannot be written stops the page: leaving it out would be a loss that nobody sees. The answer tells
/// how to go on behind it.
fn cloud_event(event: &FeedEvent) -> Result<Box<RawValue>, Problem> {
    event.to_json().and_then(|json| serde_json::from_slice(&json)).map_err(|error| {
        let position = event.position;
        // Only the kind of error: its words may quote the data.
        tracing::error!(position, kind = ?error.classify(), "a stored event is not JSON");
        Problem::internal(format!("the event at {position} is damaged; `after={position}` reads on behind it"))
    })
}
