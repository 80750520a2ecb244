//! The identities behind addresses, found or made.

use std::collections::{BTreeMap, HashMap};

use common::{TenantId, Timestamp};
use sqlx::Acquire as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Address, Peer};
use crate::postgres::values::{Moment, column};

/// Times that people are looked up again because a concurrent transaction has added some of them. Each time that one
/// has committed, so this many in a row do not happen.
const TRIES: usize = 20;

type Alias = (TenantId, &'static str, String);

/// The peer of each address, as conversations name it; new identities and aliases are stored.
pub(super) async fn resolve(
    connection: &mut PgConnection,
    addresses: &[&Address],
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    for _ in 0..TRIES {
        let people = People::load(&mut *connection, addresses).await?;
        let plan = people.plan(addresses);
        if plan.is_empty() {
            return Ok(plan.peers);
        }
        let mut savepoint = connection.begin().await?;
        if plan.store(&mut savepoint, now).await? {
            savepoint.commit().await?;
            return Ok(plan.peers);
        }
        savepoint.rollback().await?;
    }
    Err(sqlx::Error::Protocol("people are added faster than they can be looked up".to_owned()))
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

/// The identities that a batch is about.
struct People {
    by_alias: HashMap<Alias, Uuid>,
    user_ids: HashMap<Uuid, Option<String>>,
}

/// What is to be stored, sorted so that concurrent transactions wait for each other in one order.
struct Plan {
    peers: Vec<Vec<u8>>,
    identities: BTreeMap<Uuid, (TenantId, Option<String>)>,
    aliases: BTreeMap<Alias, Uuid>,
    /// Identities that were known by the phone number only.
    named: BTreeMap<Uuid, String>,
}

impl People {
    async fn load(connection: &mut PgConnection, addresses: &[&Address]) -> Result<Self, sqlx::Error> {
        let aliases: Vec<Alias> = addresses.iter().flat_map(|address| aliases(address)).collect();
        let mut people = Self { by_alias: HashMap::new(), user_ids: HashMap::new() };
        if aliases.is_empty() {
            return Ok(people);
        }
        let rows: Vec<(String, String, String, Uuid, Option<String>)> = sqlx::query_as(
            "SELECT a.tenant, a.kind, a.value, i.id, i.user_id \
             FROM UNNEST($1::text[], $2::text[], $3::text[]) AS k (tenant, kind, value) \
             JOIN identity_aliases AS a ON a.tenant = k.tenant AND a.kind = k.kind AND a.value = k.value \
             JOIN identities AS i ON i.id = a.identity",
        )
        .bind(column(&aliases, |alias| alias.0.as_str()))
        .bind(column(&aliases, |alias| alias.1))
        .bind(column(&aliases, |alias| alias.2.as_str()))
        .fetch_all(connection)
        .await?;
        for (tenant, kind, value, id, user_id) in rows {
            let Ok(tenant) = TenantId::new(&tenant) else { continue };
            let kind = if kind == "user" { "user" } else { "phone" };
            people.by_alias.insert((tenant, kind, value), id);
            people.user_ids.insert(id, user_id);
        }
        Ok(people)
    }

    fn plan(mut self, addresses: &[&Address]) -> Plan {
        let mut plan = Plan {
            peers: Vec::with_capacity(addresses.len()),
            identities: BTreeMap::new(),
            aliases: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        for address in addresses {
            let (tenant, _, peer) = address;
            let (user, phone) = match peer {
                Peer::Group(group) => {
                    plan.peers.push(group.as_bytes().to_vec());
                    continue;
                }
                Peer::Person { user, phone } => (user.as_ref(), phone.as_ref()),
            };
            let id = self.known(tenant, user, phone).unwrap_or_else(|| {
                let id = Uuid::now_v7();
                plan.identities.insert(id, (tenant.clone(), None));
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
            for alias in aliases(address) {
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

impl Plan {
    fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.aliases.is_empty() && self.named.is_empty()
    }

    /// Stores all of it; `false` if a concurrent transaction has stored some of it in another way.
    async fn store(&self, connection: &mut PgConnection, now: Timestamp) -> Result<bool, sqlx::Error> {
        let aliases: Vec<(&Alias, &Uuid)> = self.aliases.iter().collect();
        let added = sqlx::query(
            "INSERT INTO identity_aliases (tenant, kind, value, identity) \
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::uuid[]) \
             ON CONFLICT (tenant, kind, value) DO NOTHING",
        )
        .bind(column(&aliases, |(alias, _)| alias.0.as_str()))
        .bind(column(&aliases, |(alias, _)| alias.1))
        .bind(column(&aliases, |(alias, _)| alias.2.as_str()))
        .bind(column(&aliases, |(_, id)| **id))
        .execute(&mut *connection)
        .await?;
        if added.rows_affected() < self.aliases.len() as u64 {
            return Ok(false);
        }
        let named: Vec<(&Uuid, &String)> = self.named.iter().collect();
        if !named.is_empty() {
            let renamed = sqlx::query(
                "UPDATE identities SET user_id = named.user_id FROM UNNEST($1::uuid[], $2::text[]) AS named (id, \
                 user_id) \
                 WHERE identities.id = named.id AND identities.user_id IS NULL",
            )
            .bind(column(&named, |(id, _)| **id))
            .bind(column(&named, |(_, user)| user.as_str()))
            .execute(&mut *connection)
            .await?;
            if renamed.rows_affected() < named.len() as u64 {
                return Ok(false);
            }
        }
        let identities: Vec<(&Uuid, &(TenantId, Option<String>))> = self.identities.iter().collect();
        sqlx::query(
            "INSERT INTO identities (id, tenant, user_id, created_at) \
             SELECT *, $4 FROM UNNEST($1::uuid[], $2::text[], $3::text[])",
        )
        .bind(column(&identities, |(id, _)| **id))
        .bind(column(&identities, |(_, (tenant, _))| tenant.as_str()))
        .bind(column(&identities, |(_, (_, user))| user.as_deref()))
        .bind(Moment::from(now))
        .execute(connection)
        .await?;
        Ok(true)
    }
}
