//! What an operator asks any gateway: queue and limits of all of them together and of each, over HTTP and by command.

use super::slots::{SLOTS, ask, directory, three, upstream};
use end_to_end::postgres::Postgres;
use end_to_end::redis::Redis;
use end_to_end::{Gateway, sluice, wait_for};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

const QUEUED: usize = 3;

/// Requests a minute of the plan: a use of it is free again after three seconds.
const LIMIT: u64 = 20;

/// The slots' configuration, with a rate limit that drains slowly.
fn limited(upstream: &str) -> TempDir {
    let dir = directory(upstream);
    let file = dir.path().join("config/limits.yaml");
    let text = std::fs::read_to_string(&file).expect("readable");
    let text = text.replace(
        "requests_per_minute: 1000000\n",
        &format!("requests_per_minute: {LIMIT}\n"),
    );
    std::fs::write(&file, text).expect("writable");
    dir
}

/// The figure of one member.
fn of(cluster: &Value, gateway: &Gateway, name: &str) -> Value {
    let members = cluster["members"].as_array().expect("members");
    let is_it = |member: &&Value| member["address"] == gateway.address();
    members.iter().find(is_it).expect("a member")[name].clone()
}

/// What a command prints, asked of a gateway.
fn printed(gateway: &Gateway, args: &[&str]) -> String {
    let output = sluice(
        gateway.dir.path(),
        &[args, &["--admin-token", "admin-of-the-test"]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn any_gateway_answers_for_all(flags: &[&str]) {
    let (server, runs) = upstream(Duration::from_secs(120)).await;
    let gateways = three(flags, || limited(&server.url)).await;
    let spawn_to = |gateway: &Gateway| {
        let address = gateway.proxy.clone();
        tokio::spawn(async move { ask(&address).await })
    };
    let mut requests: Vec<_> = (0..SLOTS).map(|_| spawn_to(&gateways[0])).collect();
    let all_run = || async { (runs.arrivals.lock().expect("unpoisoned").len() == SLOTS).then_some(()) };
    wait_for("all slots in use", all_run).await;
    requests.extend((0..QUEUED).map(|_| spawn_to(&gateways[1])));

    let asked = &gateways[2];
    let status = wait_for("the figures of the others", || async {
        let status = asked.admin_json("/queue/status").await;
        let sums = (&status["cluster"]["active_requests"], &status["cluster"]["queue_size"]);
        (sums == (&json!(SLOTS), &json!(QUEUED))).then_some(status)
    })
    .await;
    assert_eq!(
        (&status["active_requests"], &status["queue_size"]),
        (&json!(0), &json!(0))
    );
    let cluster = &status["cluster"];
    assert_eq!(cluster["live_members"], 3);
    assert_eq!(of(cluster, &gateways[0], "active_requests"), SLOTS);
    assert_eq!(of(cluster, &gateways[1], "queue_size"), QUEUED);
    assert_eq!(of(cluster, asked, "is_this"), true);
    assert_eq!(of(cluster, asked, "age_seconds"), 0.0, "its own figures are of now");
    let age = of(cluster, &gateways[0], "age_seconds").as_f64().expect("an age");
    assert!(age > 0.0, "what others told is older: {age}");

    let queue = asked.admin_json("/queue").await;
    assert_eq!(queue["waiting"], json!([]), "of this gateway");
    let tested = json!({"active_requests": SLOTS, "places": SLOTS, "queue_size": QUEUED});
    assert_eq!(queue["cluster"]["models"]["tested"], tested);
    let waiting: u64 = queue["cluster"]["by_priority"]
        .as_object()
        .expect("priorities")
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(waiting, QUEUED as u64);
    assert_eq!(
        of(&queue["cluster"], &gateways[1], "models")["tested"]["queue_size"],
        QUEUED
    );

    limits_are_of_all(asked).await;
    let text = printed(asked, &["queue"]);
    assert!(text.contains("running 0 of ") && text.contains("all 3 live"), "{text}");
    assert!(
        gateways.iter().all(|gateway| text.contains(gateway.address())),
        "{text}"
    );
    let text = printed(asked, &["top", "--once"]);
    assert!(text.contains("all 3 live"), "{text}");
    for request in requests {
        request.abort();
    }
}

/// The limits of the project that sends, asked of a gateway that has served nothing.
async fn limits_are_of_all(asked: &Gateway) {
    let project = "/limits/project/standard_project";
    let limits = wait_for("the reports of all", || async {
        let limits = asked.admin_json(project).await;
        let rate = &limits["cluster"]["rates"][0];
        // Of nine requests, at most two are free again.
        (rate["used"].as_u64()? >= 6).then_some(limits)
    })
    .await;
    let cluster = &limits["cluster"];
    assert_eq!(cluster.get("detail"), None, "{cluster}");
    assert_eq!(cluster["rates"][0]["limit"], LIMIT);
    let left = limits["rates"][0]["remaining"].as_u64().expect("a number");
    assert!(left <= LIMIT - 6, "what others have used is not left: {limits}");
    for account in [&cluster["rates"], &cluster["allowances"]] {
        for limit in account.as_array().expect("accounts") {
            let granted = limit["members"].as_array().expect("members").iter();
            let granted: f64 = granted
                .map(|member| member["granted"].as_f64().expect("a number"))
                .sum();
            let number = |name: &str| limit[name].as_f64().expect("a number");
            assert!((granted - number("granted")).abs() < 3.0, "a sum, rounded: {limit}");
            assert!(number("used") + granted <= number("limit"), "{limit}");
        }
    }
    let of_month = cluster["allowances"].as_array().expect("a list").iter();
    let mut of_month = of_month.filter(|limit| limit["window"] == "month" && limit["measure"] == "tokens");
    let quota = of_month.next().expect("a quota");
    assert!(
        quota["granted"].as_f64() > Some(0.0),
        "requests that run are covered: {quota}"
    );
    let text = printed(asked, &["limits", "project", "standard_project"]);
    assert!(
        text.contains("granted in advance") && text.contains("tokens a month"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_answers_for_all_of_them_with_limits_in_postgresql() {
    let postgres = Postgres::start();
    any_gateway_answers_for_all(&["--database-url", &postgres.url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_answers_for_all_of_them_with_limits_in_redis() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    any_gateway_answers_for_all(&["--database-url", &postgres.url, "--cluster-url", &redis.url]).await;
}
