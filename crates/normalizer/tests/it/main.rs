//! The normalizer on the memory backend, with faults: what it promises, step by step and as running loops.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod dead_letters;
mod envelopes;
mod logs;
mod loops;
mod outbox;
mod parking;
mod recording;
mod release;
mod scene;
mod waiting;
