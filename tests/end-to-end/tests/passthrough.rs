//! Pass-through of paths that no operation has: who may use which, what arrives, what comes back, what is recorded.

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, Simulated, config_dir, roomy, sluice, with_model};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A gateway with two models at an upstream: `tested`, known as `alias` too, which opens some paths, and `closed`.
async fn gateway(url: &str) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            let opens = with_model(&text, "tested", "openai", url, ", api_key_env: UPSTREAM_KEY")
                + "    aliases: [alias, org/name]\n    upstream_model: theirs\n    price_per_request_eur: 0.002\n    \
                   passthrough: [/pooling, /v1/voices/*, /api/*, /api/pull]\n";
            with_model(&opens, "closed", "openai", url, "")
        }
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

async fn answering(answer: &'static str) -> Scripted {
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            connection.write(answer).await;
        }
    })
    .await
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"a\":1.0}";

async fn ask(gateway: &Gateway, method: Method, path: &str, model: Option<&str>, body: &str) -> reqwest::Response {
    let request = gateway.http.request(method, format!("{}{path}", gateway.proxy));
    let request = request.header("content-type", "application/json").body(body.to_owned());
    let request = match model {
        Some(model) => request.header("x-sluice-model", model),
        None => request,
    };
    request.send().await.expect("an answer")
}

fn count(upstream: &Scripted) -> usize {
    upstream.requests.lock().expect("no panic").len()
}

#[tokio::test]
async fn request_and_answer_pass_byte_for_byte_without_the_clients_credentials() {
    let answer = "HTTP/1.1 201 Created\r\ncontent-type: application/x-odd\r\nx-their-own: kept\r\nset-cookie: a=b\r\n\
                  connection: x-hop\r\nx-hop: gone\r\ncontent-length: 9\r\n\r\n\0\u{7f} bytes\n";
    let upstream = answering(answer).await;
    let gateway = gateway(&upstream.url).await;
    let request = gateway
        .http
        .put(format!("{}/v1/voices/%C3%A4?x=%2F&y=1", gateway.proxy));
    let sent = request
        .header("x-sluice-model", "alias")
        .header("content-type", "application/x-odd")
        .header("x-my-own", "kept")
        .header("accept", "audio/ogg")
        .header("cookie", "secret=1")
        .header("x-api-key", "secret")
        .header("proxy-authorization", "secret")
        .bearer_auth("secret")
        .header("connection", "x-mine")
        .header("x-mine", "hop")
        .body(&b"\x00\xff odd \r\n bytes"[..])
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (sent.status().as_u16(), &sent.headers()["x-their-own"]),
        (201, &"kept".parse().expect("a value"))
    );
    assert_eq!(
        (&sent.headers()["content-type"], &sent.headers()["x-sluice-model"]),
        (
            &"application/x-odd".parse().expect("a value"),
            &"tested".parse().expect("a value")
        )
    );
    for hidden in ["set-cookie", "x-hop"] {
        assert!(!sent.headers().contains_key(hidden), "{hidden}");
    }
    assert_eq!(sent.bytes().await.expect("bytes"), &b"\0\x7f bytes\n"[..]);
    let seen = upstream.last_request();
    assert!(
        seen.starts_with("PUT /v1/voices/%C3%A4?x=%2F&y=1 HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.ends_with("\0\u{fffd} odd \r\n bytes"), "{seen}");
    let head = seen.to_ascii_lowercase();
    for wanted in [
        "authorization: bearer sk-up",
        "x-my-own: kept",
        "accept: audio/ogg",
        "content-type: application/x-odd",
    ] {
        assert!(head.contains(wanted), "{wanted}: {head}");
    }
    for hidden in ["secret", "x-sluice", "x-mine", "cookie"] {
        assert!(!head.contains(hidden), "{hidden}: {head}");
    }
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["operation"], &record["status"], &record["http_status"]),
        (&json!("/v1/voices/*"), &json!("completed"), &json!(201))
    );
    assert_eq!(
        (&record["cost_eur"], &record["estimated_cost_eur"]),
        (&json!(0.002), &json!(0.002))
    );
    assert_eq!(
        (&record["model"], &record["requested_model"], &record["input_tokens"]),
        (&json!("tested"), &json!("alias"), &json!(0))
    );
}

#[tokio::test]
async fn a_request_names_its_model_in_a_header_its_path_or_its_body_and_only_one() {
    let upstream = answering(OK).await;
    let gateway = gateway(&upstream.url).await;
    let body = r#"{ "input":[1.0],"model":"alias" }"#;
    let renamed = r#"{ "input":[1.0],"model":"theirs" }"#;
    let passing = [
        ("/pooling", Some("tested"), "{\"x\": 1}", "{\"x\": 1}"),
        ("/pooling", None, body, renamed),
        ("/pooling", Some("tested"), body, renamed),
        ("/passthrough/tested/pooling", None, "[1]", "[1]"),
        ("/passthrough/org%2Fname/pooling", Some("alias"), body, renamed),
        (
            "/pooling",
            Some("alias"),
            r#"{"model":"theirs"}"#,
            r#"{"model":"theirs"}"#,
        ),
    ];
    for (path, model, body, wanted) in passing {
        let answer = ask(&gateway, Method::POST, path, model, body).await;
        assert_eq!(answer.status(), 200, "{path} {model:?} {body}");
        assert_eq!(answer.text().await.expect("text"), "{\"a\":1.0}");
        let seen = upstream.last_request();
        assert!(
            seen.starts_with("POST /pooling HTTP/1.1") && seen.ends_with(wanted),
            "{seen}"
        );
    }
    let before = count(&upstream);
    let refused = [
        ("/pooling", None, "{\"x\": 1}", 400),
        ("/pooling", Some("closed"), "{}", 404),
        ("/pooling", Some("nobody"), "{}", 404),
        ("/pooling", Some("tested"), r#"{"model":"closed"}"#, 400),
        (
            "/pooling",
            Some("tested"),
            r#"{"model":"tested","model":"closed"}"#,
            400,
        ),
        ("/passthrough/tested/pooling", Some("closed"), "{}", 400),
    ];
    for (path, model, body, status) in refused {
        let answer = ask(&gateway, Method::POST, path, model, body).await;
        assert_eq!(answer.status(), status, "{path} {model:?} {body}");
        let error: Value = answer.json().await.expect("JSON");
        assert!(error["error"]["message"].is_string(), "{error}");
    }
    assert_eq!(count(&upstream), before, "nothing of it reached a server");
    assert_eq!(
        gateway.wait_for_records(passing.len() + refused.len()).await.len(),
        passing.len() + refused.len()
    );
}

/// Sends a request line as it stands, which clients would clean.
async fn raw(gateway: &Gateway, line: &str) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\nx-sluice-model: tested\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn paths_that_are_not_opened_or_lead_elsewhere_reach_no_server_and_leave_no_record() {
    let upstream = answering(OK).await;
    let gateway = gateway(&upstream.url).await;
    for path in [
        "/other",
        "/pooling/x",
        "/v1/voices",
        "/v1/voices/../../api/delete",
        "/v1/voices/%2e%2e/x",
        "/v1/voices/%252e%252e/x",
        "/v1/voices/a%2fb",
        "/v1/voices/a;b",
        "/v1/voices/a\\b",
        "/passthrough/tested/other",
        "/passthrough/tested/v1/chat/completions",
        "/passthrough/tested/v1/voices/../x",
        "/passthrough/tested",
    ] {
        let answer = raw(&gateway, &format!("GET {path}")).await;
        assert!(
            answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400"),
            "{path}: {answer}"
        );
    }
    for path in ["/api/delete", "/api/%64elete", "/api/blobs/sha256:1", "/api//delete"] {
        let answer = raw(&gateway, &format!("POST {path}")).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 404"),
            "{path}: {answer}"
        );
    }
    assert_eq!(count(&upstream), 0);
    assert!(gateway.records().await.is_empty());
    // Paths named literally, and paths below an opened one.
    assert_eq!(
        ask(&gateway, Method::POST, "/api/pull", Some("tested"), "{}")
            .await
            .status(),
        200
    );
    assert_eq!(
        ask(&gateway, Method::POST, "/api/other", Some("tested"), "{}")
            .await
            .status(),
        200
    );
    assert_eq!(count(&upstream), 2);
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_its_end_waits_for_the_record() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            connection.begin_stream().await;
            connection.chunk("data: one\n\n").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            connection.chunk("data: two\n\n").await;
            connection.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url).await;
    let mut answer = ask(&gateway, Method::GET, "/v1/voices/live", Some("tested"), "").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().expect("a value"))
    );
    assert_eq!(
        answer.chunk().await.expect("a piece").as_deref(),
        Some(&b"data: one\n\n"[..])
    );
    assert_eq!(answer.text().await.expect("text"), "data: two\n\n");
    assert_eq!(gateway.records().await.len(), 1, "the record is there before the end");
    assert!(upstream.last_request().starts_with("GET /v1/voices/live HTTP/1.1"));
    assert!(!upstream.last_request().to_ascii_lowercase().contains("content-length"));
}

#[tokio::test]
async fn a_servers_refusal_is_passed_on_as_it_is_recorded_with_its_words_and_costs_nothing() {
    let body = r#"{"detail":"no such voice"}"#;
    let answer = "HTTP/1.1 422 Unprocessable Entity\r\ncontent-type: application/json\r\nx-why: theirs\r\ncontent-length: 26\r\n\r\n\
                  {\"detail\":\"no such voice\"}";
    let upstream = answering(answer).await;
    let gateway = gateway(&upstream.url).await;
    let sent = ask(&gateway, Method::DELETE, "/v1/voices/x", Some("tested"), "").await;
    assert_eq!(
        (sent.status().as_u16(), &sent.headers()["x-why"]),
        (422, &"theirs".parse().expect("a value"))
    );
    assert_eq!(sent.text().await.expect("text"), body);
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["status"], &record["cost_eur"], &record["http_status"]),
        (&json!("failed"), &json!(0.0), &json!(422))
    );
    assert!(
        record["error_message"]
            .as_str()
            .is_some_and(|why| why.contains("no such voice")),
        "{record}"
    );
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let answer = if connection.last_request().starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: 123\r\n\r\n"
            } else {
                "HTTP/1.1 204 No Content\r\n\r\n"
            };
            connection.write(answer).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url).await;
    for _ in 0..2 {
        let gone = ask(&gateway, Method::DELETE, "/v1/voices/x", Some("tested"), "").await;
        assert_eq!(
            (gone.status().as_u16(), gone.bytes().await.expect("none").len()),
            (204, 0)
        );
        let head = ask(&gateway, Method::HEAD, "/v1/voices/x", Some("tested"), "").await;
        assert_eq!(
            (head.status().as_u16(), &head.headers()["content-length"]),
            (200, &"123".parse().expect("a value"))
        );
    }
    let records = gateway.wait_for_records(4).await;
    assert!(
        records.iter().all(|record| record["status"] == "completed"),
        "{records:?}"
    );
}

#[tokio::test]
async fn what_may_not_be_done_twice_is_sent_once_even_where_the_connection_breaks() {
    let upstream = Scripted::start(|mut connection| async move {
        if connection.read_request().await && connection.last_request().starts_with("GET") && connection.number > 0 {
            connection.write(OK).await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url).await;
    assert_eq!(
        ask(&gateway, Method::POST, "/pooling", Some("tested"), "{}")
            .await
            .status(),
        502
    );
    assert_eq!(count(&upstream), 1);
    // The first connection is used up; a read is asked again where it breaks.
    assert_eq!(
        ask(&gateway, Method::GET, "/v1/voices/x", Some("tested"), "")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn limits_and_budgets_hold_for_what_is_passed_through() {
    let upstream = answering(OK).await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            with_model(&text, "tested", "openai", &upstream.url, "")
                + "    price_per_request_eur: 0.04\n    passthrough: [/pooling]\n"
        }
        "projects.yaml" => roomy(name, text).replace("monthly_budget_eur: 1000000", "monthly_budget_eur: 0.10"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    for wanted in [200, 200, 429] {
        assert_eq!(
            ask(&gateway, Method::POST, "/pooling", Some("tested"), "{}")
                .await
                .status(),
            wanted
        );
    }
    assert_eq!(count(&upstream), 2);
}

#[tokio::test]
async fn vllms_own_paths_work_through_the_gateway() {
    let upstream = Simulated::start(&["theirs=0"]);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            with_model(&text, "tested", "openai", &upstream.url, "")
                + "    upstream_model: theirs\n    passthrough: [/tokenize, /version]\n"
        }
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let tokens = gateway
        .post("/tokenize", &json!({"model": "tested", "prompt": "one two three"}))
        .await;
    let tokens: Value = tokens.json().await.expect("JSON");
    assert_eq!(tokens["count"], 3, "{tokens}");
    let version = ask(&gateway, Method::GET, "/passthrough/tested/version", None, "").await;
    let version: Value = version.json().await.expect("JSON");
    assert!(version["version"].is_string());
}

#[test]
fn a_pattern_that_opens_too_much_is_a_mistake_in_the_configuration() {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            with_model(&text, "tested", "openai", "http://127.0.0.1:1", "")
                + "    passthrough: [\"/*\", /v1/chat/completions, /a/../b, /pooling]\n"
        }
        _ => text,
    });
    let output = sluice(dir.path(), &["check"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for wrong in ["`/*`", "`/v1/chat/completions`", "`/a/../b`"] {
        assert!(text.contains(wrong), "{wrong}: {text}");
    }
    assert!(text.contains("3 mistakes"), "the fourth is none: {text}");
}
