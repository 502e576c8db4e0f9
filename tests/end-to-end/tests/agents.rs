//! Coding agents, unmodified, through the gateway: a turn with a tool call, in front of OpenAI- and Ollama-backed
//! models that neither of them knows.

use end_to_end::upstream::{Connection, Scripted};
use end_to_end::{Gateway, config_dir, llama, roomy, wait_for, with_model};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The model's final answer.
const ANSWER: &str = "All done-42.";

/// The tool's output.
const PRINTED: &str = "hello-from-the-tool";

/// The tools by which agents run a command, with the arguments that each takes.
fn command(tool: &str) -> Option<Value> {
    match tool {
        "Bash" => Some(json!({"command": format!("echo {PRINTED}"), "description": "Say hello"})),
        "exec_command" => Some(json!({"cmd": format!("echo {PRINTED}")})),
        "shell" => Some(json!({"command": ["bash", "-lc", format!("echo {PRINTED}")]})),
        _ => None,
    }
}

/// The next step of the model: a call of a tool, then, when its output is there, an answer.
fn step(request: &Value) -> Option<(String, Value)> {
    let messages = request["messages"].as_array().expect("messages");
    let has_output = messages
        .iter()
        .any(|message| message["role"] == "tool" && message["content"].to_string().contains(PRINTED));
    let tools = request["tools"].as_array().into_iter().flatten();
    let known = tools.filter_map(|tool| {
        let name = tool["function"]["name"].as_str()?;
        Some((name.to_owned(), command(name)?))
    });
    known.take(usize::from(!has_output)).next()
}

async fn openai(connection: &mut Connection, request: &Value) {
    let chunk = |delta: Value, finish: Option<&str>| {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        format!(
            "data: {}\n\n",
            json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choice})
        )
    };
    let (delta, finish) = match step(request) {
        Some((name, arguments)) => {
            let function = json!({"name": name, "arguments": arguments.to_string()});
            let call = json!([{"index": 0, "id": "call_1", "type": "function", "function": function}]);
            (
                json!({"role": "assistant", "content": null, "tool_calls": call}),
                "tool_calls",
            )
        }
        None => (json!({"role": "assistant", "content": ANSWER}), "stop"),
    };
    if request["stream"] == true {
        connection.begin_stream().await;
        connection.chunk(&chunk(delta, None)).await;
        connection.chunk(&chunk(json!({}), Some(finish))).await;
        connection.chunk(end_to_end::upstream::USAGE).await;
        connection.chunk("data: [DONE]\n\n").await;
        connection.write("0\r\n\r\n").await;
    } else {
        let choice = json!([{"index": 0, "message": delta, "finish_reason": finish}]);
        let usage = json!({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18});
        let body = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choice, "usage": usage});
        connection.answer("200 OK", &body.to_string()).await;
    }
}

async fn ollama(connection: &mut Connection, request: &Value) {
    let message = match step(request) {
        Some((name, arguments)) => {
            json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
        }
        None => json!({"role": "assistant", "content": ANSWER}),
    };
    let line = json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false});
    let last = json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": ""},
        "done": true, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7});
    if request["stream"] == false {
        let mut whole = last;
        whole["message"] = message;
        return connection.answer("200 OK", &whole.to_string()).await;
    }
    connection
        .write("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    connection.chunk(&format!("{line}\n")).await;
    connection.chunk(&format!("{last}\n")).await;
    connection.write("0\r\n\r\n").await;
}

/// A model's server that speaks OpenAI's API or Ollama's, and calls a tool before it answers.
async fn upstream() -> Scripted {
    Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let request = connection.last_request();
            let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let Ok(body) = serde_json::from_str::<Value>(body) else {
                connection
                    .answer("200 OK", r#"{"version":"0.13.5","data":[],"models":[]}"#)
                    .await;
                continue;
            };
            if request.starts_with("POST /api/") {
                ollama(&mut connection, &body).await;
            } else {
                openai(&mut connection, &body).await;
            }
        }
    })
    .await
}

/// A gateway before one model of this kind.
async fn gateway(backend: &str, upstream: &Scripted) -> Gateway {
    let backend = backend.to_owned();
    let url = upstream.url.clone();
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "agents-model", &backend, &url, "") + "    aliases: [\"gpt-oss:20b\"]\n",
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// Runs an agent's program in a home of its own, with no way to anything but this machine.
async fn run(gateway: &Gateway, program: &str, args: &[&str], variables: &[(&str, String)]) -> String {
    let home = gateway.dir.path().join("home");
    let work = gateway.dir.path().join("work");
    for dir in [&home, &work] {
        std::fs::create_dir_all(dir).expect("made");
    }
    let path: PathBuf = llama::home().join("agents/node_modules/.bin").join(program);
    let mut agent = Command::new("timeout");
    agent
        .arg("240")
        .arg(&path)
        .args(args)
        .current_dir(&work)
        .env("HOME", &home)
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .env("NO_PROXY", "127.0.0.1,localhost")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || agent.output()).await;
    let output = output
        .expect("no panic")
        .expect("the agent runs; `tests/setup test` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program}: {text}\n{errors}\n{}",
        gateway.log()
    );
    text + &errors
}

/// The tool was run, its output went to the model, and everything was billed.
async fn has_worked(gateway: &Gateway, upstream: &Scripted, printed: &str) {
    assert!(printed.contains(ANSWER), "{printed}");
    assert!(
        upstream.last_request().contains(PRINTED),
        "the tool's output reached the model"
    );
    let records = wait_for("records", || async {
        let records = gateway.records().await;
        let completed = records.iter().filter(|record| record["status"] == "completed").count();
        (completed >= 2).then_some(records)
    })
    .await;
    for record in records.iter().filter(|record| record["status"] == "completed") {
        assert_eq!(
            (&record["input_tokens"], &record["output_tokens"]),
            (&json!(11), &json!(7)),
            "{record}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_completes_a_turn_with_a_tool_call_on_every_kind_of_server() {
    for backend in ["openai", "ollama"] {
        let upstream = upstream().await;
        let gateway = gateway(backend, &upstream).await;
        let variables = [
            ("ANTHROPIC_BASE_URL", gateway.proxy.clone()),
            ("ANTHROPIC_API_KEY", "sk-unused".to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ];
        let args = ["-p", "Say hello", "--model", "agents-model", "--allowedTools", "Bash"];
        let printed = run(&gateway, "claude", &args, &variables).await;
        has_worked(&gateway, &upstream, &printed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_completes_a_turn_with_a_tool_call_by_responses_and_as_if_before_ollama() {
    const UNASKED: [&str; 2] = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"];
    for backend in ["openai", "ollama"] {
        let upstream = upstream().await;
        let gateway = gateway(backend, &upstream).await;
        let provider = format!(
            "model_providers.sluice={{name=\"sluice\",base_url=\"{}/v1\",wire_api=\"responses\",env_key=\"SLUICE_KEY\"}}",
            gateway.proxy
        );
        let mut args = vec![
            "exec",
            "-c",
            &provider,
            "-c",
            "model_provider=\"sluice\"",
            "-m",
            "agents-model",
        ];
        args.extend(UNASKED);
        args.push("Say hello");
        let printed = run(&gateway, "codex", &args, &[("SLUICE_KEY", "sk-unused".to_owned())]).await;
        has_worked(&gateway, &upstream, &printed).await;
    }
    let upstream = upstream().await;
    let gateway = gateway("openai", &upstream).await;
    let port = gateway.proxy.rsplit(':').next().expect("a port").to_owned();
    let mut args = vec!["exec", "--oss", "--local-provider", "ollama", "-m", "gpt-oss:20b"];
    args.extend(UNASKED);
    args.push("Say hello");
    let printed = run(&gateway, "codex", &args, &[("CODEX_OSS_PORT", port)]).await;
    has_worked(&gateway, &upstream, &printed).await;
}
