//! What Wharf knows of each provider: how a webhook is verified, split into updates and turned into events.
//!
//! One directory per provider holds all of it, for every job. Everything here is sans-I/O: bytes in, domain values out.
//! There is no network, no clock, no storage and no configuration, so the gateway and the normalizer share one reading
//! of the same bytes and tests need no server.

pub mod meta;
