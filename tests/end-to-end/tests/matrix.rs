//! Every client library against every kind of upstream, and the table in `docs/api.md` that says so.

use end_to_end::llama::Llama;
use end_to_end::{Gateway, Simulated, config_dir, python, roomy, root, with_model};
use serde_json::{Value, json};
use std::fmt::Write;

/// The client programs, by the name that the table has for them.
const CLIENTS: &[(&str, &str)] = &[
    ("OpenAI, Python", "matrix_openai.py"),
    ("OpenAI, Node", "matrix_openai.mjs"),
    ("Anthropic, Python", "matrix_anthropic.py"),
    ("Anthropic, Node", "matrix_anthropic.mjs"),
    ("Ollama, Python", "matrix_ollama.py"),
    ("Ollama, Node", "matrix_ollama.mjs"),
];

/// Runs a client program; its cells, in the order in which it asked.
async fn cells(gateway: &Gateway, program: &str, model: &str, choice: &str) -> Vec<(String, Option<(u64, u64)>)> {
    let args = [gateway.proxy.as_str(), model, choice];
    let printed = if program.contains(".mjs") {
        python::run_node(program, &args).await
    } else {
        python::run(program, &args).await
    };
    let cells: Value = serde_json::from_str(&printed).expect("JSON");
    let cells = cells.as_object().expect("cells").iter();
    cells
        .map(|(name, tokens)| {
            let at = |index: usize| tokens[index].as_u64();
            (name.clone(), at(0).zip(at(1)))
        })
        .collect()
}

/// `/generate`, which has no library.
async fn generate(gateway: &Gateway, model: &str) -> Vec<(String, Option<(u64, u64)>)> {
    let body = json!({"user_id": "user_vip_01", "project_id": "vip_project", "model": model,
        "prompt": "Hello \"there\"", "max_tokens": 9});
    let answer = gateway.post("/generate", &body).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer["status"], "completed");
    assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()));
    let tokens = answer["input_tokens"].as_u64().zip(answer["output_tokens"].as_u64());
    let wrong = gateway.post("/generate", &json!({"model": model})).await;
    assert_eq!(wrong.status(), 400);
    vec![("plain".to_owned(), tokens), ("error".to_owned(), None)]
}

/// A client is billed for exactly the tokens that it received, request by request, and an abort is one record.
async fn is_billed(gateway: &Gateway, who: &str, cells: &[(String, Option<(u64, u64)>)]) {
    let aborts = cells.iter().filter(|(name, _)| name == "abort").count();
    let mut records = Vec::new();
    for _ in 0..100 {
        records = gateway.records().await;
        records.reverse();
        let cancelled = records.iter().filter(|record| record["status"] == "cancelled").count();
        if cancelled == aborts {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        records.iter().filter(|record| record["status"] == "cancelled").count(),
        aborts,
        "{who}: an abort is told"
    );
    let of_a_model = |record: &&Value| record["status"] == "completed" && record["usage_source"] == "upstream";
    let tokens = |record: &Value, name: &str| record[name].as_u64().expect("a count");
    let billed: Vec<(u64, u64)> = records
        .iter()
        .filter(of_a_model)
        .map(|record| (tokens(record, "input_tokens"), tokens(record, "output_tokens")))
        .collect();
    let seen: Vec<(u64, u64)> = cells.iter().filter_map(|(_, tokens)| *tokens).collect();
    assert_eq!(billed, seen, "{who}: {cells:?}");
}

#[tokio::test]
async fn every_client_works_with_every_kind_of_upstream_and_is_billed_what_it_saw() {
    let llama = Llama::start().await;
    let simulated = Simulated::start(&["tested=0.2"]);
    let upstreams = [
        (
            "llama.cpp",
            "openai",
            llama.url.clone(),
            "required",
            ", api_key_env: UPSTREAM_KEY",
        ),
        ("OpenAI's API", "openai", format!("{}/v1", simulated.url), "auto", ""),
        ("Ollama's API", "ollama", simulated.url.clone(), "auto", ""),
    ];
    let mut rows: Vec<Vec<String>> = CLIENTS.iter().map(|(name, _)| vec![(*name).to_owned()]).collect();
    rows.push(vec!["`/generate`".to_owned()]);
    for (_, backend, url, choice, more) in &upstreams {
        let model = if *backend == "openai" && *choice == "required" {
            "tiny"
        } else {
            "tested"
        };
        for (row, (name, program)) in rows.iter_mut().zip(CLIENTS.iter().chain([&("`/generate`", "")])) {
            let dir = config_dir(|name, text| match name {
                "models.yaml" => with_model(&text, model, backend, url, more),
                _ => roomy(name, text),
            });
            let gateway = Gateway::start_in(dir, &[]).await;
            let cells = match *program {
                "" => generate(&gateway, model).await,
                program => cells(&gateway, program, model, choice).await,
            };
            is_billed(&gateway, &format!("{name} at {url}"), &cells).await;
            let names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(", ");
            if row.len() == 1 {
                row.push(names.clone());
            }
            assert_eq!(row[1], names, "{name} asks every upstream the same");
            row.push("✓".to_owned());
        }
    }
    let mut table = String::from(
        "| client | tested | llama.cpp's server | simulated, OpenAI's API | simulated, Ollama's API |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(table, "| {} |", row.join(" | "));
    }
    let docs = std::fs::read_to_string(root().join("docs/api.md")).expect("docs/api.md");
    assert!(docs.contains(&table), "docs/api.md is to have this table:\n\n{table}");
}
