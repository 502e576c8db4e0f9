//! The journal: every record is appended here, by one `write`, before the client has the end of its answer.
//! What has been written survives `kill -9`; from here records are moved into the database in groups
//! (`docs/decisions/003-a-journal-before-the-database.md`).
//!
//! A journal is a row of segments, files of one JSON list a line. A segment is closed when its records are about
//! to be moved and removed when they have been, so what is found at a start is what had not been moved.
//!
//! Appending takes no lock: the kernel keeps whole writes to a file that is open for appending apart. A line
//! begins with a newline as well as ending with one, so that what a full disk has torn off ends at the next.

use crate::row::Row;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A file of the journal.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    file: File,
    records: AtomicUsize,
    /// Lines that are not in the file yet, where they need not be at once.
    buffer: Option<Mutex<Vec<u8>>>,
}

thread_local! {
    /// The line that this thread writes.
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

impl Segment {
    /// Makes segment `number` of the journal that is kept beside this database; `is_relaxed`: lines are gathered until
    /// [`Self::flush`].
    pub(crate) fn create(database: &Path, number: u64, is_relaxed: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path(database, number))?;
        Ok(Self {
            number,
            file,
            records: AtomicUsize::new(0),
            buffer: is_relaxed.then(Mutex::default),
        })
    }

    /// Writes what was gathered. What the file does not take stays.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let Some(buffer) = &self.buffer else { return Ok(()) };
        let mut lines = buffer.lock();
        while !lines.is_empty() {
            let written = (&self.file).write(&lines)?;
            lines.drain(..written);
        }
        Ok(())
    }

    /// Appends a finished request's row; how many lines are in the segment then.
    pub(crate) fn append(&self, row: &Row<'_>) -> io::Result<usize> {
        self.write(row)
    }

    /// Appends what will be a request's row if the gateway is killed before it is finished.
    pub(crate) fn intend(&self, row: &Row<'_>) -> io::Result<usize> {
        self.write(&Intent { intent: row })
    }

    fn write(&self, what: &impl Serialize) -> io::Result<usize> {
        LINE.with_borrow_mut(|line| {
            line.clear();
            line.push(b'\n');
            serde_json::to_writer(&mut *line, what)?;
            line.push(b'\n');
            if let Some(buffer) = &self.buffer {
                buffer.lock().extend_from_slice(line);
                return Ok(self.records.fetch_add(1, Relaxed) + 1);
            }
            // Not `write_all`: what does not fit at once must not be mixed with another thread's line.
            let written = (&self.file).write(line)?;
            if written < line.len() {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(self.records.fetch_add(1, Relaxed) + 1)
        })
    }

    /// Lines in it.
    pub(crate) fn records(&self) -> usize {
        self.records.load(Relaxed)
    }
}

/// An intent's line.
#[derive(Debug, Serialize, Deserialize)]
struct Intent<T> {
    intent: T,
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lines {
    /// Finished requests.
    pub(crate) rows: Vec<Row<'static>>,
    /// Requests that ran.
    pub(crate) intents: Vec<Row<'static>>,
}

/// Reads a segment. A line that was torn off was never acknowledged, and is left out.
pub(crate) fn read(segment: &Path) -> io::Result<Lines> {
    let text = std::fs::read(segment)?;
    let mut lines = Lines::default();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let read = if line.starts_with(b"{") {
            serde_json::from_slice(line).map(|Intent { intent }| lines.intents.push(intent))
        } else {
            serde_json::from_slice(line).map(|row| lines.rows.push(row))
        };
        if let Err(error) = read {
            tracing::warn!(%error, segment = %segment.display(), "a torn line in the journal");
        }
    }
    Ok(lines)
}

/// The segments that are there, in their order.
pub(crate) fn segments(database: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
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

fn path(database: &Path, number: u64) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".ledger-{number:06}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64) -> Row<'static> {
        Row {
            id,
            request_id: "r\n\"".into(),
            user_id: "u".into(),
            project_id: "p".into(),
            key_id: None,
            requested_model: "m".into(),
            model: "m".into(),
            backend: "openai".into(),
            upstream: Some("127.0.0.1:1".into()),
            client_protocol: "openai".into(),
            request_type: "interactive".into(),
            priority: "high".into(),
            streamed: 1,
            status: "completed".into(),
            decision: "accepted".into(),
            reason: None,
            http_status: 200,
            degradation_level: "normal".into(),
            degraded: None,
            input_tokens: 1,
            output_tokens: 2,
            cached_input_tokens: 0,
            input_tokens_estimated: 1,
            output_tokens_reserved: 2,
            usage_source: "upstream".into(),
            estimated_cost_nano_eur: 3,
            cost_nano_eur: 3,
            latency_seconds: 0.25,
            queue_wait_seconds: 0.0,
            first_token_seconds: None,
            error_message: None,
            trace_id: None,
            config_version: 1,
            created_at: "2026-11-24T00:00:00.000000Z".into(),
            updated_at: "2026-11-24T00:00:00.000000Z".into(),
        }
    }

    #[test]
    fn what_was_appended_is_found_again_and_what_was_torn_off_is_not() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let database = dir.path().join("usage.db");
        let first = Segment::create(&database, 1, false).expect("made");
        assert_eq!(first.append(&row(1)).expect("appended"), 1);
        let second = Segment::create(&database, 2, false).expect("made");
        (&second.file).write_all(b"\n[3,\"to").expect("torn");
        second.append(&row(2)).expect("appended");
        second.intend(&row(7)).expect("appended");
        (&second.file).write_all(b"\n[4,\"tor").expect("torn");
        let left = segments(&database).expect("listed");
        assert_eq!(left.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(read(&left[0].1).expect("read").rows, [row(1)]);
        let second = read(&left[1].1).expect("read");
        assert_eq!((second.rows, second.intents), (vec![row(2)], vec![row(7)]));
    }

    #[test]
    fn threads_that_append_together_lose_nothing() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let database = dir.path().join("usage.db");
        let segment = Segment::create(&database, 1, false).expect("made");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let segment = &segment;
                scope.spawn(move || (0..500).for_each(|at| drop(segment.append(&row(thread * 500 + at)))));
            }
        });
        let mut ids: Vec<i64> = read(&segments(&database).expect("listed")[0].1)
            .expect("read")
            .rows
            .iter()
            .map(|row| row.id)
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..2000).collect::<Vec<_>>());
        assert_eq!(segment.records(), 2000);
    }
}
