//! Streams of servers that speak the client's own protocol, with what real ones put into them.

#![allow(clippy::format_collect, clippy::too_many_lines)]

use serde_json::{Value, json};

/// A stream by its name; whether it is complete.
pub(crate) type Native = (&'static str, String, bool);

fn events(events: &[Value]) -> String {
    let event = |data: &Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().expect("a type"));
    events.iter().map(event).collect()
}

/// Anthropic's messages: 10 tokens in, 3 out.
pub(crate) fn messages() -> Vec<Native> {
    let start = |usage: Value| json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": null, "usage": usage}});
    let begin = |block: Value| json!({"type": "content_block_start", "index": 0, "content_block": block});
    let delta = |delta: Value| json!({"type": "content_block_delta", "index": 0, "delta": delta});
    let stop = json!({"type": "content_block_stop", "index": 0});
    let end = |usage: Value| json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": usage});
    let last = json!({"type": "message_stop"});
    let (used, made) = (
        json!({"input_tokens": 10, "output_tokens": 1}),
        json!({"output_tokens": 3}),
    );
    let text = |text: &str| delta(json!({"type": "text_delta", "text": text}));
    let hello = [
        begin(json!({"type": "text", "text": ""})),
        text("Hel"),
        text("lo"),
        stop.clone(),
    ];
    let around =
        |first: &Value, content: &[Value], end: &[Value]| events(&[std::slice::from_ref(first), content, end].concat());
    let with = |content: &[Value]| {
        around(
            &start(used.clone()),
            &[content, &hello].concat(),
            &[end(made.clone()), last.clone()],
        )
    };
    let plain = with(&[]);
    let long = "A".repeat(3000);
    vec![
        (
            "pings",
            plain.replace("\n\n", "\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n"),
            true,
        ),
        (
            "unknown events",
            plain.replace("\n\n", "\n\nevent: x\ndata: {\"type\":\"x\"}\n\n"),
            true,
        ),
        ("blanks in its JSON", plain.replace("\":", "\": "), true),
        (
            "no names",
            plain
                .lines()
                .filter(|line| !line.starts_with("event:"))
                .map(|line| format!("{line}\n"))
                .collect(),
            true,
        ),
        (
            "the figures at the end",
            around(
                &start(json!({"input_tokens": 0, "output_tokens": 0})),
                &hello,
                &[end(json!({"input_tokens": 10, "output_tokens": 3})), last.clone()],
            ),
            true,
        ),
        (
            "cached tokens",
            around(
                &start(
                    json!({"input_tokens": 2, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 1}),
                ),
                &hello,
                &[end(made.clone()), last.clone()],
            ),
            true,
        ),
        (
            "figures of null",
            around(
                &start(json!({"input_tokens": 10, "cache_read_input_tokens": null, "output_tokens": null})),
                &hello,
                &[
                    end(json!({"output_tokens": 3, "cache_read_input_tokens": null})),
                    last.clone(),
                ],
            ),
            true,
        ),
        (
            "a growing count",
            around(
                &start(used.clone()),
                &hello,
                &[end(json!({"output_tokens": 2})), end(made.clone()), last.clone()],
            ),
            true,
        ),
        (
            "a signature",
            with(&[
                begin(json!({"type": "thinking", "thinking": ""})),
                delta(json!({"type": "signature_delta", "signature": long})),
                stop.clone(),
            ]),
            true,
        ),
        (
            "secret thoughts",
            with(&[begin(json!({"type": "redacted_thinking", "data": long})), stop.clone()]),
            true,
        ),
        (
            "a search's result",
            with(&[
                begin(
                    json!({"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"type": "web_search_result", "encrypted_content": long}]}),
                ),
                stop.clone(),
            ]),
            true,
        ),
        (
            "citations",
            with(&[
                begin(json!({"type": "text", "text": ""})),
                delta(json!({"type": "citations_delta", "citation": {"cited_text": long}})),
                stop,
            ]),
            true,
        ),
        (
            "no message_stop",
            around(&start(used.clone()), &hello, &[end(made)]),
            true,
        ),
        ("cut", around(&start(used.clone()), &hello, &[]), false),
        (
            "overloaded",
            around(
                &start(used),
                &hello,
                &[json!({"type": "error", "error": {"type": "overloaded_error", "message": "error"}})],
            ),
            false,
        ),
    ]
}

/// OpenAI's responses: 10 tokens in, 3 out.
pub(crate) fn responses() -> Vec<Native> {
    let response = |status: &str, output: &[Value], usage: Value| json!({"id": "resp", "object": "response", "status": status, "model": "m", "output": output, "usage": usage});
    let usage = json!({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3, "total_tokens": 13});
    let hello = json!({"type": "message", "id": "msg", "role": "assistant", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]});
    let created = json!({"type": "response.created", "response": response("in_progress", &[], Value::Null)});
    let text = json!({"type": "response.output_text.delta", "item_id": "msg", "output_index": 0, "content_index": 0, "delta": "Hello", "obfuscation": "x".repeat(200)});
    let secret = json!({"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "A".repeat(6000)});
    let ends =
        |name: &str, end: Value| events(&[created.clone(), text.clone(), json!({"type": name, "response": end})]);
    let whole = || response("completed", std::slice::from_ref(&hello), usage.clone());
    let plain = ends("response.completed", whole());
    vec![
        ("an end marker of chats", plain.clone() + "data: [DONE]\n\n", true),
        (
            "keep-alives",
            plain.replace("\n\n", "\n\nevent: keepalive\ndata: {\"type\":\"keepalive\"}\n\n"),
            true,
        ),
        (
            "unknown events",
            plain.replace(
                "\n\n",
                "\n\nevent: response.x\ndata: {\"type\":\"response.x\",\"delta\":\"x\"}\n\n",
            ),
            true,
        ),
        (
            "incomplete",
            ends(
                "response.incomplete",
                response("incomplete", std::slice::from_ref(&hello), usage.clone()),
            ),
            true,
        ),
        (
            "encrypted reasoning",
            events(&[
                created.clone(),
                json!({"type": "response.output_item.done", "item": secret}),
                text.clone(),
                json!({"type": "response.completed", "response": response("completed", &[secret, hello.clone()], usage.clone())}),
            ]),
            true,
        ),
        (
            "a partial image",
            events(&[
                created.clone(),
                json!({"type": "response.image_generation_call.partial_image", "partial_image_b64": "A".repeat(50_000)}),
                text.clone(),
                json!({"type": "response.completed", "response": whole()}),
            ]),
            true,
        ),
        (
            "failed",
            ends(
                "response.failed",
                json!({"status": "failed", "error": {"code": "server_error", "message": "error"}}),
            ),
            false,
        ),
        (
            "an error",
            events(&[
                created.clone(),
                json!({"type": "error", "code": "x", "message": "error"}),
            ]),
            false,
        ),
        ("cut", events(&[created, text]), false),
    ]
}

/// Ollama's chat: 10 tokens in, 3 out.
pub(crate) fn ollama() -> Vec<Native> {
    let line = |message: Value| {
        format!(
            "{}\n",
            json!({"model": "m", "created_at": "x", "message": message, "done": false})
        )
    };
    let end = format!(
        "{}\n",
        json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "prompt_eval_count": 10, "eval_count": 3})
    );
    let hello = || line(json!({"role": "assistant", "content": "Hello"}));
    vec![
        ("plain", hello() + &end, true),
        (
            "CR LF and empty lines",
            (hello() + "\n" + &end).replace('\n', "\r\n"),
            true,
        ),
        ("no last line feed", hello() + end.trim_end(), true),
        ("blanks in its JSON", (hello() + &end).replace("\":", "\": "), true),
        (
            "thoughts",
            line(json!({"content": "", "thinking": "hm"})) + &hello() + &end,
            true,
        ),
        (
            "a tool's call",
            line(json!({"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]})) + &end,
            true,
        ),
        (
            "log probabilities",
            hello().replacen(
                "\"model\"",
                &format!(
                    "\"logprobs\":[{}],\"model\"",
                    json!({"token": "Hello", "top_logprobs": vec![json!({"token": "x"}); 200]})
                ),
                1,
            ) + &end,
            true,
        ),
        ("an error", hello() + "{\"error\":\"error\"}\n", false),
        ("cut", hello(), false),
    ]
}
