//! Several servers for a model: which one is asked, what happens when one fails, and who comes in its place.

use end_to_end::upstream::{FINISH, Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, Simulated, as_admin, config_dir, roomy, wait_for, with_model};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

fn asking(text: &str) -> Value {
    json!({"model": "tested", "messages": [{"role": "user", "content": text}], "max_tokens": 10})
}

/// A gateway whose model `tested` is at several servers.
async fn at(urls: &[&str], more: &str, gateway_yaml: &str) -> Gateway {
    let others: Vec<String> = urls[1..]
        .iter()
        .map(|url| format!("}}, {{base_url: \"{url}\""))
        .collect();
    let others = others.concat();
    let dir = config_dir(|name, text| match name {
        "models.yaml" => format!("{}{more}", with_model(&text, "tested", "openai", urls[0], &others)),
        "gateway.yaml" => format!("{text}{gateway_yaml}"),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// All that comes of a stream, be its end a clean one or not.
async fn until_it_ends(gateway: &Gateway, body: &Value) -> String {
    let mut answer = gateway.post("/v1/chat/completions", body).await;
    let mut text = String::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

/// A server that answers every request as it should.
async fn well() -> Scripted {
    Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            if !connection.last_request().contains("\"stream\":true") {
                connection.answer("200 OK", WHOLE).await;
                continue;
            }
            connection.begin_stream().await;
            for event in [&delta("hello"), FINISH, USAGE, "data: [DONE]\n\n"] {
                connection.chunk(event).await;
            }
            connection.write("0\r\n\r\n").await;
        }
    })
    .await
}

/// Ways to fail before anything of an answer was seen, by what the server does with a connection.
const WAYS: &[&str] = &[
    "resets",
    "half a head",
    "garbage",
    "500",
    "503",
    "429",
    "a huge head",
    "wrong length",
    "half a chunk",
    "hangs",
];

async fn failing(way: &'static str) -> Scripted {
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            match way {
                "resets" => return,
                "half a head" => return connection.write("HTTP/1.1 200 OK\r\ncontent-le").await,
                "garbage" => return connection.write("\u{0}\u{1}nonsense\r\n\r\n").await,
                "500" => connection.answer("500 Oops", "{}").await,
                "503" => connection.answer("503 Busy", "{}").await,
                "429" => {
                    connection
                        .write("HTTP/1.1 429 Slow down\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}")
                        .await;
                }
                "a huge head" => {
                    connection.write("HTTP/1.1 200 OK\r\nx-huge: ").await;
                    let piece = "a".repeat(1 << 20);
                    for _ in 0..10 {
                        connection.write(&piece).await;
                    }
                    return connection.write("\r\ncontent-length: 2\r\n\r\n{}").await;
                }
                "wrong length" => {
                    return connection
                        .write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{}")
                        .await;
                }
                "half a chunk" => {
                    connection.begin_stream().await;
                    return connection.write("ff\r\ndata: {\"cho").await;
                }
                _ => return connection.closed().await,
            }
        }
    })
    .await
}

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

#[tokio::test]
async fn a_conversation_stays_with_its_server_and_so_does_a_session() {
    let servers = [well().await, well().await, well().await];
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    let gateway = at(&urls, "", "").await;
    let mut messages = vec![json!({"role": "user", "content": "What is a sluice?"})];
    for turn in 0..6 {
        let body = json!({"model": "tested", "messages": messages});
        assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 200);
        messages.push(json!({"role": "assistant", "content": "hello"}));
        messages.push(json!({"role": "user", "content": format!("And {turn}?")}));
    }
    let of = |server: &Scripted| server.requests.lock().expect("no panic").len();
    assert_eq!(servers.iter().filter(|server| of(server) == 6).count(), 1);
    let before: Vec<usize> = servers.iter().map(of).collect();
    for number in 0..6 {
        let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
        let request = request
            .header("x-sluice-session", "mine")
            .json(&asking(&format!("{number}")));
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }
    let new: Vec<usize> = servers
        .iter()
        .zip(before)
        .map(|(server, before)| of(server) - before)
        .collect();
    assert_eq!(new.iter().filter(|new| **new == 6).count(), 1, "{new:?}");
    for number in 0..60 {
        gateway
            .post("/v1/chat/completions", &asking(&format!("other {number}")))
            .await;
    }
    assert!(
        servers.iter().all(|server| of(server) >= 10),
        "the others are shared out"
    );
}

#[tokio::test]
async fn a_clients_own_timeout_ends_its_request_and_is_passed_on() {
    let slow = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            connection.closed().await;
        }
    })
    .await;
    let gateway = at(&[&slow.url], "", "").await;
    let request = gateway
        .http
        .post(format!("{}/v1/chat/completions", gateway.proxy))
        .json(&asking("hi"));
    let request = request.header("x-request-timeout-seconds", "2");
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 504);
    assert!(
        slow.last_request().contains("x-request-timeout-seconds: 1"),
        "{}",
        slow.last_request()
    );
}

#[tokio::test]
async fn absurd_and_missing_usage_bills_what_can_be_believed() {
    for (usage, tokens) in [
        ("", (0, 2)),
        ("\"usage\":{\"prompt_tokens\":\"many\"},", (0, 2)),
        (
            "\"usage\":{\"prompt_tokens\":18446744073709551615,\"completion_tokens\":18446744073709551615},",
            (0, 0),
        ),
    ] {
        let event = format!(
            "data: {{{usage}\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"x\"}},\"finish_reason\":null}}]}}\n\n"
        );
        let upstream = Scripted::start(move |mut connection| {
            let event = event.clone();
            async move {
                connection.read_request().await;
                connection.begin_stream().await;
                connection.chunk(&event).await;
                connection.chunk(&event).await;
                connection.chunk(FINISH).await;
                connection.chunk("data: [DONE]\n\n").await;
                connection.write("0\r\n\r\n").await;
            }
        })
        .await;
        let gateway = at(&[&upstream.url], "", "").await;
        let mut body = asking("hi");
        body["stream"] = true.into();
        let text = gateway
            .post("/v1/chat/completions", &body)
            .await
            .text()
            .await
            .expect("text");
        assert!(text.contains("[DONE]"), "{text}");
        let record = &gateway.wait_for_records(1).await[0];
        assert_eq!(record["status"], "completed", "{usage}");
        if tokens.1 > 0 {
            assert!(
                record["output_tokens"]
                    .as_u64()
                    .is_some_and(|tokens| tokens > 0 && tokens < 100),
                "{record}"
            );
        }
        let summary = gateway.admin_json("/usage/summary").await;
        assert_eq!(summary["total_records"], 1, "{usage}: {summary}");
    }
}

#[tokio::test]
async fn the_models_that_a_server_offers_are_found_and_served_under_their_names() {
    for (backend, path) in [("openai", "/v1/chat/completions"), ("ollama", "/api/chat")] {
        let upstream = Simulated::start(&["found-a=0", "found-b=0"]);
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "local", backend, &upstream.url, "") + "    discover: true\n",
            _ => roomy(name, text),
        });
        let gateway = Gateway::start_in(dir, &[]).await;
        let names = wait_for("models", || async {
            let answer = gateway
                .http
                .get(format!("{}/v1/models", gateway.proxy))
                .send()
                .await
                .ok()?;
            let text = answer.text().await.ok()?;
            (text.contains("found-a") && text.contains("found-b")).then_some(text)
        })
        .await;
        assert!(!names.contains("\"local\""), "the entry itself is no model");
        let mut body = asking("hi");
        body["model"] = "found-b".into();
        body["stream"] = false.into();
        assert_eq!(gateway.post(path, &body).await.status(), 200);
        let reloaded = as_admin(gateway.http.post(format!("{}/config/reload", gateway.admin))).await;
        assert_eq!(reloaded.status(), 200);
        assert_eq!(gateway.post(path, &body).await.status(), 200, "a reload forgets none");
    }
}

#[tokio::test]
async fn a_stream_without_end_ends_at_the_deadline_and_gives_everything_back() {
    let endless = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.begin_stream().await;
        for _ in 0..200 {
            connection.chunk(&delta("x")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let gateway = at(&[&endless.url], "    timeouts: {total_seconds: 1}\n", "").await;
    let mut body = asking("hi");
    body["stream"] = true.into();
    let text = until_it_ends(&gateway, &body).await;
    assert!(text.contains("upstream_timeout") && !text.contains("[DONE]"), "{text}");
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["status"], &record["usage_source"]),
        (&json!("timed_out"), &json!("counted"))
    );
    assert!(gateway.metric("sluice_active_requests").await < 0.5);
}

#[tokio::test]
async fn loading_a_model_does_not_count_against_the_first_token() {
    for (load, status) in [(5, 200), (0, 504)] {
        let cold = Scripted::start(|mut connection| async move {
            connection.read_request().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            let line = "{\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":1,\"eval_count\":1}\n";
            connection.chunk(line).await;
            connection.write("0\r\n\r\n").await;
        })
        .await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => {
                let more = format!("    load_timeout: {load}\n    timeouts: {{first_token_seconds: 0.3}}\n");
                with_model(&text, "tested", "ollama", &cold.url, "") + &more
            }
            _ => roomy(name, text),
        });
        let gateway = Gateway::start_in(dir, &[]).await;
        let body = json!({"model": "tested", "messages": [{"role": "user", "content": "hi"}], "stream": true});
        assert_eq!(
            gateway.post("/v1/chat/completions", &body).await.status(),
            status,
            "load_timeout: {load}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_busy_with_others_requests_gets_fewer() {
    let servers = [
        Simulated::start(&["tested=0", "slow=30"]),
        Simulated::start(&["tested=0", "slow=30"]),
    ];
    let others = format!("}}, {{base_url: \"{}\"", servers[1].url);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &servers[0].url, &others),
        "gateway.yaml" => text.replace("interval_seconds: 0", "interval_seconds: 0.1"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let busy = format!("{}/v1/chat/completions", servers[0].url);
    let slow = json!({"model": "slow", "messages": [{"role": "user", "content": "hi"}]});
    let direct: Vec<_> = (0..40)
        .map(|_| tokio::spawn(gateway.http.post(&busy).json(&slow).send()))
        .collect();
    wait_for("notice", || async {
        let upstreams = gateway.admin_json("/upstreams").await;
        let all = upstreams["upstreams"].as_array()?;
        all.iter().any(|one| one["requests_of_others"] == 40).then_some(())
    })
    .await;
    let before = servers[1].metric("simulated_requests_total").await;
    for number in 0..20 {
        let answer = gateway
            .post("/v1/chat/completions", &asking(&format!("{number}")))
            .await;
        assert_eq!(answer.status(), 200);
    }
    let idle_got = servers[1].metric("simulated_requests_total").await - before;
    assert!(idle_got > 19.5, "{idle_got} of 20 went to the idle one");
    for one in direct {
        one.abort();
    }
}

#[tokio::test]
async fn a_probed_server_is_healthy_with_the_first_token_of_a_long_stream() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let server = Scripted::start(move |mut connection| {
        let well = Arc::clone(&well);
        async move {
            while connection.read_request().await {
                if !well.load(Relaxed) {
                    connection.answer("500 Oops", "{}").await;
                    continue;
                }
                connection.begin_stream().await;
                for _ in 0..100 {
                    connection.chunk(&delta("x")).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    })
    .await;
    let gateway = at(&[&server.url], "", "  failures: 2\n  rest_seconds: 0.3\n").await;
    let mut body = asking("hi");
    body["stream"] = true.into();
    for _ in 0..2 {
        assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 502);
    }
    is_well.store(true, Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut trial = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(trial.status(), 200);
    assert!(trial.chunk().await.expect("a chunk").is_some());
    let beside = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(beside.status(), 200, "the trial has not ended, and the server is well");
}
