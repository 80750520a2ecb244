//! The import document: tenants, apps and numbers as an operator writes them down.
//!
//! It states what shall be there and says nothing of what is not in it: an import never removes an entry. What it does
//! to a directory is decided by [`apply_import`](crate::apply_import).

use std::fmt;

use common::Timestamp;
use common::update::Provider;
use serde::{Deserialize, Serialize};

/// Secrets shorter than this are worth a warning.
const SHORT_SECRET: usize = 16;

/// What to write into the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Tenants. New ones get fresh keys; those that exist keep theirs.
    #[serde(default)]
    pub tenants: Vec<ImportTenant>,
    /// Apps. Their secrets and verification tokens are replaced as a whole.
    #[serde(default)]
    pub apps: Vec<ImportApp>,
    /// Numbers with the tenants that own them.
    #[serde(default)]
    pub numbers: Vec<ImportNumber>,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportTenant {
    /// Its id.
    pub id: String,
    /// Its name, for people. Without one the name stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An app. Its secrets do not show in `Debug`, but they do when it is serialised.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportApp {
    /// Its id, as in `/webhooks/meta/{app}`.
    pub id: String,
    /// Whose app it is.
    #[serde(default = "meta")]
    pub provider: Provider,
    /// Secrets that sign webhooks, newest first; at least one.
    pub secrets: Vec<String>,
    /// Tokens of the verification request. Must be given for Meta, so that leaving them out by mistake does not remove
    /// them; no other provider has such a request.
    #[serde(default, skip_serializing_if = "VerifyTokens::are_left_out")]
    pub verify_tokens: VerifyTokens,
    /// Whether paths without an app try this one's secrets.
    #[serde(default = "yes")]
    pub default: bool,
    /// The provider's account it stands for (Twilio's `AccountSid`). Without one it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Where the provider believes to send: scheme, host and port. Without one it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
}

/// The verification tokens of an app, which a document may leave out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VerifyTokens(pub(crate) Option<Vec<String>>);

impl VerifyTokens {
    /// The tokens; left out are none.
    pub fn as_slice(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether the document says nothing of them.
    pub const fn are_left_out(&self) -> bool {
        self.0.is_none()
    }
}

impl FromIterator<String> for VerifyTokens {
    fn from_iter<T: IntoIterator<Item = String>>(tokens: T) -> Self {
        Self(Some(tokens.into_iter().collect()))
    }
}

impl fmt::Debug for VerifyTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} REDACTED", self.as_slice().len())
    }
}

/// From when on a number belongs to a tenant. A number may be listed again with another `valid_from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportNumber {
    /// Meta's id of the number.
    pub phone_number_id: String,
    /// The WhatsApp business account it belongs to. Without one it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waba_id: Option<String>,
    /// The app it is registered under, from this document or the directory.
    pub app: String,
    /// Its owner, from this document or the directory.
    pub tenant: String,
    /// The first moment it belongs to the tenant; the epoch stands for "always".
    #[serde(default, with = "common::clock::rfc3339")]
    pub valid_from: Timestamp,
}

impl Import {
    /// What is allowed but looks like a mistake, by place and without any value.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, app) in self.apps.iter().enumerate() {
            for (at, secret) in app.secrets.iter().enumerate() {
                if secret.chars().count() < SHORT_SECRET {
                    warnings.push(format!("apps[{index}].secrets[{at}]: shorter than {SHORT_SECRET} characters"));
                }
            }
        }
        warnings
    }
}

impl fmt::Debug for ImportApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportApp")
            .field("id", &self.id)
            .field("provider", &self.provider)
            .field("secrets", &format_args!("{} REDACTED", self.secrets.len()))
            .field("verify_tokens", &self.verify_tokens)
            .field("default", &self.default)
            .field("account", &self.account)
            .field("public_url", &self.public_url)
            .finish()
    }
}

const fn meta() -> Provider {
    Provider::Meta
}

const fn yes() -> bool {
    true
}
