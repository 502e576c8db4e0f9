//! Deadlines of requests, of streams and of first tokens, and what absurd usage is billed as.

use super::{asking, at, until_it_ends};
use end_to_end::upstream::{FINISH, Scripted, delta};
use end_to_end::{Gateway, config_dir, roomy, with_model};
use serde_json::json;
use std::time::Duration;
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
