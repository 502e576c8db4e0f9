//! Records that PostgreSQL refuses: set aside, counted, and taken once the cause is mended, as docs/operations.md says.

use end_to_end::postgres::Postgres;
use end_to_end::{Gateway, config_dir, roomy, wait_for};
use serde_json::json;
use std::path::PathBuf;

/// No latency, so that there are many records soon.
fn fast(name: &str, text: String) -> String {
    match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0"),
        _ => roomy(name, text),
    }
}

async fn ask(gateway: &Gateway, user: &str) {
    let body =
        json!({"model": "simulated-small", "messages": [{"role": "user", "content": "Hi\u{0}"}], "max_tokens": 2});
    let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
    // A header's text is as strange as HTTP allows.
    let request = request
        .header("x-sluice-user", user)
        .header("x-request-id", "a'\\\"%00");
    assert_eq!(request.json(&body).send().await.expect("an answer").status(), 200);
}

fn rejected(gateway: &Gateway) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(gateway.dir.path().join("data")).expect("data/");
    let files = entries.map(|entry| entry.expect("an entry").path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "rejected"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_postgresql_refuses_are_set_aside_and_keep_nothing_back() {
    let postgres = Postgres::start();
    let flags = ["--database-url", postgres.url.as_str()];
    let mut gateway = Gateway::start_in(config_dir(fast), &flags).await;
    postgres.column("ALTER TABLE requests ADD CONSTRAINT picky CHECK (user_id <> 'user_vip_01')");
    for _ in 0..20 {
        ask(&gateway, "user_standard_01").await;
        ask(&gateway, "user_vip_01").await;
    }
    let count = |sql: &str| postgres.column(sql)[0].parse::<usize>().expect("a number");
    wait_for("the other records", || async {
        (count("SELECT count(*) FROM requests") == 20).then_some(())
    })
    .await;
    // They are counted when the whole segment is done with.
    wait_for("the count of rejected records", || async {
        (gateway.metric("sluice_ledger_rejected_records").await.to_string() == "20").then_some(())
    })
    .await;
    assert_eq!(
        gateway.metric("sluice_ledger_healthy").await.to_string(),
        "1",
        "the ledger goes on"
    );
    assert_eq!(
        count("SELECT CAST(sum(requests) AS BIGINT) FROM rollups"),
        20,
        "sums agree"
    );
    assert!(gateway.log().contains("picky"), "the log has PostgreSQL's words");

    postgres.column("ALTER TABLE requests DROP CONSTRAINT picky");
    // Records gather for a second, so there may be some files; each becomes a segment in its turn.
    for file in rejected(&gateway) {
        gateway.signal("TERM");
        gateway.ended().await;
        let name = file.file_name().expect("a file").to_owned();
        let dir = gateway.left();
        let data = dir.path().join("data");
        std::fs::rename(data.join(name), data.join("postgres.ledger-000000")).expect("renamed");
        gateway = Gateway::start_in(dir, &flags).await;
    }
    assert_eq!(count("SELECT count(DISTINCT request_id) FROM requests"), 40);
    assert_eq!(count("SELECT CAST(sum(requests) AS BIGINT) FROM rollups"), 40);
    assert_eq!(rejected(&gateway), Vec::<PathBuf>::new());
}
