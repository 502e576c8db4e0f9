//! The database and the journal of a gateway that is about to start: connected, locked and numbered.

use crate::durability::Durability;
use crate::error::Error;
use crate::id::{GatewayId, random_hex};
use crate::postgres::PostgresWriter;
use crate::slot::{self, Slots};
use crate::sqlite::SqliteWriter;
use crate::store::{Kind, Store, Timed, connect_or_create};
use crate::writer::Connect;
use sqlx::Row;
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

/// The database and the journal of a gateway that is about to start.
pub struct Database {
    pub(crate) store: Store,
    /// Connects what records are written with.
    pub(crate) connect: Connect,
    /// The journal, and the id by which this gateway is known among all that share the database.
    pub(crate) slots: Slots,
    /// The gateway's number, which ends the numbers of its entries.
    pub(crate) gateway_number: i64,
    pub(crate) durability: Durability,
}

impl Database {
    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Connects, and locks a journal slot in `data_dir`; `is_hand_over`: beside the gateway that this one takes over from.
///
/// # Errors
/// When the database cannot be reached, or both slots are locked.
pub async fn open(url: &str, data_dir: &Path, is_hand_over: bool, durability: Durability) -> Result<Database, Error> {
    let store = connect_or_create(url, durability).await?;
    let (url, data_dir) = (url.to_owned(), data_dir.to_owned());
    let locked = tokio::task::spawn_blocking(move || lock(&url, &data_dir, is_hand_over, durability));
    let (slots, connect) = locked.await.map_err(|error| Error::Setup(error.to_string()))??;
    // A number among those that share the database, so that no two records get the same id.
    let number = sqlx::query(
        "INSERT INTO settings VALUES ('gateways', '1') ON CONFLICT (name) \
         DO UPDATE SET value = CAST(CAST(settings.value AS BIGINT) + 1 AS TEXT) RETURNING value",
    )
    .fetch_one(&store.pool())
    .timed(&store)
    .await?;
    let number: String = number.try_get("value")?;
    Ok(Database {
        store,
        connect,
        slots,
        gateway_number: number.parse().map_err(Error::invalid)?,
        durability,
    })
}

/// The files of a database and its journal that exist: the SQLite database with its `-wal` and `-shm`, segments, locks, and
/// what was set aside. All begin with the same name. Blocks.
///
/// # Errors
/// When the URL is invalid, or their directory cannot be read.
pub fn paths(url: &str, data_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let base = journal_of(&Kind::of(url)?, data_dir);
    let Some(name) = base.file_name().map(OsStr::as_encoded_bytes) else {
        return Ok(Vec::new());
    };
    let parent = base.parent().filter(|parent| *parent != Path::new(""));
    let entries = match std::fs::read_dir(parent.unwrap_or(Path::new("."))) {
        Ok(entries) => entries,
        // The first start creates it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let is_ours = |file: &DirEntry| {
        let file = file.file_name();
        let rest = file.as_encoded_bytes().strip_prefix(name);
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'-' | b'.')))
    };
    Ok(entries.flatten().filter(is_ours).map(|file| file.path()).collect())
}

/// The base name of a journal's files.
fn journal_of(kind: &Kind, data_dir: &Path) -> PathBuf {
    match kind {
        Kind::Sqlite(file) => file.clone(),
        Kind::Postgres => data_dir.join("postgres"),
    }
}

/// Locks a slot, and says how to connect what its records are written with.
fn lock(url: &str, data_dir: &Path, is_hand_over: bool, durability: Durability) -> Result<(Slots, Connect), Error> {
    let owner = own_id(&data_dir.join("gateway.id"))?;
    let kind = Kind::of(url)?;
    let journal = journal_of(&kind, data_dir);
    let slots = slot::take(&journal, &owner, is_hand_over)?;
    let url = url.to_owned();
    let connect: Connect = match kind {
        Kind::Sqlite(file) => Box::new(move || Ok(Box::new(SqliteWriter::open(&file, durability)?))),
        Kind::Postgres => Box::new(move || Ok(Box::new(PostgresWriter::open(&url)?))),
    };
    Ok((slots, connect))
}

/// The id in a file, made at the first start.
fn own_id(file: &Path) -> Result<GatewayId, Error> {
    match std::fs::read_to_string(file) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().into()),
        _ => {
            let id = random_hex::<8>()?;
            std::fs::write(file, &id)?;
            Ok(id.into())
        }
    }
}
