//! Fields of real clients that a server's protocol cannot express.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons
)]

use super::tests::{OLLAMA, OPENAI, about, changes, translated};
use super::*;
use crate::unsupported::{Unsupported, dropped_header};
use crate::{Protocol, parse};
use serde_json::json;
use std::collections::BTreeSet;

/// Hints of real clients: Claude Code, Codex, LangChain, LlamaIndex, pydantic-ai, AutoGen,
/// instructor, the AI SDK, Ollama's own clients.
fn hints() -> Vec<(NativeApis, Operation, Value, &'static [&'static str])> {
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
    for (native_apis, call, body, names) in hints() {
        let translation = translated(native_apis, call, &body)
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
        let stop = request(native_apis, call, body.as_bytes(), &parsed, &strict).expect_err("told to refuse");
        assert!(
            names.contains(&stop.param.as_deref().unwrap_or_default()),
            "{call:?}: {stop:?}"
        );
    }
}

#[test]
fn a_requests_history_is_read_with_its_quirks() {
    let sent = |native_apis, call, body: Value| {
        let mut translation = translated(native_apis, call, &body)
            .expect("translatable")
            .expect("needed");
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
fn names_that_a_client_made_up_make_no_header_of_their_own() {
    let body = json!({"model": "m", "messages": [], "max_tokens": 9, "x\r\nset-cookie: a, b\u{e9}": 1});
    let translation = translated(OPENAI, Operation::Messages, &body)
        .expect("fine")
        .expect("needed");
    assert_eq!(
        dropped_header(&translation.dropped).as_deref(),
        Some("x??set-cookie:?a??b?")
    );
    let many: serde_json::Map<String, Value> = (0..500).map(|at| (format!("field_{at}"), at.into())).collect();
    let mut body = json!({"model": "m", "messages": [], "max_tokens": 9});
    body.as_object_mut().expect("an object").extend(many);
    let translation = translated(OPENAI, Operation::Messages, &body)
        .expect("fine")
        .expect("needed");
    assert!(dropped_header(&translation.dropped).is_some_and(|header| header.len() < 20 * 82));
}

/// anthropic-sdk-python's tool runner and Claude Code send the whole conversation once they read this code.
#[test]
fn a_thread_is_refused_in_the_words_by_which_anthropics_sdks_go_on_without_it() {
    for native_apis in [OPENAI, OLLAMA] {
        let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
            "thread": {"type": "create"}});
        let error = translated(native_apis, Operation::Messages, &body).expect_err("no other server keeps threads");
        let answer: Value = serde_json::from_slice(&error.body(Protocol::Anthropic, "req-1")).expect("JSON");
        assert_eq!(error.code.status(), 400);
        assert_eq!(
            answer,
            json!({"type": "error", "request_id": "req-1", "error": {
                "type": "invalid_request_error",
                "message": "`thread` is not supported by this model's server; send the whole conversation in `messages`",
                "details": {"error_code": "thread_unsupported_request"},
            }})
        );
    }
    let null = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "thread": null});
    translated(OPENAI, Operation::Messages, &null).expect("nothing is asked for");
}

#[test]
fn a_translated_request_never_unloads_the_model_of_an_ollama_server() {
    let message = json!([{"role": "user", "content": "hi"}]);
    for (keep_alive, sent, dropped) in [
        (json!(0), Value::Null, &["keep_alive"][..]),
        (json!("0ms"), Value::Null, &["keep_alive"]),
        (json!("5m"), json!("5m"), &[]),
        (json!(-1), json!(-1), &[]),
    ] {
        let body = json!({"model": "m", "messages": message, "keep_alive": keep_alive});
        let mut translation = translated(OLLAMA, Operation::ChatCompletions, &body)
            .expect("a hint")
            .expect("another protocol");
        let asked: Value = serde_json::from_slice(&translation.body(&changes())).expect("JSON");
        assert_eq!(asked["keep_alive"], sent);
        assert_eq!(translation.dropped, dropped);
    }
}

#[test]
fn parts_of_other_protocols_and_of_histories_are_read_as_what_they_mean() {
    let sent = |native_apis, call, body: &Value| -> Value {
        let translation = translated(native_apis, call, body)
            .expect("fine")
            .expect("needed")
            .body(&changes());
        serde_json::from_slice(&translation).expect("JSON")
    };
    let body = json!({"model": "m", "tools": [{"function": {"name": "f", "parameters": {}}}], "messages": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "ho"}]},
    ]});
    let asked = sent(OLLAMA, Operation::ChatCompletions, &body);
    assert_eq!(
        asked["messages"],
        json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "thinking": "hm"}])
    );
    let url = "data:image/webp;base64,AAAA";
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi", "images": [url]}]});
    let asked = sent(OPENAI, Operation::OllamaChat, &body);
    assert_eq!(asked["messages"][0]["content"][1]["image_url"]["url"], url);
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "assistant", "content": [{"type": "compaction", "content": "so far"}]}, {"role": "user", "content": "hi"}]});
    let asked = sent(OPENAI, Operation::Messages, &body);
    assert_eq!(asked["messages"][0], json!({"role": "assistant", "content": "so far"}));
}

#[test]
fn a_refusal_in_a_history_is_what_the_model_said() {
    let body = json!({"model": "m", "messages": [{"role": "assistant", "content": null, "refusal": "no"}]});
    let translation = translated(OLLAMA, Operation::ChatCompletions, &body)
        .expect("fine")
        .expect("needed")
        .body(&changes());
    let asked: Value = serde_json::from_slice(&translation).expect("JSON");
    assert_eq!(asked["messages"], json!([{"role": "assistant", "content": "no"}]));
}

#[test]
fn a_body_that_cannot_be_read_is_refused_with_the_reason_and_its_place() {
    for (body, sentence) in [
        ("[]", "the body must be a JSON object"),
        (
            "{\"a\":1e400}",
            "the body cannot be read as JSON: number out of range at line 1 column 10",
        ),
    ] {
        let error = crate::hub::Fields::read(body.as_bytes()).expect_err("refused");
        assert_eq!((&*error.message, error.param.as_deref()), (sentence, None));
    }
    let options = json!({"model": "m", "messages": [], "options": []});
    let error = translated(OPENAI, Operation::OllamaChat, &options).expect_err("refused");
    assert_eq!(error.message, "`options` must be an object");
}
