//! Who a request comes from, and what it asked for, when proxies stand in front.
//!
//! A proxy says in headers whom it speaks for, and whoever comes to it can send the same headers. So only what a trusted
//! proxy has added counts, and that is at the right end: the headers are read from there, and the first address that is not
//! a trusted proxy is the client. What stands further left is its own claim. Where something cannot be understood, the
//! walk ends at the last proxy that is known.
//!
//! `Forwarded` counts if there is no header of the older kind. A proxy that writes only one of them must remove what clients
//! send of the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::networks::Networks;

/// As many elements of a header as are looked at.
const HOPS: usize = 64;
/// The longest host name, with a port.
const HOST_BYTES: usize = 253 + 6;

/// How a client speaks to the outermost proxy that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// The client's address. Without trusted proxies it is the peer; an IPv4 address inside IPv6 is given as IPv4.
///
/// The headers are given as their lines, in order of arrival. They are not touched if the peer is not trusted.
pub fn client_address<'a>(
    peer: IpAddr,
    x_forwarded_for: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    forwarded: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    trusted: &Networks,
) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let mut lines = x_forwarded_for.into_iter().rev().peekable();
    if lines.peek().is_some() {
        walk(peer, elements(lines).map(address), trusted)
    } else {
        walk(peer, elements(forwarded.into_iter().rev()).map(|element| address(Hop::parse(element)?.client?)), trusted)
    }
}

/// What the nearest proxy says of how it was spoken to; `None` from a peer that is not trusted, and without a word that
/// is understood.
pub fn forwarded_proto<'a>(
    peer: IpAddr,
    x_forwarded_proto: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    forwarded: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    trusted: &Networks,
) -> Option<Scheme> {
    let word = nearest(peer, x_forwarded_proto, forwarded, |hop| hop.proto, trusted)?;
    if word.eq_ignore_ascii_case(b"https") {
        Some(Scheme::Https)
    } else if word.eq_ignore_ascii_case(b"http") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// The host (with a port, if there was one) that the nearest proxy says was asked for; `None` from a peer that is not
/// trusted, and if it does not look like a host.
pub fn forwarded_host<'a>(
    peer: IpAddr,
    x_forwarded_host: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    forwarded: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    trusted: &Networks,
) -> Option<&'a str> {
    let host = nearest(peer, x_forwarded_host, forwarded, |hop| hop.host, trusted)?;
    let is_host = (1..=HOST_BYTES).contains(&host.len())
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte));
    if is_host { std::str::from_utf8(host).ok() } else { None }
}

/// The rightmost element of the header, or what `part` finds in the rightmost of `Forwarded`.
fn nearest<'a>(
    peer: IpAddr,
    header: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    forwarded: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    part: impl Fn(Hop<'a>) -> Option<&'a [u8]>,
    trusted: &Networks,
) -> Option<&'a [u8]> {
    if !trusted.contains(peer) {
        return None;
    }
    let mut lines = header.into_iter().rev().peekable();
    if lines.peek().is_some() {
        elements(lines).next()
    } else {
        part(Hop::parse(elements(forwarded.into_iter().rev()).next()?)?)
    }
}

/// The last of the trusted addresses, or the first that is not trusted.
fn walk(peer: IpAddr, addresses: impl Iterator<Item = Option<IpAddr>>, trusted: &Networks) -> IpAddr {
    let mut last = peer;
    for address in addresses {
        let Some(address) = address else { break };
        last = address;
        if !trusted.contains(address) {
            break;
        }
    }
    last
}

/// The elements of all lines, from the right. Quotes are not heeded: one that is opened on the left, where the client
/// writes, must not swallow what a proxy added. Nothing that is looked for here may hold a comma, and half of something
/// quoted is refused where it is read.
fn elements<'a>(lines_from_the_last: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines_from_the_last
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
        .take(HOPS)
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// An element of `Forwarded` (RFC 7239).
#[derive(Clone, Copy, Debug, Default)]
struct Hop<'a> {
    client: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
}

impl<'a> Hop<'a> {
    /// `None` if any part of it is not as it should be, or one that is wanted comes twice.
    fn parse(element: &'a [u8]) -> Option<Self> {
        let mut hop = Self::default();
        for pair in element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (pair.get(..equals)?, unquoted(pair.get(equals + 1..)?)?);
            if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
                return None;
            }
            let parts =
                [(&b"for"[..], &mut hop.client), (&b"proto"[..], &mut hop.proto), (&b"host"[..], &mut hop.host)];
            let part = parts.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
            if part.is_some_and(|(_, part)| part.replace(value).is_some()) {
                return None;
            }
        }
        Some(hop)
    }
}

/// A value without its quotes. Colons and brackets should be inside of quotes; not all proxies know.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = value.strip_prefix(b"\"") {
        let inside = rest.strip_suffix(b"\"")?;
        return (!inside.iter().any(|byte| b"\"\\".contains(byte))).then_some(inside);
    }
    (!value.is_empty() && value.iter().all(|&byte| is_token(byte) || b":[]".contains(&byte))).then_some(value)
}

/// A character of a token (RFC 9110).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address, with or without a port; IPv6 with a port is in brackets. `None` for `unknown` and invented names, too.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if is_whole { Some(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).to_canonical()) } else { None };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    if is_port(port) { address.parse::<Ipv4Addr>().ok().map(IpAddr::V4) } else { None }
}

/// A number or an invented name (`_a1`).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn trusted() -> Networks {
        "10.0.0.0/8 2001:db8:aaaa::/48".parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn lines<'a>(text: &'a [&'a str]) -> Vec<&'a [u8]> {
        text.iter().map(|line| line.as_bytes()).collect()
    }

    fn client(peer: &str, x_forwarded_for: &[&str], forwarded: &[&str]) -> String {
        client_address(ip(peer), lines(x_forwarded_for), lines(forwarded), &trusted()).to_string()
    }

    #[test]
    fn walks_x_forwarded_for_from_the_right() {
        for (peer, header, expected) in [
            // Nobody vouches for the peer.
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("192.0.2.9", &["10.0.0.7"], "192.0.2.9"),
            ("::ffff:192.0.2.9", &["198.51.100.1"], "192.0.2.9"),
            // One proxy, two proxies, lines of their own.
            (PROXY, &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:aaaa::1", &["2001:db8::5"], "2001:db8::5"),
            (PROXY, &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            (PROXY, &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            (PROXY, &["198.51.100.1,10.0.0.3\t, 10.0.0.2 "], "198.51.100.1"),
            // A client that brings its own header, in one line or in two.
            (PROXY, &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            (PROXY, &["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
            (PROXY, &["10.0.0.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            (PROXY, &["\"6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            (PROXY, &[", , 198.51.100.1"], "198.51.100.1"),
            (PROXY, &["\u{fc}\u{0}, 198.51.100.1"], "198.51.100.1"),
            // Inside: no client at all.
            (PROXY, &["10.0.0.4, 10.0.0.2"], "10.0.0.4"),
            (PROXY, &[], PROXY),
            (PROXY, &[""], PROXY),
            (PROXY, &[" , ,"], PROXY),
            // What cannot be read ends it.
            (PROXY, &["198.51.100.1, unknown"], PROXY),
            (PROXY, &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (PROXY, &["198.51.100.1, 10.0.0.256"], PROXY),
            (PROXY, &["198.51.100.1 10.0.0.2"], PROXY),
            (PROXY, &["198.51.100.1, for=10.0.0.2"], PROXY),
            (PROXY, &["fe80::1%eth0"], PROXY),
            // Ports and brackets.
            (PROXY, &["198.51.100.1:4711"], "198.51.100.1"),
            (PROXY, &["[2001:db8::5]:4711"], "2001:db8::5"),
            (PROXY, &["[2001:db8::5]"], "2001:db8::5"),
            (PROXY, &["::ffff:198.51.100.1"], "198.51.100.1"),
            (PROXY, &["198.51.100.1, [::ffff:10.0.0.2]:80"], "198.51.100.1"),
            (PROXY, &["198.51.100.1:"], PROXY),
            (PROXY, &["198.51.100.1:http"], PROXY),
            (PROXY, &["[198.51.100.1]:80"], PROXY),
            (PROXY, &["[2001:db8::5"], PROXY),
            (PROXY, &["[2001:db8::5]x"], PROXY),
        ] {
            assert_eq!(client(peer, header, &[]), expected, "{peer} {header:?}");
        }
    }

    #[test]
    fn walks_forwarded_from_the_right() {
        for (peer, header, expected) in [
            ("192.0.2.9", &["for=198.51.100.1"][..], "192.0.2.9"),
            // As in RFC 7239.
            (PROXY, &["for=\"_gazonk\""], PROXY),
            (PROXY, &["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (PROXY, &["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (PROXY, &["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
            (PROXY, &["for=192.0.2.43, for=\"[2001:db8:aaaa::17]\""], "192.0.2.43"),
            (PROXY, &["for=192.0.2.43,for=10.0.0.17;by=203.0.113.60;proto=http;host=example.com"], "192.0.2.43"),
            (PROXY, &["for=192.0.2.43", "for=10.0.0.17"], "192.0.2.43"),
            (PROXY, &["for=\"192.0.2.43:47011\""], "192.0.2.43"),
            (PROXY, &["for=\"192.0.2.43:_p-1\""], "192.0.2.43"),
            (PROXY, &["for=192.0.2.43, for=unknown, for=10.0.0.2"], "10.0.0.2"),
            (PROXY, &["for=_SEVKISEK, for=10.0.0.2"], "10.0.0.2"),
            // Without the quotes that should be there.
            (PROXY, &["for=192.0.2.43:47011"], "192.0.2.43"),
            (PROXY, &["for=[2001:db8::17]:4711"], "2001:db8::17"),
            // A client that brings its own.
            (PROXY, &["for=6.6.6.6, for=198.51.100.1"], "198.51.100.1"),
            (PROXY, &["for=\"6.6.6.6, for=198.51.100.1;proto=https"], "198.51.100.1"),
            (PROXY, &["for=10.0.0.3;x=\"", "for=198.51.100.1"], "198.51.100.1"),
            // A proxy that quotes what a client says: never the client's word.
            (PROXY, &["for=198.51.100.1;host=\"a, for=6.6.6.6\""], PROXY),
            (PROXY, &["host=\"a, for=6.6.6.6;x=\";for=198.51.100.1"], PROXY),
            (PROXY, &["host=\"a\\\", for=6.6.6.6;x=\\\"b\""], PROXY),
            // Without a client, twice, or broken.
            (PROXY, &["for=192.0.2.43, proto=https"], PROXY),
            (PROXY, &["for=192.0.2.43;for=192.0.2.44"], PROXY),
            (PROXY, &["for=192.0.2.43;"], "192.0.2.43"),
            (PROXY, &["by=a;by=b;for=192.0.2.43"], "192.0.2.43"),
            (PROXY, &["for = 192.0.2.43"], PROXY),
            (PROXY, &["for"], PROXY),
            (PROXY, &["=192.0.2.43"], PROXY),
            (PROXY, &["192.0.2.43"], PROXY),
            (PROXY, &["for=\"192.0.2.43"], PROXY),
            (PROXY, &["for=192.0.2.43\""], PROXY),
            (PROXY, &["for=\"\""], PROXY),
            (PROXY, &[], PROXY),
        ] {
            assert_eq!(client(peer, &[], header), expected, "{peer} {header:?}");
        }
    }

    #[test]
    fn forwarded_counts_only_without_x_forwarded_for() {
        assert_eq!(client(PROXY, &["198.51.100.1"], &["for=6.6.6.6"]), "198.51.100.1");
        assert_eq!(client(PROXY, &[""], &["for=6.6.6.6"]), PROXY);
        assert_eq!(client(PROXY, &["unknown"], &["for=6.6.6.6"]), PROXY);
    }

    #[test]
    fn looks_at_no_more_than_64_hops() {
        let hops = |count| format!("198.51.100.1{}", ", 10.0.0.2".repeat(count));
        assert_eq!(client(PROXY, &[&hops(63)], &[]), "198.51.100.1");
        assert_eq!(client(PROXY, &[&hops(64)], &[]), "10.0.0.2");
        assert_eq!(client(PROXY, &[&format!("198.51.100.1{}", ",".repeat(1_000_000))], &[]), PROXY);
    }

    #[test]
    fn knows_how_the_proxy_was_spoken_to() {
        for (peer, header, forwarded, expected) in [
            (PROXY, &["https"][..], &[][..], Some(Scheme::Https)),
            (PROXY, &["HTTP"], &[], Some(Scheme::Http)),
            (PROXY, &["https, http"], &[], Some(Scheme::Http)),
            (PROXY, &["https", "http"], &["proto=https"], Some(Scheme::Http)),
            (PROXY, &["https", ""], &[], Some(Scheme::Https)),
            (PROXY, &["wss"], &["proto=https"], None),
            (PROXY, &[""], &["proto=https"], None),
            (PROXY, &[], &["for=192.0.2.1;proto=https"], Some(Scheme::Https)),
            (PROXY, &[], &["proto=https, proto=http;by=_a"], Some(Scheme::Http)),
            (PROXY, &[], &["proto=https, for=192.0.2.1"], None),
            (PROXY, &[], &["proto=https;proto=https"], None),
            (PROXY, &[], &[], None),
            ("192.0.2.9", &["https"], &["proto=https"], None),
        ] {
            let found = forwarded_proto(ip(peer), lines(header), lines(forwarded), &trusted());
            assert_eq!(found, expected, "{peer} {header:?} {forwarded:?}");
        }
    }

    #[test]
    fn knows_which_host_was_asked_for() {
        let long = "a".repeat(300);
        for (peer, header, forwarded, expected) in [
            (PROXY, &["hooks.example"][..], &[][..], Some("hooks.example")),
            (PROXY, &["evil.example, hooks.example:8443"], &[], Some("hooks.example:8443")),
            (PROXY, &["[2001:db8::1]:443"], &[], Some("[2001:db8::1]:443")),
            (PROXY, &["a.example/path"], &["host=b.example"], None),
            (PROXY, &["user@a.example"], &[], None),
            (PROXY, &["a b"], &[], None),
            (PROXY, &[&long], &[], None),
            (PROXY, &[], &["host=\"hooks.example:443\";proto=https"], Some("hooks.example:443")),
            (PROXY, &[], &["host=\"\""], None),
            (PROXY, &[], &["host=a.example, for=192.0.2.1"], None),
            ("192.0.2.9", &["hooks.example"], &["host=hooks.example"], None),
        ] {
            let (header, forwarded) = (lines(header), lines(forwarded));
            assert_eq!(forwarded_host(ip(peer), header, forwarded, &trusted()), expected);
        }
    }

    /// Bytes as a client may send them, more often of the kind that matters here.
    fn claim() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "(for=|10\\.0\\.0\\.2|6\\.6\\.6\\.6|[,;\"\\\\ =:\\[\\]]|unknown|proto=https|host=a){0,12}"
                .prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn a_peer_that_is_not_trusted_is_always_itself(
            bits in any::<u32>(), claims in proptest::collection::vec(claim(), 0..4), trusts_nobody in any::<bool>(),
        ) {
            let peer = IpAddr::V4(Ipv4Addr::from_bits(bits));
            let trusted = if trusts_nobody { Networks::default() } else { trusted() };
            prop_assume!(!trusted.contains(peer));
            let lines = || claims.iter().map(Vec::as_slice);
            prop_assert_eq!(client_address(peer, lines(), lines(), &trusted), peer);
            prop_assert_eq!(forwarded_proto(peer, lines(), lines(), &trusted), None);
            prop_assert_eq!(forwarded_host(peer, lines(), lines(), &trusted), None);
        }

        #[test]
        fn no_claim_hides_the_client_of_a_trusted_proxy(
            bits in any::<u32>(), claims in proptest::collection::vec(claim(), 0..4), own_line in any::<bool>(),
        ) {
            let client = IpAddr::V4(Ipv4Addr::from_bits(bits));
            let trusted = trusted();
            prop_assume!(!trusted.contains(client));
            let written_by_the_proxy = |word: &str| {
                let mut lines = claims.clone();
                match lines.last_mut() {
                    Some(line) if !own_line => line.extend(format!(", {word}").bytes()),
                    _ => lines.push(word.as_bytes().to_vec()),
                }
                lines
            };
            let x_forwarded_for = written_by_the_proxy(&client.to_string());
            let x_forwarded_for = x_forwarded_for.iter().map(Vec::as_slice);
            prop_assert_eq!(client_address(ip(PROXY), x_forwarded_for, [], &trusted), client);
            let forwarded = written_by_the_proxy(&format!("for={client};proto=http;host=hooks.example"));
            let forwarded = || forwarded.iter().map(Vec::as_slice);
            prop_assert_eq!(client_address(ip(PROXY), [], forwarded(), &trusted), client);
            prop_assert_eq!(forwarded_proto(ip(PROXY), [], forwarded(), &trusted), Some(Scheme::Http));
            prop_assert_eq!(forwarded_host(ip(PROXY), [], forwarded(), &trusted), Some("hooks.example"));
        }

        #[test]
        fn nothing_panics(claims in proptest::collection::vec(claim(), 0..6)) {
            let lines = || claims.iter().map(Vec::as_slice);
            client_address(ip(PROXY), lines(), [], &trusted());
            client_address(ip(PROXY), [], lines(), &trusted());
            forwarded_proto(ip(PROXY), [], lines(), &trusted());
            forwarded_host(ip(PROXY), lines(), lines(), &trusted());
        }
    }
}
