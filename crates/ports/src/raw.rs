//! Raw envelopes: where the sealed bytes of a webhook are.

use async_trait::async_trait;
use bytes::Bytes;
use common::EnvelopeId;

use crate::Unavailable;
use crate::event_store::RawObject;

/// Where an envelope's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawPlace {
    /// In the blob store.
    Object(RawObject),
    /// In the database: they wait for the blob store, are parked, or are a dead letter.
    Here(Bytes),
}

/// See the module's documentation.
#[async_trait]
pub trait RawIndex: Send + Sync {
    /// Where an envelope is; `None` if it is not kept (any more).
    async fn find(&self, envelope: EnvelopeId) -> Result<Option<RawPlace>, Unavailable>;

    /// Forgets up to `max` places in objects whose path is lower (by its bytes) than `object`; returns how many.
    async fn forget_below(&self, object: &str, max: usize) -> Result<u64, Unavailable>;
}
