//! One file of the journal.
//!
//! Appending takes no lock: the kernel keeps whole writes to a file that is open for appending apart.

use super::disk::{Append, Disk};
use crate::durability::Durability;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A file of the journal.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    file: Box<dyn Append>,
    lines: AtomicUsize,
    /// Lines that are not in the file yet, where they need not be at once.
    buffer: Option<Mutex<Vec<u8>>>,
}

/// An intent's line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent<T> {
    pub(super) intent: T,
}

impl Segment {
    /// Creates segment `number` of a journal.
    pub(super) fn create(disk: &dyn Disk, base: &Path, number: u64, durability: Durability) -> io::Result<Self> {
        Ok(Self {
            number,
            file: disk.create(&path(base, number), durability == Durability::Synced)?,
            lines: AtomicUsize::new(0),
            buffer: (durability == Durability::Relaxed).then(Mutex::default),
        })
    }

    /// Appends a line; lines in the segment then.
    pub(super) fn append(&self, line: &[u8]) -> io::Result<usize> {
        match &self.buffer {
            Some(buffer) => buffer.lock().extend_from_slice(line),
            None => self.write(line)?,
        }
        Ok(self.lines.fetch_add(1, Relaxed) + 1)
    }

    /// Not `write_all`: what does not fit at once must not be mixed with another thread's line.
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let written = self.file.append(line)?;
        if written < line.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    /// Writes what was gathered. What the file does not take stays.
    pub(super) fn flush(&self) -> io::Result<()> {
        let Some(buffer) = &self.buffer else { return Ok(()) };
        let mut lines = buffer.lock();
        while !lines.is_empty() {
            let written = self.file.append(&lines)?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            lines.drain(..written);
        }
        Ok(())
    }

    /// Writes what no reader sees.
    pub(super) fn probe(&self, durability: Durability) -> io::Result<()> {
        self.write(b"\n")?;
        if durability == Durability::Synced {
            self.sync()?;
        }
        Ok(())
    }

    /// Returns when the disk has what was appended.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Lines in it.
    pub(super) fn lines(&self) -> usize {
        self.lines.load(Relaxed)
    }
}

pub(super) fn path(base: &Path, number: u64) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".ledger-{number:06}"));
    PathBuf::from(name)
}
