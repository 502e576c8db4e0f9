//! The real client libraries, against the simulated upstream and a real llama.cpp server.

use end_to_end::llama::Llama;
use end_to_end::{Gateway, config_dir, python, roomy, with_model};
use serde_json::{Value, json};

/// The usage in the ledger, oldest first, of the requests that were completed.
async fn billed(gateway: &Gateway) -> Vec<(u64, u64)> {
    let mut records = gateway.records().await;
    records.reverse();
    let tokens = |record: &Value, name: &str| record[name].as_u64().expect("a count");
    let completed = records.iter().filter(|record| record["status"] == "completed");
    completed
        .map(|record| (tokens(record, "input_tokens"), tokens(record, "output_tokens")))
        .collect()
}

fn seen(out: &Value, name: &str) -> (u64, u64) {
    (
        out[name][0].as_u64().expect("a count"),
        out[name][1].as_u64().expect("a count"),
    )
}

async fn openai_agrees(gateway: &Gateway, model: &str) {
    let printed = python::run("openai_client.py", &[&gateway.proxy, model]).await;
    let out: Value = serde_json::from_str(&printed).expect("JSON");
    let billed = billed(gateway).await;
    for (at, name) in [
        (0, "plain"),
        (1, "streamed"),
        (2, "streamed"),
        (3, "completion"),
        (4, "embeddings"),
    ] {
        assert_eq!(billed[at], seen(&out, name), "{name}: {billed:?} {out}");
    }
    let records = gateway.wait_for_records(8).await;
    let aborted = records.iter().filter(|record| record["status"] == "cancelled").count();
    assert_eq!(aborted, 1, "{records:?}");
    assert_eq!(records.len(), 8, "one record a request");
}

/// A gateway whose model `tiny` is a real llama-server's.
async fn before(llama: &Llama, base_url: &str) -> Gateway {
    let _ = llama;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tiny", "openai", base_url, ", api_key_env: UPSTREAM_KEY"),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

#[tokio::test]
async fn the_openai_client_works_against_the_simulated_upstream_and_is_billed_what_it_saw() {
    let gateway = Gateway::start().await;
    openai_agrees(&gateway, "simulated-small").await;
}

#[tokio::test]
async fn the_ollama_client_works_against_the_simulated_upstream_and_is_billed_what_it_saw() {
    let gateway = Gateway::start().await;
    let printed = python::run("ollama_client.py", &[&gateway.proxy, "simulated-small"]).await;
    let out: Value = serde_json::from_str(&printed).expect("JSON");
    let billed = billed(&gateway).await;
    for (at, name) in [(0, "plain"), (1, "streamed"), (2, "generate"), (3, "embed")] {
        assert_eq!(billed[at], seen(&out, name), "{name}: {billed:?} {out}");
    }
}

#[tokio::test]
async fn the_openai_client_works_against_a_real_llama_server_and_is_billed_what_it_saw() {
    let llama = Llama::start().await;
    let gateway = before(&llama, &format!("{}/v1", llama.url)).await;
    openai_agrees(&gateway, "tiny").await;
}

#[tokio::test]
async fn generate_answers_from_a_real_llama_server() {
    let llama = Llama::start().await;
    let gateway = before(&llama, &llama.url).await;
    let body = json!({"user_id": "user_vip_01", "project_id": "vip_project", "model": "tiny",
        "prompt": "Hello \"there\"", "max_tokens": 9});
    let answer = gateway.post("/generate", &body).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["output_tokens"], 9);
    assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()));
}
