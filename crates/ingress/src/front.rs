//! Before anything of a request is looked at: where it comes from, and whether it may come that way.
//!
//! Behind trusted proxies the client's address is the one that the nearest of them saw; what a client says of itself never
//! counts. A gateway without TLS of its own takes webhooks only from a proxy that says it was spoken to over TLS, where
//! that is asked for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use common::record::REASON_ADDRESS_LIST;
use service::client::{Scheme, client_address, forwarded_host, forwarded_proto};
use service::networks::Networks;

use crate::answer::Answer;
use crate::verification::Target;

/// Who may come, and how.
#[derive(Clone, Default)]
pub struct Front {
    /// Proxies whose word on clients counts.
    pub trusted_proxies: Networks,
    /// Addresses that may send webhooks, the newest of them; `None` is every one.
    pub allowed: Option<Arc<dyn Fn() -> Arc<Networks> + Send + Sync>>,
    /// Whether webhooks are taken only from a trusted proxy that was spoken to over TLS.
    pub needs_tls_proxy: bool,
    /// The header in which a trusted proxy names the subject of the client's certificate, in lower case, and the common
    /// names that are accepted in it. For Meta's webhooks.
    pub client_name: Option<(String, Vec<String>)>,
    /// Whether this listener ends TLS.
    pub is_tls: bool,
    /// Whether the `Host` header of a client says where a provider believed to send, if nothing else does. A request that
    /// was signed for another place that has the same path could be sent here again.
    pub trusts_host: bool,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front")
            .field("trusted_proxies", &self.trusted_proxies)
            .field("has_allow_list", &self.allowed.is_some())
            .field("needs_tls_proxy", &self.needs_tls_proxy)
            .field("client_name", &self.client_name)
            .field("is_tls", &self.is_tls)
            .field("trusts_host", &self.trusts_host)
            .finish()
    }
}

/// The lines of a header.
fn lines<'r>(headers: &'r HeaderMap, name: &str) -> Vec<&'r [u8]> {
    headers.get_all(name).map(HeaderValue::as_bytes).collect()
}

fn peer(request: &HttpRequest) -> IpAddr {
    request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()).to_canonical()
}

impl Front {
    fn trusts(&self, peer: IpAddr) -> bool {
        !self.trusted_proxies.is_empty() && self.trusted_proxies.contains(peer)
    }

    /// The client's address.
    pub(crate) fn client(&self, request: &HttpRequest) -> IpAddr {
        let peer = peer(request);
        if !self.trusts(peer) {
            return peer;
        }
        let headers = request.headers();
        client_address(peer, lines(headers, "x-forwarded-for"), lines(headers, "forwarded"), &self.trusted_proxies)
    }

    fn proxied_scheme(&self, request: &HttpRequest) -> Option<Scheme> {
        let (peer, headers) = (peer(request), request.headers());
        if !self.trusts(peer) {
            return None;
        }
        forwarded_proto(peer, lines(headers, "x-forwarded-proto"), lines(headers, "forwarded"), &self.trusted_proxies)
    }

    /// Refuses who may not come, or not that way.
    pub(crate) fn admit(&self, request: &HttpRequest, client: IpAddr, is_meta: bool) -> Result<(), Answer> {
        if self.needs_tls_proxy && self.proxied_scheme(request) != Some(Scheme::Https) {
            return Err(Answer::refused(403, "not-over-tls"));
        }
        if self.allowed.as_ref().is_some_and(|allowed| !allowed().contains(client)) {
            return Err(Answer::refused(403, REASON_ADDRESS_LIST));
        }
        if is_meta && self.client_name.as_ref().is_some_and(|(header, names)| !self.is_named(request, header, names)) {
            return Err(Answer::refused(403, "client-certificate"));
        }
        Ok(())
    }

    /// Whether a trusted proxy names the client's certificate as one of these.
    fn is_named(&self, request: &HttpRequest, header: &str, names: &[String]) -> bool {
        let mut values = request.headers().get_all(header);
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let subject = value.to_str().unwrap_or_default();
        self.trusts(peer(request))
            && common_names(subject).any(|name| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// What the provider asked for, as far as can be told.
    pub(crate) fn target<'r>(&self, request: &'r HttpRequest, is_get: bool) -> Target<'r> {
        let (peer, headers) = (peer(request), request.headers());
        let proxied_host = if self.trusts(peer) {
            forwarded_host(peer, lines(headers, "x-forwarded-host"), lines(headers, "forwarded"), &self.trusted_proxies)
        } else {
            None
        };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_https = self.is_tls || self.proxied_scheme(request) == Some(Scheme::Https);
        let basic = text(AUTHORIZATION).and_then(|value| {
            let (scheme, rest) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("basic").then(|| rest.trim())
        });
        Target {
            scheme: if is_https { "https" } else { "http" },
            host: proxied_host.or_else(|| text(HOST).filter(|_| self.trusts_host)),
            path_and_query: request.uri().path_and_query().map_or("/", |both| both.as_str()),
            basic,
            is_get,
        }
    }
}

/// The common names of a subject as proxies write it: `CN=name,O=…` (RFC 4514) or `/O=…/CN=name`. None of one that holds
/// escapes or quotes: what stands in them is a part of a value, and no name that is asked for needs them.
fn common_names(subject: &str) -> impl Iterator<Item = &str> {
    let subject = if subject.contains(['\\', '"', '#']) { "" } else { subject };
    let separators: &[char] = if subject.starts_with('/') { &['/', '+'] } else { &[',', '+'] };
    subject.split(separators).filter_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        key.trim().eq_ignore_ascii_case("cn").then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::common_names;

    #[test]
    fn names_are_read_from_both_spellings_of_a_subject() {
        for (subject, expected) in [
            ("CN=client.example.com,O=Meta,C=US", vec!["client.example.com"]),
            ("/C=US/O=Meta/CN=client.example.com", vec!["client.example.com"]),
            ("C=US, O=Meta, cn = client.example.com", vec!["client.example.com"]),
            ("O=CN,C=US", vec![]),
            (r"CN=evil,O=x\,CN=client.example.com", vec![]),
            (r#"CN=evil,O="x,CN=client.example.com""#, vec![]),
            ("CN=evil,O=x/CN=client.example.com", vec!["evil"]),
            ("/CN=evil/O=x,CN=client.example.com", vec!["evil"]),
            ("client.example.com", vec![]),
        ] {
            assert_eq!(common_names(subject).collect::<Vec<_>>(), expected, "{subject}");
        }
    }
}
