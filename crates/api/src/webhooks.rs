//! `/api/webhooks`: the webhooks that stored messages came with, by message: which one to open with `/api/raw/{id}`.
//!
//! It names them and opens nothing, so a look here is not written down. What became no message (statuses, parked and
//! refused webhooks) is not here.

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use common::TenantId;
use common::webhook::WebhookEvent;
use ports::message_log::LoggedMessage;
use serde::Serialize;

use crate::State;
use crate::access::Caller;
use crate::messages::{page, read_filter};
use crate::problem::Problem;

/// As long as raw webhooks are kept at most: of messages before it nothing could be opened.
const KEPT: Duration = Duration::from_hours(7 * 24);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    #[serde(flatten)]
    event: WebhookEvent,
    message_id: String,
    tenant: TenantId,
}

impl From<LoggedMessage> for Webhook {
    fn from(found: LoggedMessage) -> Self {
        Self {
            event: WebhookEvent::new(found.envelope, found.received_at),
            message_id: found.message_id,
            tenant: found.tenant,
        }
    }
}

/// `GET /api/webhooks`
pub(crate) async fn list(state: Data<State>, caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut filter = read_filter(request.query_string(), "message_id")?;
    filter.since.get_or_insert_with(|| state.clock.now().minus(KEPT));
    page::<Webhook>(&state, &caller, filter).await
}
