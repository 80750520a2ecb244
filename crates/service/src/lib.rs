//! What surrounds any process: layered configuration, logs and metrics, health, tasks and an orderly stop. And what
//! surrounds a listener: TLS, networks, proxies, limits.
//!
//! Nothing here knows a webhook.

pub mod client;
pub mod config;
pub mod connections;
pub mod directory;
pub mod health;
pub mod keys;
pub mod names;
pub mod networks;
pub mod reload;
pub mod retry;
pub mod stop;
pub mod telemetry;
pub mod tls;
pub mod windows;

pub use stop::Tasks;
