//! The request log on PostgreSQL.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::record::{RecordBatch, RequestRecord};
use common::{Clock, TenantId, Timestamp};
use ports::Unavailable;
use ports::request_log::RequestLog;
use ports::statistics::rollup::Requests;
use sqlx::Acquire as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::database::{Database, bounded, is_conflict, settle};
use super::receipts::{self, MessageKey, Receipt};
use super::rollups;
use super::values::{Moment, column, optional, storable};

/// Batch ids are kept this long; the bus delivers again within minutes.
const REMEMBER_BATCHES: Duration = Duration::from_hours(7 * 24);
/// Times that a transaction is tried which another one was in the way of.
const TRIES: usize = 3;

/// See the module's documentation.
#[derive(Debug)]
pub struct PostgresRequestLog {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
}

impl PostgresRequestLog {
    pub(super) const fn new(database: Arc<Database>, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }
}

#[async_trait]
impl RequestLog for PostgresRequestLog {
    async fn record(&self, batches: &[RecordBatch]) -> Result<(), Unavailable> {
        let now = self.clock.now();
        let mut connection = self.database.acquire().await?;
        let work = async {
            let mut tries = 1;
            loop {
                match record(&mut connection, batches, now).await {
                    Err(error) if is_conflict(&error) && tries < TRIES => tries += 1,
                    result => return result,
                }
            }
        };
        let result = bounded(work).await;
        settle(connection, result)
    }
}

async fn record(connection: &mut PgConnection, batches: &[RecordBatch], now: Timestamp) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO record_batches (id, recorded_at) SELECT id, $2 FROM UNNEST($1::uuid[]) AS id \
         ON CONFLICT (id) DO NOTHING RETURNING id",
    )
    .bind(column(batches, |batch| batch.id))
    .bind(Moment::from(now))
    .fetch_all(&mut *transaction)
    .await?;
    let mut new: HashSet<Uuid> = new.into_iter().collect();
    let records: Vec<&RequestRecord> =
        batches.iter().filter(|batch| new.remove(&batch.id)).flat_map(|batch| &batch.records).collect();
    log(&mut transaction, &records).await?;
    let waiting = receipts::apply(&mut transaction, add_up(&records)).await?;
    receipts::put_aside(&mut transaction, &waiting, now).await?;
    rollups::requests(&mut transaction, &Requests::of(records.iter().copied())).await?;
    sqlx::query("DELETE FROM record_batches WHERE recorded_at < $1")
        .bind(Moment::from(now.minus(REMEMBER_BATCHES)))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    // Of batches that were stored before too: perhaps that was as far as a process came.
    let all: Vec<&RequestRecord> = batches.iter().flat_map(|batch| &batch.records).collect();
    let keys: Vec<MessageKey> = add_up(&all).into_iter().map(|(key, _)| key).collect();
    receipts::merge(connection, &keys).await
}

async fn log(connection: &mut PgConnection, records: &[&RequestRecord]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO webhook_signature_log (id, tenant_id, webhook_source, endpoint_path, source_ip, event_id, \
         event_type, \
         event_count, signature_status, suspicious, reason, processing_time_ms, http_status, outcome, received_at, \
         weight) \
         SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
         $8::bigint[], $9::text[], $10::boolean[], $11::text[], $12::double precision[], $13::integer[], $14::text[], \
         $15::timestamptz[], $16::bigint[]) ON CONFLICT (id, received_at) DO NOTHING",
    )
    .bind(column(records, |record| record.request.0))
    .bind(column(records, |record| record.tenant.as_ref().map(TenantId::as_str)))
    .bind(column(records, |record| record.provider.webhook_source()))
    .bind(column(records, |record| storable(&record.endpoint)))
    .bind(column(records, |record| record.source_ip.to_string()))
    .bind(column(records, |record| record.event.map(|key| key.event_id().to_string())))
    .bind(column(records, |record| optional(record.event_type.as_ref())))
    .bind(column(records, |record| i64::from(record.event_count)))
    .bind(column(records, |record| record.signature.as_str()))
    .bind(column(records, |record| record.suspicious))
    .bind(column(records, |record| optional(record.reason.as_ref())))
    .bind(column(records, |record| record.processing_ms))
    .bind(column(records, |record| i32::from(record.http_status)))
    .bind(column(records, |record| record.outcome.as_str()))
    .bind(column(records, |record| Moment::from(record.received_at)))
    .bind(column(records, |record| i64::from(record.weight)))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Adds up what records say of each message, sorted by key.
fn add_up(records: &[&RequestRecord]) -> Vec<(MessageKey, Receipt)> {
    let mut receipts: BTreeMap<MessageKey, Receipt> = BTreeMap::new();
    for record in records {
        for messages in &record.messages {
            for key in &messages.stored {
                let receipt = receipts.entry((messages.tenant.clone(), *key)).or_default();
                receipt.response_time.get_or_insert(record.processing_ms);
            }
            for key in &messages.duplicates {
                let receipt = receipts.entry((messages.tenant.clone(), *key)).or_default();
                receipt.duplicates = receipt.duplicates.saturating_add(1);
                receipt.last_duplicate = receipt.last_duplicate.max(Some(record.received_at));
            }
        }
    }
    receipts.into_iter().collect()
}
