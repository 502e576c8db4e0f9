//! Deviations of real servers from their protocol, whole and streamed, read by a client of each protocol.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons
)]

use super::tests::{OLLAMA, OPENAI, translated};
use super::*;
use crate::whole;
use serde_json::json;

/// The content of an answer, as a client reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    text: String,
    reasoning: String,
    /// Name and arguments.
    pub(super) calls: Vec<(String, Value)>,
    ids: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn parsed(arguments: &Value) -> Value {
    let text = arguments.as_str().expect("a text");
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Reads a whole answer as a client of the operation does.
fn read(call: Operation, whole: &Value) -> Answer {
    let mut answer = Answer::default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let called = |answer: &mut Answer, id: &Value, name: &Value, arguments: Value| {
        answer.ids.push(text(id));
        answer.calls.push((text(name), arguments));
    };
    match call {
        Operation::Messages => {
            for block in list(&whole["content"]) {
                answer.text += &text(&block["text"]);
                answer.reasoning += &text(&block["thinking"]);
                if block["type"] == "tool_use" {
                    called(&mut answer, &block["id"], &block["name"], block["input"].clone());
                }
            }
        }
        Operation::Responses => {
            for item in list(&whole["output"]) {
                let texts: String = list(&item["content"]).iter().map(|part| text(&part["text"])).collect();
                match item["type"].as_str() {
                    Some("reasoning") => answer.reasoning += &texts,
                    Some("function_call") => {
                        called(&mut answer, &item["call_id"], &item["name"], parsed(&item["arguments"]));
                    }
                    _ => answer.text += &texts,
                }
            }
        }
        Operation::OllamaChat => {
            let message = &whole["message"];
            (answer.text, answer.reasoning) = (text(&message["content"]), text(&message["thinking"]));
            for call in list(&message["tool_calls"]) {
                let function = &call["function"];
                called(
                    &mut answer,
                    &call["id"],
                    &function["name"],
                    function["arguments"].clone(),
                );
            }
        }
        _ => {
            let message = &whole["choices"][0]["message"];
            (answer.text, answer.reasoning) = (text(&message["content"]), text(&message["reasoning_content"]));
            for call in list(&message["tool_calls"]) {
                let function = &call["function"];
                called(
                    &mut answer,
                    &call["id"],
                    &function["name"],
                    parsed(&function["arguments"]),
                );
            }
        }
    }
    answer
}

const CLIENTS: [(Operation, &str); 4] = [
    (
        Operation::Messages,
        r#"{"model":"m","max_tokens":9,"messages":[],"stream":"#,
    ),
    (Operation::Responses, r#"{"model":"m","input":"hi","stream":"#),
    (Operation::OllamaChat, r#"{"model":"m","messages":[],"stream":"#),
    (Operation::ChatCompletions, r#"{"model":"m","messages":[],"stream":"#),
];

/// The answers that clients of the other protocols get of a server's answer.
pub(super) fn answers(native_apis: NativeApis, body: &str, is_stream: bool) -> Vec<(Operation, Answer)> {
    let answer = |(call, request): &(Operation, &str)| {
        let request: Value = serde_json::from_str(&format!("{request}{is_stream}}}")).expect("JSON");
        let mut translation = translated(native_apis, *call, &request).expect("fine")?;
        let whole = if is_stream {
            let mut out = Vec::new();
            for record in records(translation.operation.protocol().dialect().framing(), body.as_bytes()) {
                translation.event(record, &mut out).expect("an event");
            }
            out.extend_from_slice(&translation.finish());
            whole::from_stream(*call, &out).unwrap_or(out)
        } else {
            translation.whole(body.as_bytes()).expect("an answer")
        };
        Some((*call, read(*call, &serde_json::from_slice(&whole).expect("JSON"))))
    };
    CLIENTS.iter().filter_map(answer).collect()
}

pub(super) fn says(text: &str) -> Answer {
    Answer {
        text: text.to_owned(),
        ..Answer::default()
    }
}

fn thinks(reasoning: &str) -> Answer {
    Answer {
        reasoning: reasoning.to_owned(),
        ..says("hi")
    }
}

fn calls(arguments: &[Value]) -> Answer {
    Answer {
        calls: arguments
            .iter()
            .map(|arguments| ("f".to_owned(), arguments.clone()))
            .collect(),
        ..Answer::default()
    }
}

/// Messages as JSON texts, and what they say.
fn messages() -> Vec<(&'static str, &'static str, Answer)> {
    vec![
        (
            "vLLM: nulls everywhere",
            r#"{"role":"assistant","content":"hi","refusal":null,"annotations":null,"audio":null,"function_call":null,"tool_calls":[],"reasoning":null,"reasoning_content":null}"#,
            says("hi"),
        ),
        (
            "both names of the reasoning",
            r#"{"content":"hi","reasoning":"hm","reasoning_content":"hm"}"#,
            thinks("hm"),
        ),
        (
            "the newer name, the older null",
            r#"{"content":"hi","reasoning":"hm","reasoning_content":null}"#,
            thinks("hm"),
        ),
        (
            "the older name, the newer empty",
            r#"{"content":"hi","reasoning":"","reasoning_content":"hm"}"#,
            thinks("hm"),
        ),
        (
            "content in parts",
            r#"{"content":[{"type":"text","text":"h"},{"type":"text","text":"i"}]}"#,
            says("hi"),
        ),
        ("a refusal", r#"{"content":null,"refusal":"hi"}"#, says("hi")),
        (
            "unknown fields",
            r#"{"content":"hi","mood":{"a":[1,{}]},"token_ids":[1]}"#,
            says("hi"),
        ),
        (
            "Ollama's and others' names of the reasoning",
            r#"{"content":"hi","thinking":"hm"}"#,
            thinks("hm"),
        ),
        (
            "Copilot's name",
            r#"{"content":"hi","reasoning_text":"hm"}"#,
            thinks("hm"),
        ),
        (
            "OpenRouter's list",
            r#"{"content":"hi","reasoning_details":[{"type":"reasoning.text","text":"hm","format":null}]}"#,
            thinks("hm"),
        ),
        (
            "Mistral's parts",
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"hi"}]}"#,
            thinks("hm"),
        ),
        (
            "the older form of a call",
            r#"{"content":null,"tool_calls":null,"function_call":{"name":"f","arguments":"{\"a\":1}"}}"#,
            calls(&[json!({"a": 1})]),
        ),
        (
            "a call without `function`",
            r#"{"content":null,"tool_calls":[{"id":"c","name":"f","arguments":{"a":1}}]}"#,
            calls(&[json!({"a": 1})]),
        ),
        ("half an emoji", r#"{"content":"hi\ud83d"}"#, says("hi\u{fffd}")),
        ("a key twice", r#"{"content":"ho","content":"hi"}"#, says("hi")),
        (
            "arguments as an object",
            r#"{"content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":{"a":1}}}]}"#,
            calls(&[json!({"a": 1})]),
        ),
        (
            "no arguments",
            r#"{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]}"#,
            calls(&[json!({})]),
        ),
        (
            "empty ids",
            r#"{"tool_calls":[{"id":"","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"","function":{"name":"f","arguments":"{\"a\":2}"}}]}"#,
            calls(&[json!({"a": 1}), json!({"a": 2})]),
        ),
        (
            "no ids, no indexes",
            r#"{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}},{"function":{"name":"f","arguments":"{\"a\":2}"}}]}"#,
            calls(&[json!({"a": 1}), json!({"a": 2})]),
        ),
        (
            "index 0 for each",
            r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}},{"index":0,"id":"d","function":{"name":"f","arguments":"{\"a\":2}"}}]}"#,
            calls(&[json!({"a": 1}), json!({"a": 2})]),
        ),
        (
            "one id for both",
            r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}},{"index":1,"id":"c","function":{"name":"f","arguments":"{\"a\":2}"}}]}"#,
            calls(&[json!({"a": 1}), json!({"a": 2})]),
        ),
        (
            "a call that is no list",
            r#"{"tool_calls":{"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}}}"#,
            calls(&[json!({"a": 1})]),
        ),
        (
            "null in the place of a call",
            r#"{"tool_calls":[null,{"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#,
            calls(&[json!({"a": 1})]),
        ),
        (
            "numbers of Python's that are none of JSON's",
            r#"{"cost":NaN,"content":"-Infinity, \"NaN\\","logprobs":[-Infinity,Infinity,-1]}"#,
            says("-Infinity, \"NaN\\"),
        ),
    ]
}

#[test]
fn a_servers_quirks_reach_no_client() {
    for (name, message, expected) in messages() {
        for end in [r#""stop""#, r#""tool_calls""#] {
            let whole = format!(
                r#"{{"choices":[{{"index":0,"message":{message},"finish_reason":{end},"token_ids":null}}],"usage":{{"prompt_tokens":3.0,"completion_tokens":null}},"kv_transfer_params":null}}"#
            );
            let stream = format!(
                ": ping\n\ndata: {{\"choices\":[{{\"index\":0,\"delta\":{message},\"finish_reason\":\"\"}}],\"usage\":null}}\n\ndata: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":{end}}}]}}\n\ndata: {{\"choices\":null,\"usage\":{{\"prompt_tokens\":3.0,\"total_tokens\":4}}}}\n\ndata: [DONE]\n\n"
            );
            for (body, is_stream) in [(&whole, false), (&stream, true), (&stream, false)] {
                for (client, mut answer) in answers(OPENAI, body, is_stream) {
                    let ids = std::mem::take(&mut answer.ids);
                    assert_eq!(answer, expected, "{name}, {client:?}, streamed: {is_stream}");
                    let distinct: std::collections::BTreeSet<&String> =
                        ids.iter().filter(|id| !id.is_empty()).collect();
                    assert_eq!(distinct.len(), expected.calls.len(), "{name}, {client:?}: {ids:?}");
                }
            }
        }
    }
}

#[test]
fn ollamas_quirks_reach_no_client() {
    for (name, message, expected) in messages() {
        // What is OpenAI's alone is not in Ollama's answers.
        let openais = [
            "reasoning\":\"",
            "refusal\":\"",
            "index",
            "reasoning_content\":\"",
            "reasoning_text",
            "reasoning_details",
            "[{\"type\":\"thinking\"",
            "function_call\":{",
            "\"id\":\"c\",\"name\"",
        ];
        if openais.iter().any(|name| message.contains(name)) {
            continue;
        }
        let whole = format!(
            r#"{{"model":"m","message":{message},"done":true,"done_reason":"stop","prompt_eval_count":3.0,"eval_count":null}}"#
        );
        let stream = format!(
            "{{\"message\":{message},\"done\":false}}\r\n\n{{\"message\":{{\"content\":\"\"}},\"done\":true,\"prompt_eval_count\":3}}"
        );
        for (body, is_stream) in [(&whole, false), (&stream, true), (&stream, false)] {
            for (client, mut answer) in answers(OLLAMA, body, is_stream) {
                answer.ids.clear();
                assert_eq!(answer, expected, "{name}, {client:?}, streamed: {is_stream}");
            }
        }
    }
}

#[test]
fn zeros_after_the_figures_of_a_stream_take_nothing_back() {
    let figures = |input: u64, output: u64| json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}});
    let begin = json!({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]});
    let events = [begin, figures(3, 2), figures(0, 0)].map(|event| format!("data: {event}\n\n"));
    for (call, request) in &CLIENTS[..3] {
        let request: Value = serde_json::from_str(&format!("{request}true}}")).expect("JSON");
        let mut translation = translated(OPENAI, *call, &request).expect("fine").expect("needed");
        let mut out = Vec::new();
        for event in &events {
            translation.event(event.as_bytes(), &mut out).expect("an event");
        }
        out.extend_from_slice(&translation.finish());
        let whole = whole::from_stream(*call, &out).expect("a whole answer");
        let whole: Value = serde_json::from_slice(&whole).expect("JSON");
        let output = [&whole["usage"]["output_tokens"], &whole["eval_count"]];
        assert!(output.contains(&&json!(2)), "{call:?}: {whole}");
    }
}

#[test]
fn arguments_that_were_cut_are_not_taken_for_none() {
    let body = r#"{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\": 1"}}]},"finish_reason":"length"}]}"#;
    for (client, answer) in answers(OPENAI, body, false) {
        let expected = match client {
            Operation::Messages | Operation::OllamaChat => json!({"invalid_json": "{\"a\": 1"}),
            _ => "{\"a\": 1".into(),
        };
        assert_eq!(answer.calls, [("f".to_owned(), expected)], "{client:?}");
    }
}

#[test]
fn pieces_of_two_calls_in_turn_are_two_calls() {
    let piece = |call: Value| format!("data: {}\n\n", json!({"choices": [{"delta": {"tool_calls": [call]}}]}));
    let stream = [
        piece(json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"a\""}})),
        piece(json!({"index": 1, "id": "d", "function": {"name": "f", "arguments": "{\"a\""}})),
        piece(json!({"index": 0, "function": {"arguments": ":1}"}})),
        piece(json!({"index": 1, "function": {"arguments": ":2}"}})),
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n".to_owned(),
    ]
    .concat();
    for (client, answer) in answers(OPENAI, &stream, true) {
        assert_eq!(
            answer.calls,
            calls(&[json!({"a": 1}), json!({"a": 2})]).calls,
            "{client:?}"
        );
        assert_eq!(answer.ids, ["c", "d"], "{client:?}");
    }
}

#[test]
fn the_stop_sequence_that_was_met_is_told_where_the_server_says_it() {
    let request = json!({"model": "m", "max_tokens": 9, "messages": [], "stop_sequences": ["END"]});
    let body = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop","stop_reason":"END"}]}"#;
    let mut translation = translated(OPENAI, Operation::Messages, &request)
        .expect("fine")
        .expect("needed");
    let whole: Value = serde_json::from_slice(&translation.whole(body.as_bytes()).expect("an answer")).expect("JSON");
    assert_eq!(
        (&whole["stop_reason"], &whole["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    // SGLang's name for it.
    let sglang = body.replace("stop_reason", "matched_stop");
    let mut translation = translated(OPENAI, Operation::Messages, &request)
        .expect("fine")
        .expect("needed");
    let whole: Value = serde_json::from_slice(&translation.whole(sglang.as_bytes()).expect("an answer")).expect("JSON");
    assert_eq!(whole["stop_sequence"], "END");
    // A number is a token of the model's own, such as the one that ends every answer.
    let body = body.replace("\"END\"", "151645");
    let mut translation = translated(OPENAI, Operation::Messages, &request)
        .expect("fine")
        .expect("needed");
    let whole: Value = serde_json::from_slice(&translation.whole(body.as_bytes()).expect("an answer")).expect("JSON");
    assert_eq!(
        (&whole["stop_reason"], &whole["stop_sequence"]),
        (&json!("end_turn"), &Value::Null)
    );
}

#[test]
fn embeddings_belong_to_their_texts_whatever_their_order_and_packing() {
    let packed = |number: f32| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, number.to_le_bytes());
    let plain = json!({"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1.0]}], "usage": {"total_tokens": 7}});
    let base64 = json!({"data": [{"index": 1, "embedding": packed(2.0)}, {"index": 0, "embedding": packed(1.0)}], "usage": {"total_tokens": 7}});
    for body in [plain, base64] {
        let request = json!({"model": "m", "input": ["a", "b"]});
        let mut translation = translated(OPENAI, Operation::OllamaEmbed, &request)
            .expect("fine")
            .expect("needed");
        let whole: Value =
            serde_json::from_slice(&translation.whole(body.to_string().as_bytes()).expect("an answer")).expect("JSON");
        assert_eq!(whole["embeddings"], json!([[1.0], [2.0]]));
        assert_eq!(whole["prompt_eval_count"], 7);
    }
}
