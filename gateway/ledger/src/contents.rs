//! The table `file_parts`: the contents of files, so that every gateway that shares the database has them. A part is read
//! or written by one statement, so neither a gateway nor a statement holds a large file at once.

use crate::error::Error;
use crate::store::{Store, Timed};
use sqlx::{AnyConnection, Row};
use std::collections::BTreeSet;

/// Bytes of a part of an upload.
pub const PART_BYTES: usize = 1 << 20;

/// Parts that one statement reads at most, and the bytes after which it reads no further one.
const PARTS_A_PAGE: i64 = 256;
const BYTES_A_PAGE: i64 = 1 << 20;

/// Parts that one statement deletes.
const DELETE_AT_ONCE: i64 = 64;

/// Parts of a file that follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The bytes of all of them.
    pub contents: Vec<u8>,
    /// The number of the last one; `None` at the end of the file.
    pub last: Option<i64>,
}

/// Reads the parts of a file after number `after`, about 1 MiB of them.
///
/// # Errors
/// When the database fails.
pub async fn page(store: &Store, file_id: &str, after: Option<i64>) -> Result<Page, Error> {
    let rows = sqlx::query(
        "WITH next AS (SELECT number, length(contents) AS bytes FROM file_parts WHERE file_id = $1 AND number > $2 \
         ORDER BY number LIMIT $3), ends AS (SELECT number, SUM(bytes) OVER (ORDER BY number) - bytes AS before FROM next) \
         SELECT number, contents FROM file_parts WHERE file_id = $1 \
         AND number IN (SELECT number FROM ends WHERE before < $4) ORDER BY number",
    )
    .bind(file_id)
    .bind(after.unwrap_or(-1))
    .bind(PARTS_A_PAGE)
    .bind(BYTES_A_PAGE)
    .fetch_all(&store.pool())
    .timed(store)
    .await?;
    let mut page = Page::default();
    for row in &rows {
        page.contents.append(&mut row.try_get("contents")?);
        page.last = Some(row.try_get("number")?);
    }
    Ok(page)
}

/// Reads a whole file; `None` if there are no parts of it.
///
/// # Errors
/// When the database fails.
pub async fn read(store: &Store, file_id: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut all = page(store, file_id, None).await?;
    if all.last.is_none() {
        return Ok(None);
    }
    loop {
        let mut next = page(store, file_id, all.last).await?;
        if next.last.is_none() {
            return Ok(Some(all.contents));
        }
        all.contents.append(&mut next.contents);
        all.last = next.last;
    }
}

/// The bytes of a file; 0 if there are no parts of it.
///
/// # Errors
/// When the database fails.
pub async fn size(store: &Store, file_id: &str) -> Result<i64, Error> {
    let sql = "SELECT COALESCE(CAST(SUM(length(contents)) AS BIGINT), 0) AS bytes FROM file_parts WHERE file_id = $1";
    let row = sqlx::query(sql)
        .bind(file_id)
        .fetch_one(&store.pool())
        .timed(store)
        .await?;
    Ok(row.try_get("bytes")?)
}

/// The numbers of a file's parts.
///
/// # Errors
/// When the database fails.
pub async fn numbers(store: &Store, file_id: &str) -> Result<BTreeSet<i64>, Error> {
    let select = sqlx::query("SELECT number FROM file_parts WHERE file_id = $1").bind(file_id);
    let rows = select.fetch_all(&store.pool()).timed(store).await?;
    let numbers = rows.iter().map(|row| row.try_get("number").map_err(Error::from));
    numbers.collect()
}

/// Writes a part, unless it is there already; whether it was written.
///
/// # Errors
/// When the database fails.
pub async fn add(store: &Store, file_id: &str, number: i64, contents: &[u8]) -> Result<bool, Error> {
    let mut connection = store.pool().acquire().timed(store).await?;
    insert(&mut connection, file_id, number, contents).timed(store).await
}

/// Writes the contents of an upload within a transaction. An empty file has one empty part.
pub(crate) async fn insert_all(
    store: &Store,
    connection: &mut AnyConnection,
    file_id: &str,
    contents: &[u8],
) -> Result<(), Error> {
    let first = &contents[..contents.len().min(PART_BYTES)];
    insert(connection, file_id, 0, first).timed(store).await?;
    for (part, number) in contents[first.len()..].chunks(PART_BYTES).zip(1..) {
        insert(connection, file_id, number, part).timed(store).await?;
    }
    Ok(())
}

async fn insert(
    connection: &mut AnyConnection,
    file_id: &str,
    number: i64,
    contents: &[u8],
) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO file_parts (file_id, number, contents) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let insert = sqlx::query(sql).bind(file_id).bind(number).bind(contents);
    Ok(insert.execute(connection).await?.rows_affected() > 0)
}

/// Deletes the contents of a file, some parts at a time.
///
/// # Errors
/// When the database fails.
pub async fn delete(store: &Store, file_id: &str) -> Result<(), Error> {
    loop {
        let deleted = sqlx::query(
            "DELETE FROM file_parts WHERE file_id = $1 AND number IN \
             (SELECT number FROM file_parts WHERE file_id = $1 ORDER BY number LIMIT $2)",
        )
        .bind(file_id)
        .bind(DELETE_AT_ONCE)
        .execute(&store.pool())
        .timed(store)
        .await?;
        if deleted.rows_affected() == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
