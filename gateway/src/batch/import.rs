//! Contents of files that an earlier version has left in the data directory: they are moved into the database, where this
//! version has all of them.

use super::lines;
use ledger::{Error, Store, contents, files};
use std::io;
use std::path::Path;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// Moves what lies in the folder `files` of a data directory into the database. Moved again, a file stays the same.
///
/// # Errors
/// When the database fails, or a file cannot be read.
pub(crate) async fn import(store: &Store, data_dir: &Path) -> Result<(), Error> {
    let folder = data_dir.join("files");
    let mut moved = 0_u64;
    for path in paths(&folder).await {
        let Some(id) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if lines::is_written_by_batch(id) {
            import_lines(store, id, &path).await?;
        } else if files::exists(store, id).await? {
            import_upload(store, id, &path).await?;
        } else {
            tracing::warn!(file = %path.display(), "contents of no file; remove them if nobody misses them");
            continue;
        }
        let removed = tokio::fs::remove_file(&path).await;
        removed.map_err(|error| failed(&path, &error))?;
        moved += 1;
    }
    if moved > 0 {
        tracing::info!(
            files = moved,
            "contents of files moved from the data directory into the database"
        );
    }
    // It stays where something is left in it.
    let _ = tokio::fs::remove_dir(&folder).await;
    // Answers that were put aside before their records; none are left after an end in order.
    let _ = tokio::fs::remove_dir_all(data_dir.join("answers")).await;
    Ok(())
}

/// The files of a folder that may not exist.
async fn paths(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths = Vec::new();
    if let Ok(mut entries) = tokio::fs::read_dir(folder).await {
        while let Ok(Some(entry)) = entries.next_entry().await {
            paths.push(entry.path());
        }
    }
    paths
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Setup(format!("cannot move {} into the database: {error}", path.display()))
}

/// Writes an upload, part by part.
async fn import_upload(store: &Store, id: &str, path: &Path) -> Result<(), Error> {
    let mut file = File::open(path).await.map_err(|error| failed(path, &error))?;
    for number in 0.. {
        let mut part = Vec::new();
        let read = (&mut file)
            .take(contents::PART_BYTES as u64)
            .read_to_end(&mut part)
            .await;
        if read.map_err(|error| failed(path, &error))? == 0 && number > 0 {
            break;
        }
        contents::add(store, id, number, &part).await?;
    }
    Ok(())
}

/// Writes the answers of a batch, each under the number of its line. What a crash has torn off is left out.
async fn import_lines(store: &Store, id: &str, path: &Path) -> Result<(), Error> {
    let mut answers = BufReader::new(File::open(path).await.map_err(|error| failed(path, &error))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = answers.read_until(b'\n', &mut line).await;
        if read.map_err(|error| failed(path, &error))? == 0 {
            return Ok(());
        }
        if let Some(number) = lines::number_of(&line) {
            contents::add(store, id, number, &line).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Durability;
    use ledger::files::FileBounds;
    use serde_json::json;
    use tempfile::TempDir;

    async fn open(dir: &TempDir) -> Store {
        let url = format!("sqlite://{}", dir.path().join("usage.db").display());
        let opened = ledger::open(&url, dir.path(), false, Durability::Strict).await;
        opened.expect("a database").store().clone()
    }

    #[tokio::test]
    async fn files_of_an_earlier_version_are_moved_and_lines_keep_their_numbers() {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir).await;
        let folder = dir.path().join("files");
        std::fs::create_dir(&folder).expect("writable");
        let upload: Vec<u8> = b"line\n".repeat(contents::PART_BYTES / 3);
        let file = files::File {
            id: "file-1".into(),
            project_id: "p".to_owned(),
            filename: "x.jsonl".to_owned(),
            purpose: ledger::FilePurpose::Batch,
            bytes: 0,
            created_at: 1,
            expires_at: None,
        };
        let bounds = FileBounds { count: 1, bytes: 1 };
        assert!(files::upload(&store, &file, &bounds, b"").await.expect("added"));
        contents::delete(&store, "file-1").await.expect("deleted");
        std::fs::write(folder.join("file-1"), &upload).expect("writable");
        let answers = format!(
            "{}{}{{\"id\":\"batch_a-9",
            lines::answer("batch_a-12", "twelve", 200, &json!({})),
            lines::answer("batch_a-3", "three", 200, &json!({})),
        );
        std::fs::write(folder.join("file-batch_a-output"), answers).expect("writable");
        std::fs::write(folder.join("file-deleted"), "x").expect("writable");
        std::fs::create_dir(dir.path().join("answers")).expect("writable");
        import(&store, dir.path()).await.expect("moved");
        assert_eq!(contents::read(&store, "file-1").await.expect("read"), Some(upload));
        let numbers = contents::numbers(&store, "file-batch_a-output").await.expect("read");
        assert_eq!(
            numbers.into_iter().collect::<Vec<_>>(),
            [3, 12],
            "a torn line is left out"
        );
        let left: Vec<_> = std::fs::read_dir(&folder).expect("a folder").flatten().collect();
        assert_eq!(left.len(), 1, "what belongs to no file stays");
        assert!(!dir.path().join("answers").exists());
    }
}
