//! Opens the database, SQLite or PostgreSQL, and brings its schema up to date. Queries are written in the SQL that both
//! understand; only the schema's types and the writing of records differ.

use crate::error::Error;
use crate::id::{GatewayId, random_hex};
use crate::migrations::migrator;
use crate::postgres::PostgresWriter;
use crate::slot::{self, Slots};
use crate::sqlite::SqliteWriter;
use crate::writer::Writer;
use sqlx::AnyPool;
use sqlx::Row;
use sqlx::any::AnyPoolOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database, for everything but the writing of records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) AnyPool);

impl Store {
    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&self.0).await?;
        Ok(())
    }
}

/// The database and the journal of a gateway that is about to start.
pub struct Database {
    pub(crate) store: Store,
    pub(crate) writer: Box<dyn Writer>,
    /// The journal, and the id by which this gateway is known among all that share the database.
    pub(crate) slots: Slots,
    /// The gateway's number, which ends the numbers of its entries.
    pub(crate) gateway_number: i64,
}

impl Database {
    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// How long a query waits for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which database a URL names.
enum Kind {
    Sqlite(PathBuf),
    Postgres,
}

impl Kind {
    fn of(url: &str) -> Result<Self, Error> {
        let file = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match file {
            Some(file) => Ok(Kind::Sqlite(PathBuf::from(file.split('?').next().unwrap_or(file)))),
            None if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Kind::Postgres),
            None => Err(Error::Setup(
                "invalid database URL: it must begin with sqlite:// or postgres://".to_owned(),
            )),
        }
    }
}

/// Connects to the database, creates it if it is a file that does not exist, and migrates it.
///
/// # Errors
/// When the URL is invalid, or the database cannot be reached or migrated.
pub async fn connect(url: &str) -> Result<Store, Error> {
    sqlx::any::install_default_drivers();
    let kind = Kind::of(url)?;
    let url = match &kind {
        Kind::Postgres => url.to_owned(),
        Kind::Sqlite(file) => {
            if let Some(parent) = file.parent().filter(|parent| *parent != Path::new("")) {
                tokio::fs::create_dir_all(parent)
                    .await
                    .map_err(|error| Error::Setup(format!("cannot create {}: {error}", parent.display())))?;
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
    let pool = options.connect(&url).await?;
    migrator(is_sqlite)
        .run(&pool)
        .await
        .map_err(|error| Error::Database(error.to_string()))?;
    Ok(Store(pool))
}

/// Connects, and locks a journal slot in `data_dir`; `is_hand_over`: beside the gateway that this one takes over from.
///
/// # Errors
/// When the database cannot be reached, or both slots are locked.
pub async fn open(url: &str, data_dir: &Path, is_hand_over: bool) -> Result<Database, Error> {
    let store = connect(url).await?;
    let (url, data_dir) = (url.to_owned(), data_dir.to_owned());
    let locked = tokio::task::spawn_blocking(move || lock(&url, &data_dir, is_hand_over));
    let (slots, writer) = locked.await.map_err(|error| Error::Setup(error.to_string()))??;
    // A number among those that share the database, so that no two records get the same id.
    let number = sqlx::query(
        "INSERT INTO settings VALUES ('gateways', '1') ON CONFLICT (name) \
         DO UPDATE SET value = CAST(CAST(settings.value AS BIGINT) + 1 AS TEXT) RETURNING value",
    )
    .fetch_one(&store.0)
    .await?;
    let number: String = number.try_get("value")?;
    Ok(Database {
        store,
        writer,
        slots,
        gateway_number: number.parse().map_err(Error::invalid)?,
    })
}

/// Locks a slot, and opens what its records are written with.
fn lock(url: &str, data_dir: &Path, is_hand_over: bool) -> Result<(Slots, Box<dyn Writer>), Error> {
    let owner = own_id(&data_dir.join("gateway.id"))?;
    let kind = Kind::of(url)?;
    let journal = match &kind {
        Kind::Sqlite(file) => file.clone(),
        Kind::Postgres => data_dir.join("postgres"),
    };
    let slots = slot::take(&journal, &owner, is_hand_over)?;
    let owner = slots.own.slot.owner.clone();
    let writer: Box<dyn Writer> = match kind {
        Kind::Sqlite(file) => Box::new(SqliteWriter::open(&file, owner)?),
        Kind::Postgres => Box::new(PostgresWriter::open(url, owner)?),
    };
    Ok((slots, writer))
}

/// The id in a file, made at the first start.
fn own_id(file: &Path) -> Result<GatewayId, Error> {
    match std::fs::read_to_string(file) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().into()),
        _ => {
            let id = &random_hex()?[..16];
            std::fs::write(file, id)?;
            Ok(id.into())
        }
    }
}
