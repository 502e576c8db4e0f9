//! Reads segments, and keeps aside what cannot be read.

use super::checksum;
use super::segment::Intent;
use crate::row::Row;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The contents of a segment, whose text they borrow.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lines<'a> {
    /// Finished requests.
    pub(crate) rows: Vec<Row<'a>>,
    /// Requests that ran.
    pub(crate) intents: Vec<Row<'a>>,
    /// Lines that are neither, or not what was written: torn off by a full disk or a crash, or damaged later.
    pub(crate) damaged: Vec<&'a [u8]>,
}

/// Reads the text of a segment. Where one line carries its checksum, all must; a segment of an older version has none.
pub(crate) fn read(segment: &[u8]) -> Lines<'_> {
    let has_checksums = split(segment).any(|line| checksum::verify(line).is_some());
    let mut lines = Lines::default();
    for line in split(segment) {
        let text = if has_checksums {
            checksum::verify(line)
        } else {
            Some(line)
        };
        if text.and_then(|text| lines.take(text)).is_none() {
            lines.damaged.push(line);
        }
    }
    lines
}

/// The lines that are not empty.
fn split(segment: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', segment).chain([segment.len()]);
    let mut begin = 0;
    let lines = ends.map(move |end| {
        let line = &segment[begin..end];
        begin = end + 1;
        line
    });
    lines.filter(|line| !line.is_empty())
}

impl<'a> Lines<'a> {
    /// Takes a line's JSON, if it is that of a row or an intent.
    fn take(&mut self, json: &'a [u8]) -> Option<()> {
        if json.starts_with(b"{") {
            let Intent { intent } = serde_json::from_slice(json).ok()?;
            self.intents.push(intent);
        } else {
            self.rows.push(serde_json::from_slice(json).ok()?);
        }
        Some(())
    }
}

/// Writes lines to a file beside the journal, whose name comes from what they are: written twice, it is one. `why` ends
/// its name.
pub(crate) fn keep_aside(base: &Path, lines: &[&[u8]], why: &str) -> io::Result<PathBuf> {
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".ledger-{}.{why}", &hex::encode(Sha256::digest(&text))[..16]));
    let path = PathBuf::from(name);
    let unfinished = path.with_extension(format!("{why}-unfinished"));
    let mut file = File::create(&unfinished)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

/// The segments that are there, in their order.
pub(crate) fn segments(base: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let parent = base.parent().filter(|parent| *parent != Path::new(""));
    let prefix = format!("{}.ledger-", base.file_name().unwrap_or_default().to_string_lossy());
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
