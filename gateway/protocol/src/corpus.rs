//! Streams as real servers send them, for the tests of reading, measuring and translating them.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons
)]

use crate::Operation;
use serde_json::{Value, json};

/// A stream, and what is right of it.
pub(crate) struct Stream {
    pub(crate) name: &'static str,
    pub(crate) call: Operation,
    pub(crate) bytes: String,
    /// The answer's text, without reasoning and calls.
    pub(crate) text: &'static str,
    /// Input and output tokens that the server gives, if it gives any that can be true.
    pub(crate) usage: Option<(u64, u64)>,
    pub(crate) has_finished: bool,
}

fn chunk(delta: &Value, finish: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]})
}

fn usage(input: &Value, output: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
        "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": 13}})
}

/// Events of a chat completion, ended by `[DONE]`.
fn sse(events: &[Value], end: &str) -> String {
    let mut all: String = events.iter().map(|event| format!("data: {event}{end}{end}")).collect();
    all += &format!("data: [DONE]{end}{end}");
    all
}

fn hello() -> Vec<Value> {
    vec![
        chunk(&json!({"role": "assistant", "content": ""}), &Value::Null),
        chunk(&json!({"content": "Hel"}), &Value::Null),
        chunk(&json!({"content": "lo"}), &Value::Null),
        chunk(&json!({"content": " you\n\"}"}), &Value::Null),
        chunk(&json!({}), &json!("stop")),
    ]
}

fn with_usage(input: &Value, output: &Value) -> Vec<Value> {
    let mut events = hello();
    events.push(usage(input, output));
    events
}

const HELLO: &str = "Hello you\n\"}";

fn openai(name: &'static str, bytes: String, usage: Option<(u64, u64)>) -> Stream {
    Stream {
        name,
        call: Operation::ChatCompletions,
        bytes,
        text: HELLO,
        usage,
        has_finished: true,
    }
}

/// The lines of an object, as Python's `json.dumps(…, indent=1)` writes them.
fn over_lines(event: &Value) -> String {
    let text = serde_json::to_string_pretty(event).expect("JSON");
    text.lines().map(|line| format!("data: {line}\n")).collect::<String>() + "\n"
}

/// Streams of OpenAI's chat completions.
fn chats() -> Vec<Stream> {
    let (ten, three) = (json!(10), json!(3));
    let plain = sse(&with_usage(&ten, &three), "\n");
    let spaced = |text: String| text.replace("\":", "\": ").replace(",\"", ", \"");
    let zeros = hello().into_iter().map(|mut event| {
        event["usage"] = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
        event
    });
    let growing = hello().into_iter().enumerate().map(|(at, mut event)| {
        event["usage"] = json!({"prompt_tokens": 10, "completion_tokens": at, "total_tokens": 10 + at});
        event
    });
    let thinking = [
        chunk(
            &json!({"role": "assistant", "content": null, "reasoning": "Hm.", "reasoning_content": "Hm."}),
            &Value::Null,
        ),
        chunk(
            &json!({"reasoning": null, "reasoning_content": null, "tool_calls": null, "content": "Hello you\n\"}"}),
            &json!(""),
        ),
        chunk(&json!({"content": [{"type": "text", "text": ""}]}), &json!("stop")),
        usage(&ten, &three),
    ];
    let mut no_choices = usage(&json!("10"), &three);
    no_choices["choices"] = Value::Null;
    let mut mistral = hello();
    mistral.push(no_choices);
    let lines: String = with_usage(&ten, &three).iter().map(over_lines).collect();
    let failed = format!(
        "{}data: {{\"error\":{{\"message\":\"engine died\"}}}}\n\ndata: [DONE]\n\n",
        &sse(&hello()[..3], "\n").replace("data: [DONE]\n\n", "")
    );
    let named = format!(
        "{}event: error\ndata: engine died\n\n",
        &sse(&hello()[..3], "\n").replace("data: [DONE]\n\n", "")
    );
    let cut = sse(&hello()[..3], "\n").replace("data: [DONE]\n\n", "");
    let unfinished = |name, bytes| Stream {
        text: "Hello",
        has_finished: false,
        ..openai(name, bytes, None)
    };
    vec![
        openai("vLLM", plain.clone(), Some((10, 3))),
        openai(
            "llama-cpp-python: CRLF, spaces, no usage",
            spaced(sse(&hello(), "\r\n")),
            None,
        ),
        openai("CR alone", sse(&with_usage(&ten, &three), "\r"), Some((10, 3))),
        openai(
            "comments, ids, names",
            plain.replace("data: {", ": ping\nid: 7\nevent: message\nretry: 1\ndata: {"),
            Some((10, 3)),
        ),
        openai("a comment before all", format!(": ping\n\n\n\n{plain}"), Some((10, 3))),
        openai(
            "no space after the colon",
            plain.replace("data: ", "data:"),
            Some((10, 3)),
        ),
        openai("several lines", format!("{lines}data: [DONE]\n\n"), Some((10, 3))),
        openai(
            "floats",
            sse(&with_usage(&json!(10.0), &json!(3.0)), "\n"),
            Some((10, 3)),
        ),
        openai("null choices", sse(&mistral, "\n"), Some((10, 3))),
        openai("nulls", sse(&with_usage(&Value::Null, &Value::Null), "\n"), None),
        openai("negative", sse(&with_usage(&ten, &json!(-3)), "\n"), Some((10, 3))),
        openai("LocalAI: zeros in each", sse(&zeros.collect::<Vec<_>>(), "\n"), None),
        openai(
            "continuous usage",
            sse(&growing.collect::<Vec<_>>(), "\n"),
            Some((10, 4)),
        ),
        openai("both names of the reasoning", sse(&thinking, "\n"), Some((10, 3))),
        openai("no [DONE]", plain.replace("data: [DONE]\n\n", ""), Some((10, 3))),
        openai("no empty line at the end", plain.trim_end().to_owned(), Some((10, 3))),
        openai("byte order mark", format!("\u{feff}{plain}"), Some((10, 3))),
        openai(
            "text that looks like the protocol",
            plain.replace("\"Hel\"", "\"Hel\",\"x\":\"data: [DONE]\\n\\n\\\"usage\\\"\""),
            Some((10, 3)),
        ),
        unfinished("an error and [DONE]", failed),
        unfinished("event: error", named),
        unfinished("cut", cut.clone()),
        unfinished(
            "finish_reason is empty",
            cut.replace("\"finish_reason\":null", "\"finish_reason\":\"\""),
        ),
        unfinished(
            "vLLM gives up",
            cut.clone() + &format!("data: {}\n\n", chunk(&json!({}), &json!("abort"))),
        ),
        unfinished(
            "vLLM before 0.10 fails",
            cut + "data: {\"object\":\"error\",\"message\":\"engine died\",\"code\":500}\n\n",
        ),
    ]
}

/// Streams of the other protocols.
fn others() -> Vec<Stream> {
    let line = |text: &str| json!({"model": "m", "message": {"role": "assistant", "content": text}, "done": false});
    let call = json!({"model": "m", "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "set", "arguments": {"done": true}}}]}, "done": false});
    let last = json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "prompt_eval_count": 10, "eval_count": 9});
    let lines = [line("Hel"), call, line("lo you\n\"}"), last]
        .map(|line| line.to_string())
        .join("\n");
    let ollama = |name, bytes: String| Stream {
        call: Operation::OllamaChat,
        ..openai(name, bytes, Some((10, 9)))
    };
    let messages = [
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " you\n\"}"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ];
    let responses = [
        json!({"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": [], "usage": null}}),
        json!({"type": "response.output_text.delta", "item_id": "i", "delta": "Hello"}),
        json!({"type": "response.output_text.delta", "item_id": "i", "delta": " you\n\"}"}),
        json!({"type": "response.output_text.done", "item_id": "i", "text": "Hello you\n\"}"}),
        json!({"type": "response.completed", "response": {"id": "r", "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello you\n\"}"}]}],
            "usage": {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13, "input_tokens_details": {"cached_tokens": 4}}}}),
    ];
    let typed = |events: &[Value]| {
        let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type"));
        events.iter().map(event).collect::<String>()
    };
    let message = |name, bytes| Stream {
        call: Operation::Messages,
        ..openai(name, bytes, Some((10, 3)))
    };
    let response = |name, bytes| Stream {
        call: Operation::Responses,
        ..openai(name, bytes, Some((10, 3)))
    };
    vec![
        ollama("Ollama", format!("{lines}\n")),
        ollama("Ollama: no newline at the end", lines.clone()),
        ollama(
            "Ollama: CRLF, empty lines, spaces",
            lines.replace('\n', "\r\n\r\n").replace("\":", "\": ") + "\r\n",
        ),
        Stream {
            text: "Hel",
            usage: None,
            has_finished: false,
            ..ollama(
                "Ollama fails",
                format!("{}\n{{\"error\":\"out of memory\"}}\n", line("Hel")),
            )
        },
        message("Anthropic", typed(&messages)),
        message("Anthropic, and [DONE]", typed(&messages) + "data: [DONE]\n\n"),
        Stream {
            text: "Hello",
            usage: None,
            has_finished: false,
            ..message(
                "Anthropic fails",
                typed(&messages[..4])
                    + "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            )
        },
        response("responses", typed(&responses)),
        Stream {
            text: "Hello",
            usage: None,
            has_finished: false,
            ..response(
                "a response fails",
                typed(&responses[..2])
                    + "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"engine died\"}}}\n\n",
            )
        },
    ]
}

/// All of them.
pub(crate) fn streams() -> Vec<Stream> {
    chats().into_iter().chain(others()).collect()
}
