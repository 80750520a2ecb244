//! Who an update is about: identities, their aliases, and conversations.
//!
//! An identity is found by the business-scoped user id first, then by phone number; what is missing is added. Nothing
//! merges two identities here. Found conversations are kept in a bounded cache, filled only after the commit.

use std::collections::HashMap;

use common::message::Party;
use common::{TenantId, Timestamp};
use moka::sync::Cache;
use ports::event_store::NewUpdate;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

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
    /// The conversation of an update; `None` if it names no number or no person.
    pub(super) async fn find(
        &self,
        connection: &mut SqliteConnection,
        update: &NewUpdate,
        found: &mut Found,
        now: Timestamp,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let Some(address) = address(update) else { return Ok(None) };
        if let Some(id) = found.0.get(&address).copied().or_else(|| self.0.get(&address)) {
            return Ok(Some(id));
        }
        let (tenant, number, peer) = &address;
        let peer = match peer {
            Peer::Group(group) => group.as_bytes().to_vec(),
            Peer::Person { .. } => identity(connection, tenant, &update.event.party, now).await?.as_bytes().to_vec(),
        };
        let id: Vec<u8> = sqlx::query_scalar(
            "INSERT INTO conversations (tenant, number, peer, id, created_at) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (tenant, number, peer) DO UPDATE SET id = id RETURNING id",
        )
        .bind(tenant.as_str())
        .bind(number)
        .bind(peer)
        .bind(Uuid::now_v7().as_bytes().to_vec())
        .bind(now.as_millis())
        .fetch_one(connection)
        .await?;
        let id = Uuid::from_slice(&id).unwrap_or_default();
        found.0.insert(address, id);
        Ok(Some(id))
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

async fn identity(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    party: &Party,
    now: Timestamp,
) -> Result<Uuid, sqlx::Error> {
    let by_user = match &party.user_id {
        Some(user) => alias(connection, tenant, "user", user).await?,
        None => None,
    };
    let by_phone = match &party.phone {
        Some(phone) => alias(connection, tenant, "phone", phone).await?,
        None => None,
    };
    let (known_user, known_phone) = (by_user.is_some(), by_phone.is_some());
    let id = match (by_user, by_phone, &party.user_id) {
        // Known by user id; or by a phone number that is nobody's by user id yet; or there is no user id to differ.
        (Some((id, _)), _, _) | (None, Some((id, None)), _) | (None, Some((id, Some(_))), None) => id,
        // The phone number is another user's: a new person, who does not take it over.
        (None, Some((_, Some(_))) | None, _) => create(connection, tenant, party, now).await?,
    };
    if let Some(user) = &party.user_id
        && !known_user
    {
        add_alias(connection, tenant, "user", user, id).await?;
        sqlx::query("UPDATE identities SET user_id = ? WHERE id = ? AND user_id IS NULL")
            .bind(user)
            .bind(id.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    if let Some(phone) = &party.phone
        && !known_phone
    {
        add_alias(connection, tenant, "phone", phone, id).await?;
    }
    Ok(id)
}

async fn alias(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    kind: &str,
    value: &str,
) -> Result<Option<(Uuid, Option<String>)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT identities.id, identities.user_id FROM identity_aliases \
         JOIN identities ON identities.id = identity_aliases.identity \
         WHERE identity_aliases.tenant = ? AND kind = ? AND value = ?",
    )
    .bind(tenant.as_str())
    .bind(kind)
    .bind(value)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (Uuid::from_slice(row.get(0)).unwrap_or_default(), row.get(1))))
}

async fn add_alias(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    kind: &str,
    value: &str,
    identity: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR IGNORE INTO identity_aliases (tenant, kind, value, identity) VALUES (?, ?, ?, ?)")
        .bind(tenant.as_str())
        .bind(kind)
        .bind(value)
        .bind(identity.as_bytes().to_vec())
        .execute(connection)
        .await
        .map(|_| ())
}

async fn create(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    party: &Party,
    now: Timestamp,
) -> Result<Uuid, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query("INSERT INTO identities (id, tenant, user_id, created_at) VALUES (?, ?, ?, ?)")
        .bind(id.as_bytes().to_vec())
        .bind(tenant.as_str())
        .bind(&party.user_id)
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    Ok(id)
}
