//! Usage in sums, as JSON, CSV and Parquet.

use super::{ask, chat, fast, six_records};
use end_to_end::{Gateway, as_admin, config_dir, sluice};
use serde_json::{Value, json};

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
            "project,requests,input_tokens,output_tokens,total_tokens,cached_input_tokens,cost_eur,objectives,objectives_met\nstandard_project,3,"
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
