//! Who updates are about: identities, their aliases, and conversations, for a whole batch at once.
//!
//! [`common::identity`] decides who is who. Where a concurrent transaction adds the same alias first, everything of the attempt is
//! undone and people are looked up again. Found conversations are kept in a bounded cache, filled only after the
//! commit.

mod people;

use std::collections::{BTreeSet, HashMap, HashSet};

use common::Timestamp;
use common::identity::Address;
use moka::sync::Cache;
use ports::event_store::NewUpdate;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::postgres::values::{Moment, column};

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
        connection: &mut PgConnection,
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
            let peers = people::resolve(&mut *connection, &unknown, now).await?;
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

/// A conversation as the table names it: tenant, number and peer.
type Key = (String, String, Vec<u8>);

/// Finds or makes the conversations of the addresses with these peers.
async fn open(
    connection: &mut PgConnection,
    addresses: &[&Address],
    peers: &[Vec<u8>],
    found: &mut Found,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let key = |address: &Address, peer: &[u8]| {
        (address.tenant.as_str().to_owned(), address.number.as_str().to_owned(), peer.to_vec())
    };
    let keys: BTreeSet<Key> = addresses.iter().zip(peers).map(|(address, peer)| key(address, peer)).collect();
    let mut keys: Vec<Key> = keys.into_iter().collect();
    let mut ids = known(&mut *connection, &keys).await?;
    keys.retain(|key| !ids.contains_key(key));
    if !keys.is_empty() {
        ids.extend(make(connection, &keys, now).await?);
    }
    for (address, peer) in addresses.iter().zip(peers) {
        if let Some(id) = ids.get(&key(address, peer)) {
            found.0.insert((*address).clone(), *id);
        }
    }
    Ok(())
}

type Row = (String, String, Vec<u8>, Uuid);

fn by_key(rows: Vec<Row>) -> HashMap<Key, Uuid> {
    rows.into_iter().map(|(tenant, number, peer, id)| ((tenant, number, peer), id)).collect()
}

async fn known(connection: &mut PgConnection, keys: &[Key]) -> Result<HashMap<Key, Uuid>, sqlx::Error> {
    let rows = sqlx::query_as(
        "SELECT c.tenant, c.number, c.peer, c.id FROM UNNEST($1::text[], $2::text[], $3::bytea[]) \
             AS k (tenant, number, peer) \
         JOIN conversations AS c ON c.tenant = k.tenant AND c.number = k.number AND c.peer = k.peer",
    )
    .bind(column(keys, |key| key.0.as_str()))
    .bind(column(keys, |key| key.1.as_str()))
    .bind(column(keys, |key| key.2.as_slice()))
    .fetch_all(connection)
    .await?;
    Ok(by_key(rows))
}

/// Makes conversations; one that a concurrent transaction makes is waited for and taken.
async fn make(connection: &mut PgConnection, keys: &[Key], now: Timestamp) -> Result<HashMap<Key, Uuid>, sqlx::Error> {
    let rows = sqlx::query_as(
        "INSERT INTO conversations AS c (tenant, number, peer, id, created_at) \
         SELECT *, $5 FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::uuid[]) \
         ON CONFLICT (tenant, number, peer) DO UPDATE SET id = c.id RETURNING tenant, number, peer, id",
    )
    .bind(column(keys, |key| key.0.as_str()))
    .bind(column(keys, |key| key.1.as_str()))
    .bind(column(keys, |key| key.2.as_slice()))
    .bind(column(keys, |_| Uuid::now_v7()))
    .bind(Moment::from(now))
    .fetch_all(connection)
    .await?;
    Ok(by_key(rows))
}
