//! Real servers for tests: nats-server, redis-server and PostgreSQL as child processes.
//!
//! A value is a running server with a folder and ports of its own, on 127.0.0.1. The server ends with its value, also
//! when the test panics; if the test's process is killed, or never drops the value (a `static`), a small watchdog ends
//! the server and deletes its folder. Servers can be killed, frozen and started again on the same ports, because that
//! is what the tests are about.
//!
//! The programs come from PATH and the usual folders, or from `.cache/servers`, which `scripts/get-servers` fills. A
//! program that is missing fails the test; nothing is skipped.
//!
//! All calls block, and are short; they may be used in async tests. **Whatever goes wrong panics**: this crate is for
//! tests only, where a panic with the server's log is the best error.

#![cfg(unix)]

mod binaries;
mod data_folder;
mod nats;
mod port;
mod postgres;
mod process;
mod process_table;
mod redis;
mod wait;

pub use nats::Nats;
pub use postgres::Postgres;
pub use redis::Redis;
