//! The wire shapes of every translation, as snapshots; and the names under which it refuses.

use super::*;
use crate::parse;
use serde_json::json;
use std::fmt::Write;

pub(super) const OPENAI: NativeApis = NativeApis {
    openai: true,
    responses: false,
    anthropic: false,
    ollama: false,
};
pub(super) const OLLAMA: NativeApis = NativeApis {
    openai: false,
    ollama: true,
    ..OPENAI
};

pub(super) fn about() -> About {
    About {
        request_id: "req-1".to_owned(),
        model: "asked".to_owned(),
        created: 1_700_000_000,
        context: 4096,
        prompt_tokens: 9,
        ..About::default()
    }
}

pub(super) fn translated(
    native_apis: NativeApis,
    call: Operation,
    body: &Value,
) -> Result<Option<Translation>, RequestError> {
    let body = body.to_string();
    let parsed = parse(call, body.as_bytes())?;
    request(native_apis, call, body.as_bytes(), &parsed, &about())
}

/// One request of each protocol with everything in it that can be translated.
fn rich() -> Vec<(Operation, Value)> {
    let picture = "data:image/png;base64,iVBORw0KGgo=";
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function = json!({"name": "weather", "description": "Tells it", "parameters": schema});
    vec![
        (
            Operation::ChatCompletions,
            json!({"model": "asked", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5,
                "stop": "END", "seed": 7, "user": "me", "reasoning_effort": "high", "logprobs": true, "top_logprobs": 2,
                "tools": [{"type": "function", "function": function}], "tool_choice": "auto",
                "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}},
                "keep_alive": "5m", "options": {"num_ctx": 4096}, "top_k": 40,
                "messages": [
                    {"role": "developer", "content": "Be kind."},
                    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]},
                    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Paris\"}"}}]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}]}),
        ),
        (
            Operation::Completions,
            json!({"model": "asked", "prompt": "The sky", "stop": ["a", "b"]}),
        ),
        (
            Operation::Responses,
            json!({"model": "asked", "instructions": "Be kind.", "stream": true, "reasoning": {"effort": "low"},
                "tools": [{"type": "function", "name": "weather", "parameters": schema, "strict": true}], "tool_choice": "auto",
                "text": {"format": {"type": "json_schema", "name": "c", "schema": schema}}, "top_logprobs": 1,
                "include": ["message.output_text.logprobs"], "metadata": {"a": "b"}, "previous_response_id": null,
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": picture, "detail": "low"}]},
                    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{\"city\":\"Paris\"}"},
                    {"type": "function_call_output", "call_id": "call_1", "output": "Sunny"}]}),
        ),
        (
            Operation::Messages,
            json!({"model": "asked", "max_tokens": 10, "stream": true, "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
                "temperature": 0.2, "top_k": 5, "stop_sequences": ["END"], "metadata": {"user_id": "me"},
                "thinking": {"type": "enabled", "budget_tokens": 4000},
                "tools": [{"name": "weather", "description": "Tells it", "input_schema": schema}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Sunny"}]}, {"type": "text", "text": "And?"}]}]}),
        ),
        (
            Operation::OllamaChat,
            json!({"model": "asked", "stream": true, "format": schema, "think": true, "keep_alive": "5m",
                "options": {"temperature": 0, "num_predict": 5, "num_ctx": 2048, "stop": ["END"], "repeat_penalty": 1.1},
                "tools": [{"type": "function", "function": function}],
                "messages": [
                    {"role": "user", "content": "What is it?", "images": ["iVBORw0KGgo="]},
                    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]},
                    {"role": "tool", "tool_name": "weather", "content": "Sunny"}]}),
        ),
        (
            Operation::OllamaGenerate,
            json!({"model": "asked", "prompt": "Why?", "system": "Be kind.", "stream": false}),
        ),
        (
            Operation::OllamaGenerate,
            json!({"model": "asked", "prompt": "The sky", "raw": true, "stream": false}),
        ),
        (
            Operation::Embeddings,
            json!({"model": "asked", "input": ["one"], "encoding_format": "base64"}),
        ),
        (
            Operation::OllamaEmbed,
            json!({"model": "asked", "input": "one", "truncate": true}),
        ),
        (Operation::OllamaEmbeddings, json!({"model": "asked", "prompt": "one"})),
        (
            Operation::Generate,
            json!({"user_id": "u", "project_id": "p", "model": "asked", "prompt": "Why \"so\"?", "max_tokens": 3}),
        ),
    ]
}

pub(super) fn changes() -> RequestChanges<'static> {
    RequestChanges {
        model: "theirs",
        max_tokens: Some(33),
        must_limit: false,
        asks_usage: true,
    }
}

#[test]
fn every_request_is_said_in_the_words_of_every_server() {
    let mut said = String::new();
    for (name, native_apis) in [("openai", OPENAI), ("ollama", OLLAMA)] {
        for (call, body) in rich() {
            let Some(mut translation) = translated(native_apis, call, &body).expect("translatable") else {
                let _ = writeln!(said, "{call:?} to {name}: as it is\n");
                continue;
            };
            let body: Value = serde_json::from_slice(&translation.body(&changes())).expect("JSON");
            let path = translation.operation.upstream_path();
            let _ = writeln!(said, "{call:?} to {name}: {path}\n{body:#}\n");
        }
    }
    insta::assert_snapshot!(said);
}

/// A whole answer of OpenAI's shape, with everything in it.
fn openai_whole() -> Value {
    json!({"id": "x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": "Let me see.",
        "reasoning_content": "Hm.", "tool_calls": [{"id": "call_9", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Paris\"}"}}]}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}})
}

fn ollama_whole() -> Value {
    json!({"model": "theirs", "message": {"role": "assistant", "content": "Let me see.", "thinking": "Hm.",
        "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]}, "response": "Let me see.",
        "done": true, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7})
}

fn embeddings_whole(native_apis: NativeApis) -> Value {
    if native_apis == OPENAI {
        json!({"data": [{"embedding": [0.5, -0.25]}], "usage": {"prompt_tokens": 2}})
    } else {
        json!({"embeddings": [[0.5, -0.25]], "prompt_eval_count": 2})
    }
}

/// Durations are those of the test's run.
fn without_durations(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        for (key, field) in fields.iter_mut().filter(|(key, _)| key.ends_with("_duration")) {
            assert!(field.is_u64(), "{key}");
            *field = 0.into();
        }
    }
    value
}

#[test]
fn every_answer_comes_back_in_the_clients_words() {
    let mut said = String::new();
    for (name, native_apis) in [("openai", OPENAI), ("ollama", OLLAMA)] {
        for (call, mut body) in rich() {
            if call.generates() {
                body["stream"] = false.into();
            }
            let Some(mut translation) = translated(native_apis, call, &body).expect("translatable") else {
                continue;
            };
            let answer = match (call.generates(), native_apis == OPENAI) {
                (false, _) => embeddings_whole(native_apis),
                (true, true) if translation.operation == Operation::Completions => {
                    json!({"choices": [{"text": "is blue", "finish_reason": "length"}], "usage": {"prompt_tokens": 2, "completion_tokens": 2}})
                }
                (true, true) => openai_whole(),
                (true, false) => ollama_whole(),
            };
            let whole = translation.whole(answer.to_string().as_bytes()).expect("an answer");
            let _ = match serde_json::from_slice::<Value>(&whole) {
                Ok(whole) => writeln!(said, "{call:?} from {name}\n{:#}\n", without_durations(whole)),
                Err(_) => writeln!(said, "{call:?} from {name}\n{}\n", String::from_utf8_lossy(&whole)),
            };
        }
    }
    insta::assert_snapshot!(said);
}

#[test]
fn every_stream_comes_back_in_the_clients_words() {
    let chunk =
        |delta: Value, finish: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
    let openai: Vec<String> = [
        chunk(json!({"role": "assistant", "reasoning_content": "Hm."}), Value::Null),
        chunk(json!({"content": "Let me"}), Value::Null),
        chunk(json!({"content": " see."}), Value::Null),
        chunk(json!({"tool_calls": [{"index": 0, "id": "call_9", "type": "function", "function": {"name": "weather", "arguments": ""}}]}), Value::Null),
        chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"city\":"}}]}), Value::Null),
        chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": "\"Paris\"}"}}]}), Value::Null),
        chunk(json!({}), "tool_calls".into()),
        json!({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}),
    ]
    .iter()
    .map(|chunk| format!("data: {chunk}\n\n"))
    .collect();
    let ollama: Vec<String> = [
        json!({"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": false}),
        json!({"message": {"role": "assistant", "content": "Let me"}, "done": false}),
        json!({"message": {"role": "assistant", "content": " see."}, "done": false}),
        json!({"message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]}, "done": false}),
        json!({"message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7}),
    ]
    .iter()
    .map(|line| format!("{line}\n"))
    .collect();
    let mut said = String::new();
    for (name, native_apis, events) in [("openai", OPENAI, &openai), ("ollama", OLLAMA, &ollama)] {
        for (call, body) in rich().into_iter().filter(|(_, body)| body["stream"] == true) {
            let Some(mut translation) = translated(native_apis, call, &body).expect("translatable") else {
                continue;
            };
            let mut out = Vec::new();
            for event in events {
                translation.event(event.as_bytes(), &mut out).expect("an event");
            }
            out.extend_from_slice(&translation.finish());
            let out = String::from_utf8(out).expect("text");
            let out = if call == Operation::OllamaChat {
                out.lines().fold(String::new(), |mut all, line| {
                    let line: Value = serde_json::from_str(line).expect("JSON");
                    let _ = writeln!(all, "{}", without_durations(line));
                    all
                })
            } else {
                out
            };
            let _ = writeln!(said, "{call:?} from {name}\n{out}");
        }
    }
    insta::assert_snapshot!(said);
}

#[test]
fn what_cannot_be_said_is_refused_with_its_name() {
    let message = json!([{"role": "user", "content": "hi"}]);
    let chat = |key: &str, value: Value| json!({"model": "m", "messages": message, key: value});
    for (native_apis, call, body, name) in [
        (
            OLLAMA,
            Operation::ChatCompletions,
            chat("logit_bias", json!({"5": 1})),
            "logit_bias",
        ),
        (OLLAMA, Operation::ChatCompletions, chat("n", json!(2)), "n"),
        (
            OLLAMA,
            Operation::ChatCompletions,
            chat("audio", json!({"voice": "alloy"})),
            "audio",
        ),
        (
            OLLAMA,
            Operation::ChatCompletions,
            json!({"model": "m", "messages": [{"role": "user", "content":
            [{"type": "image_url", "image_url": {"url": "https://elsewhere/x.png"}}]}]}),
            "image_url",
        ),
        (
            OLLAMA,
            Operation::Completions,
            json!({"model": "m", "prompt": [1, 2]}),
            "prompt",
        ),
        (
            OLLAMA,
            Operation::Embeddings,
            json!({"model": "m", "input": [1, 2]}),
            "input",
        ),
        (
            OPENAI,
            Operation::Responses,
            json!({"model": "m", "input": "hi", "previous_response_id": "resp_1"}),
            "previous_response_id",
        ),
        (
            OPENAI,
            Operation::Responses,
            json!({"model": "m", "input": "hi", "tools": [{"type": "web_search"}]}),
            "tools.web_search",
        ),
        (
            OPENAI,
            Operation::Responses,
            json!({"model": "m", "input": [{"type": "computer_call"}]}),
            "input.computer_call",
        ),
        (
            OPENAI,
            Operation::Messages,
            chat("mcp_servers", json!([{}])),
            "mcp_servers",
        ),
        (
            OPENAI,
            Operation::Messages,
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "document"}]}]}),
            "messages.content.document",
        ),
        (
            OPENAI,
            Operation::OllamaGenerate,
            json!({"model": "m", "prompt": "x", "template": "y"}),
            "template",
        ),
    ] {
        let stop = translated(native_apis, call, &body).expect_err(name);
        assert_eq!(stop.param.as_deref(), Some(name), "{}", stop.message);
        assert!(stop.message.contains(&format!("`{name}`")), "{}", stop.message);
    }
}

#[test]
fn an_answer_that_is_none_is_told_and_a_server_that_fails_in_its_stream_too() {
    let body = json!({"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]});
    for nonsense in [
        "",
        "[]",
        "{}",
        "{\"choices\":[]}",
        "<html>",
        "{\"choices\":[{\"message\":5}]}",
    ] {
        let mut translation = translated(OPENAI, Operation::Messages, &body)
            .expect("fine")
            .expect("needed");
        assert!(translation.whole(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
    let mut translation = translated(OPENAI, Operation::Messages, &body)
        .expect("fine")
        .expect("needed");
    let failed = translation.event(
        b"data: {\"error\":{\"message\":\"out of memory\"}}\n\n",
        &mut Vec::new(),
    );
    assert!(failed.expect_err("told").message.contains("out of memory"));
    let mut translation = translated(OLLAMA, Operation::Messages, &body)
        .expect("fine")
        .expect("needed");
    let failed = translation.event(b"{\"error\":\"out of memory\"}\n", &mut Vec::new());
    assert!(failed.expect_err("told").message.contains("out of memory"));
}

/// `cargo test --release -p gateway how_long -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, for docs/performance.md"]
fn how_long_a_translation_takes() {
    let text = "Why is the sky blue, and what has that to do with the time of day? ".repeat(13);
    let body = json!({"model": "asked", "messages": [{"role": "user", "content": text}]}).to_string();
    let answer =
        json!({"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
        .to_string();
    let chunk = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" blue\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    for call in [Operation::Messages, Operation::OllamaChat] {
        let parsed = parse(call, body.as_bytes()).expect("fine");
        let rounds = 20_000;
        let began = std::time::Instant::now();
        for _ in 0..rounds {
            let translation = request(OPENAI, call, body.as_bytes(), &parsed, &about());
            let mut translation = translation.expect("fine").expect("needed");
            std::hint::black_box(translation.body(&changes()));
            std::hint::black_box(translation.whole(answer.as_bytes()).expect("an answer"));
        }
        let whole = began.elapsed() / rounds;
        let mut translation = request(OPENAI, call, body.as_bytes(), &parsed, &about())
            .expect("fine")
            .expect("needed");
        let began = std::time::Instant::now();
        for _ in 0..rounds {
            let mut out = Vec::new();
            translation.event(chunk.as_bytes(), &mut out).expect("an event");
            std::hint::black_box(out);
        }
        println!(
            "{call:?}: request and answer {whole:?}, a chunk {:?}",
            began.elapsed() / rounds
        );
    }
}
