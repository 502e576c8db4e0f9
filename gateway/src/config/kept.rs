//! What clients have the gateway keep for them, and for how long: stored responses, files, batches.

use super::check::Check;
use super::read::{At, section};
use std::time::Duration;

/// Nothing is kept longer, in days: a hundred years.
const MAX_DAYS: f64 = 36_500.0;

const DAY: f64 = 86_400.0;

section! {
    /// Responses that clients ask to store with `store: true`, for `previous_response_id`.
    struct StoredResponseSettings {
        /// Days that a response is kept after it was made, or after the last response that continues it; fractions are
        /// allowed. Default: none is stored.
        keep_days: Option<At<f64>>,
        /// Stored responses of a project together, in bytes. What would exceed them is not stored.
        max_bytes: u64 = StoredResponseSettings::default().max_bytes,
        /// Responses that one conversation may have.
        max_turns: At<u32> = StoredResponseSettings::default().max_turns,
    }

    /// Files and batches.
    struct FileSettings {
        /// Days that a file is kept if the client gives no `expires_after`, and a batch after its end; fractions are
        /// allowed. Default: until deleted.
        keep_days: Option<At<f64>>,
    }
}

impl Default for StoredResponseSettings {
    fn default() -> Self {
        Self {
            keep_days: None,
            max_bytes: 1 << 30,
            max_turns: At { value: 200, line: 0 },
        }
    }
}

/// How responses are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredResponses {
    pub(crate) keep: Duration,
    /// Of a project.
    pub(crate) max_bytes: i64,
    /// Of a conversation.
    pub(crate) max_turns: i64,
}

impl Check<'_> {
    /// How responses are stored; `None`: none are.
    pub(super) fn stored_responses(&mut self, raw: &StoredResponseSettings) -> Option<StoredResponses> {
        self.at_least_one("gateway.yaml", "stored_responses.max_turns", &raw.max_turns);
        Some(StoredResponses {
            keep: self.days("stored_responses.keep_days", raw.keep_days.as_ref())?,
            max_bytes: i64::try_from(raw.max_bytes).unwrap_or(i64::MAX),
            max_turns: raw.max_turns.value.max(1).into(),
        })
    }

    /// How long files and ended batches are kept; `None`: until they are deleted.
    pub(super) fn kept_files(&mut self, raw: &FileSettings) -> Option<Duration> {
        self.days("files.keep_days", raw.keep_days.as_ref())
    }

    fn days(&mut self, key: &str, days: Option<&At<f64>>) -> Option<Duration> {
        let days = days?;
        if days.value <= 0.0 || days.value > MAX_DAYS {
            let message = format!("must be above 0 and at most {MAX_DAYS}; omit it for the default");
            self.problem("gateway.yaml", days.line, key.to_owned(), message);
            return None;
        }
        Some(Duration::from_secs_f64(days.value * DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Found, load};
    use std::path::Path;

    /// The repository's configuration with a line more in `gateway.yaml`.
    fn with(line: &str) -> Result<(Option<StoredResponses>, Option<Duration>), String> {
        let dir = tempfile::TempDir::new().expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        for entry in std::fs::read_dir(source).expect("config/") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name");
            let mut text = std::fs::read_to_string(&path).expect("readable");
            if name == "gateway.yaml" {
                text += line;
            }
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let gateway = load(dir.path(), &Found::new())
            .map_err(|report| report.to_string())?
            .gateway;
        Ok((gateway.stored_responses, gateway.files_keep))
    }

    #[test]
    fn nothing_is_kept_unless_a_time_is_given() {
        assert_eq!(with(""), Ok((None, None)));
        assert_eq!(with("\nstored_responses: {max_turns: 3}\n"), Ok((None, None)));
        let (stored, files) = with("\nstored_responses: {keep_days: 0.5}\nfiles: {keep_days: 30}\n").expect("valid");
        let stored = stored.expect("switched on");
        assert_eq!(stored.keep, Duration::from_secs(43_200));
        assert_eq!((stored.max_turns, stored.max_bytes), (200, 1 << 30));
        assert_eq!(files, Some(Duration::from_secs(30 * 86_400)));
    }

    #[test]
    fn a_time_that_cannot_be_is_an_error_with_its_key() {
        for (line, key) in [
            ("stored_responses: {keep_days: 0}", "stored_responses.keep_days"),
            ("stored_responses: {keep_days: 36501}", "stored_responses.keep_days"),
            (
                "stored_responses: {keep_days: 1, max_turns: 0}",
                "stored_responses.max_turns",
            ),
            ("files: {keep_days: 0}", "files.keep_days"),
        ] {
            let error = with(&format!("\n{line}\n")).expect_err(line);
            assert!(error.contains(key), "{line}: {error}");
        }
    }
}
