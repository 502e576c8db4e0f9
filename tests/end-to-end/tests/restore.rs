//! Backup and restore of SQLite, by the commands of docs/backup.md, while requests run.

use end_to_end::{Gateway, config_dir, roomy, root, sluice};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The block of the page below a heading.
fn block(heading: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/backup.md")).expect("the page");
    let section = page.split(&format!("## {heading}\n")).nth(1).expect("the section");
    let code = section.split("```sh\n").nth(1).expect("a block");
    code.split("```").next().expect("its end").to_owned()
}

fn shell(dir: &Path, script: &str) {
    let output = Command::new("bash")
        .args(["-e", "-c", script])
        .current_dir(dir)
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn usage(dir: &Path) -> Value {
    let output = sluice(dir, &["usage", "--by", "user", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn chat(gateway: &Gateway, key: &str) -> u16 {
    let body = json!({"model": "simulated-small", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .bearer_auth(key)
        .json(&body);
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_backup_made_while_requests_run_has_keys_and_records_and_starts_again() {
    let gateway = Gateway::start_in(config_dir(roomy), &["--identity", "keys"]).await;
    let at = ["--admin-url", &gateway.admin, "--admin-token", "admin-of-the-test"];
    let made = sluice(
        gateway.dir.path(),
        &[&["keys", "create", "--user", "user_vip_01"], &at[..]].concat(),
    );
    let key = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    join_all((0..20).map(|_| chat(&gateway, &key))).await;
    gateway.wait_for_records(20).await;
    // The records are in the database, not in the journal alone.
    end_to_end::wait_for("records in the database", || async {
        (usage(gateway.dir.path())[0]["requests"] == 20).then_some(())
    })
    .await;
    let dir = gateway.dir.path().to_owned();
    let save = tokio::task::spawn_blocking(move || shell(&dir, &block("Save (SQLite)")));
    join_all((0..20).map(|_| chat(&gateway, &key))).await;
    save.await.expect("no panic");
    let backup = gateway.dir.path().join("backup");
    let verified = sluice(
        gateway.dir.path(),
        &["ledger", "verify", "--database-url", "sqlite://backup/usage.db"],
    );
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );

    // Another machine, with a database that is damaged.
    let other = TempDir::new().expect("a directory");
    std::fs::create_dir_all(other.path().join("data")).expect("writable");
    std::fs::write(other.path().join("data/usage.db"), "damaged").expect("writable");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(&backup)
        .arg(backup.join("config"))
        .arg(other.path())
        .status();
    assert!(copied.expect("cp").success());
    let restore = block("Restore (SQLite)")
        .lines()
        .filter(|line| !line.starts_with("systemctl"))
        .collect::<Vec<_>>()
        .join("\n");
    shell(other.path(), &restore);
    let restored = Gateway::start_in(other, &["--identity", "keys"]).await;
    assert_eq!(chat(&restored, &key).await, 200, "the key is known");
    let counted = usage(restored.dir.path())[0]["requests"].as_u64().expect("a count");
    assert!((20..=41).contains(&counted), "{counted}");
}
