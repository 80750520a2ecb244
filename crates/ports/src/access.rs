//! Access: tokens of the API, and what was done with them.
//!
//! Who may do what is the API's to decide; here tokens are kept by their hash, and actions are written down before they
//! are done, so that none can leave no trace.

use async_trait::async_trait;
use common::access::{Action, Token, TokenHash};
use common::{TenantId, Timestamp};
use uuid::Uuid;

use crate::Unavailable;

/// Which tokens to find.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Only those of this tenant.
    pub tenant: Option<TenantId>,
    /// Only those older than this one.
    pub before: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
}

/// Which actions to find.
#[derive(Clone, Debug, Default)]
pub struct ActionFilter {
    /// Only those that concern this tenant.
    pub tenant: Option<TenantId>,
    /// Only those older than this one.
    pub before: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
}

/// What may be known of an action only once it is done; see the fields of [`Action`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What it was done to.
    pub target: Option<String>,
    /// What was changed.
    pub details: Option<String>,
    /// Whose data it concerns.
    pub tenant: Option<TenantId>,
}

/// See the module's documentation.
#[async_trait]
pub trait Access: Send + Sync {
    /// Stores a token. Idempotent by its id.
    async fn add_token(&self, token: &Token, hash: TokenHash) -> Result<(), Unavailable>;

    /// The token with this hash, whether it is still valid or not.
    async fn find_token(&self, hash: TokenHash) -> Result<Option<Token>, Unavailable>;

    /// Tokens, newest first.
    async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Unavailable>;

    /// Revokes a token; the first time counts. False if there is none with this id.
    async fn revoke_token(&self, id: Uuid, at: Timestamp) -> Result<bool, Unavailable>;

    /// Revokes all tokens of a tenant; returns how many were not revoked before.
    async fn revoke_tokens_of(&self, tenant: &TenantId, at: Timestamp) -> Result<u64, Unavailable>;

    /// Writes actions down, before they are done: all of them or none. Idempotent by their ids.
    async fn begin_actions(&self, actions: &[Action]) -> Result<(), Unavailable>;

    /// Says how an action ended, and what of it was not known before.
    async fn finish_action(&self, id: Uuid, status: u16, done: &Done) -> Result<(), Unavailable>;

    /// Actions, newest first.
    async fn actions(&self, filter: &ActionFilter) -> Result<Vec<Action>, Unavailable>;
}
