use super::*;
use crate::corpus::{Stream, streams};
use crate::meter::{Bounds, Meter};
use serde_json::json;

/// The text of a whole answer, by each protocol's own words.
fn text(call: Operation, whole: &Value) -> String {
    let at = match call {
        Operation::Messages => "/content/0/text",
        Operation::Responses => "/output/0/content/0/text",
        Operation::OllamaChat => "/message/content",
        _ => "/choices/0/message/content",
    };
    whole.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[test]
fn a_stream_becomes_the_whole_answer_and_that_a_stream_again() {
    for Stream {
        name,
        call,
        bytes,
        text: expected,
        ..
    } in streams().into_iter().filter(|stream| stream.has_finished)
    {
        // Lists of parts stay lists.
        if name == "both names of the reasoning" {
            continue;
        }
        let whole = from_stream(call, bytes.as_bytes()).unwrap_or_else(|| panic!("{name}: no answer"));
        let value: Value = serde_json::from_slice(&whole).expect("JSON");
        assert_eq!(text(call, &value), expected, "{name}: {value}");
        let usage = |body: &[u8]| {
            let mut meter = Meter::new(call, false);
            meter.see_whole(body);
            meter.usage(&Bounds::default())
        };
        let again = as_stream(call, true, &whole);
        assert_eq!(usage(&again), usage(&whole), "{name}");
        let value = from_stream(call, &again).map_or(value, |whole| serde_json::from_slice(&whole).expect("JSON"));
        assert_eq!(text(call, &value), expected, "{name}");
    }
}

#[test]
fn calls_of_tools_are_put_together() {
    let chunk = |delta: Value| {
        format!(
            "data: {}\n\n",
            json!({"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
        )
    };
    let stream = [
        chunk(json!({"role": "assistant", "content": null})),
        chunk(json!({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\""}}]})),
        chunk(json!({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]})),
        chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n".to_owned(),
    ]
    .concat();
    let whole: Value =
        serde_json::from_slice(&from_stream(Operation::ChatCompletions, stream.as_bytes()).expect("an answer"))
            .expect("JSON");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(
        whole["choices"][0],
        json!({"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]}})
    );
}

#[test]
fn what_is_whole_already_stays_as_it_is() {
    assert_eq!(from_stream(Operation::ChatCompletions, b"{\"choices\":[]}"), None);
    assert_eq!(from_stream(Operation::OllamaChat, b"{\"done\":true}"), None);
    assert_eq!(as_stream(Operation::ChatCompletions, true, b"<html>"), b"<html>");
}
