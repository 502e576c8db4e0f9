//! Opens SQLite (write-ahead log) and brings its schema up to date.

use super::Unavailable;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Connections to the database: one that writes records, a few for everything else.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) writer: rusqlite::Connection,
    pub(crate) pool: SqlitePool,
    pub(crate) file: PathBuf,
}

/// The schema's history: a line a version.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "requests and keys",
        include_str!("../../migrations/0001_requests_and_keys.sql"),
    ),
    (
        2,
        "degradation and price lists",
        include_str!("../../migrations/0002_degradation_and_price_lists.sql"),
    ),
    (3, "rollups", include_str!("../../migrations/0003_rollups.sql")),
    (
        4,
        "models and use of keys",
        include_str!("../../migrations/0004_keys_models_and_use.sql"),
    ),
    (5, "jobs", include_str!("../../migrations/0005_jobs.sql")),
    (6, "intents", include_str!("../../migrations/0006_intents.sql")),
];

/// Opens the database, makes it if it is not there, and migrates it.
pub(crate) async fn open(url: &str) -> Result<Database, Unavailable> {
    let options = SqliteConnectOptions::from_str(url)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Survives kill -9; the last moments before a power cut may be lost, the file stays sound.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    if let Some(parent) = options
        .get_filename()
        .parent()
        .filter(|parent| *parent != Path::new(""))
    {
        std::fs::create_dir_all(parent)
            .map_err(|error| Unavailable(format!("cannot make {}: {error}", parent.display())))?;
    }
    let mut migrating = SqliteConnection::connect_with(&options).await?;
    migrator()
        .run_direct(&mut migrating)
        .await
        .map_err(|error| Unavailable(error.to_string()))?;
    migrating.close().await?;
    let writer = writer(options.get_filename()).map_err(|error| Unavailable(error.to_string()))?;
    let file = options.get_filename().to_owned();
    let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
    Ok(Database { writer, pool, file })
}

fn writer(file: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let writer = rusqlite::Connection::open(file)?;
    writer.busy_timeout(Duration::from_secs(10))?;
    writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    Ok(writer)
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        Migration::new(
            *version,
            Cow::Borrowed(*name),
            MigrationType::Simple,
            Cow::Borrowed(*sql),
            false,
        )
    });
    Migrator {
        migrations: Cow::Owned(migrations.collect()),
        ..Migrator::DEFAULT
    }
}
