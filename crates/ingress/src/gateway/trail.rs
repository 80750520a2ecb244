//! What is found out about a webhook on its way.

use common::envelope::ParkReason;
use common::record::{RecordedMessages, SignatureStatus};
use common::update::Provider;
use common::{AppId, EventKey, RequestId, TenantId};
use ports::admission::Verdict;

use super::is_known;
use crate::plan::Planned;

/// Messages of one request whose keys its record carries; Meta sends at most 1000 updates.
const MAX_RECORDED_MESSAGES: usize = 2000;
/// What the button of Meta's dashboard sends is, in records.
const TEST: &str = "test";

/// What is found out on the way, for the record.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) signature: Option<SignatureStatus>,
    pub(super) provider: Option<Provider>,
    pub(super) app: Option<AppId>,
    pub(super) tenant: Option<TenantId>,
    pub(super) event: Option<EventKey>,
    pub(super) event_type: Option<&'static str>,
    pub(super) event_count: u32,
    pub(super) duplicate: bool,
    pub(super) suspicious: bool,
    /// Why updates are parked or the request is suspicious; counts before the code of the answer.
    pub(super) reason: Option<&'static str>,
    pub(super) messages: Vec<RecordedMessages>,
}

impl Trail {
    /// Notes what a webhook holds.
    pub(super) fn note(&mut self, request: RequestId, planned: &Planned<'_>) {
        self.event_count = u32::try_from(planned.count()).unwrap_or(u32::MAX);
        if let Some((tenant, event, kind)) = planned.first() {
            self.tenant = Some(tenant.clone());
            self.event = event;
            self.event_type = Some(kind);
        }
        if planned.is_dashboard_test() {
            // Somebody at Meta's dashboard looks whether it works: no attempt at anything, whoever owns the invented number.
            self.event_type = Some(TEST);
            self.reason = Some(TEST);
            tracing::info!(request.id = %request, "a test of Meta's dashboard");
            return;
        }
        if planned.is_unreadable() {
            tracing::warn!(request.id = %request, "a correctly signed body is not readable as a webhook; parked");
        }
        let is_suspicious = |reason: &ParkReason| {
            matches!(reason, ParkReason::UnknownTenant | ParkReason::ForeignApp | ParkReason::TooOld)
        };
        let suspicious = planned.park_reasons().find(is_suspicious);
        self.suspicious |= suspicious.is_some();
        let unreadable = planned.is_unreadable().then_some(ParkReason::Unreadable);
        self.reason = suspicious.or_else(|| planned.park_reasons().next()).or(unreadable).map(ParkReason::as_str);
        for reason in planned.park_reasons().take(1) {
            let tenant = match reason {
                ParkReason::UnknownTenant => "Unknown Tenant",
                other => other.as_str(),
            };
            tracing::warn!(request.id = %request, reason = tenant, "updates are parked");
        }
    }

    /// Notes its messages, by what admission said of all of them.
    pub(super) fn note_messages<'m>(
        &mut self,
        messages: impl Iterator<Item = (usize, &'m TenantId, EventKey)>,
        verdicts: &[Verdict],
    ) {
        let all_known = is_known(verdicts.len(), verdicts);
        for (_, tenant, key) in messages.take(MAX_RECORDED_MESSAGES) {
            let position = self.messages.iter().position(|each| each.tenant == *tenant).unwrap_or_else(|| {
                self.messages.push(RecordedMessages {
                    tenant: tenant.clone(),
                    stored: Vec::new(),
                    duplicates: Vec::new(),
                });
                self.messages.len() - 1
            });
            let list = &mut self.messages[position];
            // What travels on although it is known is counted by the database.
            if all_known { list.duplicates.push(key) } else { list.stored.push(key) }
        }
    }
}
