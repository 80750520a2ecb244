//! Who may use the API: tokens with a scope, of which only a hash is kept.
//!
//! A token is 256 random bits, so a plain SHA-256 finds it again and tells nothing of it. It is shown once, when it is
//! made. What somebody did with one is an [`Action`]; actions name tokens by their id, never by anything secret.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Timestamp, rfc3339};
use crate::ids::TenantId;

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Everything, tokens and secrets included.
    Admin,
    /// Everything of every tenant but tokens, apps and their secrets, and the making and ending of tenants.
    Operator,
    /// What one tenant has, to read.
    TenantReader,
    /// Sending messages for one tenant, and reading their state.
    TenantSender,
}

impl Scope {
    /// Every scope, widest first.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::TenantReader, Self::TenantSender];

    /// The name in rows, documents and on command lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::TenantReader => "tenant-reader",
            Self::TenantSender => "tenant-sender",
        }
    }

    /// The scope with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }

    /// Whether a token of this scope belongs to one tenant.
    pub const fn is_of_tenant(self) -> bool {
        matches!(self, Self::TenantReader | Self::TenantSender)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The SHA-256 of a token: what is stored of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token as it was presented.
    pub fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        Self(hash)
    }
}

/// A new token's text, `wharf_` and 43 characters of base64url; shown once. Does not print itself.
#[derive(Clone)]
pub struct TokenText(String);

impl TokenText {
    /// A fresh one.
    pub fn fresh() -> Self {
        Self(format!("wharf_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
    }

    /// The text. Whoever has it has the token.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(REDACTED)")
    }
}

/// A token as it is known, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Its id; newer ones are larger.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// Whose it is; exactly for the scopes of tenants.
    pub tenant: Option<TenantId>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created_at: Timestamp,
    /// From when on it opens nothing; `None` is never.
    #[serde(with = "rfc3339::option")]
    pub expires_at: Option<Timestamp>,
    /// Since when it is revoked.
    #[serde(with = "rfc3339::option")]
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Whether it opens anything at a moment.
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| at < end)
    }
}

/// Something that was done through the API, or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Its id; newer ones are larger.
    pub id: Uuid,
    /// When it began.
    #[serde(with = "rfc3339")]
    pub at: Timestamp,
    /// The token's id; `None` is the token of the configuration.
    pub token: Option<Uuid>,
    /// The token's name.
    pub actor: String,
    /// Method and route, as in the documentation: `DELETE /api/tenants/{id}`.
    pub action: String,
    /// What it was done to, by id.
    pub target: Option<String>,
    /// What was changed of it, in words; no secret.
    pub details: Option<String>,
    /// Whose data it concerns, if it is one tenant's. What concerns several is written down for each.
    pub tenant: Option<TenantId>,
    /// The client's address.
    pub source_ip: IpAddr,
    /// The answer's status; `None` if the process ended before there was one.
    pub status: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_text_and_tells_nothing() {
        let token = TokenText::fresh();
        assert_eq!(token.expose().len(), 49);
        assert_eq!(token.hash(), TokenHash::of(token.expose().as_bytes()));
        assert_ne!(token.hash(), TokenText::fresh().hash());
        assert_eq!(format!("{token:?}"), "TokenText(REDACTED)");
    }

    #[test]
    fn a_token_ends_with_its_time_or_its_revocation() {
        let at = Timestamp::from_millis;
        let token = Token {
            id: Uuid::now_v7(),
            name: "dashboard".into(),
            scope: Scope::TenantReader,
            tenant: TenantId::new("acme").ok(),
            created_at: at(0),
            expires_at: Some(at(10)),
            revoked_at: None,
        };
        assert!(token.is_valid_at(at(9)));
        assert!(!token.is_valid_at(at(10)));
        assert!(!Token { revoked_at: Some(at(1)), ..token }.is_valid_at(at(2)));
    }

    #[test]
    fn names_of_scopes_are_those_of_documents() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::from_name("root"), None);
    }
}
