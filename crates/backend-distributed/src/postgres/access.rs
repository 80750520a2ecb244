//! Tokens and actions on PostgreSQL.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use common::access::{Action, Scope, Token, TokenHash};
use common::{TenantId, Timestamp};
use ports::Unavailable;
use ports::access::{Access, ActionFilter, Done, TokenFilter};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row as _};
use uuid::Uuid;

use super::database::{Database, bounded, settle};
use super::values::{Moment, column, optional, storable};

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresAccess {
    database: Arc<Database>,
}

impl PostgresAccess {
    pub(super) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Runs one statement that writes; returns how many rows it changed.
    async fn write(&self, statement: Query<'_, Postgres, PgArguments>) -> Result<u64, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let done = bounded(statement.execute(&mut *connection)).await;
        settle(connection, done).map(|done| done.rows_affected())
    }

    async fn read(&self, statement: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Unavailable> {
        let mut connection = self.database.acquire().await?;
        let rows = bounded(statement.fetch_all(&mut *connection)).await;
        settle(connection, rows)
    }
}

const TOKEN: &str = "SELECT id, name, scope, tenant, created_at, expires_at, revoked_at FROM access_tokens";

#[async_trait]
impl Access for PostgresAccess {
    async fn add_token(&self, token: &Token, hash: TokenHash) -> Result<(), Unavailable> {
        let statement = sqlx::query(
            "INSERT INTO access_tokens (id, hash, name, scope, tenant, created_at, expires_at, revoked_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING",
        )
        .bind(token.id)
        .bind(hash.0.to_vec())
        .bind(storable(&token.name))
        .bind(token.scope.as_str())
        .bind(token.tenant.as_ref().map(TenantId::as_str))
        .bind(Moment::from(token.created_at))
        .bind(token.expires_at.map(Moment::from))
        .bind(token.revoked_at.map(Moment::from));
        self.write(statement).await.map(|_| ())
    }

    async fn find_token(&self, hash: TokenHash) -> Result<Option<Token>, Unavailable> {
        let statement = sqlx::query(AssertSqlSafe(format!("{TOKEN} WHERE hash = $1"))).bind(hash.0.to_vec());
        self.read(statement).await?.first().map(token).transpose()
    }

    async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Unavailable> {
        let page =
            "WHERE ($1::text IS NULL OR tenant = $1) AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
        let statement = sqlx::query(AssertSqlSafe(format!("{TOKEN} {page}")))
            .bind(filter.tenant.as_ref().map(TenantId::as_str))
            .bind(filter.before)
            .bind(i64::from(filter.limit));
        self.read(statement).await?.iter().map(token).collect()
    }

    async fn revoke_token(&self, id: Uuid, at: Timestamp) -> Result<bool, Unavailable> {
        let statement = sqlx::query("UPDATE access_tokens SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1")
            .bind(id)
            .bind(Moment::from(at));
        Ok(self.write(statement).await? > 0)
    }

    async fn revoke_tokens_of(&self, tenant: &TenantId, at: Timestamp) -> Result<u64, Unavailable> {
        let statement =
            sqlx::query("UPDATE access_tokens SET revoked_at = $2 WHERE tenant = $1 AND revoked_at IS NULL")
                .bind(tenant.as_str())
                .bind(Moment::from(at));
        self.write(statement).await
    }

    async fn begin_actions(&self, actions: &[Action]) -> Result<(), Unavailable> {
        if actions.is_empty() {
            return Ok(());
        }
        let statement = sqlx::query(
            "INSERT INTO actions (id, at, token, actor, action, target, tenant, source_ip, status, details) \
             SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], \
             $7::text[], $8::text[], $9::integer[], $10::text[]) ON CONFLICT (id) DO NOTHING",
        )
        .bind(column(actions, |action| action.id))
        .bind(column(actions, |action| Moment::from(action.at)))
        .bind(column(actions, |action| action.token))
        .bind(column(actions, |action| storable(&action.actor)))
        .bind(column(actions, |action| storable(&action.action)))
        .bind(column(actions, |action| optional(action.target.as_ref())))
        .bind(column(actions, |action| action.tenant.as_ref().map(TenantId::as_str)))
        .bind(column(actions, |action| action.source_ip.to_string()))
        .bind(column(actions, |action| action.status.map(i32::from)))
        .bind(column(actions, |action| optional(action.details.as_ref())));
        self.write(statement).await.map(|_| ())
    }

    async fn finish_action(&self, id: Uuid, status: u16, done: &Done) -> Result<(), Unavailable> {
        let statement = sqlx::query(
            "UPDATE actions SET status = $2, target = coalesce(target, $3), tenant = coalesce(tenant, $4), \
             details = coalesce(details, $5) WHERE id = $1",
        )
        .bind(id)
        .bind(i32::from(status))
        .bind(optional(done.target.as_ref()))
        .bind(done.tenant.as_ref().map(TenantId::as_str))
        .bind(optional(done.details.as_ref()));
        self.write(statement).await.map(|_| ())
    }

    async fn actions(&self, filter: &ActionFilter) -> Result<Vec<Action>, Unavailable> {
        let statement = sqlx::query(
            "SELECT id, at, token, actor, action, target, tenant, source_ip, status, details FROM actions \
             WHERE ($1::text IS NULL OR tenant = $1) AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        )
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.before)
        .bind(i64::from(filter.limit));
        self.read(statement).await?.iter().map(action).collect()
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::new("a row of the access tables (written by newer software?)", error)
}

fn tenant(row: &PgRow, column: &str) -> Result<Option<TenantId>, Unavailable> {
    row.get::<Option<&str>, _>(column).map(|text| text.parse().map_err(unreadable)).transpose()
}

fn moment(row: &PgRow, column: &str) -> Option<Timestamp> {
    row.get::<Option<Moment>, _>(column).map(Into::into)
}

fn token(row: &PgRow) -> Result<Token, Unavailable> {
    Ok(Token {
        id: row.get("id"),
        name: row.get("name"),
        scope: Scope::from_name(row.get("scope")).ok_or_else(|| unreadable("an unknown scope"))?,
        tenant: tenant(row, "tenant")?,
        created_at: row.get::<Moment, _>("created_at").into(),
        expires_at: moment(row, "expires_at"),
        revoked_at: moment(row, "revoked_at"),
    })
}

fn action(row: &PgRow) -> Result<Action, Unavailable> {
    Ok(Action {
        id: row.get("id"),
        at: row.get::<Moment, _>("at").into(),
        token: row.get("token"),
        actor: row.get("actor"),
        action: row.get("action"),
        target: row.get("target"),
        details: row.get("details"),
        tenant: tenant(row, "tenant")?,
        source_ip: row.get::<&str, _>("source_ip").parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        status: row.get::<Option<i32>, _>("status").and_then(|status| u16::try_from(status).ok()),
    })
}
