//! The identities behind addresses, found or made.

use common::identity::{Address, Alias, People, Plan};
use common::{TenantId, Timestamp};
use sqlx::Acquire as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::postgres::values::{Moment, column};

/// Times that people are looked up again because a concurrent transaction has added some of them. Each time that one
/// has committed, so this many in a row do not happen.
const TRIES: usize = 20;

/// The peer of each address, as conversations name it; new identities and aliases are stored.
pub(super) async fn resolve(
    connection: &mut PgConnection,
    addresses: &[&Address],
    now: Timestamp,
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    for _ in 0..TRIES {
        let people = load(&mut *connection, addresses).await?;
        let plan = people.plan(addresses);
        if plan.is_empty() {
            return Ok(plan.peers);
        }
        let mut savepoint = connection.begin().await?;
        if store(&plan, &mut savepoint, now).await? {
            savepoint.commit().await?;
            return Ok(plan.peers);
        }
        savepoint.rollback().await?;
    }
    Err(sqlx::Error::Protocol("people are added faster than they can be looked up".to_owned()))
}

async fn load(connection: &mut PgConnection, addresses: &[&Address]) -> Result<People, sqlx::Error> {
    let aliases: Vec<Alias> = addresses.iter().flat_map(|address| address.aliases()).collect();
    let mut people = People::default();
    if aliases.is_empty() {
        return Ok(people);
    }
    let rows: Vec<(String, String, String, Uuid, Option<String>)> = sqlx::query_as(
        "SELECT a.tenant, a.kind, a.value, i.id, i.user_id \
         FROM UNNEST($1::text[], $2::text[], $3::text[]) AS k (tenant, kind, value) \
         JOIN identity_aliases AS a ON a.tenant = k.tenant AND a.kind = k.kind AND a.value = k.value \
         JOIN identities AS i ON i.id = a.identity",
    )
    .bind(column(&aliases, |alias| alias.tenant.as_str()))
    .bind(column(&aliases, |alias| alias.kind))
    .bind(column(&aliases, |alias| alias.value.as_str()))
    .fetch_all(connection)
    .await?;
    for (tenant, kind, value, id, user_id) in rows {
        let Ok(tenant) = TenantId::new(&tenant) else { continue };
        people.add(Alias { tenant, kind: Alias::kind(&kind), value }, id, user_id);
    }
    Ok(people)
}

/// Stores all of it; `false` if a concurrent transaction has stored some of it in another way.
async fn store(plan: &Plan, connection: &mut PgConnection, now: Timestamp) -> Result<bool, sqlx::Error> {
    let aliases: Vec<(&Alias, &Uuid)> = plan.aliases.iter().collect();
    let added = sqlx::query(
        "INSERT INTO identity_aliases (tenant, kind, value, identity) \
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::uuid[]) \
         ON CONFLICT (tenant, kind, value) DO NOTHING",
    )
    .bind(column(&aliases, |(alias, _)| alias.tenant.as_str()))
    .bind(column(&aliases, |(alias, _)| alias.kind))
    .bind(column(&aliases, |(alias, _)| alias.value.as_str()))
    .bind(column(&aliases, |(_, id)| **id))
    .execute(&mut *connection)
    .await?;
    if added.rows_affected() < plan.aliases.len() as u64 {
        return Ok(false);
    }
    let named: Vec<(&Uuid, &String)> = plan.named.iter().collect();
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
    let identities: Vec<(&Uuid, &(TenantId, Option<String>))> = plan.identities.iter().collect();
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
