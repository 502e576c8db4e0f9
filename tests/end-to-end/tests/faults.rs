//! Faults on either side, as the client, the upstream and the ledger see them.

use end_to_end::upstream::{FINISH, Scripted, USAGE, WHOLE, delta};
use end_to_end::{Gateway, Simulated, all_that_comes, ledger_agrees, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

fn streaming(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "stream": true})
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_upstream_within_a_second_also_before_the_first_byte() {
    let upstream = Simulated::start(&["tested=30"]);
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    for is_streaming in [true, false] {
        let before = upstream.metric("simulated_requests_aborted_total").await;
        let mut body = streaming("tested");
        body["stream"] = is_streaming.into();
        let request = gateway
            .http
            .post(format!("{}/v1/chat/completions", gateway.proxy))
            .json(&body);
        let running = tokio::spawn(request.send());
        wait_for("request at the upstream", || async {
            (upstream.metric("simulated_requests_running").await > 0.5).then_some(())
        })
        .await;
        running.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            upstream.metric("simulated_requests_aborted_total").await > before + 0.5,
            "streaming: {is_streaming}"
        );
    }
    let records = gateway.wait_for_records(2).await;
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(
            (&record["status"], &record["http_status"]),
            (&json!("cancelled"), &json!(499))
        );
    }
    assert!(
        gateway.metric("sluice_active_requests").await < 0.5,
        "no permit is left"
    );
}

#[tokio::test]
async fn a_stream_cut_by_its_client_is_counted() {
    let upstream = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.begin_stream().await;
        for _ in 0..5 {
            connection.chunk(&delta("x")).await;
        }
        connection.closed().await;
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let mut answer = gateway.post("/v1/chat/completions", &streaming("tested")).await;
    let mut seen = String::new();
    while seen.matches("data:").count() < 5 {
        seen.push_str(&String::from_utf8_lossy(
            &answer.chunk().await.expect("unbroken").expect("more"),
        ));
    }
    drop(answer);
    let record = gateway.wait_for_records(1).await.remove(0);
    assert_eq!(
        (&record["status"], &record["usage_source"]),
        (&json!("cancelled"), &json!("counted"))
    );
    assert_eq!(record["output_tokens"], 5);
    assert!(record["input_tokens"].as_u64().is_some_and(|tokens| tokens > 0));
}

#[tokio::test]
async fn a_failure_in_mid_stream_ends_with_an_error_event_and_never_done() {
    for is_reset in [true, false] {
        let upstream = Scripted::start(move |mut connection| async move {
            connection.read_request().await;
            connection.begin_stream().await;
            connection.chunk(&delta("one")).await;
            connection.chunk(&delta("two")[..20]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !is_reset {
                connection.write("0\r\n\r\n").await;
                connection.closed().await;
            }
        })
        .await;
        let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
        let answer = gateway.post("/v1/chat/completions", &streaming("tested")).await;
        assert_eq!(answer.status(), 200);
        let (seen, is_whole) = all_that_comes(answer).await;
        let last = seen.trim_end().rsplit("\n\n").next().expect("events");
        assert!(last.starts_with("data: {\"error\":"), "reset {is_reset}: {seen}");
        assert!(last.contains("upstream_error") && !seen.contains("[DONE]"), "{seen}");
        assert!(!is_whole, "no clean end of the body");
        let record = gateway.wait_for_records(1).await.remove(0);
        assert_eq!(
            (&record["status"], &record["reason"]),
            (&json!("failed"), &json!("upstream_error"))
        );
        assert_eq!(record["output_tokens"], 1);
    }
}

#[tokio::test]
async fn the_usage_that_only_the_gateway_asked_for_is_taken_out_and_billed() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            connection.begin_stream().await;
            // Events cut in odd places.
            let all = format!("{}{}{FINISH}{USAGE}data: [DONE]\n\n", delta("a"), delta("b"));
            for start in (0..all.len()).step_by(7) {
                connection.chunk(&all[start..(start + 7).min(all.len())]).await;
            }
            connection.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let text = gateway
        .post("/v1/chat/completions", &streaming("tested"))
        .await
        .text()
        .await
        .expect("unbroken");
    assert_eq!(text, format!("{}{}{FINISH}data: [DONE]\n\n", delta("a"), delta("b")));
    assert!(
        upstream
            .last_request()
            .contains(r#""stream_options":{"include_usage":true}"#)
    );
    let mut asking = streaming("tested");
    asking["stream_options"] = json!({"include_usage": true});
    let text = gateway
        .post("/v1/chat/completions", &asking)
        .await
        .text()
        .await
        .expect("unbroken");
    assert!(text.contains(USAGE), "who asks for it gets it: {text}");
    for record in gateway.records().await {
        assert_eq!(
            (&record["input_tokens"], &record["output_tokens"]),
            (&json!(11), &json!(7))
        );
        assert_eq!(record["usage_source"], "upstream");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_the_upstream_has_closed_is_tried_once_more_on_a_fresh_one() {
    let upstream = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.answer("200 OK", WHOLE).await;
        // Keeps the connection open, and closes it on the next request, as servers do at the wrong moment.
        if connection.number == 0 {
            connection.read_request().await;
        } else {
            connection.closed().await;
        }
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let body = json!({"model": "tested", "messages": [], "max_tokens": 3});
    for _ in 0..2 {
        assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 200);
    }
    assert_eq!(gateway.records().await.len(), 2, "never billed twice");
}

#[tokio::test]
async fn deadlines_end_a_request_that_the_upstream_does_not() {
    let hangs = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.closed().await;
    })
    .await;
    let timeouts = ", weight: 1}]\n    timeouts: {first_token_seconds: 0.3, gap_seconds: 0.3, total_seconds: 5}\n    aliases: [other]\n    #";
    let gateway = Gateway::with_upstream("openai", &hangs.url, timeouts).await;
    let answer = gateway.post("/v1/chat/completions", &streaming("tested")).await;
    assert_eq!(answer.status(), 504);
    assert_eq!(
        answer.json::<Value>().await.expect("JSON")["error"]["code"],
        "upstream_timeout"
    );
    let stalls = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.begin_stream().await;
        connection.chunk(&delta("x")).await;
        connection.closed().await;
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &stalls.url, timeouts).await;
    let answer = gateway.post("/v1/chat/completions", &streaming("other")).await;
    let (seen, _) = all_that_comes(answer).await;
    assert!(seen.contains("upstream_timeout") && !seen.contains("[DONE]"), "{seen}");
    assert_eq!(gateway.wait_for_records(1).await[0]["status"], "timed_out");
}

#[tokio::test]
async fn a_clients_own_deadline_in_mid_stream_bills_exactly_what_was_delivered() {
    // Seven words, and one that comes when the deadline has passed.
    let upstream = Scripted::start(|mut connection| async move {
        connection.read_request().await;
        connection.begin_stream().await;
        for _ in 0..7 {
            connection.chunk(&delta("x")).await;
        }
        connection.closed().await;
        connection.chunk(&delta("late")).await;
    })
    .await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    for (path, body, word) in [
        ("/v1/chat/completions", streaming("tested"), "\"x\""),
        // The same server, translated.
        (
            "/v1/messages",
            json!({"model": "tested", "max_tokens": 100, "stream": true,
                "messages": [{"role": "user", "content": "hi"}]}),
            "\"text_delta\"",
        ),
        (
            "/api/chat",
            json!({"model": "tested", "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 100}}),
            "\"content\":\"x\"",
        ),
    ] {
        let request = gateway.http.post(format!("{}{path}", gateway.proxy)).json(&body);
        let request = request.header("x-request-timeout-seconds", "0.5");
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let (seen, _) = all_that_comes(answer).await;
        assert_eq!(seen.matches(word).count(), 7, "{path}: {seen}");
        assert!(seen.contains("deadline of 0.5 s"), "{path}: {seen}");
    }
    let records = gateway.wait_for_records(3).await;
    for record in &records {
        assert_eq!(
            (&record["status"], &record["output_tokens"], &record["usage_source"]),
            (&json!("timed_out"), &json!(7), &json!("counted")),
            "{record}"
        );
    }
    ledger_agrees(&gateway).await;
}

#[tokio::test]
async fn an_upstreams_own_troubles_become_the_gateways_refusals_and_the_clients_mistakes_pass() {
    for (answered, status, code) in [
        ("500 Oops", 502, "upstream_error"),
        ("401 Unauthorized", 502, "upstream_error"),
        ("503 Busy", 503, "no_healthy_upstream"),
        ("429 Slow down", 503, "no_healthy_upstream"),
        ("400 Bad", 400, "theirs"),
    ] {
        let upstream = Scripted::start(move |mut connection| async move {
            while connection.read_request().await {
                connection
                    .answer(answered, r#"{"error":{"message":"m","code":"theirs"}}"#)
                    .await;
            }
        })
        .await;
        let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
        let answer = gateway.post("/v1/chat/completions", &streaming("tested")).await;
        assert_eq!(answer.status(), status, "{answered}");
        assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
        assert_eq!(
            answer.json::<Value>().await.expect("JSON")["error"]["code"],
            code,
            "{answered}"
        );
        assert_eq!(gateway.records().await[0]["status"], "failed");
    }
    let gateway = Gateway::with_upstream("openai", "http://127.0.0.1:9", "").await;
    let answer = gateway.post("/v1/chat/completions", &streaming("tested")).await;
    assert_eq!(answer.status(), 503, "nobody listens there");
}
