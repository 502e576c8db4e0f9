//! Contents come back byte for byte, page by page, and are gone with their file.

use super::{PART_BYTES, add, numbers, page, read, size};
use crate::files::{self, File, FileBounds};
use crate::{FilePurpose, Store};
use tempfile::TempDir;

async fn open() -> (TempDir, Store) {
    let dir = TempDir::new().expect("a directory");
    let url = format!("sqlite://{}", dir.path().join("usage.db").display());
    let store = crate::testing::create(&url).await;
    (dir, store)
}

const BOUNDS: FileBounds = FileBounds {
    count: 10,
    bytes: 100 << 20,
};

async fn upload(store: &Store, id: &str, contents: &[u8]) {
    let file = File {
        id: id.into(),
        project_id: "p".to_owned(),
        filename: "x.jsonl".to_owned(),
        purpose: FilePurpose::Batch,
        bytes: i64::try_from(contents.len()).expect("small"),
        created_at: 1,
        expires_at: None,
    };
    assert!(files::upload(store, &file, &BOUNDS, contents).await.expect("added"));
}

#[tokio::test]
async fn an_upload_of_any_size_comes_back_byte_for_byte_in_pages_of_bounded_size() {
    let (_dir, store) = open().await;
    let sizes = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7];
    for (number, bytes) in sizes.into_iter().enumerate() {
        let id = format!("file-{number}");
        let contents: Vec<u8> = (0..bytes)
            .map(|at| u8::try_from(at * 31 % 251).expect("small"))
            .collect();
        upload(&store, &id, &contents).await;
        assert_eq!(read(&store, &id).await.expect("read"), Some(contents.clone()));
        assert_eq!(
            size(&store, &id).await.expect("read"),
            i64::try_from(bytes).expect("small")
        );
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let page = page(&store, &id, after).await.expect("read");
            assert!(page.contents.len() <= 2 * PART_BYTES);
            let Some(last) = page.last else { break };
            after = Some(last);
            pages.extend(page.contents);
        }
        assert_eq!(pages, contents);
    }
    assert_eq!(read(&store, "file-none").await.expect("read"), None);
}

#[tokio::test]
async fn lines_are_in_the_order_of_their_numbers_and_each_is_written_once() {
    let (_dir, store) = open().await;
    let mut expected = Vec::new();
    for number in 0..700_i64 {
        expected.extend(format!("line {number}\n").into_bytes());
    }
    for number in (0..700_i64).rev() {
        let line = format!("line {number}\n");
        assert!(add(&store, "out", number, line.as_bytes()).await.expect("written"));
    }
    assert!(!add(&store, "out", 7, b"another answer\n").await.expect("asked"));
    assert_eq!(read(&store, "out").await.expect("read"), Some(expected));
    assert_eq!(numbers(&store, "out").await.expect("read").len(), 700);
}

#[tokio::test]
async fn a_file_goes_with_its_contents_and_another_projects_does_not() {
    let (_dir, store) = open().await;
    upload(&store, "file-a", &vec![7; 70 * PART_BYTES / 64]).await;
    upload(&store, "file-b", b"b").await;
    files::delete(&store, "q", "file-a").await.expect("asked");
    assert!(read(&store, "file-a").await.expect("read").is_some(), "it is not q's");
    files::delete(&store, "p", "file-a").await.expect("deleted");
    assert_eq!(read(&store, "file-a").await.expect("read"), None);
    assert_eq!(read(&store, "file-b").await.expect("read"), Some(b"b".to_vec()));
    let refused = File {
        id: "file-c".into(),
        project_id: "p".to_owned(),
        filename: "x".to_owned(),
        purpose: FilePurpose::Batch,
        bytes: BOUNDS.bytes,
        created_at: 1,
        expires_at: None,
    };
    assert!(!files::upload(&store, &refused, &BOUNDS, b"c").await.expect("asked"));
    assert_eq!(
        read(&store, "file-c").await.expect("read"),
        None,
        "what is refused leaves nothing behind"
    );
}
