//! The wire shapes of every translation, as snapshots; and the names under which it refuses.

use super::*;
use crate::parse;
use crate::unsupported::Unsupported;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;

const OPENAI: Speaks = Speaks {
    openai: true,
    responses: false,
    anthropic: false,
    ollama: false,
};
const OLLAMA: Speaks = Speaks {
    openai: false,
    ollama: true,
    ..OPENAI
};

fn about() -> About {
    About {
        request_id: "req-1".to_owned(),
        model: "asked".to_owned(),
        created: 1_700_000_000,
        context: 4096,
        prompt_tokens: 9,
        ..About::default()
    }
}

fn translated(speaks: Speaks, call: Operation, body: &Value) -> Result<Option<Translation>, RequestError> {
    let body = body.to_string();
    let parsed = parse(call, body.as_bytes())?;
    request(speaks, call, body.as_bytes(), &parsed, &about())
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

fn changes() -> Changes<'static> {
    Changes {
        model: "theirs",
        max_tokens: 33,
    }
}

#[test]
fn every_request_is_said_in_the_words_of_every_server() {
    let mut said = String::new();
    for (name, speaks) in [("openai", OPENAI), ("ollama", OLLAMA)] {
        for (call, body) in rich() {
            let Some(mut translation) = translated(speaks, call, &body).expect("translatable") else {
                let _ = writeln!(said, "{call:?} to {name}: as it is\n");
                continue;
            };
            let body: Value = serde_json::from_slice(&translation.body(&changes())).expect("JSON");
            let path = translation.call.upstream_path();
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

fn embeddings_whole(speaks: Speaks) -> Value {
    if speaks == OPENAI {
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
    for (name, speaks) in [("openai", OPENAI), ("ollama", OLLAMA)] {
        for (call, mut body) in rich() {
            if call.generates() {
                body["stream"] = false.into();
            }
            let Some(mut translation) = translated(speaks, call, &body).expect("translatable") else {
                continue;
            };
            let answer = match (call.generates(), speaks == OPENAI) {
                (false, _) => embeddings_whole(speaks),
                (true, true) if translation.call == Operation::Completions => {
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
    for (name, speaks, events) in [("openai", OPENAI, &openai), ("ollama", OLLAMA, &ollama)] {
        for (call, body) in rich().into_iter().filter(|(_, body)| body["stream"] == true) {
            let Some(mut translation) = translated(speaks, call, &body).expect("translatable") else {
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
    for (speaks, call, body, name) in [
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
        let stop = translated(speaks, call, &body).expect_err(name);
        assert_eq!(stop.param.as_deref(), Some(name), "{}", stop.message);
        assert!(stop.message.contains(&format!("`{name}`")), "{}", stop.message);
    }
}

/// What real clients send beside what can be said: Claude Code, Codex, LangChain, LlamaIndex, pydantic-ai, AutoGen,
/// instructor, the AI SDK, Ollama's own clients.
fn hints() -> Vec<(Speaks, Operation, Value, &'static [&'static str])> {
    let message = json!([{"role": "user", "content": "hi"}]);
    let with = |mut body: Value| {
        body["model"] = "m".into();
        if body["messages"].is_null() && body["input"].is_null() {
            body["messages"] = message.clone();
        }
        body
    };
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let tool =
        json!({"name": "f", "input_schema": {"type": "object"}, "defer_loading": true, "eager_input_streaming": true});
    let codex = json!({"type": "function", "name": "f", "parameters": {}});
    vec![
        (
            OPENAI,
            Operation::Messages,
            with(
                json!({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}, "metadata": {"user_id": "u"},
                "thinking": {"type": "auto"}, "output_config": {"effort": "max", "task_budget": {"type": "tokens", "total": 9}},
                "tools": [tool, {"type": "web_search_20250305", "name": "web_search"}]}),
            ),
            &[
                "tools.defer_loading",
                "tools.eager_input_streaming",
                "tools.web_search_20250305",
                "thinking.type",
                "output_config.task_budget",
                "context_management",
            ],
        ),
        (
            OPENAI,
            Operation::Messages,
            with(json!({"messages": [
                {"role": "user", "content": [{"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "found"}]},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a plan"}}]},
                {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": true, "content": "no such file"}]}]})),
            &[
                "messages.content.redacted_thinking",
                "messages.content.server_tool_use",
                "messages.content.web_search_tool_result",
            ],
        ),
        (
            OPENAI,
            Operation::Responses,
            with(
                json!({"input": "hi", "client_metadata": {"a": "b"}, "truncation": "auto", "store": false, "parallel_tool_calls": false,
                "include": ["reasoning.encrypted_content", "web_search_call.action.sources"], "prompt_cache_key": "k", "reasoning": {"effort": "low", "summary": "auto"},
                "tools": [codex, {"type": "custom", "name": "apply_patch"}, {"type": "web_search"}, {"type": "namespace", "name": "mcp", "tools": []}]}),
            ),
            &[
                "tools.custom",
                "tools.web_search",
                "tools.namespace",
                "include.web_search_call.action.sources",
                "truncation",
            ],
        ),
        (
            OLLAMA,
            Operation::ChatCompletions,
            with(
                json!({"tools": [function], "tool_choice": "required", "parallel_tool_calls": false, "verbosity": "low", "user": "u",
                "chat_template_kwargs": {"enable_thinking": false, "other": 1}, "messages": [{"role": "user", "name": "ann", "content": "hi"}]}),
            ),
            &[
                "messages.name",
                "tool_choice",
                "parallel_tool_calls",
                "chat_template_kwargs.other",
                "verbosity",
            ],
        ),
        (
            OPENAI,
            Operation::OllamaChat,
            with(
                json!({"keep_alive": 0, "truncate": true, "shift": true, "max_output_tokens": 9,
                "options": {"num_gpu": 1, "num_thread": 4, "num_batch": 8, "main_gpu": 0, "num_ctx": 100_000, "top_k": null, "seed": 7}}),
            ),
            &[
                "options.num_gpu",
                "options.num_thread",
                "options.num_batch",
                "options.main_gpu",
                "options.num_ctx",
                "keep_alive",
                "truncate",
                "shift",
                "max_output_tokens",
            ],
        ),
        (
            OPENAI,
            Operation::OllamaEmbed,
            with(
                json!({"input": "hi", "truncate": true, "options": {"num_ctx": null, "mirostat": null, "num_gpu": 2}}),
            ),
            &["options.num_gpu"],
        ),
    ]
}

#[test]
fn a_hint_is_left_out_and_named_and_refused_only_where_the_model_says_so() {
    for (speaks, call, body, names) in hints() {
        let translation = translated(speaks, call, &body)
            .expect("hints are no reason to refuse")
            .expect("needed");
        let dropped: BTreeSet<&str> = translation.dropped.iter().map(|name| &**name).collect();
        assert_eq!(dropped, names.iter().copied().collect(), "{call:?}");
        let body = body.to_string();
        let parsed = parse(call, body.as_bytes()).expect("fine");
        let strict = About {
            unsupported: Unsupported::Refuse,
            ..about()
        };
        let stop = request(speaks, call, body.as_bytes(), &parsed, &strict).expect_err("told to refuse");
        assert!(
            names.contains(&stop.param.as_deref().unwrap_or_default()),
            "{call:?}: {stop:?}"
        );
    }
}

#[test]
fn a_requests_history_is_read_with_its_quirks() {
    let sent = |speaks, call, body: Value| {
        let mut translation = translated(speaks, call, &body).expect("translatable").expect("needed");
        serde_json::from_slice::<Value>(&translation.body(&changes())).expect("JSON")["messages"].clone()
    };
    let picture =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}});
    let anthropic = sent(
        OPENAI,
        Operation::Messages,
        json!({"model": "m", "messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}, {"type": "tool_use", "id": "u", "name": "f", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "seen"}, picture]},
            {"type": "tool_result", "tool_use_id": "u", "is_error": true, "content": "no such file"}]}]}),
    );
    assert_eq!(
        anthropic[1],
        json!({"role": "tool", "tool_call_id": "t", "content": "seen"})
    );
    assert_eq!(
        anthropic[2],
        json!({"role": "tool", "tool_call_id": "u", "content": "Error:\nno such file"})
    );
    assert_eq!(anthropic[3]["role"], "user");
    assert_eq!(
        anthropic[3]["content"][1]["image_url"]["url"],
        "data:image/png;base64,iVBORw0KGgo="
    );

    let responses = sent(
        OPENAI,
        Operation::Responses,
        json!({"model": "m", "input": [
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {"type": "function_call", "call_id": "d", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "it"}, {"type": "input_image", "image_url": "data:,x"}]},
        {"role": "user", "content": "so?"}]}),
    );
    assert_eq!(
        responses[0]["tool_calls"][0]["function"]["arguments"],
        r#"{"input":"*** Begin"}"#
    );
    assert_eq!(
        responses[3],
        json!({"role": "tool", "tool_call_id": "d", "content": "it"})
    );
    assert_eq!(responses[4]["content"][1]["image_url"]["url"], "data:,x");
    assert_eq!(responses[5]["content"], "so?");

    let ollama = sent(
        OLLAMA,
        Operation::ChatCompletions,
        json!({"model": "m", "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "be"}]},
        {"role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null, "function_call": null, "reasoning": "hm", "tool_calls": [
            {"id": "a", "index": 0, "type": "function", "function": {"name": "f", "arguments": ""}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": {"x": 1}}},
            {"id": "c", "type": "function", "function": {"name": "h", "arguments": "{\"x\": 1"}}]},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "name": "f", "content": "1"}]}),
    );
    assert_eq!(ollama[0], json!({"role": "system", "content": "be"}));
    assert_eq!(ollama[1]["thinking"], "hm");
    let arguments: Vec<&Value> = ollama[1]["tool_calls"]
        .as_array()
        .expect("calls")
        .iter()
        .map(|call| &call["function"]["arguments"])
        .collect();
    assert_eq!(
        arguments,
        [&json!({}), &json!({"x": 1}), &json!({"invalid_json": "{\"x\": 1"})]
    );
    assert_eq!(
        (&ollama[2]["tool_name"], &ollama[3]["tool_name"]),
        (&json!("g"), &json!("f"))
    );

    let openai = sent(
        OPENAI,
        Operation::OllamaChat,
        json!({"model": "m", "messages": [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}, {"function": {"name": "g", "arguments": {}}}]},
        {"role": "tool", "name": "g", "content": "2"}, {"role": "tool", "content": "1"}, {"role": "tool", "content": "of nothing"}]}),
    );
    let ids: Vec<&Value> = (1..4).map(|at| &openai[at]["tool_call_id"]).collect();
    assert_eq!(ids, ["call_1", "call_0", "call_2"]);
}

#[test]
fn a_choice_of_one_tool_offers_ollama_that_one_alone() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let body = json!({"model": "m", "messages": [], "tools": [tool("f"), tool("g")], "tool_choice": tool("g")});
    let mut translation = translated(OLLAMA, Operation::ChatCompletions, &body)
        .expect("fine")
        .expect("needed");
    let sent: Value = serde_json::from_slice(&translation.body(&changes())).expect("JSON");
    assert_eq!(sent["tools"], json!([tool("g")]));
    assert_eq!(translation.dropped, ["tool_choice"]);
}

#[test]
fn a_server_tool_that_is_all_that_is_offered_is_not_left_out() {
    for tools in [
        json!([{"type": "web_search_20250305", "name": "web_search"}]),
        json!([
        {"name": "f", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search"}]),
    ] {
        let body = json!({"model": "m", "messages": [], "tools": tools, "tool_choice": {"type": "tool", "name": "web_search"}});
        let stop = translated(OPENAI, Operation::Messages, &body).expect_err("nothing else can do it");
        assert_eq!(stop.param.as_deref(), Some("tools.web_search_20250305"));
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
