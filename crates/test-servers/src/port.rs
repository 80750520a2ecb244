//! Ports that stay ours while a server is down.
//!
//! A test kills a server and starts it again on the same port, so in between nobody else may take it. Ports are chosen
//! below the range from which systems take the ports of outgoing connections, and are reserved against other tests, of
//! this process and of others, by a locked file each. A stranger may still be faster between the choice and the start
//! of the server; then another one is chosen.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Linux gives outgoing connections ports from 32768 on, macOS from 49152 on.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1 that is reserved as long as the value lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: File,
}

impl Port {
    /// A free port.
    pub(crate) fn free() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("wharf-test-ports-{user}"));
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
        // Anywhere, so that processes that begin at once do not all walk the same way.
        let start = RandomState::new().hash_one(std::process::id());
        (0..u64::from(COUNT))
            .find_map(|step| {
                let number = FIRST + u16::try_from(start.wrapping_add(step) % u64::from(COUNT)).ok()?;
                let file = folder.join(number.to_string());
                let reservation = File::create(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                reservation.try_lock().ok()?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                Some(Self { number, _reservation: reservation })
            })
            .unwrap_or_else(|| panic!("no free port from {FIRST} on, of {COUNT}"))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}
