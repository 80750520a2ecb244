//! Access in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use common::access::{Action, Token, TokenHash};
use common::{TenantId, Timestamp};
use ports::Unavailable;
use ports::access::{Access, ActionFilter, Done, TokenFilter};
use uuid::Uuid;

use super::{MemoryBackend, Operation};

/// What is kept of tokens and actions.
#[derive(Default)]
pub(super) struct Kept {
    tokens: BTreeMap<Uuid, (Token, TokenHash)>,
    actions: BTreeMap<Uuid, Action>,
}

impl Kept {
    fn revoke(&mut self, at: Timestamp, concerns: impl Fn(&Token) -> bool) -> u64 {
        let concerned = self.tokens.values_mut().map(|(token, _)| token).filter(|token| concerns(token));
        let fresh = concerned.filter(|token| token.revoked_at.is_none());
        fresh.map(|token| token.revoked_at = Some(at)).count() as u64
    }
}

#[async_trait]
impl Access for MemoryBackend {
    async fn add_token(&self, token: &Token, hash: TokenHash) -> Result<(), Unavailable> {
        let work = || {
            self.access_rows().tokens.entry(token.id).or_insert_with(|| (token.clone(), hash));
        };
        self.faults().run(Operation::WriteAccess, work).await
    }

    async fn find_token(&self, hash: TokenHash) -> Result<Option<Token>, Unavailable> {
        let work = || {
            let kept = self.access_rows();
            kept.tokens.values().find(|(_, known)| *known == hash).map(|(token, _)| token.clone())
        };
        self.faults().run(Operation::ReadAccess, work).await
    }

    async fn tokens(&self, filter: &TokenFilter) -> Result<Vec<Token>, Unavailable> {
        let work = || {
            let kept = self.access_rows();
            let tokens = kept.tokens.values().rev().map(|(token, _)| token);
            let older = tokens.filter(|each| filter.before.is_none_or(|before| each.id < before));
            let own = older.filter(|each| filter.tenant.is_none() || each.tenant == filter.tenant);
            own.take(usize::try_from(filter.limit).unwrap()).cloned().collect()
        };
        self.faults().run(Operation::ReadAccess, work).await
    }

    async fn revoke_token(&self, id: Uuid, at: Timestamp) -> Result<bool, Unavailable> {
        let work = || {
            let mut kept = self.access_rows();
            kept.revoke(at, |token| token.id == id);
            kept.tokens.contains_key(&id)
        };
        self.faults().run(Operation::WriteAccess, work).await
    }

    async fn revoke_tokens_of(&self, tenant: &TenantId, at: Timestamp) -> Result<u64, Unavailable> {
        let work = || self.access_rows().revoke(at, |token| token.tenant.as_ref() == Some(tenant));
        self.faults().run(Operation::WriteAccess, work).await
    }

    async fn begin_actions(&self, actions: &[Action]) -> Result<(), Unavailable> {
        let work = || {
            let mut kept = self.access_rows();
            for action in actions {
                kept.actions.entry(action.id).or_insert_with(|| action.clone());
            }
        };
        self.faults().run(Operation::WriteAccess, work).await
    }

    async fn finish_action(&self, id: Uuid, status: u16, done: &Done) -> Result<(), Unavailable> {
        let work = || {
            if let Some(action) = self.access_rows().actions.get_mut(&id) {
                action.status = Some(status);
                action.target = action.target.take().or_else(|| done.target.clone());
                action.tenant = action.tenant.take().or_else(|| done.tenant.clone());
                action.details = action.details.take().or_else(|| done.details.clone());
            }
        };
        self.faults().run(Operation::WriteAccess, work).await
    }

    async fn actions(&self, filter: &ActionFilter) -> Result<Vec<Action>, Unavailable> {
        let work = || {
            let kept = self.access_rows();
            let older = kept.actions.values().rev().filter(|each| filter.before.is_none_or(|before| each.id < before));
            let own = older.filter(|each| filter.tenant.is_none() || each.tenant == filter.tenant);
            own.take(usize::try_from(filter.limit).unwrap()).cloned().collect()
        };
        self.faults().run(Operation::ReadAccess, work).await
    }
}
