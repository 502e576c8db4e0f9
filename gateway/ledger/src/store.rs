//! The database, SQLite or PostgreSQL: connects, and brings its schema up to date. Queries are written in the SQL that both
//! understand; only the schema's types and the writing of records differ.

use crate::connecting;
use crate::durability::Durability;
use crate::error::Error;
use crate::migrations::migrator;
use arc_swap::ArcSwap;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AnyConnection, AnyPool, Connection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The connections that queries share.
const CONNECTIONS: u32 = 4;

/// A query waits at most this long for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before connecting again to a server that does not listen.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A query is given up after this: a connection may be dead without a sign of it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The database, for everything but the writing of records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Connections>);

#[derive(Debug)]
struct Connections {
    /// Replaced when its connections turn out to be dead.
    pool: ArcSwap<AnyPool>,
    /// One connection for heartbeats, which must not wait behind large files.
    reserved: ArcSwap<AnyPool>,
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

    /// Returns whether several gateways may share it; a file serves one.
    pub fn is_shared(&self) -> bool {
        !self.0.is_sqlite
    }

    /// Holds other gateways back, until the end of a transaction, from adding what counts against a project's bounds. SQLite
    /// has one writer anyway.
    pub(crate) async fn lock_project(&self, connection: &mut AnyConnection, project: &str) -> Result<(), Error> {
        if self.is_shared() {
            let lock = sqlx::query("SELECT 1 FROM pg_advisory_xact_lock(hashtextextended($1, 0))").bind(project);
            lock.execute(connection).timed(self).await?;
        }
        Ok(())
    }

    /// The connections.
    pub(crate) fn pool(&self) -> AnyPool {
        AnyPool::clone(&self.0.pool.load())
    }

    /// The connection for heartbeats.
    pub(crate) fn reserved(&self) -> AnyPool {
        AnyPool::clone(&self.0.reserved.load())
    }

    /// Leaves connections that do not answer behind: sqlx would wait for them to answer a ping, for ever.
    fn reconnect(&self) {
        if self.0.is_sqlite {
            return;
        }
        for (pool, size) in [(&self.0.pool, CONNECTIONS), (&self.0.reserved, 1)] {
            match options(self.0.session, size).connect_lazy(&self.0.url) {
                Ok(new) => pool.store(Arc::new(new)),
                Err(error) => tracing::error!(%error, "database connections not replaced"),
            }
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

/// Connects to the database of a gateway that has been started before, and migrates it. Creates nothing.
///
/// # Errors
/// When the URL is invalid, there is no such database, it is not one of Sluice's, or it cannot be reached or migrated.
pub async fn connect(url: &str) -> Result<Store, Error> {
    let start_first = "start the gateway once (`sluice serve`), which creates it, or name another with --database-url";
    if let Kind::Sqlite(file) = Kind::of(url)?
        && !file.exists()
    {
        return Err(Error::Setup(format!("there is no {}; {start_first}", describe(url))));
    }
    let store = open_pool(url, Durability::Strict).await?;
    let pool = store.pool();
    let keys = sqlx::query("SELECT id FROM keys LIMIT 1").fetch_optional(&pool);
    if keys.timed(&store).await.is_err() {
        return Err(Error::Setup(format!(
            "the {} has no tables of Sluice; {start_first}",
            describe(url)
        )));
    }
    migrate(&store).await?;
    Ok(store)
}

/// Connects as [`connect`] does, and creates the database if it is a file that does not exist, with the session that a
/// durability asks for.
pub(crate) async fn connect_or_create(url: &str, durability: Durability) -> Result<Store, Error> {
    if let Kind::Sqlite(file) = Kind::of(url)?
        && let Some(parent) = file.parent().filter(|parent| *parent != Path::new(""))
    {
        tokio::fs::create_dir_all(parent)
            .await
            .map_err(|error| Error::Setup(format!("cannot create {}: {error}", parent.display())))?;
    }
    let store = open_pool(url, durability).await?;
    migrate(&store).await?;
    Ok(store)
}

/// A database in words, without the password in its URL.
pub fn describe(url: &str) -> String {
    match Kind::of(url) {
        Ok(Kind::Sqlite(file)) => format!("database {}", file.display()),
        Ok(Kind::Postgres) => match url.parse::<PgConnectOptions>() {
            Ok(options) => format!(
                "PostgreSQL database {} at {}:{}",
                options.get_database().unwrap_or(options.get_username()),
                options.get_host(),
                options.get_port()
            ),
            Err(_) => "PostgreSQL database".to_owned(),
        },
        Err(_) => "database".to_owned(),
    }
}

async fn open_pool(url: &str, durability: Durability) -> Result<Store, Error> {
    sqlx::any::install_default_drivers();
    let (connect_url, session, is_sqlite) = match Kind::of(url)? {
        Kind::Postgres => (url.to_owned(), POSTGRES_SESSION, false),
        Kind::Sqlite(file) => {
            let url = format!("sqlite://{}?mode=rwc", file.display());
            (url, sqlite_session(durability), true)
        }
    };
    if !is_sqlite {
        let checked = connecting::check_files(url);
        checked.map_err(|why| Error::Setup(format!("cannot open the {}: {why}", describe(url))))?;
    }
    first_connection(url, &connect_url, session).await?;
    let pool = options(session, CONNECTIONS).connect(&connect_url).await?;
    let reserved = options(session, 1).connect_lazy(&connect_url)?;
    Ok(Store(Arc::new(Connections {
        pool: ArcSwap::from_pointee(pool),
        reserved: ArcSwap::from_pointee(reserved),
        url: connect_url,
        session,
        is_sqlite,
    })))
}

/// Connects once outside the pool, which tries again until its time is over and then no longer knows why it failed. A
/// server that does not listen yet gets the same time.
async fn first_connection(url: &str, connect_url: &str, session: &[&str]) -> Result<(), Error> {
    let give_up = Instant::now() + CONNECT_TIMEOUT;
    loop {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect_once(connect_url, session)).await;
        let why = match connected {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if connecting::may_pass(&error) && Instant::now() < give_up => {
                tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
                continue;
            }
            Ok(Err(error)) => connecting::explain(&error),
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        return Err(Error::Setup(format!("cannot open the {}: {why}", describe(url))));
    }
}

async fn connect_once(url: &str, session: &[&str]) -> Result<(), sqlx::Error> {
    let mut connection = AnyConnection::connect(url).await?;
    for statement in session {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    connection.close().await
}

async fn migrate(store: &Store) -> Result<(), Error> {
    let done = migrator(store.0.is_sqlite).run(&store.pool()).await;
    done.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Error::Setup(format!(
            "a newer version of Sluice has changed the database (schema version {version}); start that version, or restore \
             a backup made before the upgrade"
        )),
        error => Error::Database(error.to_string()),
    })
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

/// The first statements of a connection to PostgreSQL: the server cancels what takes longer, and ends the transaction of a
/// gateway that is paused or cut off in the middle of it, whose locks would hold up all others.
pub(crate) const POSTGRES_SESSION: &[&str] = &[
    "SET statement_timeout = '10s'",
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '3s'",
];

fn options(session: &'static [&'static str], connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
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
