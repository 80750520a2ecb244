//! Lists of networks: who may send, which proxies are believed.
//!
//! A list is text: networks and single addresses, separated by commas or whitespace, with `#` comments. Lines of a
//! geofeed (RFC 8805, `prefix,country,region,city,postal`) count with their prefix, so that a published one can be used
//! as it is. Bits beyond a prefix are ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::Tasks;
use crate::reload::{Reloaded, Unreadable};

/// As much of what is wrong as a message shows.
const SHOWN: usize = 48;

/// Something in a list that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text:?} is neither an address nor a network like 192.0.2.0/24 or 2001:db8::/32")]
pub struct NetworksError {
    /// The line, from 1.
    pub line: usize,
    /// The beginning of what is wrong.
    pub text: String,
}

/// A list of networks, IPv4 and IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<Ipv4Addr>,
    v6: Ranges<Ipv6Addr>,
}

impl Networks {
    /// Whether the address is in one of the networks. One that carries an IPv4 address (`::ffff:192.0.2.1`, as a socket
    /// for both families gives it) counts as that.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address),
            IpAddr::V6(address) => self.v6.contains(address),
        }
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// How many ranges it comes down to; networks that overlap or touch are one.
    pub fn ranges(&self) -> usize {
        self.v4.0.len() + self.v6.0.len()
    }
}

impl FromStr for Networks {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default();
            for item in items(content) {
                match network(item) {
                    Some(IpNet::V4(network)) => v4.push((network.network(), network.broadcast())),
                    Some(IpNet::V6(network)) => v6.push((network.network(), network.broadcast())),
                    None => return Err(NetworksError { line, text: item.chars().take(SHOWN).collect() }),
                }
            }
        }
        Ok(Self { v4: Ranges::new(v4, v4_after), v6: Ranges::new(v6, v6_after) })
    }
}

/// A list from a file that may change while the process runs. It is read again when it does; one that is wrong or empty
/// is reported once, and the list in use stays: a broken download must not lock everybody out.
#[derive(Debug)]
pub struct NetworksFile {
    networks: Arc<Reloaded<Networks, NetworksFileError>>,
}

/// A file with networks that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworksFileError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It is not a list of networks.
    #[error("{path} is not a list of networks")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: NetworksError,
    },
    /// It is not text.
    #[error("{path} is not a list of networks: it is not UTF-8")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// There is no network in it.
    #[error("there is no network in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl NetworksFile {
    /// Reads the file and begins to watch it.
    pub fn start(path: &Path, tasks: &Tasks) -> Result<Arc<Self>, NetworksFileError> {
        let own = path.to_owned();
        let networks = Arc::new(Reloaded::open(&[path], move |contents| read(&own, contents))?);
        networks.watch("networks", tasks);
        Ok(Arc::new(Self { networks }))
    }

    /// The list in use.
    pub fn current(&self) -> Arc<Networks> {
        self.networks.current()
    }

    /// Looks at the file now, not only at the next turn. True if it had changed.
    pub async fn look(&self) -> Result<bool, NetworksFileError> {
        self.networks.look().await
    }
}

fn read(path: &Path, contents: &[Vec<u8>]) -> Result<Networks, NetworksFileError> {
    let path = || path.to_owned();
    let text = std::str::from_utf8(contents.first().map_or(&[], Vec::as_slice))
        .map_err(|_| NetworksFileError::NotText { path: path() })?;
    let networks: Networks = text.parse().map_err(|source| NetworksFileError::Content { path: path(), source })?;
    if networks.is_empty() { Err(NetworksFileError::Empty { path: path() }) } else { Ok(networks) }
}

/// The networks of a line, as text. It is a geofeed's if its second field is a country.
fn items(line: &str) -> impl Iterator<Item = &str> {
    let mut fields = line.split(',');
    let first = fields.next().unwrap_or_default();
    let is_country = |field: &str| field.len() == 2 && field.bytes().all(|byte| byte.is_ascii_alphabetic());
    let line = if fields.next().is_some_and(|field| is_country(field.trim())) { first } else { line };
    line.split(|character: char| character == ',' || character.is_whitespace()).filter(|item| !item.is_empty())
}

fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    Some(canonical(network))
}

/// A network of addresses that carry IPv4 addresses is the network of those.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let inner = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    inner.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

/// Disjoint ranges (first and last address) in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<A>(Box<[(A, A)]>);

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<A: Copy + Ord> Ranges<A> {
    /// `after` is the address that follows, if there is one.
    fn new(mut networks: Vec<(A, A)>, after: impl Fn(A) -> Option<A>) -> Self {
        networks.sort_unstable();
        networks.dedup_by(|next, previous| {
            let joined = after(previous.1).is_none_or(|following| next.0 <= following);
            if joined {
                previous.1 = previous.1.max(next.1);
            }
            joined
        });
        Self(networks.into())
    }

    fn contains(&self, address: A) -> bool {
        let following = self.0.partition_point(|&(first, _)| first <= address);
        following.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|&(_, last)| address <= last)
    }
}

fn v4_after(address: Ipv4Addr) -> Option<Ipv4Addr> {
    address.to_bits().checked_add(1).map(Ipv4Addr::from_bits)
}

fn v6_after(address: Ipv6Addr) -> Option<Ipv6Addr> {
    address.to_bits().checked_add(1).map(Ipv6Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(text: &str) -> Networks {
        text.parse().unwrap()
    }

    fn has(networks: &Networks, address: &str) -> bool {
        networks.contains(address.parse().unwrap())
    }

    #[test]
    fn reads_addresses_and_networks_in_any_layout() {
        let list = networks(
            "\u{feff}# offices\r\n192.0.2.0/24, 198.51.100.7\r\n\n  2001:db8::/32 2001:db9::1,,10.0.0.0/8, # and more\n",
        );
        for inside in ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8:ffff::1", "2001:db9::1", "10.255.255.255"]
        {
            assert!(has(&list, inside), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "198.51.100.8", "2001:db9::2", "2001:db7::1", "11.0.0.0", "9.9.9.9"]
        {
            assert!(!has(&list, outside), "{outside}");
        }
        assert_eq!(list.ranges(), 5);
        assert!(networks(" \n# nobody\n").is_empty());
        assert!(!Networks::default().contains("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn reads_a_geofeed() {
        let list = networks(
            "# prefix,country,region,city,postal\n192.0.2.0/25,US,US-CA,Menlo Park,\n2001:db8:1::/48,ie,,Dublin,\n\
             203.0.113.0/24,,,,\n198.51.100.0/24,SG,SG-01,Nowhere/Else 9,1.2.3\n",
        );
        for inside in ["192.0.2.127", "2001:db8:1::1", "203.0.113.9", "198.51.100.1"] {
            assert!(has(&list, inside), "{inside}");
        }
        assert!(!has(&list, "192.0.2.128"));
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_that_address() {
        let list = networks("192.0.2.0/24 ::ffff:198.51.100.0/120 ::ffff:203.0.113.5");
        for inside in ["::ffff:192.0.2.7", "198.51.100.9", "::ffff:198.51.100.9", "203.0.113.5"] {
            assert!(has(&list, inside), "{inside}");
        }
        assert!(!has(&list, "203.0.113.6"));
        assert!(!has(&networks("::/0"), "::ffff:192.0.2.7"), "all of IPv6 is none of IPv4");
        assert!(!has(&networks("0.0.0.0/0"), "2001:db8::1"));
    }

    #[test]
    fn networks_may_overlap_touch_and_cover_everything() {
        let list = networks("10.0.0.0/9 10.128.0.0/9 10.1.0.0/16 10.1.2.3 255.255.255.255 255.255.255.0/24");
        assert_eq!(list.ranges(), 2);
        assert!(has(&list, "10.255.255.255") && has(&list, "255.255.255.255"));
        let all = networks("0.0.0.0/0 1.2.3.4 ::/0 2001:db8::/32");
        assert_eq!(all.ranges(), 2);
        assert!(has(&all, "0.0.0.0") && has(&all, "255.255.255.255") && has(&all, "ffff::"));
        assert!(has(&networks("10.1.2.3/8"), "10.200.0.1"), "bits beyond the prefix are ignored");
    }

    #[test]
    fn says_where_it_is_wrong_and_never_shows_everything() {
        for (text, line, wrong) in [
            ("192.0.2.0/33", 1, "192.0.2.0/33"),
            ("192.0.2.1\n\n10.0.0.0/8, example.com", 3, "example.com"),
            ("10.0.0.0/8,192.168.0.0/16x", 1, "192.168.0.0/16x"),
            ("<!DOCTYPE html><html>", 1, "<!DOCTYPE"),
            ("300.1.1.1", 1, "300.1.1.1"),
            ("2001:db8::/129", 1, "2001:db8::/129"),
            ("one two,US", 1, "one"),
        ] {
            let error = text.parse::<Networks>().unwrap_err();
            assert_eq!((error.line, &*error.text), (line, wrong));
        }
        let error = "x".repeat(10_000).parse::<Networks>().unwrap_err();
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[tokio::test]
    async fn a_file_is_read_again_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.csv");
        let tasks = Tasks::new();
        assert!(matches!(NetworksFile::start(&path, &tasks), Err(NetworksFileError::Unreadable(_))));
        std::fs::write(&path, "192.0.2.0/24,US,,,").unwrap();
        let file = NetworksFile::start(&path, &tasks).unwrap();
        assert!(has(&file.current(), "192.0.2.1"));

        for bad in ["<html>", "", "# nothing\n"] {
            std::fs::write(&path, bad).unwrap();
            let error = file.look().await.unwrap_err();
            assert!(error.to_string().contains("meta.csv"), "{error}");
            assert!(!file.look().await.unwrap());
            assert!(has(&file.current(), "192.0.2.1"));
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(file.look().await, Err(NetworksFileError::NotText { .. })));

        std::fs::write(&path, "198.51.100.0/24").unwrap();
        assert!(file.look().await.unwrap());
        assert!(has(&file.current(), "198.51.100.1") && !has(&file.current(), "192.0.2.1"));
        tasks.stop();
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:./, \\n#U]{0,80}") {
            let _ = text.parse::<Networks>();
        }

        #[test]
        fn finds_what_a_plain_search_finds(
            networks in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            addresses in proptest::collection::vec(any::<u32>(), 0..40),
        ) {
            let nets: Vec<Ipv4Net> = networks
                .iter()
                .map(|&(bits, length)| Ipv4Net::new(Ipv4Addr::from_bits(bits), length.max(4)).unwrap())
                .collect();
            let text = nets.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            let list: Networks = text.parse().unwrap();
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for address in addresses.iter().map(|&bits| Ipv4Addr::from_bits(bits)).chain(edges) {
                let expected = nets.iter().any(|net| net.contains(&address));
                prop_assert_eq!(list.contains(IpAddr::V4(address)), expected);
            }
        }
    }
}
