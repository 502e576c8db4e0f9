//! One gateway takes another's place while requests run: none fails, none is lost, none is counted twice.

use end_to_end::{Ends, Gateway, as_admin, config_dir, program, roomy, run};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn addresses(dir: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(dir.join("data/sluice.addr")).ok()?).ok()
}

/// Starts a gateway that takes the other's place, and waits until it has.
async fn upgrade(dir: &Path, admin: &str, number: usize) -> Ends {
    let log = std::fs::File::create(dir.join(format!("sluice.{number}.log"))).expect("writable");
    let child = Command::new(program("sluice"))
        .args(["serve", "--upgrade", "--admin-listen", admin])
        .env("SLUICE_ADMIN_TOKEN", "admin-of-the-test")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("sluice starts");
    let mut newer = Ends(child);
    let child = &mut newer.0;
    let give_up = Instant::now() + Duration::from_secs(30);
    while addresses(dir).is_none_or(|addresses| addresses["pid"] != child.id()) {
        let log = || std::fs::read_to_string(dir.join(format!("sluice.{number}.log"))).unwrap_or_default();
        assert!(
            child.try_wait().expect("a child").is_none(),
            "upgrade {number} ended: {}",
            log()
        );
        assert!(Instant::now() < give_up, "upgrade {number} is not ready: {}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    newer
}

async fn ended(newer: &mut Ends) -> Option<i32> {
    let child = &mut newer.0;
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        assert!(Instant::now() < give_up, "the gateway before does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until told to stop; streams and whole answers, on connections that are kept.
async fn ask(proxy: String, streams: bool, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Result<(), String> {
    let http = reqwest::Client::new();
    let body = json!({
        "model": "simulated-small", "stream": streams, "max_tokens": 16,
        "messages": [{"role": "user", "content": "Hello"}],
    });
    while !stop.load(Relaxed) {
        let sent = http
            .post(format!("{proxy}/v1/chat/completions"))
            .header("x-sluice-user", "user_standard_01")
            .json(&body)
            .send()
            .await;
        let answer = sent.map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        let is_whole = if streams {
            text.contains("[DONE]")
        } else {
            text.contains("\"usage\"")
        };
        if status != 200 || !is_whole {
            return Err(format!("{status}: {text}"));
        }
        done.fetch_add(1, Relaxed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_upgrades_under_load_lose_no_request() {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 0.05"),
        "gateway.yaml" => text.replace("drain_seconds: 30", "drain_seconds: 3"),
        _ => roomy(name, text),
    });
    let mut first = Gateway::start_in(dir, &[]).await;
    let admin = first.admin.trim_start_matches("http://").to_owned();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = (0..8)
        .map(|number| {
            tokio::spawn(ask(
                first.proxy.clone(),
                number % 2 == 0,
                Arc::clone(&stop),
                Arc::clone(&done),
            ))
        })
        .collect();
    let mut newest: Option<Ends> = None;
    for number in 1..=10 {
        let before = done.load(Relaxed);
        let newer = upgrade(first.dir.path(), &admin, number).await;
        let code = match &mut newest {
            Some(older) => ended(older).await,
            None => first.ended().await,
        };
        assert_eq!(code, Some(0), "the gateway before upgrade {number}");
        newest = Some(newer);
        assert!(done.load(Relaxed) > before, "requests went on");
    }
    stop.store(true, Relaxed);
    for asking in asking {
        assert_eq!(asking.await.expect("no panic"), Ok(()));
    }
    let done = done.load(Relaxed);
    assert!(done > 500, "there was load: {done}");
    // Exactly one record a request, over eleven gateways.
    let summary = as_admin(first.http.get(format!("{}/usage/summary", first.admin))).await;
    let summary: Value = summary.json().await.expect("JSON");
    assert_eq!(summary["total_records"], done, "{summary}");
    assert_eq!(summary["records_by_status"], json!({"completed": done}));
    let dir = first.dir.path().to_owned();
    let verified = tokio::task::spawn_blocking(move || run("sluice", &dir, &["ledger", "verify"])).await;
    assert!(verified.expect("no panic").status.success());
    let mut last = newest.expect("the newest");
    Command::new("kill")
        .args(["-TERM", &last.0.id().to_string()])
        .status()
        .expect("kill");
    assert_eq!(ended(&mut last).await, Some(0));
    assert!(
        addresses(first.dir.path()).is_none(),
        "the last one takes its address with it"
    );
}

#[tokio::test]
async fn what_waits_in_the_old_gateway_is_done_by_the_new_one() {
    let dir = config_dir(|name, text| match name {
        "limits.yaml" => roomy(name, text).replace("max_active_requests: 2000", "max_active_requests: 1"),
        "models.yaml" => text.replace("average_latency_seconds: 2.0", "average_latency_seconds: 1.0"),
        "gateway.yaml" => text.replace("drain_seconds: 30", "drain_seconds: 3"),
        _ => roomy(name, text),
    });
    let mut first = Gateway::start_in(dir, &[]).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let body = json!({"user_id": "user_vip_01", "model": "simulated-large", "prompt": "x", "max_tokens": 8});
        let http = first.http.clone();
        let url = format!("{}/generate", first.proxy);
        ids.push(tokio::spawn(async move {
            let answer = http.post(url).json(&body).send().await.expect("an answer");
            let answer: Value = answer.json().await.expect("JSON");
            let id = answer["request_id"].as_str().expect("an id").to_owned();
            // One was answered at once.
            (answer["status"] == "queued").then_some(id)
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let admin = first.admin.trim_start_matches("http://").to_owned();
    let _second = upgrade(first.dir.path(), &admin, 1).await;
    assert_eq!(first.ended().await, Some(0));
    for id in ids {
        let Some(id) = id.await.expect("no panic") else {
            continue;
        };
        let url = format!("{}/requests/{id}", first.proxy);
        end_to_end::wait_for("the end of what was queued", || async {
            let status = first
                .http
                .get(&url)
                .header("x-sluice-user", "user_vip_01")
                .send()
                .await
                .ok()?;
            let status: Value = status.json().await.ok()?;
            (status["status"] == "completed").then_some(())
        })
        .await;
    }
    let records = first.wait_for_records(6).await;
    assert_eq!(records.len(), 6, "each once");
}

#[tokio::test]
async fn a_second_gateway_and_an_upgrade_of_none_are_refused() {
    let first = Gateway::start().await;
    let dir = first.dir.path().to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let again = run("sluice", &dir, &[&["serve"][..], &free].concat());
        let other = config_dir(roomy);
        let nobody = run("sluice", other.path(), &[&["serve", "--upgrade"][..], &free].concat());
        (again, nobody)
    });
    let (again, nobody) = told.await.expect("no panic");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        again.status.code() == Some(1) && said.contains("another gateway"),
        "{said}"
    );
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(
        nobody.status.code() == Some(1) && said.contains("start without --upgrade"),
        "{said}"
    );
    // The one that runs has noticed nothing.
    let body = json!({"user_id": "user_vip_01", "model": "simulated-small", "prompt": "x", "max_tokens": 8});
    assert_eq!(first.post("/generate", &body).await.status(), 200);
}

#[tokio::test]
async fn what_the_old_gateway_finishes_counts_for_the_quotas_of_the_new_one() {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => text.replace("average_latency_seconds: 2.0", "average_latency_seconds: 3.0"),
        "gateway.yaml" => text.replace("drain_seconds: 30", "drain_seconds: 6"),
        _ => roomy(name, text),
    });
    let mut first = Gateway::start_in(dir, &[]).await;
    let ask = |model: &str| {
        let body = json!({"user_id": "user_vip_01", "model": model, "prompt": "x", "max_tokens": 8});
        first.http.post(format!("{}/generate", first.proxy)).json(&body).send()
    };
    // One that outlives the hand-over, begun before others that are in the ledger by then.
    let long = tokio::spawn(ask("simulated-large"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..3 {
        assert_eq!(ask("simulated-small").await.expect("an answer").status(), 200);
    }
    let admin = first.admin.trim_start_matches("http://").to_owned();
    let _second = upgrade(first.dir.path(), &admin, 1).await;
    assert_eq!(ask("simulated-small").await.expect("an answer").status(), 200);
    assert_eq!(long.await.expect("no panic").expect("an answer").status(), 200);
    assert_eq!(first.ended().await, Some(0));
    let used = end_to_end::wait_for("all of it to count", || async {
        let standing = first.admin_json("/limits/project/vip_project").await;
        let ledger = first.admin_json("/usage/project/vip_project").await;
        let counted = standing["allowances"]
            .as_array()?
            .iter()
            .find(|one| one["window"] == "month" && one["measure"] == "tokens")?;
        (ledger["total_records"] == 5 && counted["used"] == ledger["total_tokens"]).then(|| counted["used"].as_u64())
    })
    .await;
    assert!(used > Some(0));
}
