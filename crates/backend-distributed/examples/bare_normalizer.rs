//! What a normalizer could do at best on this machine: the rows are known, and all that is left is to write them in
//! batches and to put the events on the bus. `scripts/bench-distributed` compares the real one with it.
//!
//! `bare_normalizer POSTGRES_URL NATS_URL BATCH`: reads the rows that a normalizer has stored into memory, empties the
//! tables, and writes the same rows again, one transaction a batch, each table with one statement. After each commit the
//! batch's events are published and their acknowledgements awaited; their outbox rows go away with the next batch. It
//! decrypts, parses and decides nothing, looks nothing up, claims nothing and archives nothing. Prints the events and
//! the seconds that they took. For a database that can be lost.
#![expect(clippy::disallowed_methods, reason = "a measuring tool: real clocks, and tasks that end with it")]

use std::error::Error;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use futures_util::future::try_join_all;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Row as _};

/// The tables that a normalizer writes to and in which rows stay, with the order in which they came. `events` is the
/// last, as it is there, and its rows are those that are published.
const TABLES: [(&str, &str); 10] = [
    ("event_keys", "first_seen"),
    ("identities", "ctid"),
    ("identity_aliases", "ctid"),
    ("conversations", "ctid"),
    ("messages", "received_at"),
    ("statuses", "received_at"),
    ("message_states", "ctid"),
    ("raw_objects", "ctid"),
    ("webhook_signature_log", "received_at"),
    ("events", "position"),
];
const FORGET: &str = "DELETE FROM outbox WHERE position = ANY($1)";

/// Reads a column and binds it again as an array, whatever its type is.
macro_rules! columns {
    ($($variant:ident($type:ty): $($name:literal)|+;)*) => {
        /// Some rows of one column.
        enum Column {
            $($variant(Vec<Option<$type>>),)*
        }

        impl Column {
            fn read(rows: &[PgRow], index: usize, kind: &str) -> Result<Self, Box<dyn Error>> {
                Ok(match kind {
                    $($($name)|+ => {
                        let values: Result<_, _> = rows.iter().map(|row| row.try_get(index)).collect();
                        Self::$variant(values?)
                    })*
                    other => return Err(format!("a column of type {other}").into()),
                })
            }

            fn bind(self, query: Query<'_, Postgres, PgArguments>) -> Query<'_, Postgres, PgArguments> {
                match self {
                    $(Self::$variant(values) => query.bind(values),)*
                }
            }
        }
    };
}

columns! {
    Text(String): "text" | "varchar";
    Bytes(Vec<u8>): "bytea";
    Moment(time::OffsetDateTime): "timestamptz";
    Uuid(uuid::Uuid): "uuid";
    Long(i64): "int8";
    Int(i32): "int4";
    Short(i16): "int2";
    Double(f64): "float8";
    Bool(bool): "bool";
}

/// One table's share of a batch.
struct Insert {
    statement: String,
    columns: Vec<Column>,
}

/// What is written in one transaction, and what is published after it.
#[derive(Default)]
struct Batch {
    inserts: Vec<Insert>,
    positions: Vec<i64>,
    messages: Vec<(String, String, Bytes)>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the result")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [postgres, nats, batch] = arguments.as_slice() else {
        return Err("usage: bare_normalizer POSTGRES_URL NATS_URL BATCH".into());
    };
    let client = async_nats::connect(nats).await.map_err(std::io::Error::other)?;
    let jetstream = jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(5))
        .max_ack_inflight(20_000)
        .build(client);
    let mut connection = PgConnection::connect(postgres).await?;
    let (events,): (i64,) = sqlx::query_as("SELECT count(*) FROM events").fetch_one(&mut connection).await?;
    let events = usize::try_from(events)?;
    let count = events.div_ceil(batch.parse::<usize>()?.max(1));
    let mut batches: Vec<Batch> = (0..count).map(|_| Batch::default()).collect();
    for (table, order) in TABLES {
        read(&mut connection, table, order, &mut batches).await?;
    }
    let tables = TABLES.map(|(table, _)| table).join(", ");
    let empty = format!("TRUNCATE {tables}, outbox");
    sqlx::raw_sql(AssertSqlSafe(empty)).execute(&mut connection).await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;

    let begun = Instant::now();
    let mut published = Vec::new();
    for batch in batches {
        let mut transaction = connection.begin().await?;
        for insert in batch.inserts {
            let query = sqlx::query(AssertSqlSafe(insert.statement));
            let query = insert.columns.into_iter().fold(query, |query, column| column.bind(query));
            query.execute(&mut *transaction).await?;
        }
        sqlx::query(FORGET).bind(&published).execute(&mut *transaction).await?;
        transaction.commit().await?;
        let mut sent = Vec::with_capacity(batch.messages.len());
        for (subject, id, payload) in batch.messages {
            let message = PublishMessage::build().payload(payload).message_id(id);
            sent.push(jetstream.send_publish(subject, message).await?);
        }
        try_join_all(sent.into_iter().map(std::future::IntoFuture::into_future)).await?;
        published = batch.positions;
    }
    sqlx::query(FORGET).bind(&published).execute(&mut connection).await?;
    println!("{events} events in {:.3} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Reads a table and deals its rows out to the batches, in order and evenly.
async fn read(
    connection: &mut PgConnection,
    table: &str,
    order: &str,
    batches: &mut [Batch],
) -> Result<(), Box<dyn Error>> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, udt_name::text FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
    )
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let arrays: Vec<String> =
        columns.iter().enumerate().map(|(index, (_, kind))| format!("${}::{kind}[]", index + 1)).collect();
    let (names, arrays) = (names.join(", "), arrays.join(", "));
    let insert = format!("INSERT INTO {table} ({names}) SELECT * FROM UNNEST({arrays})");
    let insert = if table == "events" {
        format!(
            "WITH stored AS ({insert} RETURNING position, received_at, partition, octet_length(data) AS bytes) \
             INSERT INTO outbox (position, received_at, partition, bytes) SELECT * FROM stored"
        )
    } else {
        insert
    };
    let query = format!("SELECT {names} FROM {table} ORDER BY {order}");
    let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
    let count = batches.len();
    for (index, batch) in batches.iter_mut().enumerate() {
        let rows = &rows[index * rows.len() / count..(index + 1) * rows.len() / count];
        if rows.is_empty() {
            continue;
        }
        let values: Result<_, _> =
            columns.iter().enumerate().map(|(index, (_, kind))| Column::read(rows, index, kind)).collect();
        batch.inserts.push(Insert { statement: insert.clone(), columns: values? });
        if table == "events" {
            for row in rows {
                let (position, partition): (i64, i16) = (row.try_get("position")?, row.try_get("partition")?);
                let data: Vec<u8> = row.try_get("data")?;
                batch.positions.push(position);
                let subject = format!("wharf.events.bare.{partition}.event");
                batch.messages.push((subject, format!("bare-{position}"), Bytes::from(data)));
            }
        }
    }
    Ok(())
}
