//! The schema: made by `migrate`, checked by every process when it starts.

use ports::Unavailable;
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::database::{bounded, is_refusal, unavailable};
use crate::OpenError;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

/// The oldest server that this was made for, as in `server_version_num`.
const OLDEST_SERVER: i32 = 140_000;

/// Connects outside the pool, to see that it works or for work that takes long.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, OpenError> {
    bounded(options.connect()).await.map_err(opening)
}

fn opening(error: sqlx::Error) -> OpenError {
    match error.as_database_error() {
        Some(refused) if is_refusal(&error) => {
            OpenError::Unsuitable(format!("PostgreSQL refuses the connection: {}", refused.message()))
        }
        _ => OpenError::Unavailable(unavailable(error)),
    }
}

/// Runs the migrations that are missing. Returns a line for each.
pub(super) async fn migrate(options: &PgConnectOptions) -> Result<Vec<String>, OpenError> {
    let mut connection = connect(options).await?;
    verify_server(&mut connection).await?;
    // A migration takes as long as it takes, and another process that migrates at the same time is waited for.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0")
        .execute(&mut connection)
        .await
        .map_err(unavailable)?;
    make_schema(&mut connection).await.map_err(unavailable)?;
    let before = applied(&mut connection).await.map_err(unavailable)?.unwrap_or_default();
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(migrating)?;
    let done = MIGRATIONS.iter().filter(|each| !before.iter().any(|(version, _)| *version == each.version));
    let lines = done.map(|each| format!("applied migration {} ({})", each.version, each.description)).collect();
    let _ = connection.close().await;
    Ok(lines)
}

/// Makes the schema that the URL names.
async fn make_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let missing: Option<String> = sqlx::query_scalar(
        "SELECT path FROM (SELECT trim(BOTH '\"' FROM current_setting('search_path')) AS path) AS setting \
         WHERE current_schema() IS NULL",
    )
    .fetch_optional(&mut *connection)
    .await?;
    match missing {
        // The name was checked when the URL was read.
        Some(schema) if !schema.contains('"') => {
            let create = format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"");
            sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(connection).await.map(|_| ())
        }
        _ => Ok(()),
    }
}

fn migrating(error: MigrateError) -> OpenError {
    match error {
        MigrateError::Execute(error) => OpenError::Unavailable(unavailable(error)),
        MigrateError::ExecuteMigration(error, _) if error.as_database_error().is_none() => {
            OpenError::Unavailable(unavailable(error))
        }
        MigrateError::VersionMissing(version) => newer(version),
        MigrateError::VersionMismatch(version) => changed(version),
        other => OpenError::Unsuitable(format!("PostgreSQL cannot be migrated: {}", super::database::chain(&other))),
    }
}

fn newer(version: i64) -> OpenError {
    OpenError::Unsuitable(format!(
        "the tables in PostgreSQL are of newer software: they have migration {version}, this program is older"
    ))
}

fn changed(version: i64) -> OpenError {
    OpenError::Unsuitable(format!(
        "the tables in PostgreSQL are of other software: their migration {version} is not the one of this program"
    ))
}

/// Checks the server and that the tables are those of this program.
pub(super) async fn verify(connection: &mut PgConnection) -> Result<(), OpenError> {
    verify_server(connection).await?;
    let applied = bounded(applied(connection)).await.map_err(unavailable)?;
    let Some(applied) = applied else {
        return Err(OpenError::Unsuitable("PostgreSQL has no tables yet; run `wharf migrate`".to_owned()));
    };
    for (version, checksum) in &applied {
        match MIGRATIONS.iter().find(|each| each.version == *version) {
            None => return Err(newer(*version)),
            Some(known) if *known.checksum != **checksum => return Err(changed(*version)),
            Some(_) => {}
        }
    }
    match MIGRATIONS.iter().find(|each| !applied.iter().any(|(version, _)| *version == each.version)) {
        Some(missing) => Err(OpenError::Unsuitable(format!(
            "the tables in PostgreSQL are of older software: migration {} is missing; run `wharf migrate`",
            missing.version
        ))),
        None => Ok(()),
    }
}

async fn verify_server(connection: &mut PgConnection) -> Result<(), OpenError> {
    let server = sqlx::query_as(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'), \
         current_setting('server_encoding')",
    );
    let (number, version, encoding): (i32, String, String) =
        bounded(server.fetch_one(connection)).await.map_err(unavailable)?;
    if number < OLDEST_SERVER {
        return Err(OpenError::Unsuitable(format!("PostgreSQL {version} is too old; it must be 14 or newer")));
    }
    if encoding != "UTF8" {
        return Err(OpenError::Unsuitable(format!(
            "the database in PostgreSQL has the encoding {encoding}; it must be made with UTF8"
        )));
    }
    Ok(())
}

/// Versions and checksums of the migrations that are there; `None` without a table of them.
async fn applied(connection: &mut PgConnection) -> Result<Option<Vec<(i64, Vec<u8>)>>, sqlx::Error> {
    const TABLE: &str = "_sqlx_migrations";
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(TABLE).fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(None);
    }
    let applied = connection.list_applied_migrations(TABLE).await.map_err(|error| match error {
        MigrateError::Execute(error) => error,
        other => sqlx::Error::Migrate(Box::new(other)),
    })?;
    Ok(Some(applied.into_iter().map(|each| (each.version, each.checksum.into_owned())).collect()))
}

/// Whether the server answers at all.
pub(super) async fn ping(connection: &mut PgConnection) -> Result<(), Unavailable> {
    connection.ping().await.map_err(unavailable)
}

/// Milliseconds since the Unix epoch.
pub(super) async fn clock(connection: &mut PgConnection) -> Result<i64, Unavailable> {
    let query = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
    query.fetch_one(connection).await.map_err(unavailable)
}
