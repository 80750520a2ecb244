//! The signature of a request: base64 of an HMAC-SHA1, under the account's auth token, of the address that Twilio asked
//! for and the decoded parameters.
//!
//! The address is the public one, as it is configured at Twilio: behind a proxy it must be put together from
//! configuration, never from what an arbitrary client says of itself. Twilio is not consistent about ports and about how
//! it writes a query, so a few spellings of one address count. Nothing of the signature covers time, so it does not stop
//! a replay; repeated updates are recognised by their ids. Nor does it say where a name ends and a value begins: who has
//! seen a signed form could divide it otherwise. Only TLS keeps it from being seen.
//!
//! Source: Twilio, "webhooks security", and the checks of its own libraries.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

use super::form;

/// The header that carries the signature, in lower case.
pub const HEADER: &str = "x-twilio-signature";

/// The query parameter that holds the hash of a body that is no form.
const BODY_HASH: &str = "bodySHA256";

/// The parameter of a form that names the account.
const ACCOUNT: &[u8] = b"AccountSid";

/// The header has not the shape of 20 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature must be 20 bytes in base64, 28 characters")]
pub struct Malformed;

/// The form has more than 1000 parameters, so no signature of it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the form has more than 1000 parameters")]
pub struct TooManyParameters;

/// Reads the header's value: standard base64 with padding of 20 bytes, 28 characters and nothing else.
pub fn parse(header: &[u8]) -> Result<[u8; 20], Malformed> {
    let decoded = if header.len() == 28 { STANDARD.decode(header).ok() } else { None };
    decoded.and_then(|tag| tag.try_into().ok()).ok_or(Malformed)
}

/// Whether a content type says that the body is a form, whatever its parameters.
pub fn is_form(content_type: &str) -> bool {
    let (kind, _) = content_type.split_once(';').unwrap_or((content_type, ""));
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// What of a request's content is signed, prepared once for all addresses and keys.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The parameters as they are signed after the address.
    parameters: Vec<u8>,
    /// The hash of which the address must tell.
    body_hash: Option<[u8; 32]>,
    /// The account that a form names.
    account: Option<String>,
}

impl Signed {
    /// A request without a body (GET): only its address is signed.
    pub fn address() -> Self {
        Self { parameters: Vec::new(), body_hash: None, account: None }
    }

    /// The account (`AccountSid`) that a form says it is of. Nobody has vouched for it yet: it is good for choosing whose
    /// keys to try.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// A POST with a form: its parameters are signed after the address, sorted by the bytes of their names, each decoded
    /// name followed by its decoded value. Of a repeated name the values are sorted and equal ones count once.
    ///
    /// Refuses more than 1000 parameters. Bytes that are not UTF-8 are signed as they are.
    pub fn form(body: &[u8]) -> Result<Self, TooManyParameters> {
        let mut parameters = form::parse(body).map_err(|form::TooMany| TooManyParameters)?;
        parameters.sort_unstable();
        parameters.dedup();
        let account = parameters.iter().find(|(name, _)| **name == *ACCOUNT);
        let account = account.and_then(|(_, value)| String::from_utf8(value.to_vec()).ok());
        let mut signed = Vec::with_capacity(body.len());
        for (name, value) in &parameters {
            signed.extend_from_slice(name);
            signed.extend_from_slice(value);
        }
        Ok(Self { parameters: signed, body_hash: None, account })
    }

    /// A POST with any other body: its address is signed and must have the query parameter `bodySHA256`, exactly once,
    /// with the hex SHA-256 of the body.
    pub fn body(body: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
        Self { parameters: Vec::new(), body_hash: Some(hash), account: None }
    }

    /// The form or the other body, by the request's content type. Without one it is no form.
    pub fn by_content_type(content_type: Option<&str>, body: &[u8]) -> Result<Self, TooManyParameters> {
        if content_type.is_some_and(is_form) { Self::form(body) } else { Ok(Self::body(body)) }
    }
}

/// The first of the keys (HMAC-SHA1 under an auth token) that signed the content for this address, if one did.
///
/// `url` is the absolute public address with path and query as they came over the wire, not decoded; a fragment is not
/// signed and may be there. Up to four spellings count: without port and with the scheme's standard port, or, where the
/// address names another port, with and without that; and each of them with the query decoded and encoded again, which
/// leaves `!'()*` and `~` as they are.
///
/// Each comparison takes the same time whatever the tag. There are at most four for each key, each over the address and
/// all parameters.
pub fn signed_by<'a, T>(
    tag: &[u8; 20],
    url: &str,
    signed: &Signed,
    keys: impl IntoIterator<Item = (T, &'a hmac::Key)>,
) -> Option<T> {
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    if signed.body_hash.is_some_and(|hash| !names_hash(url, &hash)) {
        return None;
    }
    let spellings = spellings(url);
    // The parameters stand once behind room for the longest address, which each address ends at.
    let room = spellings.iter().map(String::len).max().unwrap_or(0);
    let mut message = vec![0; room];
    message.extend_from_slice(&signed.parameters);
    keys.into_iter().find_map(|(app, key)| {
        let signs = spellings.iter().any(|url| {
            let start = room - url.len();
            message[start..room].copy_from_slice(url.as_bytes());
            hmac::verify(key, &message[start..], tag).is_ok()
        });
        signs.then_some(app)
    })
}

/// Whether the query has the hash, and no other beside it.
fn names_hash(url: &str, hash: &[u8; 32]) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut values = query.split('&').filter_map(|piece| {
        let (name, value) = piece.split_once('=')?;
        (name == BODY_HASH).then_some(value)
    });
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let mut named = [0; 32];
    hex::decode_to_slice(value, &mut named).is_ok()
        && named.iter().zip(hash).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

/// The spellings of an address that Twilio may have signed, without doubles: at most four.
pub fn spellings(url: &str) -> Vec<String> {
    let mut spellings = ports(url);
    for index in 0..spellings.len() {
        spellings.extend(encoded_again(&spellings[index]));
    }
    let mut distinct: Vec<String> = Vec::with_capacity(spellings.len());
    for spelling in spellings {
        if !distinct.contains(&spelling) {
            distinct.push(spelling);
        }
    }
    distinct
}

/// The address without and with a port.
fn ports(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return vec![url.to_owned()] };
    let standard = match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => "443",
        _ if scheme.eq_ignore_ascii_case("http") => "80",
        _ => return vec![url.to_owned()],
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A colon before `@` belongs to a password, one inside brackets to an IPv6 address.
    let host_from = authority.rfind('@').map_or(0, |at| at + 1).max(authority.rfind(']').map_or(0, |at| at + 1));
    let port_at = authority.get(host_from..).and_then(|host| host.rfind(':')).map(|at| host_from + at);
    let (host, port) = match port_at.and_then(|at| authority.split_at_checked(at)) {
        Some((host, port)) => (host, port.trim_start_matches(':')),
        None => (authority, standard),
    };
    let port = if port.is_empty() { standard } else { port };
    vec![format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{port}{path}")]
}

/// The address with its query decoded and encoded again; `None` if it has none, or one of a thousand parameters.
fn encoded_again(url: &str) -> Option<String> {
    let (before, query) = url.split_once('?')?;
    let mut out = format!("{before}?");
    for (index, (name, value)) in form::parse(query.as_bytes()).ok()?.iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        encode(&mut out, name);
        out.push('=');
        encode(&mut out, value);
    }
    Some(out)
}

fn encode(out: &mut String, text: &[u8]) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
