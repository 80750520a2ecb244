//! People and conversations in memory.

use std::collections::HashMap;

use common::message::Party;
use common::{NumberId, TenantId};
use ports::event_store::NewUpdate;
use uuid::Uuid;

/// Whom a conversation is with.
#[derive(PartialEq, Eq, Hash)]
enum With {
    Person(Uuid),
    Group(String),
}

#[derive(Default)]
pub(super) struct Identities {
    user_ids: HashMap<(TenantId, String), Uuid>,
    phones: HashMap<(TenantId, String), Uuid>,
    conversations: HashMap<(TenantId, Option<NumberId>, With), Uuid>,
}

impl Identities {
    /// The conversation of an update, found or made.
    pub(super) fn conversation(&mut self, update: &NewUpdate) -> Option<Uuid> {
        let person = self.person(&update.tenant, &update.event.party);
        let with = update.event.group.clone().map(With::Group).or(person.map(With::Person))?;
        let place = (update.tenant.clone(), update.event.number.clone(), with);
        Some(*self.conversations.entry(place).or_insert_with(Uuid::now_v7))
    }

    /// The user id decides; a phone number stands in until its owner's user id is known, and follows its last owner.
    fn person(&mut self, tenant: &TenantId, party: &Party) -> Option<Uuid> {
        let user_id = party.user_id.clone().map(|id| (tenant.clone(), id));
        let phone = party.phone.clone().map(|phone| (tenant.clone(), phone));
        let by_phone = phone.as_ref().and_then(|phone| self.phones.get(phone)).copied();
        let person = match &user_id {
            None => by_phone.or_else(|| phone.is_some().then(Uuid::now_v7))?,
            Some(id) => match self.user_ids.get(id) {
                Some(person) => *person,
                None => by_phone.filter(|person| !self.has_user_id(*person)).unwrap_or_else(Uuid::now_v7),
            },
        };
        self.user_ids.extend(user_id.map(|id| (id, person)));
        self.phones.extend(phone.map(|phone| (phone, person)));
        Some(person)
    }

    fn has_user_id(&self, person: Uuid) -> bool {
        self.user_ids.values().any(|each| *each == person)
    }
}
