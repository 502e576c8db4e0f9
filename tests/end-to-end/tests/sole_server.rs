//! A model with one server that answers errors to one tenant's requests: the others are served.

use end_to_end::llama::Llama;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, with_model};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// As many failures in a row as open a circuit breaker, and more.
const FAILURES: usize = 12;

/// One pixel, as PNG.
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

async fn chat(gateway: &Gateway, user: &str, content: Value) -> (u16, Value) {
    let body = json!({"model": "tested", "max_tokens": 4, "messages": [{"role": "user", "content": content}]});
    let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
    let answer = request.header("x-sluice-user", user).json(&body).send().await;
    let answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// The breaker of the model's only server.
async fn breaker(gateway: &Gateway) -> Value {
    let upstreams = gateway.admin_json("/upstreams").await;
    let servers = upstreams["upstreams"].as_array().expect("a list");
    let of_model = |server: &&Value| {
        server["models"]
            .as_array()
            .is_some_and(|models| models.contains(&json!("tested")))
    };
    servers.iter().find(of_model).expect("the model's server")["breaker"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_a_sole_server_answers_to_one_project_do_not_close_the_model_for_another() {
    for status in ["500 Oops", "502 Oops", "504 Oops", "400 Oops", "404 Oops", "200 OK"] {
        let upstream = Scripted::start(move |mut connection| async move {
            while connection.read_request().await {
                if connection.last_request().contains("poison") {
                    connection.answer(status, "{\"error\":{\"message\":\"oops\"}}").await;
                } else {
                    connection.answer("200 OK", WHOLE).await;
                }
            }
        })
        .await;
        let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
        let poisoned = (0..FAILURES).map(|_| chat(&gateway, "user_vip_01", json!("poison")));
        for (answered, body) in join_all(poisoned).await {
            assert!(answered >= 400, "{status}: {answered} {body}");
            let (other, body) = chat(&gateway, "user_standard_01", json!("hello")).await;
            assert_eq!(other, 200, "after {status} to another project: {body}");
        }
        assert_eq!(breaker(&gateway).await, "closed", "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_to_a_text_only_server_are_their_senders_error_and_everyone_else_is_served() {
    let llama = Llama::start().await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &llama.url, ", api_key_env: UPSTREAM_KEY").replace(
            "    max_input_tokens: 8000000\n",
            "    upstream_model: tiny\n    max_input_tokens: 8000000\n",
        ),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let picture =
        json!([{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]);
    for round in 0..8 {
        let (status, body) = chat(&gateway, "user_vip_01", picture.clone()).await;
        assert_eq!(status, 400, "{body}");
        let message = body["error"]["message"].as_str().expect("a sentence");
        assert!(
            message.contains("image input is not supported"),
            "the server's own words: {body}"
        );
        let (status, body) = chat(&gateway, "user_standard_01", json!("hello")).await;
        assert_eq!(status, 200, "after {} pictures: {body}", round + 1);
    }
    assert_eq!(breaker(&gateway).await, "closed");
}
