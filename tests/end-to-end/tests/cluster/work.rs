//! Jobs and batches over gateways that are killed, paused, and asked at another than the one that has the work.

use end_to_end::postgres::Postgres;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for, with_model};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const GATEWAYS: usize = 3;

/// A server that takes so long for each answer.
pub(super) async fn server(takes: Duration) -> Scripted {
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            tokio::time::sleep(takes).await;
            connection.answer("200 OK", WHOLE).await;
        }
    })
    .await
}

/// A configuration with the model `tested`, of which a gateway has so many requests at the server at once.
pub(super) fn directory(server: &str, at_once: usize) -> TempDir {
    let more = format!(", max_concurrent_requests: {at_once}");
    config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", server, &more),
        _ => roomy(name, text),
    })
}

async fn start(postgres: &Postgres, directory: TempDir) -> Gateway {
    Gateway::start_in(directory, &["--database-url", &postgres.url]).await
}

pub(super) fn id_of(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.dir.path().join("data/gateway.id")).expect("an id")
}

pub(super) fn number(postgres: &Postgres, sql: &str) -> i64 {
    postgres.column(sql)[0].parse().expect("a number")
}

/// The requests that have another number of records than one, apart from attempts that were interrupted.
const NOT_ONCE: &str = "SELECT request_id FROM requests WHERE status <> 'interrupted' GROUP BY 1 HAVING count(*) <> 1";

/// Each line of a batch has one answer in its files, and one record.
pub(super) async fn answered_once(postgres: &Postgres, gateway: &Gateway, batch: &str, lines: usize) {
    let ended = gateway.ended_batch(batch).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(
        ended["request_counts"],
        json!({"total": lines, "completed": lines, "failed": 0})
    );
    let rows = gateway.batch_rows(&ended).await;
    assert_eq!(rows.len(), lines);
    let ids: BTreeSet<&str> = rows.iter().filter_map(|row| row["custom_id"].as_str()).collect();
    assert_eq!(ids.len(), lines, "a line is answered twice");
    assert!(rows.iter().all(|row| row["response"]["status_code"] == 200));
    assert_eq!(postgres.column(NOT_ONCE), Vec::<String>::new());
    let recorded = format!("SELECT count(*) FROM requests WHERE request_id LIKE '{batch}-%' AND status = 'completed'");
    assert_eq!(
        number(postgres, &recorded),
        i64::try_from(lines).expect("few"),
        "one record each"
    );
}

pub(super) fn verified(postgres: &Postgres, gateway: &Gateway) {
    let verified = sluice(
        gateway.dir.path(),
        &["ledger", "verify", "--database-url", &postgres.url],
    );
    assert!(verified.status.success(), "{verified:?}");
}

/// The time until no unfinished batch is a gateway's.
pub(super) async fn taken_over(postgres: &Postgres, owner: &str) -> Duration {
    let since = Instant::now();
    let left = format!("SELECT count(*) FROM batches WHERE owner = '{owner}' AND finished_at IS NULL");
    wait_for("take-over", || async { (number(postgres, &left) == 0).then_some(()) }).await;
    since.elapsed()
}

/// Batches of so many lines each, one for each gateway, while one gateway after the other is killed. In half of the cases
/// it returns with its data directory; else another takes its place, and its directory is gone.
async fn killed(lines: usize, every: Duration, seed: u64) {
    let postgres = Postgres::start();
    let server = server(Duration::from_millis(150)).await;
    let directory = || directory(&server.url, 8);
    let (one, two, three) = tokio::join!(
        start(&postgres, directory()),
        start(&postgres, directory()),
        start(&postgres, directory())
    );
    let mut gateways = vec![one, two, three];
    let mut batches = Vec::new();
    for gateway in &gateways {
        batches.push(gateway.start_batch("tested", lines).await);
    }
    let unfinished = || number(&postgres, "SELECT count(*) FROM batches WHERE finished_at IS NULL");
    let (mut random, mut kills, mut slowest) = (seed, 0, Duration::ZERO);
    tokio::time::sleep(every / 2).await;
    while unfinished() > 0 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let which = usize::try_from((random >> 33) % 3).expect("small");
        let mut victim = gateways.remove(which);
        let id = id_of(&victim);
        victim.signal("KILL");
        victim.ended().await;
        kills += 1;
        if kills % 2 == 0 {
            gateways.insert(which, start(&postgres, victim.left()).await);
            tokio::time::sleep(every).await;
        } else {
            let taken = taken_over(&postgres, &id).await;
            slowest = slowest.max(taken);
            gateways.insert(which, start(&postgres, directory()).await);
            tokio::time::sleep(every.saturating_sub(taken)).await;
        }
    }
    assert_eq!(gateways.len(), GATEWAYS);
    for (batch, gateway) in batches.iter().zip(&gateways) {
        answered_once(&postgres, gateway, batch, lines).await;
    }
    verified(&postgres, &gateways[0]);
    let answers = server.requests.lock().expect("no panic").len();
    println!(
        "{} lines, {kills} kills: each answered and recorded once; the server gave {answers} answers; taken over after {:.1} s \
         at most",
        lines * GATEWAYS,
        slowest.as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_batches_are_answered_and_recorded_once_while_gateways_are_killed() {
    killed(250, Duration::from_secs(4), 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make cluster-jobs"]
async fn five_thousand_lines_are_answered_and_recorded_once_with_a_kill_every_five_seconds() {
    killed(1667, Duration::from_secs(5), 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_only_paused_writes_nothing_that_another_has_taken_over() {
    let postgres = Postgres::start();
    let server = server(Duration::from_millis(500)).await;
    let paused = start(&postgres, directory(&server.url, 8)).await;
    let other = start(&postgres, directory(&server.url, 8)).await;
    let batch = paused.start_batch("tested", 120).await;
    let job = json!({"model": "tested", "input": "Why?", "max_output_tokens": 9, "background": true});
    let completed = || number(&postgres, "SELECT sum(completed) FROM batches");
    wait_for("answers", || async { (completed() > 20).then_some(()) }).await;
    let accepted: Value = paused.post("/v1/responses", &job).await.json().await.expect("JSON");
    let response = accepted["id"].as_str().expect("an id").to_owned();
    paused.signal("STOP");
    let since = Instant::now();
    taken_over(&postgres, &id_of(&paused)).await;
    tokio::time::sleep(Duration::from_secs(15).saturating_sub(since.elapsed())).await;
    paused.signal("CONT");
    answered_once(&postgres, &other, &batch, 120).await;
    let ended = ended_response(&other, &response).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    wait_for("the end of what the paused one had begun", || async {
        (paused.metric("sluice_cluster_lost_results_total").await > 0.0).then_some(())
    })
    .await;
    // Its last second of records is moved.
    paused.records().await;
    answered_once(&postgres, &paused, &batch, 120).await;
    assert_eq!(ended_response(&paused, &response).await, ended);
    verified(&postgres, &other);
}

/// Status and body of a request of a user.
async fn send(gateway: &Gateway, method: Method, path: &str, user: &str) -> (u16, Value) {
    let request = gateway.http.request(method, format!("{}{path}", gateway.proxy));
    let answer = request.header("x-sluice-user", user).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

const OWNER: &str = "user_standard_01";
const STRANGER: &str = "user_vip_01";

async fn ended_response(gateway: &Gateway, id: &str) -> Value {
    let path = format!("/v1/responses/{id}");
    wait_for("the end of a response", || async {
        let (_, shown) = send(gateway, Method::GET, &path, OWNER).await;
        (!matches!(shown["status"].as_str(), Some("queued" | "in_progress"))).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_batches_are_polled_and_cancelled_at_any_gateway_by_their_own_project_alone() {
    let postgres = Postgres::start();
    let server = server(Duration::from_secs(300)).await;
    let (one, other) = tokio::join!(
        start(&postgres, directory(&server.url, 8)),
        start(&postgres, directory(&server.url, 8))
    );
    let job = json!({"model": "tested", "input": "Why?", "max_output_tokens": 9, "background": true});
    let accepted: Value = one.post("/v1/responses", &job).await.json().await.expect("JSON");
    let path = format!("/v1/responses/{}", accepted["id"].as_str().expect("an id"));
    let batch = format!("/v1/batches/{}", one.start_batch("tested", 20).await);
    wait_for("a response that runs", || async {
        let (_, shown) = send(&other, Method::GET, &path, OWNER).await;
        (shown["status"] == "in_progress").then_some(())
    })
    .await;
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::POST, format!("{path}/cancel")),
        (Method::DELETE, path.clone()),
        (Method::GET, batch.clone()),
        (Method::POST, format!("{batch}/cancel")),
    ] {
        assert_eq!(send(&other, method, &path, STRANGER).await.0, 404, "{path}");
    }
    let (status, cancelled) = send(&other, Method::POST, &format!("{path}/cancel"), OWNER).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));
    let ended = ended_response(&other, accepted["id"].as_str().expect("an id")).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");

    // The batch has the slots; this one waits.
    let generate = json!({"user_id": OWNER, "project_id": "standard_project", "model": "tested", "prompt": "Why?",
        "max_tokens": 9});
    let queued: Value = one.post("/generate", &generate).await.json().await.expect("JSON");
    assert_eq!(queued["status"], "queued", "{queued}");
    let request = format!("/requests/{}", queued["request_id"].as_str().expect("an id"));
    assert_eq!(send(&other, Method::GET, &request, OWNER).await.1["status"], "queued");
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(send(&other, method, &request, STRANGER).await.0, 404);
    }
    assert_eq!(send(&other, Method::DELETE, &request, OWNER).await.0, 200);
    wait_for("the end of a request", || async {
        let (_, shown) = send(&other, Method::GET, &request, OWNER).await;
        (shown["status"] == "cancelled").then_some(())
    })
    .await;

    let (status, cancelling) = send(&other, Method::POST, &format!("{batch}/cancel"), OWNER).await;
    assert_eq!((status, &cancelling["status"]), (200, &json!("cancelling")));
    // What runs is not cut off; the twelve that wait have ended.
    wait_for("the lines that waited", || async {
        let (_, shown) = send(&one, Method::GET, &batch, OWNER).await;
        (shown["request_counts"]["failed"] == 12).then_some(())
    })
    .await;
    let (status, deleted) = send(&other, Method::DELETE, &path, OWNER).await;
    assert_eq!((status, &deleted["deleted"]), (200, &json!(true)));
    assert_eq!(send(&one, Method::GET, &path, OWNER).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_killed_gateway_are_answered_by_another() {
    let postgres = Postgres::start();
    let server = server(Duration::from_secs(2)).await;
    let mut killed = start(&postgres, directory(&server.url, 8)).await;
    let other = start(&postgres, directory(&server.url, 8)).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let job = json!({"model": "tested", "input": format!("{number}?"), "max_output_tokens": 9, "background": true});
        let accepted: Value = killed.post("/v1/responses", &job).await.json().await.expect("JSON");
        ids.push(accepted["id"].as_str().expect("an id").to_owned());
    }
    killed.signal("KILL");
    killed.ended().await;
    for id in &ids {
        let ended = ended_response(&other, id).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    assert_eq!(postgres.column(NOT_ONCE), Vec::<String>::new());
    assert_eq!(
        number(&postgres, "SELECT count(*) FROM requests WHERE status = 'completed'"),
        40
    );
    // What it had begun is recorded as interrupted when its journal is moved, and nothing of it runs again.
    let back = start(&postgres, killed.left()).await;
    wait_for("its records", || async {
        (back.metric("sluice_ledger_backlog").await < 1.0).then_some(())
    })
    .await;
    assert_eq!(postgres.column(NOT_ONCE), Vec::<String>::new());
    assert_eq!(
        number(&postgres, "SELECT count(*) FROM requests WHERE status = 'completed'"),
        40
    );
    verified(&postgres, &other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_paused_in_the_middle_of_a_transaction_holds_nobody_up() {
    let postgres = Postgres::start();
    // Answers come so fast that the gateway is often in a transaction.
    let server = server(Duration::from_millis(20)).await;
    let gateways = [
        start(&postgres, directory(&server.url, 2)).await,
        start(&postgres, directory(&server.url, 2)).await,
    ];
    let lines = 3000;
    let batch = gateways[0].start_batch("tested", lines).await;
    let completed = || number(&postgres, "SELECT sum(completed) FROM batches");
    // The other one is a settled member by then.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for round in 0..2 {
        let before = completed();
        assert!(before < 3000, "the batch is too short for {round} pauses");
        let owner = postgres.column("SELECT owner FROM batches").concat();
        let paused = gateways
            .iter()
            .find(|gateway| id_of(gateway) == owner)
            .expect("one of both");
        paused.signal("STOP");
        println!(
            "pause {round}: taken over after {:?}",
            taken_over(&postgres, &owner).await
        );
        wait_for("answers of the other", || async {
            (completed() > before + 32).then_some(())
        })
        .await;
        paused.signal("CONT");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    answered_once(&postgres, &gateways[0], &batch, lines).await;
    verified(&postgres, &gateways[0]);
}
