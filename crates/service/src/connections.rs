//! Open connections by address, so that nobody takes all the places of a listener.
//!
//! A connection counts from its accept, so before any TLS handshake, until it is closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::networks::Networks;

/// The part of an address that one party has at least: IPv6 is handed out by /64.
pub fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        four @ IpAddr::V4(_) => four,
    }
}

/// See the module's documentation. Memory is bounded by the connections that are open.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    /// Proxies: they bring everybody's.
    exempt: Networks,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    /// At most so many of one address at once; of those in `exempt`, any number.
    pub fn new(max: usize, exempt: Networks) -> Arc<Self> {
        Arc::new(Self { max, exempt, open: Mutex::default() })
    }

    /// A place for a connection from an address, or `None` if it has all of its places.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        if self.exempt.contains(address) {
            return Some(Place { taken: None });
        }
        let party = party(address);
        let mut open = self.open();
        let count = open.entry(party).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { taken: Some((self.clone(), party)) })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of an open connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Option<(Arc<Connections>, IpAddr)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((connections, party)) = self.taken.take() else { return };
        if let Entry::Occupied(mut count) = connections.open().entry(party) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_places_and_no_other_loses_any() {
        let connections = Connections::new(2, Networks::default());
        let (first, second) = (connections.enter(ip("192.0.2.1")), connections.enter(ip("192.0.2.1")));
        assert!(first.is_some() && second.is_some());
        assert!(connections.enter(ip("192.0.2.1")).is_none());
        assert!(connections.enter(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(connections.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_party_and_a_mapped_address_is_the_ipv4_one() {
        let connections = Connections::new(1, Networks::default());
        let _places = [connections.enter(ip("2001:db8::1")), connections.enter(ip("192.0.2.1"))];
        assert!(connections.enter(ip("2001:db8::2")).is_none());
        assert!(connections.enter(ip("::ffff:192.0.2.1")).is_none());
        assert!(connections.enter(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn proxies_have_any_number_and_what_is_closed_takes_no_memory() {
        let connections = Connections::new(1, "10.0.0.0/8".parse().unwrap());
        let places: Vec<_> = (0..10).map(|_| connections.enter(ip("10.1.2.3"))).collect();
        assert!(places.iter().all(Option::is_some));
        drop((places, connections.enter(ip("192.0.2.1"))));
        assert!(connections.open().is_empty());
    }
}
