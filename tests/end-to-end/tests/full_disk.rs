//! A ledger that cannot be written: new requests are refused before a server is asked, `/ready` and a metric say so,
//! and the gateway recovers by itself.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, ledger_agrees, program, roomy, wait_for, with_model};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Requests that are sent while the disk is full.
const SENT: usize = 60;

/// A command that becomes the gateway, with its data on a small file system in a namespace of its own.
const ON_A_SMALL_DISK: &str = "mkdir small data && mount -t tmpfs -o size=4m none small && exec \"$0\" \"$@\"";

fn config(upstream: &Scripted, data_dir: &str) -> TempDir {
    config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ""),
        "gateway.yaml" => text
            .replace("data_dir: data\n", &format!("data_dir: {data_dir}\n"))
            .replace("sqlite://data/", &format!("sqlite://{data_dir}/")),
        _ => roomy(name, text),
    })
}

async fn gateway_on_a_small_disk(upstream: &Scripted) -> Gateway {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK]);
    command.arg(program("sluice"));
    Gateway::start_by(command, config(upstream, "small"), &["--addr-file", "data/sluice.addr"]).await
}

/// The file that takes up the gateway's disk, seen through its process.
fn filler(gateway: &Gateway) -> PathBuf {
    let directory = gateway.dir.path().join("small");
    PathBuf::from(format!("/proc/{}/root{}", gateway.pid(), directory.display())).join("filler")
}

/// Leaves not one byte.
fn fill(gateway: &Gateway) {
    let mut file = File::create(filler(gateway)).expect("created");
    let mut size = 1 << 16;
    while size > 0 {
        if file.write_all(&vec![b'x'; size]).is_err() {
            size /= 2;
        }
    }
}

/// Status and error code of a chat.
async fn chat(gateway: &Gateway) -> (u16, Value) {
    let body = json!({"model": "tested", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
    let answer = gateway.post("/v1/chat/completions", &body).await;
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("JSON");
    (status, body["error"]["code"].clone())
}

/// The metric's value.
async fn is_healthy(gateway: &Gateway) -> bool {
    gateway.metric("sluice_ledger_healthy").await > 0.5
}

async fn ready(gateway: &Gateway) -> u16 {
    let answer = gateway.http.get(format!("{}/ready", gateway.admin)).send().await;
    answer.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_requests_before_a_server_is_asked_and_space_that_returns_ends_it() {
    let upstream = Scripted::answering(WHOLE).await;
    let asked = || upstream.requests.lock().expect("no panic").len();
    let gateway = gateway_on_a_small_disk(&upstream).await;
    for _ in 0..5 {
        assert_eq!(chat(&gateway).await.0, 200);
    }
    ledger_agrees(&gateway).await;
    assert_eq!((ready(&gateway).await, is_healthy(&gateway).await), (200, true));

    fill(&gateway);
    let mut acknowledged = 5;
    for _ in 0..SENT {
        match chat(&gateway).await {
            (200, _) => acknowledged += 1,
            refused => assert_eq!(refused, (503, json!("ledger_unavailable"))),
        }
    }
    // Running requests may use the space reserved for them; an answer that was made is never thrown away.
    assert!(acknowledged < 5 + SENT, "the disk is full");
    assert_eq!(asked(), acknowledged, "servers worked for refused requests");
    let before = asked();
    for _ in 0..10 {
        assert_eq!(chat(&gateway).await, (503, json!("ledger_unavailable")));
    }
    assert_eq!(asked(), before);
    assert_eq!((ready(&gateway).await, is_healthy(&gateway).await), (503, false));
    assert!(
        gateway
            .metric("sluice_refusals_total{project=\"\",reason=\"ledger_unavailable\"")
            .await
            > 0.0
    );

    std::fs::remove_file(filler(&gateway)).expect("removed");
    wait_for("recovery", || async { (ready(&gateway).await == 200).then_some(()) }).await;
    for _ in 0..5 {
        assert_eq!(chat(&gateway).await.0, 200);
    }
    assert!(is_healthy(&gateway).await);
    let records = gateway.wait_for_records(acknowledged + 5).await;
    let served = records.iter().filter(|record| record["status"] == "completed").count();
    assert_eq!(served, acknowledged + 5, "each answer has its record");
    ledger_agrees(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_size_of_files_refuses_requests_and_does_not_kill_the_gateway() {
    let upstream = Scripted::answering(WHOLE).await;
    let asked = || upstream.requests.lock().expect("no panic").len();
    let gateway = Gateway::start_in(config(&upstream, "data"), &[]).await;
    assert_eq!(chat(&gateway).await.0, 200);
    ledger_agrees(&gateway).await;
    limit_file_size(&gateway, "1");
    let mut acknowledged = 1;
    for _ in 0..SENT {
        match chat(&gateway).await {
            (200, _) => acknowledged += 1,
            refused => assert_eq!(refused, (503, json!("ledger_unavailable"))),
        }
    }
    assert!(
        acknowledged <= 1 + 1,
        "no record of {acknowledged} can have been written"
    );
    assert!(
        asked() <= acknowledged + 1,
        "{} asked, {acknowledged} answered",
        asked()
    );
    assert_eq!(ready(&gateway).await, 503);
    limit_file_size(&gateway, "unlimited");
    wait_for("recovery", || async { (ready(&gateway).await == 200).then_some(()) }).await;
    assert_eq!(chat(&gateway).await.0, 200);
    wait_for("the records", || async {
        let records = gateway.records().await;
        let served = records.iter().filter(|record| record["status"] == "completed");
        // Also of the request that ran when the limit came, whose client was refused.
        (served.count() == asked()).then_some(())
    })
    .await;
    ledger_agrees(&gateway).await;
}

/// Sets the largest size of a file that the running gateway may write.
fn limit_file_size(gateway: &Gateway, bytes: &str) {
    let done = Command::new("prlimit")
        .args([format!("--pid={}", gateway.pid()), format!("--fsize={bytes}:")])
        .status();
    assert!(done.expect("prlimit runs").success());
}
