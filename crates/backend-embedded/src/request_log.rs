//! The request log on SQLite.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use common::record::{RecordBatch, RequestRecord};
use common::{Clock, EventKey, TenantId};
use ports::Unavailable;
use ports::request_log::RequestLog;
use ports::statistics::rollup::Requests;
use sqlx::{Row as _, SqliteConnection};

use crate::insert::{Rows, Values};
use crate::rollups;
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
            let mut receipts = Receipts::new();
            let mut recorded: Vec<&RequestRecord> = Vec::new();
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
                add_up(&mut receipts, &batch.records);
                recorded.extend(&batch.records);
            }
            write(&mut transaction, &receipts, now.as_millis()).await.map_err(unavailable)?;
            rollups::requests(&mut transaction, &Requests::of(recorded)).await.map_err(unavailable)?;
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
    const LOG: Rows = Rows {
        head: "INSERT INTO webhook_signature_log (id, tenant_id, webhook_source, endpoint_path, source_ip, event_id, \
               event_type, event_count, signature_status, suspicious, reason, processing_time_ms, http_status, outcome, \
               received_at, weight) SELECT * FROM",
        columns: 16,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (id) DO NOTHING",
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

/// What records say of one message.
#[derive(Default)]
struct Receipt {
    response_time: Option<f64>,
    duplicates: u32,
    last_duplicate: Option<i64>,
}

type Receipts = HashMap<(TenantId, EventKey), Receipt>;

/// Adds up what records say of each message.
fn add_up(receipts: &mut Receipts, records: &[RequestRecord]) {
    for record in records {
        for messages in &record.messages {
            for key in &messages.stored {
                let receipt = receipts.entry((messages.tenant.clone(), *key)).or_default();
                receipt.response_time.get_or_insert(record.processing_ms);
            }
            for key in &messages.duplicates {
                let receipt = receipts.entry((messages.tenant.clone(), *key)).or_default();
                receipt.duplicates += 1;
                receipt.last_duplicate = receipt.last_duplicate.max(Some(record.received_at.as_millis()));
            }
        }
    }
}

/// Puts response times and stopped duplicates on the rows of the messages, or aside until those are stored.
async fn write(connection: &mut SqliteConnection, receipts: &Receipts, now: i64) -> Result<(), sqlx::Error> {
    const MESSAGES: Rows = Rows {
        head: "UPDATE messages SET response_time_ms = coalesce(response_time_ms, v.column3), \
               duplicate_count = duplicate_count + v.column4, \
               last_duplicate_at = CASE WHEN v.column5 IS NULL THEN last_duplicate_at \
                                        ELSE max(coalesce(last_duplicate_at, 0), v.column5) END \
               FROM",
        columns: 5,
        tail: "AS v WHERE messages.tenant = v.column1 AND messages.key = v.column2 \
               RETURNING messages.tenant, messages.key",
    };
    const ASIDE: Rows = Rows {
        head: "INSERT INTO message_receipts (tenant, key, response_time_ms, duplicate_count, last_duplicate_at, \
               recorded_at) SELECT * FROM",
        columns: 6,
        tail: "WHERE column1 IS NOT NULL ON CONFLICT (tenant, key) DO UPDATE SET \
               response_time_ms = coalesce(response_time_ms, excluded.response_time_ms), \
               duplicate_count = duplicate_count + excluded.duplicate_count, \
               last_duplicate_at = coalesce(excluded.last_duplicate_at, last_duplicate_at)",
    };
    let mut rows: Vec<(&(TenantId, EventKey), &Receipt)> = receipts.iter().collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    let values = |(key, receipt): &(&(TenantId, EventKey), &Receipt), values: &mut Values| {
        values.push(key.0.as_str().to_owned());
        values.push(key.1.0.to_vec());
        values.push(receipt.response_time);
        values.push(receipt.duplicates);
        values.push(receipt.last_duplicate);
    };
    let updated = MESSAGES.fetch(&mut *connection, &rows, values).await?;
    let updated: HashSet<(String, Vec<u8>)> = updated.iter().map(|row| (row.get(0), row.get(1))).collect();
    rows.retain(|(key, _)| !updated.contains(&(key.0.as_str().to_owned(), key.1.0.to_vec())));
    let aside = |row: &(&(TenantId, EventKey), &Receipt), bound: &mut Values| {
        values(row, bound);
        bound.push(now);
    };
    ASIDE.execute(connection, &rows, aside).await.map(|_| ())
}
