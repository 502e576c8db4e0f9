//! Rows of a data set's file: JSON lines (also gzip, also with Python's `NaN` and `Infinity`) or Parquet.

use bytes::Bytes;
use flate2::read::GzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A problem's fields, and its JSON unchanged.
pub(super) struct Row {
    pub(super) fields: Map<String, Value>,
    pub(super) json: String,
}

impl Row {
    /// The first of these fields that is a text.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.fields.get(*name)?.as_str())
    }
}

/// The file of a directory: the hub's layout, or the only one in it.
pub(super) fn file_in(path: &Path) -> Result<PathBuf, String> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let hub = path.join("openai_humaneval/test-00000-of-00001.parquet");
    if hub.exists() {
        return Ok(hub);
    }
    let listed = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let name = file.to_string_lossy();
            [".jsonl", ".jsonl.gz", ".parquet"]
                .iter()
                .any(|ending| name.ends_with(ending))
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(format!(
            "{} has neither openai_humaneval/test-00000-of-00001.parquet nor a .jsonl, .jsonl.gz or .parquet file",
            path.display()
        )),
        several => Err(format!(
            "{} has {} data sets; name one, such as {}",
            path.display(),
            several.len(),
            several[0].display()
        )),
    }
}

/// The rows of a file, whatever its format is.
pub(super) fn rows(bytes: &[u8]) -> Result<Vec<Row>, String> {
    if bytes.starts_with(b"PAR1") {
        return parquet_rows(bytes);
    }
    let mut text = String::new();
    let read = if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(bytes).read_to_string(&mut text)
    } else {
        (&mut &*bytes).read_to_string(&mut text)
    };
    read.map_err(|error| format!("it is neither JSON lines nor Parquet: {error}"))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            let fields = serde_json::from_str(line)
                .or_else(|error| serde_json::from_str(&strict_json(line)).map_err(|_| error))
                .map_err(|error| format!("line {number}: {error}"))?;
            let json = line.to_owned();
            Ok(Row { fields, json })
        })
        .collect()
}

/// The line with `null` for the numbers that Python writes and JSON does not have.
fn strict_json(line: &str) -> String {
    let mut strict = String::with_capacity(line.len());
    for (index, part) in quoted_parts(line).into_iter().enumerate() {
        // Every second part is a text.
        if index % 2 == 1 {
            strict.push_str(part);
        } else {
            let part = part.replace("-Infinity", "null").replace("Infinity", "null");
            strict.push_str(&part.replace("NaN", "null"));
        }
    }
    strict
}

/// The line cut at its quotes: what is outside of texts, a text with its quotes, what is outside, …
fn quoted_parts(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_text, mut is_escaped) = (0, false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' if !is_text => {
                parts.push(&line[start..at]);
                (start, is_text) = (at, true);
            }
            b'"' if !is_escaped => {
                parts.push(&line[start..=at]);
                (start, is_text) = (at + 1, false);
            }
            _ => {}
        }
        is_escaped = is_text && byte == b'\\' && !is_escaped;
    }
    parts.push(&line[start..]);
    parts
}

fn parquet_rows(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())?;
    let rows = reader.get_row_iter(None).map_err(|error| error.to_string())?;
    rows.map(|row| match row.map_err(|error| error.to_string())?.to_json_value() {
        Value::Object(fields) => {
            let json = serde_json::to_string(&fields).map_err(|error| error.to_string())?;
            Ok(Row { fields, json })
        }
        other => Err(format!("a row that is {other}")),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_only_python_writes_are_read() {
        let line = r#"{"a": [NaN, -Infinity, "NaN \" Infinity", 1e3], "b": "\\"}"#;
        let rows = rows(line.as_bytes()).expect("a row");
        assert_eq!(
            Value::Object(rows[0].fields.clone()),
            serde_json::json!({"a": [null, null, "NaN \" Infinity", 1e3], "b": "\\"})
        );
        assert_eq!(rows[0].json, line);
    }
}
