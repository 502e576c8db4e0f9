//! What the gateway writes is its own user's alone: whatever the umask of its start, and also where an earlier start or a
//! copy has left it open to others.

use end_to_end::postgres::Postgres;
use end_to_end::{Gateway, config_dir, program, roomy, wait_for};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// `sluice` by a shell whose umask gives every right to everybody.
async fn start(dir: TempDir, flags: &[&str]) -> Gateway {
    let mut command = Command::new("sh");
    // The token is to be made and kept in its file.
    command
        .args(["-c", "unset SLUICE_ADMIN_TOKEN; umask 000; exec \"$0\" \"$@\""])
        .arg(program("sluice"));
    Gateway::start_by(command, dir, flags).await
}

/// All files and directories below one, itself included.
fn all_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        if entry.file_type().expect("known").is_dir() {
            found.extend(all_in(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn mode(path: &Path) -> Option<u32> {
    // What is moved or removed while the test looks is not there any more.
    Some(fs::symlink_metadata(path).ok()?.permissions().mode() & 0o7777)
}

/// The paths in `data/` that others may do anything with, without the names in `but`.
fn open_to_others(gateway: &Gateway, but: &[&str]) -> Vec<String> {
    let is_open = |path: &PathBuf| mode(path).is_some_and(|mode| mode & 0o077 != 0);
    let data = gateway.dir.path().join("data");
    let open = all_in(&data).into_iter().filter(is_open);
    let names = open.map(|path| path.strip_prefix(&data).expect("in it").to_string_lossy().into_owned());
    names.filter(|name| !but.contains(&name.as_str())).collect()
}

/// Makes every kind of file: records, an uploaded file, a batch's output, a background response.
async fn work(gateway: &Gateway) {
    let batch = gateway.start_batch("simulated-small", 3).await;
    assert_eq!(gateway.ended_batch(&batch).await["status"], "completed");
    let body = json!({"model": "simulated-small", "input": "Why?", "max_output_tokens": 8, "background": true});
    let response: Value = gateway.post("/v1/responses", &body).await.json().await.expect("JSON");
    let id = response["id"].as_str().expect("an id");
    wait_for("a response", || async {
        let answer = gateway
            .http
            .get(format!("{}/v1/responses/{id}", gateway.proxy))
            .send()
            .await;
        let shown: Value = answer.expect("an answer").json().await.expect("JSON");
        matches!(shown["status"].as_str(), Some("completed" | "incomplete")).then_some(())
    })
    .await;
}

fn has(gateway: &Gateway, name: &str) -> bool {
    gateway.dir.path().join("data").join(name).exists()
}

#[tokio::test]
async fn new_files_are_closed_to_others_under_any_umask_and_open_ones_are_closed_at_the_start() {
    let mut gateway = start(config_dir(roomy), &[]).await;
    work(&gateway).await;
    for name in [
        "usage.db",
        "usage.db-wal",
        "usage.db-shm",
        "usage.db.lock",
        "admin.token",
    ] {
        assert!(has(&gateway, name), "{name} is not there");
    }
    assert_eq!(open_to_others(&gateway, &[]), [""; 0]);
    assert!(!gateway.log().contains("had access"), "{}", gateway.log());

    // A kill leaves -wal, -shm and segments behind.
    gateway.signal("KILL");
    gateway.ended().await;
    let data = gateway.dir.path().join("data");
    fs::write(data.join("notes.txt"), "an operator's own").expect("writable");
    for path in all_in(&data) {
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("ours");
    }
    let gateway = start(gateway.left(), &[]).await;
    assert_eq!(open_to_others(&gateway, &["notes.txt"]), [""; 0]);
    assert_eq!(
        mode(&gateway.dir.path().join("data/notes.txt")),
        Some(0o777),
        "it is none of the gateway's"
    );
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("had access")).collect();
    assert!(lines.len() == 1 && lines[0].contains("admin token"), "{lines:?}");
    work(&gateway).await;
    assert_eq!(open_to_others(&gateway, &["notes.txt"]), [""; 0]);
}

#[tokio::test]
async fn the_journal_beside_postgresql_is_closed_to_others_too() {
    let postgres = Postgres::start();
    let mut gateway = start(config_dir(roomy), &["--database-url", &postgres.url]).await;
    work(&gateway).await;
    assert!(has(&gateway, "postgres.lock"));
    assert_eq!(open_to_others(&gateway, &[]), [""; 0]);
    gateway.signal("KILL");
    gateway.ended().await;
    for path in all_in(&gateway.dir.path().join("data")) {
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("ours");
    }
    let gateway = start(gateway.left(), &["--database-url", &postgres.url]).await;
    assert_eq!(open_to_others(&gateway, &[]), [""; 0]);
}
