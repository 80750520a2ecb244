//! `/messages` and `/stats`: inbound messages as people search them.
//!
//! The shapes are those of an earlier service whose clients move over, so names and limits stay as they are. Anything
//! about outbound messages, requests or signatures is not here. [`crate::webhooks`] searches in the same way.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use common::Timestamp;
use common::access::Scope;
use common::clock::rfc3339;
use ports::event_store::NewUpdate;
use ports::message_log::{LoggedMessage, MessageFilter, MessageTotals};
use serde::Serialize;

use crate::access::Caller;
use crate::problem::Problem;
use crate::query::Query;
use crate::{State, statistics};

const MAX_LIMIT: u32 = 100;
const DEFAULT_LIMIT: u32 = 50;
/// Databases count in signed numbers.
const MAX_OFFSET: u64 = i64::MAX as u64;
const MAX_TEXT_CHARS: usize = 1000;
/// E.164 has 15; longer ones do not exist, but test numbers may be generous.
const MAX_PHONE_DIGITS: usize = 20;

#[derive(Serialize)]
struct Page<T> {
    data: Vec<T>,
    total: u64,
    limit: u32,
    offset: u64,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the documented ones")]
struct Message {
    message_id: String,
    from: Option<String>,
    to: Option<String>,
    #[serde(serialize_with = "rfc3339::serialize")]
    ts: Timestamp,
    text: Option<String>,
}

#[derive(Serialize)]
struct Stats {
    total_messages: u64,
    senders_count: u64,
    messages_per_sender: Vec<SenderCount>,
    first_message_ts: Option<String>,
    last_message_ts: Option<String>,
}

#[derive(Serialize)]
struct SenderCount {
    from: String,
    count: u64,
}

impl From<LoggedMessage> for Message {
    fn from(found: LoggedMessage) -> Self {
        Self { message_id: found.message_id, from: found.from, to: found.to, ts: found.at, text: found.text }
    }
}

impl From<MessageTotals> for Stats {
    fn from(totals: MessageTotals) -> Self {
        let per_sender = totals.top_senders.into_iter().map(|(from, count)| SenderCount { from, count });
        Self {
            total_messages: totals.messages,
            senders_count: totals.senders,
            messages_per_sender: per_sender.collect(),
            first_message_ts: totals.first.map(|at| at.to_string()),
            last_message_ts: totals.last.map(|at| at.to_string()),
        }
    }
}

/// `GET /messages`
pub(crate) async fn list(state: Data<State>, caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let filter = read_filter(request.query_string(), "q")?;
    page::<Message>(&state, &caller, filter).await
}

/// What the caller sees of the messages that the filter finds, each as a `T`.
pub(crate) async fn page<T: From<LoggedMessage> + Serialize>(
    state: &State,
    caller: &Caller,
    mut filter: MessageFilter,
) -> Result<HttpResponse, Problem> {
    filter.tenant = caller.sees(filter.tenant)?;
    let found = state.messages.search(&filter).await.map_err(|error| Problem::unavailable(&error))?;
    Ok(HttpResponse::Ok().json(Page {
        data: found.messages.into_iter().map(T::from).collect(),
        total: found.total,
        limit: filter.limit,
        offset: filter.offset,
    }))
}

/// Reads what every search may have, and what this one has besides: `q` or `message_id`.
pub(crate) fn read_filter(raw: &str, besides: &'static str) -> Result<MessageFilter, Problem> {
    let mut query = Query::parse(raw, &["limit", "offset", "from", "since", besides, "tenant"]);
    let filter = MessageFilter {
        tenant: query.tenant(),
        message_id: query.read("message_id", message_id),
        from: query.read("from", phone_number),
        since: query.moment("since"),
        text: query.read("q", search_text).flatten(),
        limit: query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT),
        offset: query.number("offset", 0..=MAX_OFFSET).unwrap_or(0),
    };
    query.finish().map(|()| filter)
}

/// A phone number as it is stored, with `+`. It may come without one, or with the space that a `+` has become.
fn phone_number(text: &str) -> Result<String, &'static str> {
    let digits = text.strip_prefix(['+', ' ']).unwrap_or(text);
    if (1..=MAX_PHONE_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(format!("+{digits}"));
    }
    Err("must be a phone number: digits only, with or without a leading +")
}

fn message_id(text: &str) -> Result<String, String> {
    if (1..=NewUpdate::MAX_MESSAGE_ID).contains(&text.chars().count()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be the provider's id of a message, of at most {} characters", NewUpdate::MAX_MESSAGE_ID))
}

/// An empty text is in every message: it asks for nothing.
fn search_text(text: &str) -> Result<Option<String>, String> {
    if text.chars().count() > MAX_TEXT_CHARS {
        return Err(format!("may have at most {MAX_TEXT_CHARS} characters"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// `GET /stats`
///
/// With `source` or `hours` the path means the statistics of requests, which are the operators'.
pub(crate) async fn stats(state: Data<State>, caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["tenant", "source", "hours"]);
    if query.has("source") || query.has("hours") {
        if !matches!(caller.scope, Scope::Admin | Scope::Operator) {
            return Err(Problem::forbidden("statistics of requests are for operators"));
        }
        return statistics::stats(state, request).await;
    }
    let tenant = query.tenant();
    query.finish()?;
    let tenant = caller.sees(tenant)?;
    let totals = state.messages.totals(tenant.as_ref()).await.map_err(|error| Problem::unavailable(&error))?;
    Ok(HttpResponse::Ok().json(Stats::from(totals)))
}
