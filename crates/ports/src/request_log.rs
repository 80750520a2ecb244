//! The request log: what became of each webhook request.

use async_trait::async_trait;
use common::record::RecordBatch;

use crate::Unavailable;

/// See the module's documentation.
#[async_trait]
pub trait RequestLog: Send + Sync {
    /// Stores batches of records in one transaction: a row each, and response times and stopped duplicates on the rows
    /// of the messages concerned, which may be stored before or after. Idempotent by batch id.
    async fn record(&self, batches: &[RecordBatch]) -> Result<(), Unavailable>;
}
