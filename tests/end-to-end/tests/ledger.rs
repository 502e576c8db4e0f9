//! Queries of the ledger: the original's summaries, sums by any groups, a caller's own usage; and that
//! sums, records and counters agree, over restarts and crashes too.

use end_to_end::{Gateway, as_admin, config_dir, roomy, sluice};
use serde_json::{Value, json};
use std::process::Command;
use tempfile::TempDir;

fn chat(max_tokens: u64) -> Value {
    json!({"model": "simulated-small", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": max_tokens})
}

/// No latency, so that there are many records soon. `SLUICE_RUNS=50` kills as often as a release should stand.
fn fast(name: &str, text: String) -> String {
    match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0"),
        _ => roomy(name, text),
    }
}

async fn ask(gateway: &Gateway, user: &str, body: &Value) -> u16 {
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .header("x-sluice-user", user);
    request.json(body).send().await.expect("an answer").status().as_u16()
}

/// Three completed of one user, two of another, one refused.
async fn six_records(gateway: &Gateway) {
    for _ in 0..3 {
        assert_eq!(ask(gateway, "user_standard_01", &chat(8)).await, 200);
    }
    for _ in 0..2 {
        assert_eq!(ask(gateway, "user_vip_01", &chat(4)).await, 200);
    }
    assert_eq!(ask(gateway, "user_vip_01", &json!({"model": "nowhere"})).await, 404);
}

#[tokio::test]
async fn usage_has_the_originals_fields_and_agrees_with_the_records() {
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    let summary = gateway.admin_json("/usage/summary").await;
    assert_eq!(summary["total_records"], 6);
    assert_eq!(summary["records_by_status"], json!({"completed": 5, "rejected": 1}));
    assert_eq!(
        summary["records_by_project"],
        json!({"standard_project": 3, "vip_project": 3})
    );
    assert_eq!(summary["records_by_backend"]["simulated"], 5);
    let records = gateway.records().await;
    let sum = |name: &str| records.iter().filter_map(|record| record[name].as_f64()).sum::<f64>();
    for (total, of) in [
        ("total_input_tokens", "input_tokens"),
        ("total_output_tokens", "output_tokens"),
        ("total_tokens", "total_tokens"),
        ("total_estimated_cost_eur", "cost_eur"),
    ] {
        let told = summary[total].as_f64().expect("a number");
        assert!((told - sum(of)).abs() < 1e-12, "{total}: {told} and {}", sum(of));
    }
    let project = gateway.admin_json("/usage/project/standard_project").await;
    assert_eq!(
        (&project["total_records"], &project["records_by_user"]),
        (&json!(3), &json!({"user_standard_01": 3}))
    );
    assert_eq!(
        gateway.admin_json("/usage/user/user_vip_01").await["total_output_tokens"],
        8
    );
    let nobody = as_admin(gateway.http.get(format!("{}/usage/user/nobody", gateway.admin))).await;
    assert_eq!(nobody.status(), 404);

    let metrics = gateway.admin_json("/metrics/summary").await;
    assert_eq!(
        (&metrics["total_requests"], &metrics["completed_requests"]),
        (&json!(6), &json!(5))
    );
    assert_eq!(
        (&metrics["accepted_requests"], &metrics["rejected_requests"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(metrics["total_output_tokens"], summary["total_output_tokens"]);
    assert!(
        metrics["p95_latency_seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0),
        "{metrics}"
    );
    let reset = as_admin(gateway.http.post(format!("{}/metrics/reset", gateway.admin))).await;
    assert_eq!(
        reset.json::<Value>().await.expect("JSON"),
        json!({"status": "ok", "message": "Metrics reset"})
    );
    assert_eq!(ask(&gateway, "user_vip_01", &chat(4)).await, 200);
    let metrics = gateway.admin_json("/metrics/summary").await;
    assert_eq!(
        (&metrics["total_requests"], &metrics["total_output_tokens"]),
        (&json!(1), &json!(4))
    );
    assert!(
        gateway.metric("sluice_requests_total{").await > 6.5,
        "Prometheus' counters never go back"
    );
    let json = gateway
        .http
        .get(format!("{}/metrics", gateway.admin))
        .header("accept", "application/json");
    assert_eq!(
        as_admin(json).await.json::<Value>().await.expect("JSON")["total_requests"],
        1
    );
}

#[tokio::test]
async fn usage_is_summed_by_any_groups_as_json_and_csv_and_on_the_command_line() {
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    let sums = gateway.admin_json("/usage?by=project,day").await;
    let rows = sums["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["project"], &rows[0]["requests"]),
        (&json!("standard_project"), &json!(3))
    );
    assert_eq!(rows[0]["output_tokens"], 24);
    let day = rows[0]["day"].as_str().expect("a day").to_owned();
    let none = gateway.admin_json(&format!("/usage?to={}", "2020-01-01")).await;
    assert_eq!(none["rows"], json!([]));
    let same = gateway.admin_json(&format!("/usage?from={day}&to={day}&by=user")).await;
    assert_eq!(same["rows"].as_array().expect("rows").len(), 2);
    let csv = gateway
        .http
        .get(format!("{}/usage?by=project", gateway.admin))
        .header("accept", "text/csv");
    let csv = as_admin(csv).await.text().await.expect("text");
    assert!(
        csv.starts_with(
            "project,requests,input_tokens,output_tokens,total_tokens,cached_input_tokens,cost_eur\nstandard_project,3,"
        ),
        "{csv}"
    );
    for wrong in ["by=colour", "from=yesterday", "by=user,user"] {
        let answer = as_admin(gateway.http.get(format!("{}/usage?{wrong}", gateway.admin))).await;
        assert_eq!(answer.status(), 400, "{wrong}");
    }
    let table = sluice(gateway.dir.path(), &["usage", "--by", "project"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("standard_project         3"), "{table}");
    let file = sluice(gateway.dir.path(), &["ledger", "export", "--from", &day, "--to", &day]);
    let file = String::from_utf8_lossy(&file.stdout).into_owned();
    assert!(
        file.starts_with("request_id,client_request_id,created_at,updated_at,user_id,project_id,"),
        "{file}"
    );
    assert_eq!(file.lines().count(), 1 + 6, "{file}");
    assert_eq!(file.matches(",user_vip_01,vip_project,").count(), 3, "{file}");
    let lines = sluice(gateway.dir.path(), &["ledger", "export", "--json"]);
    let first: Value = serde_json::from_slice(lines.stdout.split(|byte| *byte == b'\n').next().expect("a line"))
        .expect("a JSON object a line");
    assert_eq!(first["output_tokens"], 8);
    let before = sluice(gateway.dir.path(), &["ledger", "export", "--to", "2020-01-01"]);
    assert_eq!(String::from_utf8_lossy(&before.stdout).lines().count(), 1);
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(
        String::from_utf8_lossy(&verified.stdout).contains("6 records"),
        "{verified:?}"
    );
}

#[tokio::test]
async fn a_caller_sees_its_own_usage_and_what_it_has_left() {
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    let request = gateway
        .http
        .get(format!("{}/usage/me", gateway.proxy))
        .header("x-sluice-user", "user_vip_01");
    let own: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(
        (&own["user_id"], &own["usage"]["total_records"]),
        (&json!("user_vip_01"), &json!(3))
    );
    let project = own["limits"]["project"]["rates"].as_array().expect("rates");
    assert_eq!(
        (&project[0]["counts"], &project[0]["limit"]),
        (&json!("requests per minute"), &json!(300))
    );
}

#[tokio::test]
async fn keys_are_made_rotated_and_revoked_over_the_admin_listener_and_hold_to_their_models() {
    let gateway = Gateway::start_in(config_dir(fast), &["--identity", "keys"]).await;
    let make = gateway.http.post(format!("{}/keys", gateway.admin));
    let made =
        as_admin(make.json(&json!({"user": "user_vip_01", "models": ["simulated-small"], "expires": "1h"}))).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.expect("JSON");
    let (id, secret) = (
        made["id"].as_str().expect("an id"),
        made["secret"].as_str().expect("a secret"),
    );
    let asking = |secret: &str, model: &str| {
        let mut body = chat(2);
        body["model"] = model.into();
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .bearer_auth(secret)
            .json(&body);
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(asking(secret, "simulated-small").await, 200, "it works at once");
    assert_eq!(asking(secret, "simulated-large").await, 403);
    assert_eq!(gateway.records().await[0]["reason"], "model_not_allowed");
    let models = gateway
        .http
        .get(format!("{}/v1/models", gateway.proxy))
        .bearer_auth(secret);
    let models: Value = models.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(models["data"].as_array().expect("a list").len(), 1);

    let rotate = gateway.http.post(format!("{}/keys/{id}/rotate", gateway.admin));
    let rotated: Value = as_admin(rotate).await.json().await.expect("JSON");
    let newer = rotated["secret"].as_str().expect("a secret");
    assert_eq!(rotated["models"], json!(["simulated-small"]));
    assert_eq!(asking(newer, "simulated-small").await, 200);
    assert_eq!(
        asking(secret, "simulated-small").await,
        200,
        "the old one works for an hour"
    );
    let revoke = gateway.http.delete(format!("{}/keys/{id}", gateway.admin));
    assert_eq!(as_admin(revoke).await.status(), 200);
    assert_eq!(asking(secret, "simulated-small").await, 401, "and ends at once");
    let used = end_to_end::wait_for("last use", || async {
        let keys = gateway.admin_json("/keys").await;
        let keys = keys["keys"].as_array().expect("a list").clone();
        keys.iter().all(|key| key["last_used_at"].is_string()).then_some(keys)
    })
    .await;
    assert_eq!(used.len(), 2);
    assert!(
        !serde_json::to_string(&used).expect("text").contains("sk-sluice-"),
        "secrets are not kept"
    );
    let wrong = gateway
        .http
        .post(format!("{}/keys", gateway.admin))
        .json(&json!({"user": "nobody"}));
    assert_eq!(as_admin(wrong).await.status(), 400);
    let usage = gateway.admin_json(&format!("/usage/key/{id}")).await;
    assert_eq!(usage["records_by_status"]["completed"], 2);
}

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
        INSERT INTO rollups SELECT substr(created_at, 1, 10), project_id, user_id, coalesce(key_id, ''), model, backend, status, \
        decision, count(*), sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), sum(cost_nano_eur), \
        sum(latency_seconds), sum(queue_wait_seconds) FROM requests GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;";
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
async fn correct(gateway: &Gateway, body: Value) -> (u16, Value) {
    let request = gateway
        .http
        .post(format!("{}/usage/corrections", gateway.admin))
        .json(&body);
    let answer = as_admin(request).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_correction_is_a_record_of_its_own_that_mends_sums_and_budgets_and_is_no_request() {
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    let before = gateway.admin_json("/usage/summary").await;
    let wrong = gateway.records().await[1].clone();
    let body = json!({"request_id": wrong["request_id"], "output_tokens": -4, "cost_eur": -0.000_000_8, "reason": "price typed wrongly"});
    let (status, told) = correct(&gateway, body).await;
    assert_eq!(status, 200, "{told}");
    let (status, _) = correct(
        &gateway,
        json!({"user": "user_standard_01", "input_tokens": 1000, "cost_eur": 1.5, "reason": "by hand"}),
    )
    .await;
    assert_eq!(status, 200);

    let after = gateway.admin_json("/usage/summary").await;
    for same in [
        "total_records",
        "records_by_status",
        "records_by_project",
        "records_by_user",
        "records_by_model",
    ] {
        assert_eq!(after[same], before[same], "a correction is no request");
    }
    let tokens = |summary: &Value| summary["total_tokens"].as_i64().expect("a count");
    assert_eq!(tokens(&after), tokens(&before) + 996);
    let metrics = gateway.admin_json("/metrics/summary").await;
    assert_eq!(
        (&metrics["total_requests"], &metrics["completed_requests"]),
        (&json!(6), &json!(5))
    );
    assert_eq!(metrics["requests_by_status"], before["records_by_status"]);
    let newest = &gateway.records().await[0];
    assert_eq!(
        (&newest["status"], &newest["project_id"]),
        (&json!("correction"), &json!("standard_project"))
    );
    let limits = gateway.admin_json("/limits/project/standard_project").await;
    let used = |limits: &Value| {
        let all = limits["allowances"].as_array().expect("allowances").iter();
        let costs = all
            .filter(|one| one["measure"] == "eur")
            .filter_map(|one| one["used"].as_f64());
        costs.fold(0.0, f64::max)
    };
    assert!(used(&limits) > 1.49, "{limits}");
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );

    for (body, said) in [
        (json!({"user": "user_vip_01", "reason": "x"}), "the correction is empty"),
        (
            json!({"user": "user_vip_01", "input_tokens": 1, "reason": " "}),
            "`reason` is empty",
        ),
        (json!({"input_tokens": 1, "reason": "x"}), "give the `user`"),
        (
            json!({"request_id": "nowhere", "input_tokens": 1, "reason": "x"}),
            "no record has the request id",
        ),
        (
            json!({"user": "user_vip_01", "input_tokens": 1, "reason": "x", "tokens": 5}),
            "unknown field",
        ),
        (
            json!({"user": "user_vip_01", "cost_eur": 1e300, "reason": "x"}),
            "at most 1000000000000 tokens and 1000000 euros",
        ),
    ] {
        let (status, told) = correct(&gateway, body).await;
        assert!(
            matches!(status, 400 | 422) && told["detail"].as_str().is_some_and(|detail| detail.contains(said)),
            "{told}"
        );
    }
    // A restart counts corrections too.
    let mut gateway = gateway;
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &[]).await;
    assert!(used(&gateway.admin_json("/limits/project/standard_project").await) > 1.49);
}

#[tokio::test]
async fn records_come_as_a_parquet_file_with_the_types_of_their_columns() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let gateway = Gateway::start_in(config_dir(fast), &[]).await;
    six_records(&gateway).await;
    let records = gateway.records().await;
    let file = sluice(gateway.dir.path(), &["ledger", "export", "--parquet"]);
    assert!(file.status.success(), "{}", String::from_utf8_lossy(&file.stderr));
    let reader = SerializedFileReader::new(bytes::Bytes::from(file.stdout)).expect("a Parquet file");
    let rows: Vec<_> = reader
        .get_row_iter(None)
        .expect("rows")
        .map(|row| row.expect("a row"))
        .collect();
    assert_eq!(rows.len(), 6);
    for (row, record) in rows.iter().rev().zip(&records) {
        for (name, field) in row.get_column_iter() {
            let expected = &record[name.as_str()];
            match field {
                Field::Str(text) => assert_eq!(expected, text, "{name}"),
                Field::Long(whole) => assert_eq!(expected.as_i64(), Some(*whole), "{name}"),
                Field::Double(number) => assert_eq!(expected.as_f64(), Some(*number), "{name}"),
                Field::Bool(truth) => assert_eq!(expected.as_bool(), Some(*truth), "{name}"),
                Field::TimestampMicros(micros) => assert!(*micros > 1_700_000_000_000_000, "{name}"),
                Field::Null => assert!(expected.is_null(), "{name}: {expected}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

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
