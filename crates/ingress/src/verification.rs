//! Who signed a webhook: one signature header, of the provider's own kind, over the raw bytes, under a secret of the app in
//! the path, or of one of the default apps. What matches is the app.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::Timestamp;
use common::directory::{MAX_DEFAULT_APPS, OpenApp, OpenDirectory};
use common::record::SignatureStatus;
use common::update::Provider;
use providers::{generic, meta, twilio};

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
pub(crate) fn verify<'d>(
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
            meta::signature::signed_by(&tag, &incoming.body, keys(apps, at))
        }
        Provider::Generic => {
            let tag = generic::signature::parse(value).map_err(|_| Refused::Signature(SignatureStatus::Malformed))?;
            generic::signature::signed_by(&tag, &incoming.body, keys(apps, at))
        }
        Provider::Twilio => twilio_app(incoming, value, apps, public_url, at)?,
    };
    let app = app.ok_or(Refused::Signature(SignatureStatus::Invalid))?;
    Ok(Verified { app, provider, signature: SignatureStatus::Valid })
}

fn keys<'d>(
    apps: impl Iterator<Item = &'d OpenApp>,
    at: Timestamp,
) -> impl Iterator<Item = (&'d OpenApp, &'d ring::hmac::Key)> {
    apps.flat_map(move |app| app.signature_keys(at).map(move |key| (app, key)))
}

/// Twilio signs the address it sends to as it was configured there.
fn twilio_app<'d>(
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
    for app in apps {
        let mut url = match (app.public_url.as_deref().or(public_url), target.host) {
            (Some(origin), _) => origin.trim_end_matches('/').to_owned(),
            (None, Some(host)) => format!("{}://{host}", target.scheme),
            (None, None) => continue,
        };
        if let (Some(user), Some((scheme, host))) = (credentials(target.basic), url.split_once("://")) {
            url = format!("{scheme}://{user}@{host}");
        }
        url.push_str(target.path_and_query);
        let own = app.signature_keys(at).map(|key| (app, key));
        if let Some(app) = twilio::signature::signed_by(&tag, &url, &signed, own) {
            return Ok(Some(app));
        }
    }
    Ok(None)
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
