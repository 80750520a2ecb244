//! Tokens and actions on SQLite.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use common::access::{Action, Scope, Token, TokenHash};
use common::{TenantId, Timestamp};
use ports::Unavailable;
use ports::access::{Access, ActionFilter, Done, TokenFilter};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite, query::Query};
use uuid::Uuid;

use crate::insert::{Rows, Values};
use crate::sqlite::{Database, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteAccess {
    database: Arc<Database>,
}

impl SqliteAccess {
    pub(crate) const fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Runs one statement that writes; returns how many rows it changed.
    async fn write(&self, statement: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, Unavailable> {
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        let done = statement.execute(&mut *transaction).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(done.rows_affected())
    }
}

const TOKEN: &str = "SELECT id, name, scope, tenant, created_at, expires_at, revoked_at FROM access_tokens";

#[async_trait]
impl Access for SqliteAccess {
    async fn add_token(&self, token: &Token, hash: TokenHash) -> Result<(), Unavailable> {
        let statement = sqlx::query(
            "INSERT INTO access_tokens (id, hash, name, scope, tenant, created_at, expires_at, revoked_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        )
        .bind(token.id.as_bytes().to_vec())
        .bind(hash.0.to_vec())
        .bind(token.name.clone())
        .bind(token.scope.as_str())
        .bind(token.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
        .bind(token.created_at.as_millis())
        .bind(token.expires_at.map(Timestamp::as_millis))
        .bind(token.revoked_at.map(Timestamp::as_millis));
        self.write(statement).await.map(|_| ())
    }

    async fn find_token(&self, hash: TokenHash) -> Result<Option<Token>, Unavailable> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{TOKEN} WHERE hash = ?")))
            .bind(hash.0.to_vec())
            .fetch_optional(&self.database.readers)
            .await
            .map_err(unavailable)?;
        row.as_ref().map(token).transpose()
    }

    async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Unavailable> {
        let page = "WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3";
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{TOKEN} {page}")))
            .bind(filter.tenant.as_ref().map(TenantId::as_str))
            .bind(filter.before.map(|id| id.as_bytes().to_vec()))
            .bind(filter.limit)
            .fetch_all(&self.database.readers)
            .await
            .map_err(unavailable)?;
        rows.iter().map(token).collect()
    }

    async fn revoke_token(&self, id: Uuid, at: Timestamp) -> Result<bool, Unavailable> {
        let statement = sqlx::query("UPDATE access_tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1")
            .bind(id.as_bytes().to_vec())
            .bind(at.as_millis());
        Ok(self.write(statement).await? > 0)
    }

    async fn revoke_tokens_of(&self, tenant: &TenantId, at: Timestamp) -> Result<u64, Unavailable> {
        let statement =
            sqlx::query("UPDATE access_tokens SET revoked_at = ?2 WHERE tenant = ?1 AND revoked_at IS NULL")
                .bind(tenant.as_str().to_owned())
                .bind(at.as_millis());
        self.write(statement).await
    }

    async fn begin_actions(&self, actions: &[Action]) -> Result<(), Unavailable> {
        const ACTIONS: Rows = Rows {
            head: "INSERT INTO actions (id, at, token, actor, action, target, tenant, source_ip, status, details) \
                   SELECT * FROM",
            columns: 10,
            tail: "WHERE column1 IS NOT NULL ON CONFLICT (id) DO NOTHING",
        };
        let values = |action: &Action, values: &mut Values| {
            values.push(action.id.as_bytes().to_vec());
            values.push(action.at.as_millis());
            values.push(action.token.map(|id| id.as_bytes().to_vec()));
            values.push(action.actor.clone());
            values.push(action.action.clone());
            values.push(action.target.clone());
            values.push(action.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()));
            values.push(action.source_ip.to_string());
            values.push(action.status);
            values.push(action.details.clone());
        };
        if actions.is_empty() {
            return Ok(());
        }
        let mut writer = self.database.writer().await?;
        let mut transaction = writer.begin().await?;
        ACTIONS.execute(&mut transaction, actions, values).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }

    async fn finish_action(&self, id: Uuid, status: u16, done: &Done) -> Result<(), Unavailable> {
        let statement = sqlx::query(
            "UPDATE actions SET status = ?2, target = coalesce(target, ?3), tenant = coalesce(tenant, ?4), \
             details = coalesce(details, ?5) WHERE id = ?1",
        )
        .bind(id.as_bytes().to_vec())
        .bind(status)
        .bind(done.target.clone())
        .bind(done.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
        .bind(done.details.clone());
        self.write(statement).await.map(|_| ())
    }

    async fn actions(&self, filter: &ActionFilter) -> Result<Vec<Action>, Unavailable> {
        let rows = sqlx::query(
            "SELECT id, at, token, actor, action, target, tenant, source_ip, status, details FROM actions \
             WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
        )
        .bind(filter.tenant.as_ref().map(TenantId::as_str))
        .bind(filter.before.map(|id| id.as_bytes().to_vec()))
        .bind(filter.limit)
        .fetch_all(&self.database.readers)
        .await
        .map_err(unavailable)?;
        rows.iter().map(action).collect()
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unavailable {
    Unavailable::new("a row of the access tables (written by newer software?)", error)
}

fn id(bytes: &[u8]) -> Result<Uuid, Unavailable> {
    Uuid::from_slice(bytes).map_err(unreadable)
}

fn tenant(row: &SqliteRow, column: &str) -> Result<Option<TenantId>, Unavailable> {
    row.get::<Option<String>, _>(column).map(|text| text.parse().map_err(unreadable)).transpose()
}

fn moment(row: &SqliteRow, column: &str) -> Option<Timestamp> {
    row.get::<Option<i64>, _>(column).map(Timestamp::from_millis)
}

fn token(row: &SqliteRow) -> Result<Token, Unavailable> {
    let scope: String = row.get("scope");
    Ok(Token {
        id: id(row.get("id"))?,
        name: row.get("name"),
        scope: Scope::from_name(&scope).ok_or_else(|| unreadable("an unknown scope"))?,
        tenant: tenant(row, "tenant")?,
        created_at: Timestamp::from_millis(row.get("created_at")),
        expires_at: moment(row, "expires_at"),
        revoked_at: moment(row, "revoked_at"),
    })
}

fn action(row: &SqliteRow) -> Result<Action, Unavailable> {
    let token: Option<&[u8]> = row.get("token");
    Ok(Action {
        id: id(row.get("id"))?,
        at: Timestamp::from_millis(row.get("at")),
        token: token.map(id).transpose()?,
        actor: row.get("actor"),
        action: row.get("action"),
        target: row.get("target"),
        details: row.get("details"),
        tenant: tenant(row, "tenant")?,
        source_ip: row.get::<String, _>("source_ip").parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        status: row.get::<Option<i64>, _>("status").and_then(|status| u16::try_from(status).ok()),
    })
}
