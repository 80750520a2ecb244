//! The distributed backend on real servers, under the laws of every port and beyond them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod directory;
mod event_bus;
mod nats;
mod permissions;
mod postgres;
mod redis;

use port_contracts::Harness;
use port_contracts::memory::MemoryHarness;

/// Ports of another server than the one under test: no law of it uses them.
macro_rules! other_ports_in_memory {
    ($($port:ident -> $trait:path),* $(,)?) => {
        $(fn $port(&self) -> std::sync::Arc<dyn $trait> {
            port_contracts::Harness::$port(&self.others)
        })*
    };
}
use other_ports_in_memory;

/// The backend behind the ports that are not under test.
async fn others(clock: std::sync::Arc<port_contracts::ManualClock>) -> MemoryHarness {
    MemoryHarness::open(clock).await
}

/// The client of the monitoring endpoint needs a TLS provider, though the endpoint speaks HTTP.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
