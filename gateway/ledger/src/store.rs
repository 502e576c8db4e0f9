//! The database, SQLite or PostgreSQL: connects, and brings its schema up to date. Queries are written in the SQL that both
//! understand; only the schema's types and the writing of records differ.

use crate::durability::Durability;
use crate::error::Error;
use crate::migrations::migrator;
use arc_swap::ArcSwap;
use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A query waits at most this long for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A query is given up after this: a connection may be dead without a sign of it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The database, for everything but the writing of records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Connections>);

#[derive(Debug)]
struct Connections {
    /// Replaced when its connections turn out to be dead.
    pool: ArcSwap<AnyPool>,
    url: String,
    session: &'static [&'static str],
    is_sqlite: bool,
}

impl Store {
    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&self.pool()).timed(self).await?;
        Ok(())
    }

    /// The connections.
    pub(crate) fn pool(&self) -> AnyPool {
        AnyPool::clone(&self.0.pool.load())
    }

    /// Leaves connections that do not answer behind: sqlx would wait for them to answer a ping, for ever.
    fn reconnect(&self) {
        if self.0.is_sqlite {
            return;
        }
        match options(self.0.session).connect_lazy(&self.0.url) {
            Ok(pool) => self.0.pool.store(Arc::new(pool)),
            Err(error) => tracing::error!(%error, "database connections not replaced"),
        }
    }
}

/// A query with a time limit.
pub(crate) trait Timed<T>: Future<Output = Result<T, sqlx::Error>> + Send + Sized {
    /// Its result, or an error if that does not come in time.
    fn timed(self, store: &Store) -> impl Future<Output = Result<T, Error>> + Send {
        async move {
            match tokio::time::timeout(QUERY_TIMEOUT, self).await {
                Ok(Err(sqlx::Error::PoolTimedOut)) => {
                    store.reconnect();
                    Err(sqlx::Error::PoolTimedOut.into())
                }
                Ok(done) => Ok(done?),
                Err(_) => {
                    store.reconnect();
                    let limit = QUERY_TIMEOUT.as_secs();
                    Err(Error::Database(format!("no answer within {limit} s")))
                }
            }
        }
    }
}

impl<T, F: Future<Output = Result<T, sqlx::Error>> + Send> Timed<T> for F {}

/// Which database a URL names.
pub(crate) enum Kind {
    Sqlite(PathBuf),
    Postgres,
}

impl Kind {
    pub(crate) fn of(url: &str) -> Result<Self, Error> {
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
    connect_as(url, Durability::Strict).await
}

/// Connects as [`connect`] does, with the session that a durability asks for.
pub(crate) async fn connect_as(url: &str, durability: Durability) -> Result<Store, Error> {
    sqlx::any::install_default_drivers();
    let (url, session, is_sqlite) = match Kind::of(url)? {
        Kind::Postgres => (url.to_owned(), POSTGRES_SESSION, false),
        Kind::Sqlite(file) => {
            if let Some(parent) = file.parent().filter(|parent| *parent != Path::new("")) {
                tokio::fs::create_dir_all(parent)
                    .await
                    .map_err(|error| Error::Setup(format!("cannot create {}: {error}", parent.display())))?;
            }
            let url = format!("sqlite://{}?mode=rwc", file.display());
            (url, sqlite_session(durability), true)
        }
    };
    let pool = options(session).connect(&url).await?;
    migrator(is_sqlite)
        .run(&pool)
        .await
        .map_err(|error| Error::Database(error.to_string()))?;
    Ok(Store(Arc::new(Connections {
        pool: ArcSwap::from_pointee(pool),
        url,
        session,
        is_sqlite,
    })))
}

/// The first statements of a connection to SQLite: transactions survive `kill -9`, and in synced mode a power cut.
pub(crate) const fn sqlite_session(durability: Durability) -> &'static [&'static str] {
    match durability {
        Durability::Synced => &[
            "PRAGMA busy_timeout = 10000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
        ],
        Durability::Strict | Durability::Relaxed => &[
            "PRAGMA busy_timeout = 10000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
        ],
    }
}

/// The first statements of a connection to PostgreSQL: the server cancels what takes longer.
pub(crate) const POSTGRES_SESSION: &[&str] = &["SET statement_timeout = '10s'", "SET lock_timeout = '10s'"];

fn options(session: &'static [&'static str]) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for statement in session {
                    sqlx::query(statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
}
