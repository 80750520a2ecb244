//! The event store in memory.

use async_trait::async_trait;
use common::event::PartitionKey;
use common::{Clock as _, EnvelopeId, Timestamp};
use ports::Unavailable;
use ports::event_store::{
    Batch, CommitOutcome, Committed, DeadLetter, Detail, EventStore, NewUpdate, RawObject, RawPending,
};
use ports::feed::FeedEvent;
use ports::message_log::LoggedMessage;
use ports::statistics::rollup::{LATE, minute};

use super::database::{Database, OutboxRow, Tracked};
use super::{MemoryBackend, Operation, Refusal};

/// The longest message id, in characters.
const LONGEST_ID: usize = 255;

/// Text as databases take it.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Database {
    fn commit(&mut self, batch: Batch, refusal: Option<&Refusal>, now: Timestamp) -> Committed {
        let outcomes = batch.updates.into_iter().map(|update| self.insert(update, refusal, now)).collect();
        for parked in batch.parked {
            let (throttled, received_at) = (parked.throttled.len() as u64, parked.received_at);
            if self.park(parked) && throttled > 0 {
                self.held.entry(minute(received_at)).or_default().throttled += throttled;
            }
        }
        for letter in batch.dead_letters {
            self.fail(&letter, now);
            self.dead_letters.entry((letter.tenant.clone(), letter.key)).or_insert(letter);
        }
        self.raw_objects.extend(batch.raw_objects.into_iter().map(|object| (object.envelope, object)));
        for pending in batch.raw_pending {
            if self.raw_pending.iter().all(|known| known.envelope != pending.envelope) {
                self.raw_pending.push(pending);
            }
        }
        for envelope in batch.finished {
            self.attempts.remove(&envelope);
        }
        for envelope in batch.released {
            self.parked.remove(&envelope);
        }
        Committed { outcomes }
    }

    fn fail(&mut self, letter: &DeadLetter, now: Timestamp) {
        if letter.message.is_none() {
            return;
        }
        let tracked = self.tracked.entry((letter.tenant.clone(), letter.key)).or_insert_with(|| Tracked {
            provider: letter.provider,
            failed: true,
            created_at: now,
            received_at: letter.received_at,
            envelopes: Vec::new(),
            failures: Vec::new(),
        });
        tracked.failed = true;
        if !tracked.failures.contains(&letter.envelope) {
            tracked.failures.push(letter.envelope);
        }
    }

    /// Keeps what statistics need of an inbound message.
    fn track(&mut self, update: &NewUpdate, now: Timestamp) {
        if !matches!(update.event.detail, Detail::Message { .. }) {
            return;
        }
        let new = || Tracked {
            provider: update.provider,
            failed: false,
            created_at: now,
            received_at: update.received_at,
            envelopes: Vec::new(),
            failures: Vec::new(),
        };
        let tracked = self.tracked.entry((update.tenant.clone(), update.key)).or_insert_with(new);
        if tracked.envelopes.contains(&update.envelope) {
            return;
        }
        let first = tracked.envelopes.is_empty();
        tracked.failed &= !first;
        tracked.envelopes.push(update.envelope);
        if !first && update.received_at.since(tracked.received_at) > LATE {
            self.held.entry(minute(update.received_at)).or_default().late += 1;
        }
    }

    fn insert(&mut self, update: NewUpdate, refusal: Option<&Refusal>, now: Timestamp) -> CommitOutcome {
        if let Some(reason) = refusal.and_then(|refusal| refusal(&update)) {
            return CommitOutcome::Refused(reason);
        }
        if let Detail::Message { id, .. } = &update.event.detail
            && id.chars().count() > LONGEST_ID
        {
            return CommitOutcome::Refused("message id too long".to_owned());
        }
        self.track(&update, now);
        let key = (update.tenant.clone(), update.key);
        if let Some(first) = self.keys.get(&key) {
            self.duplicates += u64::from(*first != update.envelope);
            return CommitOutcome::Duplicate;
        }
        self.keys.insert(key, update.envelope);
        let event = self.event(&update);
        self.outbox.push(OutboxRow { event, lease: None, published: false });
        self.messages.extend(message(&update));
        self.updates.push(update);
        CommitOutcome::New
    }

    fn event(&mut self, update: &NewUpdate) -> FeedEvent {
        let event = &update.event;
        let conversation = self.identities.conversation(update);
        let text = event.number.as_ref().map(common::NumberId::as_str).or(event.waba.as_deref());
        let text = PartitionKey::Text(text.unwrap_or(update.tenant.as_str()));
        FeedEvent {
            position: 0,
            tenant: update.tenant.clone(),
            key: update.key,
            event_type: event.event_type.as_str().to_owned(),
            occurred_at: event.occurred_at,
            number: event.number.clone(),
            conversation,
            partition: conversation.map_or(text, PartitionKey::Conversation).partition(),
            revision: 1,
            data: event.data.clone(),
        }
    }
}

fn message(update: &NewUpdate) -> Option<LoggedMessage> {
    let event = &update.event;
    let Detail::Message { id, text, .. } = &event.detail else { return None };
    Some(LoggedMessage {
        tenant: update.tenant.clone(),
        envelope: update.envelope,
        received_at: update.received_at,
        message_id: clean(id),
        from: event.party.phone.as_ref().or(event.party.user_id.as_ref()).map(|from| clean(from)),
        to: event.display_number.as_deref().or(event.number.as_ref().map(common::NumberId::as_str)).map(clean),
        at: event.occurred_at,
        text: text.as_deref().map(clean),
    })
}

#[async_trait]
impl EventStore for MemoryBackend {
    async fn commit(&self, batch: Batch) -> Result<Committed, Unavailable> {
        let work = || {
            let refusal = self.shared.refusal.lock().unwrap();
            self.database().commit(batch, refusal.as_ref(), self.clock().now())
        };
        self.faults().run(Operation::Commit, work).await
    }

    async fn begin_attempt(&self, envelope: EnvelopeId) -> Result<u32, Unavailable> {
        let work = || {
            let mut database = self.database();
            let attempts = database.attempts.entry(envelope).or_default();
            *attempts += 1;
            *attempts
        };
        self.faults().run(Operation::BeginAttempt, work).await
    }

    async fn take_back_attempt(&self, envelope: EnvelopeId) -> Result<(), Unavailable> {
        let work = || {
            if let Some(attempts) = self.database().attempts.get_mut(&envelope) {
                *attempts = attempts.saturating_sub(1);
            }
        };
        self.faults().run(Operation::TakeBackAttempt, work).await
    }

    async fn raw_pending(&self, max: usize) -> Result<Vec<RawPending>, Unavailable> {
        let work = || self.database().raw_pending.iter().take(max).cloned().collect();
        self.faults().run(Operation::RawPending, work).await
    }

    async fn raw_archived(&self, objects: Vec<RawObject>) -> Result<(), Unavailable> {
        let work = || {
            let mut database = self.database();
            for object in objects {
                database.raw_pending.retain(|pending| pending.envelope != object.envelope);
                database.raw_objects.insert(object.envelope, object);
            }
        };
        self.faults().run(Operation::RawArchived, work).await
    }
}
