//! Opens the database, SQLite or PostgreSQL, and brings its schema up to date: one schema and one set of queries, in
//! the words that both understand. Only the writing of records differs ([`super::sqlite`], [`super::postgres`]).

use super::place::{self, Places};
use super::postgres::PostgresWriter;
use super::sqlite::SqliteWriter;
use super::writer::Writer;
use super::{Store, Unavailable};
use sqlx::Row;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that the ledger works with.
pub(crate) struct Database {
    pub(crate) pool: Store,
    pub(super) writer: Box<dyn Writer>,
    /// Where the journal is, and under which id this gateway is known among all that share the database.
    pub(super) places: Places,
    /// What its records' ids end in.
    pub(super) number: i64,
}

/// How long a query waits for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

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
    (
        7,
        "files and batches",
        include_str!("../../migrations/0007_files_and_batches.sql"),
    ),
    (
        8,
        "jobs of any call",
        include_str!("../../migrations/0008_jobs_of_any_call.sql"),
    ),
];

/// Which database a URL names.
enum Kind {
    Sqlite(PathBuf),
    Postgres,
}

impl Kind {
    fn of(url: &str) -> Result<Self, Unavailable> {
        let file = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match file {
            Some(file) => Ok(Kind::Sqlite(PathBuf::from(file.split('?').next().unwrap_or(file)))),
            None if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Kind::Postgres),
            None => Err(Unavailable(
                "its URL must begin with sqlite:// or postgres://".to_owned(),
            )),
        }
    }
}

/// Connects to the database, makes it if it is a file that is not there, and migrates it.
pub(crate) async fn connect(url: &str) -> Result<Store, Unavailable> {
    sqlx::any::install_default_drivers();
    let kind = Kind::of(url)?;
    let url = match &kind {
        Kind::Postgres => url.to_owned(),
        Kind::Sqlite(file) => {
            if let Some(parent) = file.parent().filter(|parent| *parent != Path::new("")) {
                std::fs::create_dir_all(parent)
                    .map_err(|error| Unavailable(format!("cannot make {}: {error}", parent.display())))?;
            }
            format!("sqlite://{}?mode=rwc", file.display())
        }
    };
    let is_sqlite = matches!(kind, Kind::Sqlite(_));
    let options = AnyPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(PATIENCE)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if is_sqlite {
                    // Survives kill -9; the last moments before a power cut may be lost, the file stays sound.
                    for pragma in ["busy_timeout = 10000", "journal_mode = WAL", "synchronous = NORMAL"] {
                        sqlx::query(&format!("PRAGMA {pragma}"))
                            .execute(&mut *connection)
                            .await?;
                    }
                }
                Ok(())
            })
        });
    let store = options.connect(&url).await?;
    migrator(is_sqlite)
        .run(&store)
        .await
        .map_err(|error| Unavailable(error.to_string()))?;
    Ok(store)
}

/// Connects, and opens what records are written with. `data_dir` is where this gateway keeps what is its own;
/// `is_hand_over`: another that is there still may be.
pub(crate) async fn open(url: &str, data_dir: &Path, is_hand_over: bool) -> Result<Database, Unavailable> {
    let pool = connect(url).await?;
    let owner = own_id(&data_dir.join("gateway.id"))?;
    let journal = match Kind::of(url)? {
        Kind::Sqlite(file) => file,
        Kind::Postgres => data_dir.join("postgres"),
    };
    let places = place::take(&journal, &owner, is_hand_over)?;
    let owner = places.mine.place.owner.clone();
    let writer: Box<dyn Writer> = match Kind::of(url)? {
        Kind::Sqlite(file) => Box::new(SqliteWriter::open(&file, owner)?),
        Kind::Postgres => Box::new(PostgresWriter::open(url, owner)?),
    };
    // A number among those that share the database, so that no two records get the same id.
    let number = sqlx::query(
        "INSERT INTO settings VALUES ('gateways', '1') ON CONFLICT (name) \
         DO UPDATE SET value = CAST(CAST(settings.value AS BIGINT) + 1 AS TEXT) RETURNING value",
    )
    .fetch_one(&pool)
    .await?;
    let number: String = number.try_get("value")?;
    Ok(Database {
        pool,
        writer,
        places,
        number: number.parse().unwrap_or(0),
    })
}

/// The id in a file, made at the first start.
fn own_id(file: &Path) -> Result<String, Unavailable> {
    match std::fs::read_to_string(file) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        _ => {
            let id = crate::api_key::random_text()?[..16].to_owned();
            std::fs::write(file, &id)?;
            Ok(id)
        }
    }
}

fn migrator(is_sqlite: bool) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = if is_sqlite {
            Cow::Borrowed(*sql)
        } else {
            Cow::Owned(for_postgres(sql))
        };
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, sql, false)
    });
    Migrator {
        migrations: Cow::Owned(migrations.collect()),
        ..Migrator::DEFAULT
    }
}

/// The schema in PostgreSQL's words: the same tables, with its names of the same types.
fn for_postgres(sql: &str) -> String {
    let words = [
        ("INTEGER", "BIGINT"),
        ("REAL", "DOUBLE PRECISION"),
        ("BLOB", "BYTEA"),
        (" WITHOUT ROWID", ""),
    ];
    words
        .iter()
        .fold(sql.to_owned(), |sql, (one, other)| sql.replace(one, other))
}
