//! Kills at random moments, and a database that goes away: nothing acknowledged is lost, nothing is doubled, sums are
//! right. With SQLite and with PostgreSQL. `SLUICE_RUNS=50` kills as often as a release should stand.

use end_to_end::postgres::Postgres;
use end_to_end::silent_proxy::SilentProxy;
use end_to_end::{Gateway, as_admin, config_dir, roomy, sluice, wait_for};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

fn chat(max_tokens: u64) -> Value {
    json!({"model": "simulated-small", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": max_tokens})
}

/// No latency, so that there are many records soon.
fn fast() -> TempDir {
    config_dir(|name, text| match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0"),
        // Gateways that share a database share the rates of a plan.
        "limits.yaml" => roomy(name, text).replace("requests_per_minute: 300\n", "requests_per_minute: 1000000\n"),
        _ => roomy(name, text),
    })
}

/// Asks until the gateway is gone: streams, plain requests and refusals; the ids of those that were acknowledged.
async fn ask_until_gone(http: reqwest::Client, url: String, name: String) -> Vec<String> {
    let mut ids = Vec::new();
    for at in 0.. {
        let id = format!("{name}-{at}");
        let mut body = chat(3);
        body["stream"] = (at % 2 == 0).into();
        if at % 7 == 0 {
            body["model"] = "nowhere".into();
        }
        let answer = http.post(&url).header("x-request-id", &id).json(&body).send().await;
        let Ok(answer) = answer else { break };
        let Ok(text) = answer.text().await else { break };
        // A stream that ended without its end was not acknowledged.
        if text.starts_with("data:") && !text.ends_with("data: [DONE]\n\n") {
            break;
        }
        ids.push(id);
    }
    ids
}

/// Kills the gateway again and again under load, then compares what was acknowledged with what `kept` finds.
async fn kills(flags: &[&str], kept: impl Fn(&Gateway) -> Vec<String>) {
    let mut dir = fast();
    let mut acknowledged: Vec<String> = Vec::new();
    let runs = std::env::var("SLUICE_RUNS").map_or(6, |runs| runs.parse().expect("a number"));
    for run in 0..runs {
        let mut gateway = Gateway::start_in(dir, flags).await;
        let url = format!("{}/v1/chat/completions", gateway.proxy);
        let workers: Vec<_> = (0..8u64)
            .map(|worker| {
                tokio::spawn(ask_until_gone(
                    gateway.http.clone(),
                    url.clone(),
                    format!("run-{run}-{worker}"),
                ))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300 + run * 137 % 900)).await;
        gateway.signal("KILL");
        for worker in workers {
            acknowledged.extend(worker.await.expect("no panic"));
        }
        assert_eq!(gateway.ended().await, None, "killed");
        dir = gateway.left();
    }
    let gateway = Gateway::start_in(dir, flags).await;
    agree(&gateway, flags, &acknowledged, &kept(&gateway)).await;
}

async fn agree(gateway: &Gateway, flags: &[&str], acknowledged: &[String], kept: &[String]) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for id in kept {
        *counts.entry(id).or_default() += 1;
    }
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !counts.contains_key(id.as_str()))
        .collect();
    assert!(
        acknowledged.len() > 100,
        "only {} were acknowledged",
        acknowledged.len()
    );
    assert!(
        lost.is_empty(),
        "{} of {} are lost: {:?}",
        lost.len(),
        acknowledged.len(),
        &lost[..lost.len().min(5)]
    );
    assert!(counts.values().all(|count| *count == 1), "none is doubled");
    let summary = gateway.admin_json("/usage/summary").await;
    assert_eq!(summary["total_records"], kept.len());
    let verified = sluice(gateway.dir.path(), &[&["ledger", "verify"], flags].concat());
    assert!(verified.status.success(), "{verified:?}");
    let limits = gateway.admin_json("/limits/project/standard_project").await;
    let used = limits["allowances"][3]["used"].as_u64().expect("tokens a month");
    let project = gateway.admin_json("/usage/project/standard_project").await;
    assert_eq!(project["total_tokens"], used, "counters equal sums");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_lose_nothing_double_nothing_and_leave_sums_right() {
    kills(&[], |gateway| {
        let script = "import json, sqlite3; c = sqlite3.connect('data/usage.db'); \
            print(json.dumps([row[0] for row in c.execute('SELECT client_request_id FROM requests')]))";
        let mut python = Command::new("python3");
        let output = python
            .args(["-c", script])
            .current_dir(gateway.dir.path())
            .output()
            .expect("python runs");
        serde_json::from_slice(&output.stdout).expect("a list")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_with_postgresql_lose_nothing_either() {
    let postgres = Postgres::start();
    kills(&["--database-url", &postgres.url], |_| {
        postgres.column("SELECT client_request_id FROM requests")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_while_postgresql_is_unreachable_and_their_records_follow() {
    let mut postgres = Postgres::start();
    let url = postgres.url.clone();
    let flags = ["--database-url", &url];
    let gateway = Gateway::start_in(fast(), &flags).await;
    let ready = || async {
        let answer = gateway
            .http
            .get(format!("{}/ready", gateway.admin))
            .send()
            .await
            .expect("an answer");
        answer.status().as_u16()
    };
    assert_eq!(ready().await, 200);
    let mut ids = Vec::new();
    let ask = |id: String| {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .header("x-request-id", &id)
            .json(&chat(3));
        async move { (id, request.send().await.expect("an answer").status().as_u16()) }
    };
    for at in 0..60 {
        if at == 20 {
            postgres.stop();
        }
        let (id, status) = ask(format!("away-{at}")).await;
        assert_eq!(status, 200, "{id}");
        ids.push(id);
    }
    wait_for("trouble", || async { (ready().await == 503).then_some(()) }).await;
    postgres.run();
    wait_for("recovery", || async { (ready().await == 200).then_some(()) }).await;
    for at in 60..120 {
        ids.push(ask(format!("away-{at}")).await.0);
    }
    wait_for("records", || async {
        (postgres.column("SELECT count(*) FROM requests") == ["120"]).then_some(())
    })
    .await;
    agree(
        &gateway,
        &flags,
        &ids,
        &postgres.column("SELECT client_request_id FROM requests"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_share_a_database_know_each_others_keys_and_sums() {
    let postgres = Postgres::start();
    let flags = ["--database-url", &postgres.url, "--identity", "keys"];
    let one = Gateway::start_in(fast(), &flags).await;
    let two = Gateway::start_in(fast(), &flags).await;
    let make = one
        .http
        .post(format!("{}/keys", one.admin))
        .json(&json!({"user": "user_vip_01"}));
    let made: Value = as_admin(make).await.json().await.expect("JSON");
    let (id, secret) = (
        made["id"].as_str().expect("an id"),
        made["secret"].as_str().expect("a secret"),
    );
    let ask = |gateway: &Gateway| {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .bearer_auth(secret)
            .json(&chat(3));
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    wait_for("the key at the other gateway", || async {
        (ask(&two).await == 200).then_some(())
    })
    .await;
    for _ in 0..200 {
        let (a, b) = tokio::join!(ask(&one), ask(&two));
        assert_eq!((a, b), (200, 200));
    }
    one.admin_json("/usage/summary").await;
    let both = wait_for("all sums", || async {
        let usage = two.admin_json(&format!("/usage/key/{id}")).await;
        (usage["total_records"].as_u64() >= Some(401)).then_some(usage)
    })
    .await;
    assert_eq!(
        both["total_records"].as_u64(),
        both["records_by_status"]["completed"].as_u64()
    );
    let revoke = two.http.delete(format!("{}/keys/{id}", two.admin));
    assert_eq!(as_admin(revoke).await.status(), 200);
    wait_for("the end of the key", || async {
        (ask(&one).await == 401).then_some(())
    })
    .await;
    let verified = sluice(one.dir.path(), &["ledger", "verify", "--database-url", &postgres.url]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_keys_and_jobs_get_through_again_when_all_connections_to_postgresql_have_gone_silent() {
    let postgres = Postgres::start();
    let server = postgres.url.split(['@', '/']).nth(3).expect("an address").to_owned();
    let proxy = SilentProxy::start(server.clone()).await;
    let url = postgres.url.replace(&server, &proxy.address);
    let gateway = Gateway::start_in(fast(), &["--database-url", &url]).await;
    let ask = || {
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .json(&chat(3));
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(ask().await, 200);
    let in_database = || postgres.column("SELECT count(*) FROM requests")[0].clone();
    wait_for("the first record", || async { (in_database() == "1").then_some(()) }).await;
    assert!(proxy.silence() > 0, "the gateway has connections");
    for _ in 0..20 {
        assert_eq!(ask().await, 200, "requests do not wait for the database");
    }
    // Every statement has a limit, the longest of 20 s; then a new connection is made.
    for _ in 0..600 {
        if in_database() == "21" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(in_database(), "21");
    wait_for("readiness", || async {
        let answer = gateway.http.get(format!("{}/ready", gateway.admin)).send().await;
        (answer.expect("an answer").status() == 200).then_some(())
    })
    .await;
}
