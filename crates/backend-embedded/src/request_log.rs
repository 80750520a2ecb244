//! The request log on SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use common::record::{RecordBatch, RequestRecord};
use common::{Clock, EventKey, TenantId};
use ports::Unavailable;
use ports::request_log::RequestLog;
use sqlx::SqliteConnection;

use crate::insert::Insert;
use crate::sqlite::{Database, unavailable};

/// See the module's documentation.
#[derive(Debug)]
pub struct SqliteRequestLog {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
}

impl SqliteRequestLog {
    pub(crate) const fn new(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }
}

/// Batch ids are kept this long; the bus delivers again within minutes.
const REMEMBER_BATCHES: std::time::Duration = std::time::Duration::from_hours(7 * 24);

#[async_trait]
impl RequestLog for SqliteRequestLog {
    async fn record(&self, batches: &[RecordBatch]) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let mut writer = self.database.writer().await?;
        let result = async {
            let mut transaction = writer.begin().await?;
            for batch in batches {
                let new = sqlx::query("INSERT OR IGNORE INTO record_batches (id, recorded_at) VALUES (?, ?)")
                    .bind(batch.id.as_bytes().to_vec())
                    .bind(now.as_millis())
                    .execute(&mut *transaction)
                    .await
                    .map_err(unavailable)?;
                if new.rows_affected() == 0 {
                    continue;
                }
                log(&mut transaction, &batch.records).await.map_err(unavailable)?;
                for record in &batch.records {
                    receipts(&mut transaction, record, now.as_millis()).await.map_err(unavailable)?;
                }
            }
            sqlx::query("DELETE FROM record_batches WHERE recorded_at < ?")
                .bind(now.minus(REMEMBER_BATCHES).as_millis())
                .execute(&mut *transaction)
                .await
                .map_err(unavailable)?;
            transaction.commit().await.map_err(unavailable)
        }
        .await;
        match result {
            Ok(()) => {
                writer.wrote(batches.iter().map(|batch| batch.records.len() * 512).sum());
                Ok(())
            }
            Err(error) => {
                writer.discard().await;
                Err(error)
            }
        }
    }
}

async fn log(connection: &mut SqliteConnection, records: &[RequestRecord]) -> Result<(), sqlx::Error> {
    const LOG: Insert = Insert {
        head: "INSERT INTO webhook_signature_log (id, tenant_id, webhook_source, endpoint_path, source_ip, event_id, \
               event_type, event_count, signature_status, suspicious, reason, processing_time_ms, http_status, outcome, \
               received_at, weight) VALUES",
        columns: 16,
        tail: "ON CONFLICT (id) DO NOTHING",
    };
    LOG.execute(connection, records, |record, values| {
        values.push(record.request.0.as_bytes().to_vec());
        values.push(record.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()));
        values.push(record.provider.webhook_source());
        values.push(record.endpoint.clone());
        values.push(record.source_ip.to_string());
        values.push(record.event.map(|key| key.event_id().to_string()));
        values.push(record.event_type.clone());
        values.push(record.event_count);
        values.push(record.signature.as_str());
        values.push(record.suspicious);
        values.push(record.reason.clone());
        values.push(record.processing_ms);
        values.push(record.http_status);
        values.push(record.outcome.as_str());
        values.push(record.received_at.as_millis());
        values.push(record.weight);
    })
    .await
    .map(|_| ())
}

/// Puts response times and stopped duplicates on the rows of the messages, or aside until those are stored.
async fn receipts(connection: &mut SqliteConnection, record: &RequestRecord, now: i64) -> Result<(), sqlx::Error> {
    for messages in &record.messages {
        for key in &messages.stored {
            receipt(connection, &messages.tenant, *key, Some(record.processing_ms), None, now).await?;
        }
        for key in &messages.duplicates {
            let at = record.received_at.as_millis();
            receipt(connection, &messages.tenant, *key, None, Some(at), now).await?;
        }
    }
    Ok(())
}

async fn receipt(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    key: EventKey,
    response_time: Option<f64>,
    duplicate_at: Option<i64>,
    now: i64,
) -> Result<(), sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE messages SET response_time_ms = coalesce(response_time_ms, ?3), \
         duplicate_count = duplicate_count + (?4 IS NOT NULL), \
         last_duplicate_at = CASE WHEN ?4 IS NULL THEN last_duplicate_at \
                                  ELSE max(coalesce(last_duplicate_at, 0), ?4) END \
         WHERE tenant = ?1 AND key = ?2",
    )
    .bind(tenant.as_str())
    .bind(key.0.to_vec())
    .bind(response_time)
    .bind(duplicate_at)
    .execute(&mut *connection)
    .await?;
    if updated.rows_affected() > 0 {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO message_receipts (tenant, key, response_time_ms, duplicate_count, last_duplicate_at, recorded_at) \
         VALUES (?1, ?2, ?3, ?4 IS NOT NULL, ?4, ?5) ON CONFLICT (tenant, key) DO UPDATE SET \
         response_time_ms = coalesce(response_time_ms, ?3), duplicate_count = duplicate_count + (?4 IS NOT NULL), \
         last_duplicate_at = coalesce(?4, last_duplicate_at)",
    )
    .bind(tenant.as_str())
    .bind(key.0.to_vec())
    .bind(response_time)
    .bind(duplicate_at)
    .bind(now)
    .execute(connection)
    .await
    .map(|_| ())
}
