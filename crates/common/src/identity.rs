//! Whom an update is about: which identity an address belongs to, as both backends decide it.
//!
//! An identity is found by the business-scoped user id first, then by phone number; what is missing is added. Nothing
//! merges two identities here. The backends load what is known of a batch's aliases, store the [`Plan`], and keep
//! conversations; this module only decides.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::message::Party;
use crate::{NumberId, TenantId};

/// One end of a conversation, by what an update says of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whose it is.
    pub tenant: TenantId,
    /// The business number.
    pub number: NumberId,
    /// The other side.
    pub peer: Peer,
}

/// The other side of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A person, by one id or both.
    Person {
        /// The business-scoped user id.
        user: Option<String>,
        /// The phone number.
        phone: Option<String>,
    },
    /// A group, by its id.
    Group(String),
}

/// One name of an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias {
    /// Whose it is: nothing is shared between tenants.
    pub tenant: TenantId,
    /// `user` or `phone`.
    pub kind: &'static str,
    /// The id.
    pub value: String,
}

impl Alias {
    /// The kind of a row: a text that is none of ours is a phone number.
    pub fn kind(text: &str) -> &'static str {
        if text == USER { USER } else { PHONE }
    }
}

const USER: &str = "user";
const PHONE: &str = "phone";

impl Address {
    /// The address of an update; `None` if it names no number or nobody.
    pub fn of(tenant: &TenantId, number: Option<&NumberId>, party: &Party, group: Option<&String>) -> Option<Self> {
        let text = |text: &String| storable(text);
        let peer = match group {
            Some(group) => Peer::Group(group.clone()),
            None if party.is_anonymous() => return None,
            None => Peer::Person { user: party.user_id.as_ref().map(text), phone: party.phone.as_ref().map(text) },
        };
        Some(Self { tenant: tenant.clone(), number: number?.clone(), peer })
    }

    /// The names that it gives a person; none for a group.
    pub fn aliases(&self) -> impl Iterator<Item = Alias> + '_ {
        let (user, phone) = match &self.peer {
            Peer::Group(_) => (None, None),
            Peer::Person { user, phone } => (user.as_ref(), phone.as_ref()),
        };
        let alias = |kind| move |value: &String| Alias { tenant: self.tenant.clone(), kind, value: value.clone() };
        user.map(alias(USER)).into_iter().chain(phone.map(alias(PHONE)))
    }
}

/// Text as both backends store it: PostgreSQL refuses U+0000, so it is U+FFFD everywhere.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The known identities that a batch is about.
#[derive(Debug, Default)]
pub struct People {
    by_alias: HashMap<Alias, Uuid>,
    user_ids: HashMap<Uuid, Option<String>>,
}

/// What is to be stored, sorted so that concurrent transactions wait for each other in one order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// For each address what names its other side in a conversation: the bytes of the identity, or of the group's id.
    pub peers: Vec<Vec<u8>>,
    /// New identities with their user ids.
    pub identities: BTreeMap<Uuid, (TenantId, Option<String>)>,
    /// New aliases of new or known identities.
    pub aliases: BTreeMap<Alias, Uuid>,
    /// Known identities that had no user id so far.
    pub named: BTreeMap<Uuid, String>,
}

impl Plan {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.aliases.is_empty() && self.named.is_empty()
    }
}

impl People {
    /// Adds a known alias with its identity's user id.
    pub fn add(&mut self, alias: Alias, identity: Uuid, user_id: Option<String>) {
        self.by_alias.insert(alias, identity);
        self.user_ids.insert(identity, user_id);
    }

    /// Decides whom each address is about.
    pub fn plan(mut self, addresses: &[&Address]) -> Plan {
        let mut plan = Plan { peers: Vec::with_capacity(addresses.len()), ..Plan::default() };
        for address in addresses {
            let (user, phone) = match &address.peer {
                Peer::Group(group) => {
                    plan.peers.push(group.as_bytes().to_vec());
                    continue;
                }
                Peer::Person { user, phone } => (user.as_ref(), phone.as_ref()),
            };
            let id = self.known(&address.tenant, user, phone).unwrap_or_else(|| {
                let id = Uuid::now_v7();
                plan.identities.insert(id, (address.tenant.clone(), None));
                self.user_ids.insert(id, None);
                id
            });
            if let (Some(user), Some(current @ None)) = (user, self.user_ids.get_mut(&id)) {
                *current = Some(user.clone());
                match plan.identities.get_mut(&id) {
                    Some((_, name)) => *name = Some(user.clone()),
                    None => drop(plan.named.insert(id, user.clone())),
                }
            }
            for alias in address.aliases() {
                if !self.by_alias.contains_key(&alias) {
                    self.by_alias.insert(alias.clone(), id);
                    plan.aliases.insert(alias, id);
                }
            }
            plan.peers.push(id.as_bytes().to_vec());
        }
        plan
    }

    fn known(&self, tenant: &TenantId, user: Option<&String>, phone: Option<&String>) -> Option<Uuid> {
        let find = |kind, value: Option<&String>| {
            let alias = Alias { tenant: tenant.clone(), kind, value: value?.clone() };
            self.by_alias.get(&alias).copied()
        };
        if let Some(id) = find(USER, user) {
            return Some(id);
        }
        let by_phone = find(PHONE, phone)?;
        // The phone number of another user is a new person, who does not take it over.
        let other = user.is_some() && self.user_ids.get(&by_phone).is_some_and(Option::is_some);
        (!other).then_some(by_phone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(user: Option<&str>, phone: Option<&str>) -> Address {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let party = Party { user_id: text(user), phone: text(phone), ..Party::default() };
        Address::of(&TenantId::default(), Some(&NumberId::new("777").unwrap()), &party, None).unwrap()
    }

    #[test]
    fn a_known_alias_finds_its_identity_and_the_others_are_added() {
        let (id, both) = (Uuid::from_u128(1), address(Some("DE.1"), Some("+4917")));
        let mut people = People::default();
        let phone = both.aliases().nth(1).unwrap();
        people.add(phone, id, None);
        let plan = people.plan(&[&both, &address(Some("DE.1"), None)]);
        assert_eq!(plan.peers, [id.as_bytes(), id.as_bytes()]);
        assert!(plan.identities.is_empty());
        assert_eq!(plan.aliases.keys().map(|alias| alias.kind).collect::<Vec<_>>(), ["user"]);
        assert_eq!(plan.named, BTreeMap::from([(id, "DE.1".to_owned())]));
    }

    #[test]
    fn what_no_database_takes_is_replaced_before_anybody_compares_it() {
        assert_eq!(address(Some("a\0b"), None), address(Some("a\u{fffd}b"), None));
    }

    #[test]
    fn nobody_and_no_number_have_no_address() {
        let number = NumberId::new("777").unwrap();
        let phone = Party { phone: Some("+4917".to_owned()), ..Party::default() };
        assert_eq!(Address::of(&TenantId::default(), Some(&number), &Party::default(), None), None);
        assert_eq!(Address::of(&TenantId::default(), None, &phone, None), None);
    }
}
