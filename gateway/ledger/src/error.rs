//! Errors of the ledger.

/// An operation of the ledger that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database refused, failed or did not answer.
    #[error("database error: {0}")]
    Database(String),
    /// The database refused a row for what it says; another attempt would be refused as well.
    #[error("the database refuses a row: {0}")]
    Rejected(String),
    /// The journal could not be read or written.
    #[error("journal error: {0}")]
    Journal(String),
    /// A value in the database or the journal that this version does not know.
    #[error("invalid value in the ledger: {0}")]
    Invalid(String),
    /// The database URL or the data directory cannot be used.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// A stored value that cannot be interpreted.
    pub(crate) fn invalid(error: impl std::fmt::Display) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Invalid(error.to_string()),
            sqlx::Error::Database(ref database) if is_about_content(database.code().as_deref()) => {
                Self::Rejected(database.to_string())
            }
            sqlx::Error::PoolTimedOut => Self::Database("no connection within the time limit".to_owned()),
            _ => Self::Database(error.to_string()),
        }
    }
}

/// Returns whether PostgreSQL refuses values and not the moment: data exceptions, violated constraints, exceeded sizes
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn is_about_content(sqlstate: Option<&str>) -> bool {
    let class = sqlstate.filter(|code| code.len() == 5).and_then(|code| code.get(..2));
    matches!(class, Some("22" | "23" | "54"))
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
        match error.sqlite_error_code() {
            Some(ConstraintViolation | TooBig | TypeMismatch) => Self::Rejected(error.to_string()),
            _ => Self::Database(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Journal(error.to_string())
    }
}
