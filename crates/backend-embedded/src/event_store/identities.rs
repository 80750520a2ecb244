//! Who updates are about: identities, their aliases, and conversations, for a whole batch at once.
//!
//! [`common::identity`] decides who is who. Found conversations are kept in a bounded cache, filled only after the commit.

use std::collections::{HashMap, HashSet};

use common::identity::{Address, Alias, People, Plan};
use common::{TenantId, Timestamp};
use moka::sync::Cache;
use ports::event_store::NewUpdate;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use crate::insert::Rows;

/// Conversations kept in memory.
const CACHED: u64 = 100_000;

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
        let addresses: Vec<Option<Address>> = updates.iter().map(|update| update.address()).collect();
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
            let plan = load(&mut *connection, &unknown).await?.plan(&unknown);
            store(&plan, &mut *connection, now).await?;
            open(connection, &unknown, &plan.peers, found, now).await?;
        }
        Ok(addresses.iter().map(|address| found.0.get(address.as_ref()?).copied()).collect())
    }

    pub(super) fn remember(&self, found: Found) {
        for (address, id) in found.0 {
            self.0.insert(address, id);
        }
    }
}

async fn load(connection: &mut SqliteConnection, addresses: &[&Address]) -> Result<People, sqlx::Error> {
    const KNOWN: Rows = Rows {
        head: "SELECT a.tenant, a.kind, a.value, i.id, i.user_id FROM",
        columns: 3,
        tail: "AS v CROSS JOIN identity_aliases AS a ON a.tenant = v.column1 AND a.kind = v.column2 \
               AND a.value = v.column3 CROSS JOIN identities AS i ON i.id = a.identity",
    };
    let aliases: Vec<Alias> = addresses.iter().flat_map(|address| address.aliases()).collect();
    let rows = KNOWN
        .fetch(connection, &aliases, |alias, values| {
            values.push(alias.tenant.as_str().to_owned());
            values.push(alias.kind);
            values.push(alias.value.clone());
        })
        .await?;
    let mut people = People::default();
    for row in rows {
        let Ok(tenant) = TenantId::new(row.get(0)) else { continue };
        let alias = Alias { tenant, kind: Alias::kind(row.get(1)), value: row.get(2) };
        people.add(alias, Uuid::from_slice(row.get(3)).unwrap_or_default(), row.get(4));
    }
    Ok(people)
}

async fn store(plan: &Plan, connection: &mut SqliteConnection, now: Timestamp) -> Result<(), sqlx::Error> {
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
    let identities: Vec<_> = plan.identities.iter().collect();
    IDENTITIES
        .execute(&mut *connection, &identities, |(id, (tenant, user_id)), values| {
            values.push(id.as_bytes().to_vec());
            values.push(tenant.as_str().to_owned());
            values.push(user_id.clone());
            values.push(now.as_millis());
        })
        .await?;
    let aliases: Vec<_> = plan.aliases.iter().collect();
    ALIASES
        .execute(&mut *connection, &aliases, |(alias, id), values| {
            values.push(alias.tenant.as_str().to_owned());
            values.push(alias.kind);
            values.push(alias.value.clone());
            values.push(id.as_bytes().to_vec());
        })
        .await?;
    for (id, user_id) in &plan.named {
        sqlx::query("UPDATE identities SET user_id = ? WHERE id = ?")
            .bind(user_id)
            .bind(id.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
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
    let key = |address: &Address, peer: &[u8]| {
        (address.tenant.as_str().to_owned(), address.number.as_str().to_owned(), peer.to_vec())
    };
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
