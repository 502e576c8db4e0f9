//! A LiteLLM configuration, taken over: its clients go on with the names that they know.

use end_to_end::{Gateway, Simulated, sluice};
use serde_json::{Value, json};
use tempfile::TempDir;

async fn chat(gateway: &Gateway, model: &str) -> (u16, Value) {
    let body = json!({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]});
    let answer = gateway.post("/v1/chat/completions", &body).await;
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_gateway_with_the_configuration_of_litellm_serves_its_models_aliases_and_fallbacks() {
    let simulated = Simulated::start(&["Org/Small=0"]);
    let dir = TempDir::new().expect("a directory");
    let config = format!(
        r#"
model_list:
  - model_name: small
    litellm_params: {{model: hosted_vllm/Org/Small, api_base: "{url}/v1", api_key: os.environ/UPSTREAM_KEY, rpm: 3}}
    model_info: {{max_input_tokens: 4000, max_output_tokens: 100, input_cost_per_token: 1e-6, output_cost_per_token: 2e-6}}
  - model_name: broken
    litellm_params: {{model: openai/Org/Small, api_base: "http://127.0.0.1:9", api_key: sk-do-not-copy}}
  - model_name: sonnet
    litellm_params: {{model: anthropic/claude-sonnet-4, api_key: os.environ/ANTHROPIC_API_KEY}}
litellm_settings: {{drop_params: true, request_timeout: 60, fallbacks: [{{broken: [small]}}]}}
router_settings: {{model_group_alias: {{gpt-4o: small}}}}
general_settings: {{master_key: sk-master}}
"#,
        url = simulated.url
    );
    std::fs::write(dir.path().join("litellm.yaml"), config).expect("written");
    let output = sluice(dir.path(), &["init", "--litellm", "litellm.yaml", "--people", "1"]);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{notes}");
    for words in [
        "model `sonnet` is left out",
        "UPSTREAM_API_KEY",
        "general_settings.master_key",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    let written = std::fs::read_dir(dir.path().join("config")).expect("written");
    for file in written {
        let text = std::fs::read_to_string(file.expect("readable").path()).expect("text");
        assert!(!text.contains("sk-"), "{text}");
    }
    let checked = sluice(dir.path(), &["check"]);
    assert!(checked.status.success(), "{checked:?}");

    let gateway = Gateway::start_in(dir, &[]).await;
    for model in ["small", "gpt-4o", "broken"] {
        let (status, answer) = chat(&gateway, model).await;
        assert_eq!(status, 200, "{model}: {answer}");
    }
    let (status, answer) = chat(&gateway, "small").await;
    assert_eq!(status, 429, "three requests a minute, of all projects: {answer}");
    let records = gateway.wait_for_records(4).await;
    assert!(
        records
            .iter()
            .filter(|one| one["status"] == "completed")
            .all(|one| one["model"] == "small"),
        "{records:?}"
    );
}
