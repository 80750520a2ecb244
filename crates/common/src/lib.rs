//! Domain types shared by every job: ids, time, the envelope and its sealing, keys, the directory, events and the
//! status machine.
//!
//! A type lives here when two jobs use it, its name is a term of the field, and it needs no I/O. Wire formats of
//! providers are in `providers`, rows in the backends, HTTP bodies in `ingress` and `api`.

pub mod access;
pub mod clock;
pub mod directory;
pub mod envelope;
pub mod event;
pub mod identity;
pub mod ids;
pub mod keys;
pub mod message;
pub mod record;
pub mod sealing;
pub mod status;
pub mod trace;
pub mod update;
pub mod webhook;

pub use clock::{Clock, SystemClock, Timestamp};
pub use ids::{AppId, EnvelopeId, EventId, EventKey, Fingerprint, NumberId, RequestId, TenantId};
