//! More than the upstream can take: who waits, who is refused, what gives way, and that nothing is lost.

#![allow(clippy::cast_precision_loss)]

use end_to_end::{Gateway, Simulated, as_admin, config_dir, with_model};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The repository's configuration, with a model at a simulated server of this test's and limits that only
/// the test's own edits tighten.
fn config(url: &str, places: usize, edit: impl Fn(&str, String) -> String) -> TempDir {
    config_dir(|name, text| {
        let text = match name {
            "models.yaml" => with_model(
                &text,
                "tested",
                "openai",
                url,
                &format!(", max_concurrent_requests: {places}"),
            ),
            "limits.yaml" => {
                let text = ["60", "300", "20"].iter().fold(text, |text, count| {
                    text.replace(
                        &format!("requests_per_minute: {count}\n"),
                        "requests_per_minute: 1000000\n",
                    )
                });
                ["250000", "500000", "200000"].iter().fold(text, |text, count| {
                    text.replace(
                        &format!("tokens_per_minute: {count}\n"),
                        "tokens_per_minute: 1000000000000\n",
                    )
                })
            }
            "projects.yaml" => ["5", "25", "3"].iter().fold(text, |text, count| {
                text.replace(
                    &format!("max_concurrent_requests: {count}\n"),
                    "max_concurrent_requests: 1000\n",
                )
            }),
            _ => text,
        };
        edit(name, text)
    })
}

fn chat(max_tokens: u64) -> Value {
    json!({"model": "tested", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": max_tokens})
}

async fn ask(gateway: &Gateway, user: &str, body: &Value) -> reqwest::Response {
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .header("x-sluice-user", user);
    request.json(body).send().await.expect("an answer")
}

/// From the request to the first piece of the answer; `None` if it was refused.
async fn first_token(gateway: &Gateway, user: &str) -> Option<Duration> {
    let mut body = chat(32);
    body["stream"] = true.into();
    let since = Instant::now();
    let answer = ask(gateway, user, &body).await;
    if answer.status() != 200 {
        assert!(answer.headers().contains_key("retry-after"), "{}", answer.status());
        return None;
    }
    let mut pieces = answer.bytes_stream();
    pieces.next().await.expect("a piece").expect("unbroken");
    let first = since.elapsed();
    let mut last = Vec::new();
    while let Some(piece) = pieces.next().await {
        last = piece.expect("unbroken").to_vec();
    }
    assert!(last.ends_with(b"data: [DONE]\n\n"));
    Some(first)
}

fn p95(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 95 / 100]
}

/// Keeps so many requests of one user under way until it is time to stop; the times to the first tokens, and
/// how many were offered.
async fn load(gateway: &Gateway, user: &str, at_once: usize, until: Instant) -> (Vec<Duration>, usize) {
    let workers: FuturesUnordered<_> = (0..at_once)
        .map(|_| async {
            let (mut times, mut offered) = (Vec::new(), 0);
            while Instant::now() < until {
                offered += 1;
                match first_token(gateway, user).await {
                    Some(time) => times.push(time),
                    None => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            (times, offered)
        })
        .collect();
    let all: Vec<(Vec<Duration>, usize)> = workers.collect().await;
    let offered = all.iter().map(|(_, offered)| offered).sum();
    (all.into_iter().flat_map(|(times, _)| times).collect(), offered)
}

#[tokio::test(flavor = "multi_thread")]
async fn vips_hardly_notice_three_times_the_load_and_nothing_is_lost() {
    // Twelve places of half a second each.
    let upstream = Simulated::start(&["tested=0.5"]);
    let dir = config(&upstream.url, 12, |name, text| match name {
        "limits.yaml" => format!("{text}\nreserved_active_requests: {{high: 3, normal: 0}}\n")
            .replace("max_active_requests: 50", "max_active_requests: 12"),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let (alone, offered_alone) = load(&gateway, "user_vip_01", 1, Instant::now() + Duration::from_secs(3)).await;
    let until = Instant::now() + Duration::from_secs(20);
    let ((vip, a), (standard, b), (batch, c)) = tokio::join!(
        load(&gateway, "user_vip_01", 3, until),
        load(&gateway, "user_standard_01", 20, until),
        load(&gateway, "user_batch_01", 13, until),
    );
    let (unloaded, loaded) = (p95(alone.clone()), p95(vip.clone()));
    assert!(
        loaded.as_secs_f64() <= unloaded.as_secs_f64() * 1.2 + 0.02,
        "vip waits {loaded:?} for its first token, alone {unloaded:?}"
    );
    assert!(!standard.is_empty() && !batch.is_empty(), "and nobody starves");
    let offered = offered_alone + a + b + c;
    let served = alone.len() + vip.len() + standard.len() + batch.len();
    let records = gateway.metric("sluice_requests_total{").await;
    assert!(
        (records - offered as f64).abs() < 0.5,
        "{records} records of {offered} requests"
    );
    let completed = gateway.metric("sluice_requests_total").await - gateway.metric("sluice_refusals_total{").await;
    assert!(
        (completed - served as f64).abs() < 0.5,
        "{completed} completed, {served} served"
    );
    let status = gateway.admin_json("/queue/status").await;
    assert_eq!(
        (&status["active_requests"], &status["queue_size"]),
        (&json!(0), &json!(0))
    );
    let limits = gateway.admin_json("/limits/project/vip_project").await;
    let reserved = limits["allowances"].as_array().expect("a list").iter();
    assert!(
        reserved
            .map(|one| &one["reserved"])
            .all(|reserved| reserved.as_f64() == Some(0.0)),
        "{limits}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_at_once_against_a_budget_for_fifty_exactly_fifty_pass() {
    // Long enough for all two hundred to have come before the first is settled.
    let upstream = Simulated::start(&["tested=1.5"]);
    let runs = std::env::var("SLUICE_RUNS").map_or(3, |runs| runs.parse().expect("a number"));
    for _ in 0..runs {
        let dir = config(&upstream.url, 500, |name, text| match name {
            "limits.yaml" => text.replace("max_active_requests: 50", "max_active_requests: 500"),
            // Fifty times 10 tokens of prompt (at four bytes of text each) at 0.001 and 4 of answer at 0.002 euros a thousand.
            "projects.yaml" => text.replace("monthly_budget_eur: 50\n", "monthly_budget_eur: 0.0009\n"),
            _ => text,
        });
        let gateway = Gateway::start_in(dir, &[]).await;
        let body = chat(4);
        let answers: FuturesUnordered<_> = (0..200).map(|_| ask(&gateway, "user_standard_01", &body)).collect();
        let answers: Vec<reqwest::Response> = answers.collect().await;
        let passed = answers.iter().filter(|answer| answer.status() == 200).count();
        assert_eq!(passed, 50);
        for refused in answers.into_iter().filter(|answer| answer.status() != 200) {
            assert_eq!(refused.status(), 429);
            assert!(refused.headers().contains_key("retry-after"));
            let body: Value = refused.json().await.expect("JSON");
            assert_eq!(
                (&body["error"]["type"], &body["error"]["code"]),
                (&json!("insufficient_quota"), &json!("budget_exceeded"))
            );
        }
        let limits = gateway.admin_json("/limits/project/standard_project").await;
        let budget = limits["allowances"].as_array().expect("a list").iter();
        let budget = budget.filter(|one| one["window"] == "month" && one["measure"] == "eur");
        let budget = budget.collect::<Vec<_>>()[0];
        assert_eq!(budget["reserved"], 0.0, "{budget}");
        assert!(budget["used"].as_f64() <= budget["limit"].as_f64(), "{budget}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_rate_in_bursts_passes_the_limit_and_the_burst() {
    let upstream = Simulated::start(&["tested=0"]);
    let dir = config(&upstream.url, 500, |name, text| match name {
        "limits.yaml" => format!("{text}\nuser_limits: {{user_vip_01: {{requests_per_minute: 120}}}}\n")
            .replace("max_active_requests: 50", "max_active_requests: 500"),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let body = chat(1);
    let since = Instant::now();
    let (mut passed, mut last_passed) = (0u32, Duration::ZERO);
    while since.elapsed() < Duration::from_secs(6) {
        let burst: FuturesUnordered<_> = (0..40).map(|_| ask(&gateway, "user_vip_01", &body)).collect();
        let answers: Vec<reqwest::Response> = burst.collect().await;
        passed += u32::try_from(answers.iter().filter(|answer| answer.status() == 200).count()).expect("few");
        last_passed = since.elapsed();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let most = 120.0 + last_passed.as_secs_f64() * 2.0 + 1.0;
    let share = f64::from(passed) / most;
    assert!((0.97..=1.0).contains(&share), "{passed} of {most} passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_generate_is_polled_with_its_position_and_can_be_cancelled() {
    let upstream = Simulated::start(&["tested=1"]);
    let dir = config(&upstream.url, 1, |_, text| text);
    let gateway = Gateway::start_in(dir, &[]).await;
    let body = json!({"user_id": "user_standard_01", "project_id": "standard_project", "model": "tested", "prompt": "x", "max_tokens": 4});
    let running = gateway.post("/generate", &body);
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut queued = Vec::new();
        for _ in 0..2 {
            let answer: Value = gateway.post("/generate", &body).await.json().await.expect("JSON");
            assert_eq!(answer["status"], "queued");
            assert_eq!(answer["message"], "Request queued for background processing");
            assert_eq!(answer["estimated_output_tokens"], 4);
            queued.push(answer["request_id"].as_str().expect("an id").to_owned());
        }
        queued
    };
    let (running, queued) = tokio::join!(running, later);
    assert_eq!(running.json::<Value>().await.expect("JSON")["status"], "completed");
    let poll = |id: String| {
        let request = gateway.http.get(format!("{}/requests/{id}", gateway.proxy));
        async move {
            request
                .send()
                .await
                .expect("an answer")
                .json::<Value>()
                .await
                .expect("JSON")
        }
    };
    let second = poll(queued[1].clone()).await;
    assert_eq!(second["status"], "queued", "{second}");
    assert!(
        second["position"].as_u64().is_some_and(|position| position >= 1),
        "{second}"
    );
    assert!(second["expected_wait_seconds"].as_f64().is_some(), "{second}");
    let waiting = gateway.admin_json("/queue").await;
    assert_eq!(waiting["by_priority"]["normal"], 1, "{waiting}");
    assert_eq!(waiting["waiting"][0]["project_id"], "standard_project");
    let cancel = gateway.http.delete(format!("{}/requests/{}", gateway.proxy, queued[1]));
    assert_eq!(cancel.send().await.expect("an answer").status(), 200);
    let done = end_to_end::wait_for("end of both", || async {
        let (first, second) = (poll(queued[0].clone()).await, poll(queued[1].clone()).await);
        (first["status"] == "completed" && second["status"] == "cancelled").then_some(first)
    })
    .await;
    assert!(done["message"].as_str().is_some_and(|text| !text.is_empty()), "{done}");
    let records = gateway.wait_for_records(3).await;
    assert_eq!(records.len(), 3, "one record each");
    assert_eq!(
        records.iter().filter(|record| record["status"] == "cancelled").count(),
        1
    );
    assert_eq!(poll("never-seen".to_owned()).await["status"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_can_be_cancelled_by_its_id_and_stops_the_upstream() {
    let upstream = Simulated::start(&["tested=20"]);
    let gateway = Gateway::start_in(config(&upstream.url, 2, |_, text| text), &[]).await;
    let mut body = chat(500);
    body["stream"] = true.into();
    let answer = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-sluice-request-id"]
        .to_str()
        .expect("text")
        .to_owned();
    let cancel = gateway.http.delete(format!("{}/requests/{id}", gateway.admin));
    assert_eq!(as_admin(cancel).await.status(), 200);
    // It ends with an error event, and without a clean end.
    assert!(answer.text().await.is_err(), "no clean end of the body");
    end_to_end::wait_for("abort", || async {
        (upstream.metric("simulated_requests_aborted_total").await > 0.5).then_some(())
    })
    .await;
    let record = gateway.records().await.remove(0);
    assert_eq!(
        (&record["status"], &record["reason"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn under_pressure_answers_shrink_and_say_so() {
    let upstream = Simulated::start(&["tested=2"]);
    let dir = config(&upstream.url, 1, |name, text| match name {
        "limits.yaml" => text.replace("max_queue_size: 1000", "max_queue_size: 10"),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let body = chat(100);
    let crowd: FuturesUnordered<_> = (0..7).map(|_| ask(&gateway, "user_vip_01", &body)).collect();
    let probe = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = gateway.admin_json("/queue/status").await;
        assert_eq!(status["current_degradation_level"], "soft_pressure", "{status}");
        assert_eq!(status["degradation_actions"], json!(["reduce_max_tokens: 0.75"]));
        let mut late = chat(8);
        late["max_tokens"] = 8.into();
        ask(&gateway, "user_vip_01", &late).await
    };
    let (crowd, late) = tokio::join!(crowd.collect::<Vec<_>>(), probe);
    assert!(crowd.iter().all(|answer| answer.status() == 200));
    assert_eq!(
        late.headers()["x-sluice-degraded"],
        "soft_pressure; reduce_max_tokens=6"
    );
    let answer: Value = late.json().await.expect("JSON");
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    let record = gateway.records().await;
    let degraded = record
        .iter()
        .filter(|record| record["degraded"] == "soft_pressure; reduce_max_tokens=6");
    assert_eq!(degraded.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_goes_on_after_a_restart_where_it_was() {
    let upstream = Simulated::start(&["tested=0"]);
    let dir = config(&upstream.url, 5, |_, text| text);
    let mut gateway = Gateway::start_in(dir, &[]).await;
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "user_standard_01", &chat(4)).await.status(), 200);
    }
    let used = |limits: &Value| {
        let all = limits["allowances"].as_array().expect("a list").clone();
        all.into_iter().map(|one| one["used"].clone()).collect::<Vec<_>>()
    };
    let before = used(&gateway.admin_json("/limits/project/standard_project").await);
    assert_eq!(before[1], 3, "three requests today: {before:?}");
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    let again = TempDir::new().expect("a directory");
    for part in ["config", "data"] {
        std::fs::rename(gateway.dir.path().join(part), again.path().join(part)).expect("moved");
    }
    let gateway = Gateway::start_in(again, &[]).await;
    assert_eq!(
        used(&gateway.admin_json("/limits/project/standard_project").await),
        before
    );
}

/// A server that runs eight requests at once and keeps the rest in a queue of its own, which its metrics show.
const EIGHT_AT_ONCE: &str = "weights_ms: 5\ntoken_ms: 0.01\ncontext_ms: 0.00001\nattention_ms: 0.000001\n\
    sequence_ms: 0.01\napi_ms: 1\nkv_tokens: 100000\nmax_sequences: 8\ntoken_budget: 2048\n";

#[tokio::test(flavor = "multi_thread")]
async fn auto_gives_a_server_what_it_runs_at_once_and_keeps_the_queue_in_the_gateway() {
    let profiles = tempfile::tempdir().expect("a directory");
    let profile = profiles.path().join("eight.yaml");
    std::fs::write(&profile, EIGHT_AT_ONCE).expect("written");
    let upstream = Simulated::start(&[&format!("tested={}", profile.display())]);
    let dir = config(&upstream.url, 4, |name, text| match name {
        "models.yaml" => text.replace("max_concurrent_requests: 4", "max_concurrent_requests: auto"),
        "gateway.yaml" => text.replace("interval_seconds: 0", "interval_seconds: 0.25"),
        "limits.yaml" => text.replace("max_active_requests: 50", "max_active_requests: 500"),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let until = Instant::now() + Duration::from_secs(15);
    let samples = async {
        let mut samples = Vec::new();
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let slots = gateway.metric("sluice_model_places{model=\"tested\"}").await;
            let waiting = upstream.metric("vllm:num_requests_waiting").await;
            samples.push((slots, waiting));
        }
        samples
    };
    // Answers that come in one piece show no time to first token: only the server's metrics tell of its queue.
    let clients: FuturesUnordered<_> = (0..48)
        .map(|_| async {
            while Instant::now() < until {
                let answer = ask(&gateway, "user_standard_01", &chat(32)).await;
                assert_eq!(answer.status(), 200, "none is refused");
                answer.bytes().await.expect("unbroken");
            }
        })
        .collect();
    let (_, samples) = tokio::join!(clients.collect::<Vec<()>>(), samples);
    let later = &samples[samples.len() / 2..];
    let mean = |value: &dyn Fn(&(f64, f64)) -> f64| later.iter().map(value).sum::<f64>() / later.len() as f64;
    let (slots, waiting) = (mean(&|(slots, _)| *slots), mean(&|(_, waiting)| *waiting));
    assert!((6.0..=16.0).contains(&slots), "{slots} slots for 8: {samples:?}");
    assert!(waiting <= 8.0, "{waiting} of 48 wait in the server: {samples:?}");
}
