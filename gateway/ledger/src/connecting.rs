//! Why a database cannot be opened, in words for whoever starts the gateway: what the server says, and for TLS what to do
//! about it.

use std::io::ErrorKind;

/// Parameters of a PostgreSQL URL that name a file.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// Checks that the files that a PostgreSQL URL names can be read.
///
/// # Errors
/// The parameter, the file and what is wrong with it.
pub(crate) fn check_files(url: &str) -> Result<(), String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').filter_map(|field| field.split_once('='));
    for (name, file) in named.filter(|(name, _)| FILES.contains(name)) {
        if let Err(error) = std::fs::File::open(decoded(file)) {
            return Err(format!("the file in {name}, {file}, cannot be read: {error}"));
        }
    }
    Ok(())
}

/// A path with the characters that are most likely to be encoded in it.
fn decoded(path: &str) -> String {
    path.replace("%2F", "/").replace("%2f", "/").replace("%20", " ")
}

/// Returns whether the error may be that of a server that does not listen yet.
pub(crate) fn may_pass(error: &sqlx::Error) -> bool {
    // A certificate that cannot be verified is an error of this kind.
    matches!(error, sqlx::Error::Io(error) if error.kind() != ErrorKind::InvalidData)
}

/// The reason, in words.
pub(crate) fn explain(error: &sqlx::Error) -> String {
    match error {
        // What PostgreSQL says of a connection that no line of pg_hba.conf allows without encryption.
        sqlx::Error::Database(error) if error.message().contains("no encryption") => format!(
            "{}. The server demands TLS: add sslmode=verify-full and sslrootcert=FILE (its authority's certificate) to \
             database_url",
            error.message()
        ),
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => format!(
            "the server's certificate cannot be verified: {error}. sslrootcert in database_url must name the certificate of \
             its authority, and the URL's host must be a name in the server's certificate"
        ),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) if error.to_string().contains("does not support TLS") => {
            "the server does not speak TLS, and sslmode in database_url demands it: set ssl = on in its postgresql.conf, or, on \
             a network that you trust, use sslmode=prefer"
                .to_owned()
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_read_are_named_before_the_server_is_asked() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let there = dir.path().join("a ca.pem");
        std::fs::write(&there, "").expect("writable");
        let there = there.display().to_string().replace(' ', "%20");
        assert_eq!(
            check_files(&format!("postgres://u:p@h/d?sslmode=verify-full&sslrootcert={there}")),
            Ok(())
        );
        let said =
            check_files("postgres://u:secret@h/d?sslrootcert=/nowhere&sslmode=verify-full").expect_err("no file");
        assert!(
            said.contains("sslrootcert, /nowhere") && !said.contains("secret"),
            "{said}"
        );
    }
}
