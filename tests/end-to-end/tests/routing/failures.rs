//! What happens when a server fails, and who comes in its place.

use super::{WAYS, asking, at, failing, until_it_ends, well};
use end_to_end::upstream::{Scripted, WHOLE, delta};
use end_to_end::{Gateway, Simulated, config_dir, roomy, wait_for, with_model};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
#[tokio::test]
async fn a_failing_server_is_followed_by_another_without_an_error_for_the_client() {
    let well = well().await;
    for way in WAYS {
        let bad = failing(way).await;
        let timeouts = "    timeouts: {first_token_seconds: 0.3, gap_seconds: 1, total_seconds: 5}\n";
        let gateway = at(&[&bad.url, &well.url], timeouts, "").await;
        for number in 0..8 {
            let mut body = asking(&format!("{number}"));
            // An answer that is not streamed may take as long as it likes, up to the whole deadline.
            body["stream"] = (*way == "hangs").into();
            let answer = gateway.post("/v1/chat/completions", &body).await;
            assert_eq!(answer.status(), 200, "{way}");
            assert!(answer.text().await.expect("whole").contains("hello"), "{way}");
        }
        let records = gateway.records().await;
        assert_eq!(records.len(), 8, "{way}: one record a request");
        assert!(
            records
                .iter()
                .all(|record| record["status"] == "completed" && record["input_tokens"] == 11)
        );
        assert!(
            gateway.metric("sluice_active_requests").await < 0.5,
            "{way}: no permit is left"
        );
        let upstreams = gateway.admin_json("/upstreams").await;
        let of = |url: &str| {
            let all = upstreams["upstreams"].as_array().expect("a list").iter();
            let name = url.trim_start_matches("http://");
            all.clone().find(|one| one["upstream"] == name).expect("known").clone()
        };
        assert_eq!(of(&well.url)["active_requests"], 0);
        assert_eq!(of(&bad.url)["outstanding_tokens"], 0, "{way}");
    }
}

#[tokio::test]
async fn a_server_alone_that_fails_in_any_way_gives_a_clean_error_and_everything_comes_back() {
    for way in WAYS {
        for is_streaming in [false, true] {
            let bad = failing(way).await;
            let timeouts = "    timeouts: {first_token_seconds: 0.5, gap_seconds: 0.5, total_seconds: 1}\n";
            let gateway = at(&[&bad.url], timeouts, "").await;
            let mut body = asking("hi");
            body["stream"] = is_streaming.into();
            let answer = gateway.post("/v1/chat/completions", &body).await;
            let status = answer.status().as_u16();
            assert!(matches!(status, 502..=504), "{way}: {status}");
            assert_eq!(answer.headers().contains_key("retry-after"), status == 503, "{way}");
            if *way == "429" {
                assert_eq!(answer.headers()["retry-after"], "7", "what it says is passed on");
            }
            let answer: Value = answer.json().await.expect("JSON");
            assert!(answer["error"]["message"].is_string(), "{way}");
            assert_eq!(gateway.records().await.len(), 1, "{way}");
            assert!(gateway.metric("sluice_active_requests").await < 0.5, "{way}");
        }
    }
}

#[tokio::test]
async fn of_a_thousand_requests_at_most_one_is_lost_while_a_server_flaps() {
    let is_up = Arc::new(AtomicBool::new(true));
    let up = Arc::clone(&is_up);
    let flapping = Scripted::start(move |mut connection| {
        let up = Arc::clone(&up);
        async move {
            while up.load(Relaxed) && connection.read_request().await {
                if !up.load(Relaxed) {
                    return;
                }
                connection.answer("200 OK", WHOLE).await;
            }
        }
    })
    .await;
    let well = well().await;
    let health = "  rest_seconds: 0.1\n  longest_rest_seconds: 0.3\n  slow_start_seconds: 0.5\n";
    let gateway = Arc::new(at(&[&flapping.url, &well.url], "", health).await);
    let flaps = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            is_up.fetch_xor(true, Relaxed);
        }
    });
    let lost = Arc::new(AtomicUsize::new(0));
    let clients = (0..20).map(|client| {
        let (gateway, lost) = (Arc::clone(&gateway), Arc::clone(&lost));
        tokio::spawn(async move {
            for number in 0..100 {
                let answer = gateway
                    .post("/v1/chat/completions", &asking(&format!("{client} {number}")))
                    .await;
                if answer.status() != 200 {
                    lost.fetch_add(1, Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    });
    for client in clients {
        client.await.expect("no panic");
    }
    flaps.abort();
    assert!(lost.load(Relaxed) <= 2, "{} of 2000 lost", lost.load(Relaxed));
    let through = flapping.requests.lock().expect("no panic").len();
    assert!(through > 50, "the flapping one was used: {through}");
    assert_eq!(gateway.admin_json("/usage/summary").await["total_records"], 2000);
}

#[tokio::test]
async fn after_consecutive_failures_a_server_gets_no_requests_and_clients_get_a_retry_after() {
    let (bad, worse) = (failing("500").await, failing("500").await);
    let gateway = at(
        &[&bad.url, &worse.url],
        "",
        "  failures: 3\n  rest_seconds: 60\n  longest_rest_seconds: 60\n",
    )
    .await;
    for _ in 0..3 {
        let answer = gateway.post("/v1/chat/completions", &asking("hi")).await;
        assert_eq!(answer.status(), 502);
    }
    let answer = gateway.post("/v1/chat/completions", &asking("hi")).await;
    assert_eq!(answer.status(), 503);
    let after: u64 = answer.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("seconds");
    assert!((50..=76).contains(&after), "{after}");
    for server in [&bad, &worse] {
        assert_eq!(server.requests.lock().expect("no panic").len(), 3, "it is left alone");
    }
    let upstreams = gateway.admin_json("/upstreams").await;
    assert_eq!(upstreams["upstreams"][1]["breaker"], "open", "{upstreams}");
    let name = format!(
        "sluice_upstream_healthy{{upstream=\"{}\"}}",
        bad.url.trim_start_matches("http://")
    );
    assert!(gateway.metric(&name).await < 0.5);
}

#[tokio::test]
async fn a_sole_server_is_asked_again_whatever_it_answers() {
    let bad = failing("500").await;
    let gateway = at(&[&bad.url], "", "  failures: 3\n  rest_seconds: 60\n").await;
    for _ in 0..8 {
        let answer = gateway.post("/v1/chat/completions", &asking("hi")).await;
        assert_eq!(answer.status(), 502, "its own answer, never a 503 of the gateway's");
    }
    assert_eq!(bad.requests.lock().expect("no panic").len(), 8);
}

#[tokio::test]
async fn an_unreachable_server_is_detected_without_requests_and_used_again_afterwards() {
    let upstream = Simulated::start(&["tested=0"]);
    let address = upstream.url.clone();
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &address, ""),
        "gateway.yaml" => text.replace("interval_seconds: 0", "interval_seconds: 0.1\n  timeout_seconds: 1"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let name = format!(
        "sluice_upstream_healthy{{upstream=\"{}\"}}",
        address.trim_start_matches("http://")
    );
    assert!(gateway.metric(&name).await > 0.5);
    drop(upstream);
    wait_for("notice", || async { (gateway.metric(&name).await < 0.5).then_some(()) }).await;
    let answer = gateway.post("/v1/chat/completions", &asking("hi")).await;
    assert_eq!(answer.status(), 503);
    let listen = address.trim_start_matches("http://").to_owned();
    let _again = Simulated::start_at(&listen, &["tested=0"]);
    wait_for("return", || async { (gateway.metric(&name).await > 0.5).then_some(()) }).await;
    let answer = gateway.post("/v1/chat/completions", &asking("hi")).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn fallbacks_answer_in_their_order_while_a_models_servers_fail_and_are_billed_as_what_they_are() {
    let bad = failing("500").await;
    let more = "    fallbacks: [ollama-llama, simulated-small]\n";
    let gateway = at(&[&bad.url], more, "").await;
    for (path, body) in [
        ("/v1/chat/completions", asking("hi")),
        ("/v1/messages", asking("hi")),
        (
            "/api/chat",
            json!({"model": "tested", "messages": [{"role": "user", "content": "hi"}], "stream": false}),
        ),
        (
            "/generate",
            json!({"user_id": "user_vip_01", "project_id": "vip_project", "model": "tested", "prompt": "hi"}),
        ),
    ] {
        let answer = gateway.post(path, &body).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(
            answer.headers()["x-sluice-model"],
            "simulated-small",
            "the disabled one is passed over"
        );
    }
    let records = gateway.records().await;
    assert_eq!(records.len(), 4);
    for record in &records {
        let names = (&record["requested_model"], &record["model"], &record["status"]);
        assert_eq!(
            names,
            (&json!("tested"), &json!("simulated-small"), &json!("completed"))
        );
    }
    // Each attempt took one request of the minute's, not two.
    let limits = gateway.admin_json("/limits/project/vip_project").await;
    let used = limits["rates"]
        .as_array()
        .expect("rates")
        .iter()
        .find(|rate| rate["counted"] == "requests_per_minute");
    if let Some(rate) = used {
        let used = rate["limit"].as_u64().expect("a limit") - rate["remaining"].as_u64().expect("what is left");
        assert!(used <= 1, "{limits}");
    }
    assert!(gateway.metric("sluice_active_requests").await < 0.5);
}

#[tokio::test]
async fn a_stream_that_has_begun_is_never_begun_again_elsewhere() {
    let breaks = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.begin_stream().await;
        connection.chunk(&delta("x")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let gateway = at(&[&breaks.url], "    fallbacks: [simulated-small]\n", "").await;
    let mut body = asking("hi");
    body["stream"] = true.into();
    let text = until_it_ends(&gateway, &body).await;
    assert!(
        text.contains("\"content\":\"x\"") && text.contains("upstream_error"),
        "{text}"
    );
    assert!(!text.contains("[DONE]"));
    assert_eq!(gateway.wait_for_records(1).await[0]["model"], "tested");
}
