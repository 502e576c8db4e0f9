//! What a kill, a stop and retention leave of the records.

use super::{ask, chat, fast, six_records};
use end_to_end::{Gateway, config_dir, roomy, sluice};
use serde_json::json;
use std::process::Command;
use tempfile::TempDir;

#[tokio::test]
async fn old_records_are_deleted_and_their_sums_stay() {
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    gateway.records().await;
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    // Three of them are made a year old, with their sums.
    let edit = "UPDATE requests SET created_at = '2020' || substr(created_at, 5) WHERE id IN (SELECT id FROM requests ORDER BY id LIMIT 3); DELETE FROM rollups; \
        INSERT INTO rollups (day, project_id, user_id, key_id, model, backend, status, decision, requests, input_tokens, output_tokens, \
        cached_input_tokens, cost_nano_eur, objectives, objectives_met, latency_seconds, queue_wait_seconds) SELECT substr(created_at, 1, 10), project_id, user_id, coalesce(key_id, ''), model, backend, status, \
        decision, count(*), sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), sum(cost_nano_eur), \
        coalesce(sum(objectives), 0), coalesce(sum(objectives_met), 0), sum(latency_seconds), sum(queue_wait_seconds) FROM requests GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;";
    let script = format!(
        "import sqlite3; c = sqlite3.connect('data/usage.db'); c.executescript(\"\"\"{edit}\"\"\"); c.commit()"
    );
    let edited = Command::new("python3")
        .args(["-c", &script])
        .current_dir(gateway.dir.path())
        .status();
    assert!(edited.expect("python runs").success());
    let again = TempDir::new().expect("a directory");
    for part in ["config", "data"] {
        std::fs::rename(gateway.dir.path().join(part), again.path().join(part)).expect("moved");
    }
    let file = again.path().join("config/gateway.yaml");
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, format!("{text}retention_days: 30\n")).expect("writable");
    let gateway = Gateway::start_in(again, &[]).await;
    end_to_end::wait_for("deletion", || async {
        (gateway.records().await.len() == 3).then_some(())
    })
    .await;
    let summary = gateway.admin_json("/usage/summary").await;
    assert_eq!(summary["total_records"], 6, "the sums stay");
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_at_a_kill_is_interrupted_with_what_was_reserved_and_what_ends_before_is_not() {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => text
            .replace("average_latency_seconds: 0.5", "average_latency_seconds: 1")
            .replace("average_latency_seconds: 2.0", "average_latency_seconds: 30"),
        _ => roomy(name, text),
    });
    let mut gateway = Gateway::start_in(dir, &[]).await;
    let ask = |id: &'static str, model: &str, stream: bool| {
        let mut body = chat(20);
        (body["model"], body["stream"]) = (model.into(), stream.into());
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .header("x-request-id", id)
            .json(&body);
        tokio::spawn(async move { request.send().await.ok()?.bytes().await.ok() })
    };
    let ends = ask("ends", "simulated-small", false);
    let (waits, streams) = (
        ask("waits", "simulated-large", false),
        ask("streams", "simulated-large", true),
    );
    assert!(ends.await.expect("no panic").is_some());
    gateway.signal("KILL");
    assert_eq!(gateway.ended().await, None, "killed");
    drop((waits.await, streams.await));
    let next = TempDir::new().expect("a directory");
    for part in ["config", "data"] {
        std::fs::rename(gateway.dir.path().join(part), next.path().join(part)).expect("moved");
    }
    std::fs::remove_file(next.path().join("data/sluice.addr")).expect("left by the killed one");
    let gateway = Gateway::start_in(next, &[]).await;
    let records = gateway.records().await;
    let of = |id: &str| {
        records
            .iter()
            .filter(|record| record["client_request_id"] == id)
            .collect::<Vec<_>>()
    };
    assert_eq!((of("ends").len(), &of("ends")[0]["status"]), (1, &json!("completed")));
    for id in ["waits", "streams"] {
        let found = of(id);
        assert_eq!(
            (found.len(), &found[0]["status"], &found[0]["reason"]),
            (1, &json!("interrupted"), &json!("interrupted"))
        );
        assert_eq!(found[0]["output_tokens_reserved"], 20);
        assert!(found[0]["input_tokens"].as_u64() > Some(0), "{}", found[0]);
    }
    let limits = gateway.admin_json("/limits/project/standard_project").await;
    let project = gateway.admin_json("/usage/project/standard_project").await;
    assert_eq!(
        limits["allowances"][3]["used"], project["total_tokens"],
        "and they are counted"
    );
    assert!(sluice(gateway.dir.path(), &["ledger", "verify"]).status.success());
}

/// Corrects, as an operator; status and answer.
#[tokio::test]
async fn with_relaxed_durability_a_stop_loses_nothing_and_what_is_read_is_all_that_was_answered() {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => format!("{text}\nledger: {{durability: relaxed}}\n"),
        _ => fast(name, text),
    });
    let mut gateway = Gateway::start_in(dir, &[]).await;
    for round in 1..=20 {
        assert_eq!(ask(&gateway, "user_vip_01", &chat(2)).await, 200);
        if round % 5 == 0 {
            assert_eq!(gateway.records().await.len(), round);
        }
    }
    assert_eq!(ask(&gateway, "user_vip_01", &chat(2)).await, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    assert_eq!(gateway.records().await.len(), 21);
}
