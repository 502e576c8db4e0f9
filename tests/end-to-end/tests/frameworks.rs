//! Frameworks that people build on, unmodified and pinned, before every kind of upstream; and the table in
//! `docs/api.md` that says what was tried.

use end_to_end::{Gateway, Simulated, config_dir, llama, roomy, root, with_model};
use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// The programs in `tests/clients/frameworks`, each with an environment of the same name.
const PYTHON: [&str; 6] = ["langchain", "llamaindex", "pydantic_ai", "autogen", "instructor", "llm"];

/// A program's interpreter and script.
fn program(name: &str) -> (PathBuf, PathBuf) {
    let home = llama::home().join("frameworks");
    if name == "ai_sdk" {
        return ("node".into(), home.join("node/ai_sdk.mjs"));
    }
    let script = root().join(format!("tests/clients/frameworks/{name}_client.py"));
    (home.join(name).join("bin/python"), script)
}

/// A row of the table: client, version, what it did.
type Row = (String, String, String);

/// The steps that a program reports; panics with its output if it fails.
async fn rows(gateway: &Gateway, name: &str, model: &str) -> Vec<Row> {
    let (interpreter, script) = program(name);
    let mut command = Command::new("timeout");
    command
        .arg("120")
        .arg(interpreter)
        .arg(script)
        .args([&gateway.proxy, model])
        // To no machine but this one.
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .env("NO_PROXY", "127.0.0.1,localhost");
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("`tests/setup test` installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}, {model}: {text}\n{errors}");
    let rows: Value = serde_json::from_str(text.trim()).expect("rows");
    let string = |value: &Value| value.as_str().expect("a text").to_owned();
    let row = |row: &Value| {
        let tried: Vec<String> = row[2].as_array().expect("a list").iter().map(string).collect();
        (string(&row[0]), string(&row[1]), tried.join(", "))
    };
    rows.as_array().expect("a list").iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_framework_works_with_every_kind_of_upstream() {
    let server = Simulated::start(&["openai-model=0", "ollama-model=0"]);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => ["openai", "ollama"].iter().fold(text, |text, backend| {
            with_model(&text, &format!("{backend}-model"), backend, &server.url, "")
        }),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let mut table =
        String::from("| client | version | tested | OpenAI's API | Ollama's API |\n|---|---|---|---|---|\n");
    for name in PYTHON.into_iter().chain(["ai_sdk"]) {
        let openai = rows(&gateway, name, "openai-model").await;
        let ollama = rows(&gateway, name, "ollama-model").await;
        assert_eq!(openai, ollama, "{name} does the same with both");
        for (client, version, tried) in openai {
            let _ = writeln!(table, "| {client} | {version} | {tried} | ✓ | ✓ |");
        }
    }
    let failed: Vec<Value> = gateway
        .records()
        .await
        .into_iter()
        .filter(|record| record["status"] != "completed")
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let path = root().join("docs/api.md");
    let page = std::fs::read_to_string(&path).expect("docs/api.md");
    let (begin, end) = ("<!-- frameworks: begin -->\n", "<!-- frameworks: end -->");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (there, after) = rest.split_once(end).expect("where it ends");
    if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
        return std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).expect("written");
    }
    assert_eq!(
        there, table,
        "docs/api.md is to have this table; write it with SLUICE_WRITE_DOCS=1"
    );
}
