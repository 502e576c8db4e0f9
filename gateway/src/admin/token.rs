//! The admin token: given in the environment, or made at the first start and kept in a file that only
//! its owner reads.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use subtle::ConstantTimeEq;

/// A shorter token could be guessed.
const SHORTEST: usize = 16;

/// The token that the admin listener requires.
pub(crate) struct Token(String);

impl Token {
    /// From `SLUICE_ADMIN_TOKEN`, else from the file, else made and written there.
    ///
    /// # Errors
    /// The token is too short, or the file cannot be written.
    pub(crate) fn find_or_make(file: &Path) -> Result<Self, String> {
        if let Ok(given) = std::env::var("SLUICE_ADMIN_TOKEN")
            && !given.is_empty()
        {
            return Self::long_enough(given, "SLUICE_ADMIN_TOKEN");
        }
        match std::fs::read_to_string(file) {
            Ok(kept) if !kept.trim().is_empty() => {
                Self::long_enough(kept.trim().to_owned(), &file.display().to_string())
            }
            _ => Self::make(file).map_err(|error| format!("cannot write {}: {error}", file.display())),
        }
    }

    fn long_enough(token: String, place: &str) -> Result<Self, String> {
        if token.len() < SHORTEST {
            return Err(format!(
                "the admin token in {place} has {} characters; use at least {SHORTEST}, such as those that \
                 `openssl rand -hex 32` prints",
                token.len()
            ));
        }
        Ok(Self(token))
    }

    fn make(file: &Path) -> std::io::Result<Self> {
        let token = format!("sluice-admin-{}", crate::api_key::random_text()?);
        let mut options = std::fs::OpenOptions::new();
        let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
        writeln!(written, "{token}")?;
        Ok(Self(token))
    }

    /// Compares in constant time.
    pub(crate) fn is(&self, given: &str) -> bool {
        bool::from(self.0.as_bytes().ct_eq(given.as_bytes()))
    }
}
