//! Settings of stored data, its durability and its retention: records, stored responses, files, batches.

use super::read::{At, choice, section};

section! {
    /// Ledger settings.
    struct LedgerSettings {
        /// When a record counts as safe, so that its answer may end. `strict`: written to the operating system;
        /// survives `kill -9`, but a power failure can lose the last moments. `synced`: synced to disk; survives a
        /// power failure, at the price of waiting for the disk. `relaxed`: in memory, written within 0.1 s; `kill -9`
        /// can lose it.
        durability: Durability = Durability::Strict; restart,
    }

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

choice! {
    /// When an answer may end.
    enum Durability {
        /// When the operating system has its record, which then survives `kill -9`.
        Strict = "strict",
        /// Immediately; the record is written within 0.1 s, and `kill -9` can lose it.
        Relaxed = "relaxed",
        /// When the disk has its record, which then survives a power failure. One sync serves all waiting records.
        Synced = "synced",
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Found, StoredResponses, load};
    use std::path::Path;
    use std::time::Duration;

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
