//! Who updates are about: identities, their aliases, and conversations, for a whole batch at once.
//!
//! An identity is found by the business-scoped user id first, then by phone number; what is missing is added. Nothing
//! merges two identities here. Found conversations are kept in a bounded cache, filled only after the commit.

use std::collections::{HashMap, HashSet};

use common::{TenantId, Timestamp};
use moka::sync::Cache;
use ports::event_store::NewUpdate;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use crate::insert::Rows;

/// Conversations kept in memory.
const CACHED: u64 = 100_000;

/// A conversation by what the update says of it.
type Address = (TenantId, String, Peer);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Peer {
    Person { user: Option<String>, phone: Option<String> },
    Group(String),
}

/// Conversations found or made in a transaction that is not committed yet.
#[derive(Default)]
pub(super) struct Found(HashMap<Address, Uuid>);

impl Found {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct Conversations(Cache<Address, Uuid>);

impl Default for Conversations {
    fn default() -> Self {
        Self(Cache::new(CACHED))
    }
}

impl Conversations {
    /// The conversation of each update, in order; `None` for one that names no number or no person.
    pub(super) async fn find(
        &self,
        connection: &mut SqliteConnection,
        updates: &[&NewUpdate],
        found: &mut Found,
        now: Timestamp,
    ) -> Result<Vec<Option<Uuid>>, sqlx::Error> {
        let addresses: Vec<Option<Address>> = updates.iter().map(|update| address(update)).collect();
        let mut unknown: Vec<&Address> = Vec::new();
        let mut asked = HashSet::new();
        for address in addresses.iter().flatten() {
            if found.0.contains_key(address) || !asked.insert(address) {
                continue;
            }
            match self.0.get(address) {
                Some(id) => {
                    found.0.insert(address.clone(), id);
                }
                None => unknown.push(address),
            }
        }
        if !unknown.is_empty() {
            let peers = People::load(&mut *connection, &unknown).await?.resolve(connection, &unknown, now).await?;
            open(connection, &unknown, &peers, found, now).await?;
        }
        Ok(addresses.iter().map(|address| found.0.get(address.as_ref()?).copied()).collect())
    }

    pub(super) fn remember(&self, found: Found) {
        for (address, id) in found.0 {
            self.0.insert(address, id);
        }
    }
}

fn address(update: &NewUpdate) -> Option<Address> {
    let number = update.event.number.as_ref()?.as_str().to_owned();
    let party = &update.event.party;
    let peer = match &update.event.group {
        Some(group) => Peer::Group(group.clone()),
        None if party.is_anonymous() => return None,
        None => Peer::Person { user: party.user_id.clone(), phone: party.phone.clone() },
    };
    Some((update.tenant.clone(), number, peer))
}

type Alias = (TenantId, &'static str, String);

/// The identities that a batch is about.
struct People {
    by_alias: HashMap<Alias, Uuid>,
    user_ids: HashMap<Uuid, Option<String>>,
}

impl People {
    async fn load(connection: &mut SqliteConnection, addresses: &[&Address]) -> Result<Self, sqlx::Error> {
        const KNOWN: Rows = Rows {
            head: "SELECT a.tenant, a.kind, a.value, i.id, i.user_id FROM",
            columns: 3,
            tail: "AS v CROSS JOIN identity_aliases AS a ON a.tenant = v.column1 AND a.kind = v.column2 \
                   AND a.value = v.column3 CROSS JOIN identities AS i ON i.id = a.identity",
        };
        let aliases: Vec<Alias> = addresses.iter().flat_map(|address| aliases(address)).collect();
        let rows = KNOWN
            .fetch(connection, &aliases, |(tenant, kind, value), values| {
                values.push(tenant.as_str().to_owned());
                values.push(*kind);
                values.push(value.clone());
            })
            .await?;
        let mut people = Self { by_alias: HashMap::new(), user_ids: HashMap::new() };
        for row in rows {
            let Ok(tenant) = TenantId::new(row.get(0)) else { continue };
            let id = Uuid::from_slice(row.get(3)).unwrap_or_default();
            let kind = if row.get::<&str, _>(1) == "user" { "user" } else { "phone" };
            people.by_alias.insert((tenant, kind, row.get(2)), id);
            people.user_ids.insert(id, row.get(4));
        }
        Ok(people)
    }

    /// The peer of each address, as conversations name it; new identities and aliases are stored.
    async fn resolve(
        mut self,
        connection: &mut SqliteConnection,
        addresses: &[&Address],
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, sqlx::Error> {
        const IDENTITIES: Rows = Rows {
            head: "INSERT INTO identities (id, tenant, user_id, created_at) SELECT * FROM",
            columns: 4,
            tail: "WHERE column1 IS NOT NULL",
        };
        const ALIASES: Rows = Rows {
            head: "INSERT INTO identity_aliases (tenant, kind, value, identity) SELECT * FROM",
            columns: 4,
            tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, kind, value) DO NOTHING",
        };
        let mut created: Vec<(Uuid, TenantId)> = Vec::new();
        let mut added: Vec<(Alias, Uuid)> = Vec::new();
        let mut named: Vec<Uuid> = Vec::new();
        let mut peers = Vec::with_capacity(addresses.len());
        for address in addresses {
            let (tenant, _, peer) = address;
            let (user, phone) = match peer {
                Peer::Group(group) => {
                    peers.push(group.as_bytes().to_vec());
                    continue;
                }
                Peer::Person { user, phone } => (user, phone),
            };
            let id = self.known(tenant, user.as_ref(), phone.as_ref()).unwrap_or_else(|| {
                let id = Uuid::now_v7();
                created.push((id, tenant.clone()));
                self.user_ids.insert(id, None);
                id
            });
            if let (Some(user), Some(current @ None)) = (user, self.user_ids.get_mut(&id)) {
                *current = Some(user.clone());
                named.push(id);
            }
            for alias in aliases(address) {
                if !self.by_alias.contains_key(&alias) {
                    self.by_alias.insert(alias.clone(), id);
                    added.push((alias, id));
                }
            }
            peers.push(id.as_bytes().to_vec());
        }
        let new: HashSet<Uuid> = created.iter().map(|(id, _)| *id).collect();
        IDENTITIES
            .execute(&mut *connection, &created, |(id, tenant), values| {
                values.push(id.as_bytes().to_vec());
                values.push(tenant.as_str().to_owned());
                values.push(self.user_ids.get(id).cloned().flatten());
                values.push(now.as_millis());
            })
            .await?;
        ALIASES
            .execute(&mut *connection, &added, |((tenant, kind, value), id), values| {
                values.push(tenant.as_str().to_owned());
                values.push(*kind);
                values.push(value.clone());
                values.push(id.as_bytes().to_vec());
            })
            .await?;
        for id in named.into_iter().filter(|id| !new.contains(id)) {
            sqlx::query("UPDATE identities SET user_id = ? WHERE id = ?")
                .bind(self.user_ids.get(&id).cloned().flatten())
                .bind(id.as_bytes().to_vec())
                .execute(&mut *connection)
                .await?;
        }
        Ok(peers)
    }

    fn known(&self, tenant: &TenantId, user: Option<&String>, phone: Option<&String>) -> Option<Uuid> {
        let find = |kind, value: Option<&String>| {
            value.and_then(|value| self.by_alias.get(&(tenant.clone(), kind, value.clone()))).copied()
        };
        if let Some(id) = find("user", user) {
            return Some(id);
        }
        let by_phone = find("phone", phone)?;
        // The phone number of another user is a new person, who does not take it over.
        let other = user.is_some() && self.user_ids.get(&by_phone).is_some_and(Option::is_some);
        (!other).then_some(by_phone)
    }
}

fn aliases((tenant, _, peer): &Address) -> Vec<Alias> {
    match peer {
        Peer::Group(_) => Vec::new(),
        Peer::Person { user, phone } => {
            let user = user.iter().map(|value| (tenant.clone(), "user", value.clone()));
            user.chain(phone.iter().map(|value| (tenant.clone(), "phone", value.clone()))).collect()
        }
    }
}

/// Finds or makes the conversations of the addresses with these peers.
async fn open(
    connection: &mut SqliteConnection,
    addresses: &[&Address],
    peers: &[Vec<u8>],
    found: &mut Found,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    const CONVERSATIONS: Rows = Rows {
        head: "INSERT INTO conversations (tenant, number, peer, id, created_at) SELECT * FROM",
        columns: 5,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, number, peer) DO UPDATE SET id = id RETURNING tenant, number, peer, id",
    };
    type Key = (String, String, Vec<u8>);
    let key = |address: &Address, peer: &[u8]| (address.0.as_str().to_owned(), address.1.clone(), peer.to_vec());
    let keys: HashSet<Key> = addresses.iter().zip(peers).map(|(address, peer)| key(address, peer)).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    let rows = CONVERSATIONS
        .fetch(connection, &keys, |(tenant, number, peer), values| {
            values.push(tenant.clone());
            values.push(number.clone());
            values.push(peer.clone());
            values.push(Uuid::now_v7().as_bytes().to_vec());
            values.push(now.as_millis());
        })
        .await?;
    let ids: HashMap<Key, Uuid> = rows
        .iter()
        .map(|row| ((row.get(0), row.get(1), row.get(2)), Uuid::from_slice(row.get(3)).unwrap_or_default()))
        .collect();
    for (address, peer) in addresses.iter().zip(peers) {
        if let Some(id) = ids.get(&key(address, peer)) {
            found.0.insert((*address).clone(), *id);
        }
    }
    Ok(())
}
