//! What every backend must do, as tests; and stand-ins for backends that can be made to fail.
//!
//! A law is a promise of `ports` in the form of a function over a [`Harness`]; [`contracts!`] makes a test of each, so
//! that a report names the broken promise. The memory backend here, the embedded and the distributed one run the same
//! laws, which keeps them from drifting apart. [`memory`] serves the tests of jobs: it passes the laws and then breaks
//! them on demand. Nothing here is part of a product.
#![expect(clippy::unwrap_used, reason = "laws and fakes exist for tests and fail them by panicking")]

pub mod access;
pub mod admission;
pub mod clock;
pub mod directory;
pub mod event_bus;
pub mod event_store;
pub mod feed;
pub mod harness;
pub mod memory;
pub mod message_log;
pub mod outbox;
pub mod parking;
pub mod queries;
pub mod raw;
pub mod request_log;
pub mod samples;
mod scene;
pub mod statistics;

pub use clock::ManualClock;
pub use harness::Harness;
pub use memory::{Faults, MemoryBackend, Operation};

/// Expands to one test for each law of every port, in a module for each port.
///
/// The harness must be in scope by this name, and the caller needs `tokio` with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! contracts {
    ($harness:ident) => {
        $crate::event_bus_contract!($harness);
        $crate::admission_contract!($harness);
        $crate::directory_contract!($harness);
        $crate::event_store_contract!($harness);
        $crate::outbox_contract!($harness);
        $crate::feed_contract!($harness);
        $crate::message_log_contract!($harness);
        $crate::request_log_contract!($harness);
        $crate::statistics_contract!($harness);
        $crate::access_contract!($harness);
        $crate::parking_contract!($harness);
        $crate::raw_contract!($harness);
    };
}

/// Expands to a module of tests, one for each named law of a port.
#[doc(hidden)]
#[macro_export]
macro_rules! laws {
    ($harness:ident, $port:ident: $($law:ident),* $(,)?) => {
        mod $port {
            use super::$harness;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $law() {
                    $crate::$port::$law::<$harness>().await;
                }
            )*
        }
    };
}
