//! Who signed a webhook: one signature header, of the provider's own kind, over the raw bytes, under a secret of the app in
//! the path, or of one of the default apps. What matches is the app.
//!
//! Anybody may send what is to be checked, so what a check costs is bounded: by the number of keys, and large bodies let
//! other webhooks go between two of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Timestamp;
use common::directory::{MAX_DEFAULT_APPS, OpenApp, OpenDirectory};
use common::record::SignatureStatus;
use common::update::Provider;
use providers::{generic, meta, twilio};
use ring::hmac;
use serde::Serialize;

use crate::gateway::Incoming;

/// The header of each provider's signature.
pub(crate) const HEADERS: [(Provider, &str); 3] = [
    (Provider::Meta, meta::signature::HEADER),
    (Provider::Twilio, twilio::signature::HEADER),
    (Provider::Generic, generic::signature::HEADER),
];

/// A webhook whose sender is known.
pub(crate) struct Verified<'d> {
    pub(crate) app: &'d OpenApp,
    pub(crate) provider: Provider,
    /// Valid, or skipped by the switch for it.
    pub(crate) signature: SignatureStatus,
}

/// An app, and one of its keys.
type AppKey<'d> = (&'d OpenApp, &'d hmac::Key);

/// Bodies over this size let others go after each key. HMAC-SHA1 over four addresses' spellings with a form of this size
/// takes a tenth of a millisecond, one HMAC-SHA256 a third of that.
const LONG_CHECK: usize = 16 << 10;

/// Why a sender is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The provider has no secret here.
    NotConfigured,
    /// The signature does not do.
    Signature(SignatureStatus),
}

/// What was asked for, as the provider may have signed it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target<'a> {
    /// `https` or `http`, as far as is known.
    pub(crate) scheme: &'a str,
    /// The host that was asked for, with a port if there was one; `None` if nobody who counts says.
    pub(crate) host: Option<&'a str>,
    /// As they came over the wire.
    pub(crate) path_and_query: &'a str,
    /// The value of an `Authorization: Basic` header: what stood in the address before the host.
    pub(crate) basic: Option<&'a str>,
    pub(crate) is_get: bool,
}

/// The apps whose secrets count for a request.
pub(crate) fn candidates<'d>(
    directory: &'d OpenDirectory,
    provider: Provider,
    app: Option<&str>,
) -> impl Iterator<Item = &'d OpenApp> {
    let named = app.map(|name| directory.named_apps(provider, name));
    let defaults = app.is_none().then(|| directory.default_apps(provider));
    named.into_iter().flatten().chain(defaults.into_iter().flatten()).take(MAX_DEFAULT_APPS)
}

/// Finds the app that signed the body. `skipped` are the providers whose signatures are not asked for, `public_url` is
/// where they believe to send unless the app says otherwise.
pub(crate) async fn verify<'d>(
    directory: &'d OpenDirectory,
    incoming: &Incoming<'_>,
    skipped: &[Provider],
    public_url: Option<&str>,
    at: Timestamp,
) -> Result<Verified<'d>, Refused> {
    if incoming.provider.is_some_and(|provider| !directory.has_secrets(provider)) {
        return Err(Refused::NotConfigured);
    }
    let header = match incoming.signatures[..] {
        [(kind, value)] if incoming.provider.is_none_or(|provider| provider == kind) => Some((kind, value)),
        // One of another provider's is none of this one's.
        [] | [_] => None,
        _ => return Err(Refused::Signature(SignatureStatus::Malformed)),
    };
    let provider = header.map(|(kind, _)| kind).or(incoming.provider).or_else(|| guess(incoming, skipped));
    let Some(provider) = provider else { return Err(Refused::Signature(SignatureStatus::Missing)) };
    if !directory.has_secrets(provider) {
        return Err(Refused::NotConfigured);
    }
    if skipped.contains(&provider) {
        let app = candidates(directory, provider, incoming.app).next();
        let app = app.ok_or(Refused::Signature(SignatureStatus::Invalid))?;
        return Ok(Verified { app, provider, signature: SignatureStatus::Skipped });
    }
    let Some((_, value)) = header else { return Err(Refused::Signature(SignatureStatus::Missing)) };
    let apps = candidates(directory, provider, incoming.app);
    let app = match provider {
        Provider::Meta => {
            let tag = meta::signature::parse(value).map_err(|_| Refused::Signature(SignatureStatus::Malformed))?;
            let signed_by = |key| meta::signature::signed_by(&tag, &incoming.body, [key]);
            first(keys(apps, at), &incoming.body, signed_by).await
        }
        Provider::Generic => {
            let tag = generic::signature::parse(value).map_err(|_| Refused::Signature(SignatureStatus::Malformed))?;
            let signed_by = |key| generic::signature::signed_by(&tag, &incoming.body, [key]);
            first(keys(apps, at), &incoming.body, signed_by).await
        }
        Provider::Twilio => twilio_app(directory, incoming, value, apps, public_url, at).await?,
    };
    let app = app.ok_or(Refused::Signature(SignatureStatus::Invalid))?;
    Ok(Verified { app, provider, signature: SignatureStatus::Valid })
}

fn keys<'d>(apps: impl Iterator<Item = &'d OpenApp>, at: Timestamp) -> impl Iterator<Item = AppKey<'d>> {
    apps.flat_map(move |app| app.signature_keys(at).map(move |key| (app, key)))
}

/// The first app that signed.
async fn first<'d>(
    keys: impl Iterator<Item = AppKey<'d>>,
    body: &[u8],
    signed_by: impl Fn(AppKey<'d>) -> Option<&'d OpenApp>,
) -> Option<&'d OpenApp> {
    for key in keys {
        if let Some(app) = signed_by(key) {
            return Some(app);
        }
        if body.len() > LONG_CHECK {
            tokio::task::yield_now().await;
        }
    }
    None
}

/// Twilio signs the address it sends to as it was configured there.
async fn twilio_app<'d>(
    directory: &'d OpenDirectory,
    incoming: &Incoming<'_>,
    value: &[u8],
    apps: impl Iterator<Item = &'d OpenApp>,
    public_url: Option<&str>,
    at: Timestamp,
) -> Result<Option<&'d OpenApp>, Refused> {
    const MALFORMED: Refused = Refused::Signature(SignatureStatus::Malformed);
    let tag = twilio::signature::parse(value).map_err(|_| MALFORMED)?;
    let target = &incoming.target;
    let signed = if target.is_get {
        twilio::signature::Signed::address()
    } else {
        let signed = twilio::signature::Signed::by_content_type(incoming.content_type, &incoming.body);
        signed.map_err(|_| MALFORMED)?
    };
    // An account that an app stands for is that app's to sign; of one that nobody knows, anybody's signature counts, and what
    // it signed is parked.
    let named = signed.account().filter(|named| directory.named_apps(Provider::Twilio, named).next().is_some());
    for app in apps {
        if named.is_some_and(|named| app.account.as_deref() != Some(named)) {
            continue;
        }
        let Some(url) = address(app, target, public_url, credentials(target.basic)) else { continue };
        let signed_by = |key| twilio::signature::signed_by(&tag, &url, &signed, [key]);
        if let Some(app) = first(keys([app].into_iter(), at), &incoming.body, signed_by).await {
            return Ok(Some(app));
        }
    }
    Ok(None)
}

/// Where an app's provider believed to send; `None` if nobody says.
fn address(app: &OpenApp, target: &Target<'_>, public_url: Option<&str>, user: Option<String>) -> Option<String> {
    let mut url = match (app.public_url.as_deref().or(public_url), target.host) {
        (Some(origin), _) => origin.trim_end_matches('/').to_owned(),
        (None, host) => format!("{}://{}", target.scheme, host?),
    };
    if let (Some(user), Some((scheme, host))) = (user, url.split_once("://")) {
        url = format!("{scheme}://{user}@{host}");
    }
    url.push_str(target.path_and_query);
    Some(url)
}

/// The longest path that is told in each of its spellings.
const LONGEST_PATH: usize = 1024;

/// What was tried for an app, for those who look why nothing fitted. No secret.
#[derive(Serialize)]
pub(crate) struct Tried<'d> {
    app: &'d str,
    /// How many of its secrets.
    secrets: usize,
    /// Where signed bytes begin with the address: its spellings, without credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

/// What is tried for a webhook.
pub(crate) fn tried<'d>(
    directory: &'d OpenDirectory,
    incoming: &Incoming<'d>,
    public_url: Option<&str>,
    at: Timestamp,
) -> Vec<Tried<'d>> {
    let Some(provider) = incoming.claimed() else { return Vec::new() };
    let addresses = |app: &OpenApp| match provider {
        Provider::Twilio if incoming.target.path_and_query.len() <= LONGEST_PATH => {
            address(app, &incoming.target, public_url, None)
                .map(|url| twilio::signature::spellings(&url))
                .unwrap_or_default()
        }
        Provider::Twilio | Provider::Meta | Provider::Generic => Vec::new(),
    };
    candidates(directory, provider, incoming.app)
        .map(|app| Tried { app: app.id.as_str(), secrets: app.signature_keys(at).count(), addresses: addresses(app) })
        .collect()
}

/// `user:password` of basic authentication.
fn credentials(basic: Option<&str>) -> Option<String> {
    String::from_utf8(STANDARD.decode(basic?).ok()?).ok()
}

/// Whose webhook it may be when nobody signed it and nobody needs to: forms are Twilio's.
fn guess(incoming: &Incoming<'_>, skipped: &[Provider]) -> Option<Provider> {
    let is_form = incoming.content_type.is_some_and(twilio::signature::is_form);
    let guessed = if is_form { Provider::Twilio } else { Provider::Meta };
    skipped.contains(&guessed).then_some(guessed)
}
