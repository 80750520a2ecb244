//! So many in a second, of all or of each address.
//!
//! Windows begin with the first of them: so many pass, the next is refused until the window ends. A smoothing limiter
//! would let more through when they come slowly, and "the 51st in a second" would mean nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::connections::party;

/// How long a window lasts.
pub const SECOND: Duration = Duration::from_secs(1);
const SHARDS: usize = 32;
/// Addresses kept in each shard.
const ADDRESSES: usize = 4096;
/// The address whose window the surplus shares.
const SURPLUS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One window. Times are since any one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    started: Option<Duration>,
    count: u32,
}

impl Window {
    /// Counts one of a second; false if that is more than `max`.
    pub fn admit(&mut self, max: u32, now: Duration) -> bool {
        self.admit_in(SECOND, max, now)
    }

    /// The same of a longer or shorter time.
    pub fn admit_in(&mut self, length: Duration, max: u32, now: Duration) -> bool {
        if self.has_lasted(length, now) {
            *self = Self { started: Some(now), count: 0 };
        }
        let is_admitted = self.count < max;
        self.count += u32::from(is_admitted);
        is_admitted
    }

    fn has_lasted(&self, length: Duration, now: Duration) -> bool {
        self.started.is_none_or(|started| now >= started + length)
    }
}

/// A window of a second for each address. Memory is bounded: under a flood from more addresses than are kept, the surplus
/// shares one.
#[derive(Debug)]
pub struct Addresses {
    shards: [Mutex<Shard>; SHARDS],
    max: u32,
    hasher: RandomState,
}

impl Addresses {
    /// So many in a second of one address.
    pub fn new(max: u32) -> Self {
        Self { shards: Default::default(), max, hasher: RandomState::new() }
    }

    /// Counts one of an address; false if that is one too many. IPv6 counts by /64, the least that one party has.
    pub fn admit(&self, address: IpAddr, now: Duration) -> bool {
        let key = party(address);
        let shard = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        shard.window(key, now).admit(self.max, now)
    }
}

#[derive(Debug, Default)]
struct Shard {
    windows: HashMap<IpAddr, Window>,
    /// When ended windows were last let go: at most once a window, so that a flood cannot make it the main work.
    tidied: Option<Duration>,
}

impl Shard {
    /// The window of an address, or the shared one where there is no room.
    fn window(&mut self, address: IpAddr, now: Duration) -> &mut Window {
        if self.windows.len() >= ADDRESSES
            && !self.windows.contains_key(&address)
            && self.tidied.is_none_or(|tidied| now >= tidied + SECOND)
        {
            self.tidied = Some(now);
            self.windows.retain(|_, window| !window.has_lasted(SECOND, now));
        }
        let room = self.windows.len() < ADDRESSES || self.windows.contains_key(&address);
        self.windows.entry(if room { address } else { SURPLUS }).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOWLY: Duration = Duration::from_millis(19);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_51st_of_a_second_is_refused_however_slowly_they_come() {
        let addresses = Addresses::new(50);
        let mut now = Duration::ZERO;
        for _ in 0..50 {
            assert!(addresses.admit(ip("192.0.2.1"), now));
            now += SLOWLY;
        }
        assert!(!addresses.admit(ip("192.0.2.1"), now));
        assert!(addresses.admit(ip("192.0.2.2"), now));
        assert!(addresses.admit(ip("192.0.2.1"), SECOND));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let addresses = Addresses::new(1);
        assert!(addresses.admit(ip("2001:db8::1"), Duration::ZERO));
        assert!(!addresses.admit(ip("2001:db8::2"), Duration::ZERO));
        assert!(addresses.admit(ip("2001:db8:0:1::1"), Duration::ZERO));
    }

    #[test]
    fn memory_is_bounded_under_a_flood_of_addresses() {
        let addresses = Addresses::new(1);
        for n in 0..300_000_u32 {
            let _ = addresses.admit(IpAddr::V4(n.into()), Duration::ZERO);
        }
        let kept: usize = addresses.shards.iter().map(|shard| shard.lock().unwrap().windows.len()).sum();
        assert!(kept <= SHARDS * (ADDRESSES + 1), "{kept}");
        assert!(addresses.admit(ip("192.0.2.1"), SECOND));
    }
}
