//! The journal: every record is appended here, by one `write`, before the client has the end of its answer.
//! What has been written survives `kill -9`; from here records are moved into the database in groups
//! (`docs/decisions/003-a-journal-before-the-database.md`).
//!
//! A journal is a row of segments, files of one JSON object a line. A segment is closed when its records are
//! about to be moved and removed when they have been, so what is found at a start is what had not been moved.

use super::row::Row;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where records wait for the database.
#[derive(Debug)]
pub(super) struct Journal {
    /// The database's file, whose name the segments carry.
    database: PathBuf,
    number: u64,
    file: File,
    length: u64,
    line: Vec<u8>,
}

impl Journal {
    /// Begins a segment after those that are there.
    pub(super) fn begin(database: &Path) -> io::Result<Self> {
        let number = segments(database)?.last().map_or(0, |(number, _)| *number) + 1;
        Ok(Self {
            database: database.to_owned(),
            number,
            file: create(&segment(database, number))?,
            length: 0,
            line: Vec::with_capacity(1024),
        })
    }

    /// Appends a row. On an error the segment is as it was.
    pub(super) fn append(&mut self, row: &Row<'_>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, row)?;
        self.line.push(b'\n');
        if let Err(error) = self.file.write_all(&self.line) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += self.line.len() as u64;
        Ok(())
    }

    /// Closes the segment and begins another.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.file = create(&segment(&self.database, self.number + 1))?;
        self.length = 0;
        self.number += 1;
        Ok(())
    }

    /// The number of the segment that is written to; those before it are closed.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// The rows of a segment. A last line without its end was never acknowledged, and is left out.
pub(super) fn read(segment: &Path) -> io::Result<Vec<Row<'static>>> {
    let text = std::fs::read(segment)?;
    let whole = memchr::memrchr(b'\n', &text).map_or(&[][..], |end| &text[..end]);
    let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).map_err(io::Error::other))
        .collect()
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn segment(database: &Path, number: u64) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".ledger-{number:06}"));
    PathBuf::from(name)
}

/// The segments that are there, in their order.
pub(super) fn segments(database: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let parent = database.parent().filter(|parent| *parent != Path::new(""));
    let prefix = format!("{}.ledger-", database.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent.unwrap_or(Path::new(".")))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64) -> Row<'static> {
        let mut row: Row<'static> = serde_json::from_value(serde_json::json!({
            "id": id, "request_id": "r", "user_id": "u", "project_id": "p", "key_id": null, "requested_model": "m\n\"",
            "model": "m", "backend": "openai", "upstream": null, "client_protocol": "openai", "request_type": "interactive",
            "priority": "high", "streamed": true, "status": "completed", "decision": "accepted", "reason": null,
            "http_status": 200, "degradation_level": "normal", "degraded": null, "input_tokens": 1, "output_tokens": 2,
            "cached_input_tokens": 0, "input_tokens_estimated": 1, "output_tokens_reserved": 2, "usage_source": "upstream",
            "estimated_cost_nano_eur": 3, "cost_nano_eur": 3, "latency_seconds": 0.25, "queue_wait_seconds": 0.0,
            "first_token_seconds": null, "error_message": null, "trace_id": null, "config_version": 1,
            "created_at": "2026-11-24T00:00:00.000000Z", "updated_at": "2026-11-24T00:00:00.000000Z",
        }))
        .expect("a row");
        row.id = id;
        row
    }

    #[test]
    fn what_was_appended_is_found_again_and_a_torn_last_line_is_not() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let database = dir.path().join("usage.db");
        let mut journal = Journal::begin(&database).expect("begun");
        journal.append(&row(1)).expect("appended");
        journal.rotate().expect("rotated");
        journal.append(&row(2)).expect("appended");
        journal.file.write_all(b"{\"id\":3,\"request_id\":\"to").expect("torn");
        let left = segments(&database).expect("listed");
        assert_eq!(left.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(read(&left[0].1).expect("read"), [row(1)]);
        assert_eq!(read(&left[1].1).expect("read"), [row(2)]);
        let mut again = Journal::begin(&database).expect("begun");
        again.append(&row(4)).expect("appended");
        assert_eq!(segments(&database).expect("listed").len(), 3, "nothing is written over");
    }
}
