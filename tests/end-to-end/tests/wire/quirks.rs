//! Streams of chat completions as real servers send them, and what they say.

use crate::reader::Answer;
use serde_json::{Value, json};

/// What a client must get.
pub(crate) enum Outcome {
    Says(Answer),
    /// An error with this in its sentence.
    Fails(&'static str),
}

/// A stream by the deviation that it shows.
pub(crate) type Quirk = (&'static str, String, Outcome);

const DONE: &str = "data: [DONE]\n\n";

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn choice(delta: &Value, finish: &Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

fn delta(delta: &Value) -> String {
    event(&choice(delta, &Value::Null))
}

fn call(piece: &Value) -> String {
    delta(&json!({"tool_calls": [piece]}))
}

fn finish(word: &str) -> String {
    event(&choice(&json!({}), &word.into()))
}

fn usage() -> String {
    event(&json!({"id": "c", "object": "chat.completion.chunk", "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}}))
}

fn end(word: &str) -> String {
    [finish(word), usage(), DONE.to_owned()].concat()
}

fn hello() -> String {
    ["", "Hel", "lo"]
        .map(|text| delta(&json!({"role": "assistant", "content": text})))
        .concat()
}

/// `Hello` with something after each of its events.
fn hello_with(after: &str) -> String {
    hello().replace("\n\n", &format!("\n\n{after}")) + &end("stop")
}

/// `Hello` with another event of usage.
fn hello_and(after: &[&str]) -> String {
    hello() + &after.concat()
}

fn answer() -> Answer {
    Answer {
        text: "Hello".to_owned(),
        finish: "stop".to_owned(),
        usage: (10, 3),
        ..Answer::default()
    }
}

fn says() -> Outcome {
    Outcome::Says(answer())
}

fn thinks() -> Outcome {
    Outcome::Says(Answer {
        reasoning: "hm".to_owned(),
        ..answer()
    })
}

fn calls(arguments: &[Value]) -> Outcome {
    Outcome::Says(Answer {
        text: String::new(),
        calls: arguments
            .iter()
            .map(|arguments| ("f".to_owned(), arguments.clone()))
            .collect(),
        finish: "tools".to_owned(),
        ..answer()
    })
}

/// Lines, keep-alives and ends of streams.
pub(crate) fn framing() -> Vec<Quirk> {
    let plain = hello_and(&[&end("stop")]);
    vec![
        ("nothing", plain.clone(), says()),
        ("CR LF", plain.replace('\n', "\r\n"), says()),
        ("CR alone", plain.replace('\n', "\r"), says()),
        ("a byte order mark", format!("\u{feff}{plain}"), says()),
        ("empty lines before it", format!("\n\n\n{plain}"), says()),
        ("no blank after the colon", plain.replace("data: ", "data:"), says()),
        (
            "OpenRouter's comments",
            hello_with(": OPENROUTER PROCESSING\n\n"),
            says(),
        ),
        ("empty data", hello_with("data: \n\ndata:\n\n"), says()),
        (
            "null and empty objects",
            hello_with("data: null\n\ndata: {}\n\n"),
            says(),
        ),
        (
            "ping events",
            hello_with("event: ping\ndata: {\"type\":\"ping\"}\n\n"),
            says(),
        ),
        ("words as keep-alive", hello_with("data: ping\n\n"), says()),
        (
            "ids and retries",
            plain.replace("data: ", "id: 1\nretry: 3000\nevent: message\ndata: "),
            says(),
        ),
        ("a blank after [DONE]", plain.replace("[DONE]", "[DONE] "), says()),
        ("[DONE] without its empty line", plain.trim_end().to_owned(), says()),
        (
            "an event named done",
            plain.replace("data: [DONE]", "event: done\ndata: [DONE]"),
            says(),
        ),
        ("no [DONE]", plain.replace(DONE, ""), says()),
        ("no reason to finish", hello_and(&[&usage(), DONE]), says()),
        ("[DONE] twice", plain.clone() + DONE, says()),
        ("a page after the end", plain + "<html></html>", says()),
        ("cut", hello(), Outcome::Fails("")),
        (
            "cut in an event",
            hello() + "data: {\"choices\":[{\"ind",
            Outcome::Fails(""),
        ),
        ("nothing at all", String::new(), Outcome::Fails("")),
    ]
}

/// Errors in a stream.
pub(crate) fn errors() -> Vec<Quirk> {
    let each = |error: Value| {
        let mut one = choice(&json!({"content": "Hello"}), &Value::Null);
        one["error"] = error;
        event(&one) + &end("stop")
    };
    let after = |name, error: &str| (name, hello() + error, Outcome::Fails("boom"));
    vec![
        ("an error that is null", each(Value::Null), says()),
        ("an empty error", each("".into()), says()),
        ("an error without fields", each(json!({})), says()),
        ("an error that is false", each(false.into()), says()),
        after(
            "OpenAI's error",
            "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n",
        ),
        after("an error of one word", "data: {\"error\":\"boom\"}\n\n"),
        after(
            "an error and [DONE]",
            "data: {\"error\":{\"message\":\"boom\"}}\n\ndata: [DONE]\n\n",
        ),
        after("an event named error", "event: error\ndata: {\"message\":\"boom\"}\n\n"),
        after("llama.cpp's field", "error: {\"code\":500,\"message\":\"boom\"}\n\n"),
        after(
            "vLLM's old error",
            "data: {\"object\":\"error\",\"message\":\"boom\",\"code\":500}\n\n",
        ),
        after("FastAPI's error", "data: {\"detail\":\"boom\"}\n\n"),
        (
            "an error at first",
            "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n".to_owned(),
            Outcome::Fails("boom"),
        ),
        (
            "a reason to finish that is none",
            hello_and(&[&end("error")]),
            Outcome::Fails(""),
        ),
        ("SGLang's abort", hello_and(&[&end("abort")]), Outcome::Fails("")),
    ]
}

/// Text and reasoning.
pub(crate) fn texts() -> Vec<Quirk> {
    let one = |delta_of: Value| delta(&delta_of) + &end("stop");
    let with = |first: Value| delta(&first) + &hello_and(&[&end("stop")]);
    let raw = |json: &str| format!("data: {json}\n\n{}", end("stop"));
    vec![
        (
            "Azure's first event",
            raw("{\"choices\":[],\"created\":0,\"id\":\"\",\"object\":\"\",\"prompt_filter_results\":[{}]}")
                .replace(&end("stop"), &hello_and(&[&end("stop")])),
            says(),
        ),
        (
            "wrong types beside it",
            raw(
                "{\"id\":7,\"created\":\"1.5\",\"object\":null,\"model\":null,\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}",
            ),
            says(),
        ),
        (
            "content in parts",
            one(json!({"content": [{"type": "text", "text": "Hello"}]})),
            says(),
        ),
        ("a refusal", one(json!({"content": null, "refusal": "Hello"})), says()),
        (
            "a message for a delta",
            raw("{\"choices\":[{\"message\":{\"content\":\"Hello\"}}]}"),
            says(),
        ),
        (
            "a completion's text",
            raw("{\"choices\":[{\"text\":\"Hello\"}]}"),
            says(),
        ),
        (
            "a delta that is null",
            raw("{\"choices\":[{\"index\":0,\"delta\":null}]}").replace(&end("stop"), &hello_and(&[&end("stop")])),
            says(),
        ),
        (
            "a key twice",
            raw("{\"choices\":[{\"delta\":{\"content\":\"\",\"content\":\"Hello\"}}]}"),
            says(),
        ),
        (
            "numbers that JSON has not",
            raw(
                "{\"x\":NaN,\"choices\":[{\"delta\":{\"content\":\"Hello\"},\"logprobs\":{\"content\":[{\"token\":\"H\",\"logprob\":-Infinity}]}}]}",
            ),
            says(),
        ),
        (
            "a number out of range",
            raw("{\"created\":1e400,\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}"),
            says(),
        ),
        (
            "vLLM's reasoning",
            with(json!({"reasoning": "hm", "reasoning_content": null})),
            thinks(),
        ),
        (
            "DeepSeek's reasoning",
            with(json!({"content": null, "reasoning_content": "hm"})),
            thinks(),
        ),
        (
            "both names of the reasoning",
            with(json!({"reasoning": "hm", "reasoning_content": "hm"})),
            thinks(),
        ),
        (
            "OpenRouter's reasoning",
            with(json!({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]})),
            thinks(),
        ),
        (
            "Mistral's reasoning",
            with(json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]})),
            thinks(),
        ),
        (
            "obfuscation that looks like an end",
            raw("{\"choices\":[{\"delta\":{\"content\":\"Hello\"}}],\"obfuscation\":\"\\\"}],[DONE]\"}"),
            says(),
        ),
    ]
}

/// Reasons to finish, and usage.
pub(crate) fn ends() -> Vec<Quirk> {
    let finished = |word: &str| hello_and(&[&end(word)]);
    let limited = || {
        Outcome::Says(Answer {
            finish: "length".to_owned(),
            ..answer()
        })
    };
    let figures = |json: &str| hello_and(&[&finish("stop"), &format!("data: {json}\n\n"), DONE]);
    let token = choice(&json!({}), &"stop".into())
        .to_string()
        .replace("\"index\":0", "\"index\":0,\"stop_reason\":128009");
    vec![
        ("TGI's reason", finished("eos_token"), says()),
        ("Gemini's reason", finished("STOP"), says()),
        ("Gemini's limit", finished("MAX_TOKENS"), limited()),
        ("Mistral's limit", finished("model_length"), limited()),
        (
            "vLLM's stop token",
            hello_and(&[&format!("data: {token}\n\n"), &usage(), DONE]),
            says(),
        ),
        ("the reason twice", hello_and(&[&finish("stop"), &end("stop")]), says()),
        (
            "usage before the reason",
            hello_and(&[&usage(), &finish("stop"), DONE]),
            says(),
        ),
        (
            "usage without choices",
            figures("{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}"),
            says(),
        ),
        (
            "usage beside choices of null",
            figures("{\"choices\":null,\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}"),
            says(),
        ),
        (
            "usage as floats",
            figures("{\"choices\":[],\"usage\":{\"prompt_tokens\":10.0,\"completion_tokens\":3.0}}"),
            says(),
        ),
        (
            "usage as texts",
            figures("{\"choices\":[],\"usage\":{\"prompt_tokens\":\"10\",\"completion_tokens\":\"3\"}}"),
            says(),
        ),
        (
            "usage with a cost of NaN",
            figures("{\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3,\"cost\":NaN}}"),
            says(),
        ),
        (
            "Groq's usage",
            figures("{\"choices\":[],\"x_groq\":{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}}"),
            says(),
        ),
        (
            "llama.cpp's timings",
            figures("{\"choices\":[],\"timings\":{\"prompt_n\":10,\"predicted_n\":3}}"),
            says(),
        ),
        (
            "zeros after the usage",
            hello_and(&[
                &finish("stop"),
                &usage(),
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n",
                DONE,
            ]),
            says(),
        ),
    ]
}

/// Calls of tools.
pub(crate) fn tools() -> Vec<Quirk> {
    let end = || end("tool_calls");
    let whole = |index: Value, id: &str, value: u64| {
        call(
            &json!({"index": index, "id": id, "type": "function", "function": {"name": "f", "arguments": format!("{{\"a\":{value}}}")}}),
        )
    };
    let pieces = |one: Value, other: Value| call(&one) + &call(&other) + &end();
    let one = || calls(&[json!({"a": 1})]);
    let two = || calls(&[json!({"a": 1}), json!({"a": 2})]);
    let begin = json!({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}});
    let again = |id: Value, name: Value| json!({"index": 0, "id": id, "type": null, "function": {"name": name, "arguments": ":1}"}});
    vec![
        (
            "id and name in each piece",
            pieces(begin.clone(), again("c".into(), "f".into())),
            one(),
        ),
        (
            "empty id and name later",
            pieces(begin.clone(), again("".into(), "".into())),
            one(),
        ),
        (
            "null id and name later",
            pieces(begin, again(Value::Null, Value::Null)),
            one(),
        ),
        (
            "the name after the id",
            call(&json!({"index": 0, "id": "c", "function": {"name": null, "arguments": null}}))
                + &pieces(
                    json!({"index": 0, "function": {"name": "f"}}),
                    json!({"index": 0, "function": {"arguments": "{\"a\":1}"}}),
                ),
            one(),
        ),
        (
            "the id after the name",
            pieces(
                json!({"index": 0, "function": {"name": "f", "arguments": ""}}),
                json!({"index": 0, "id": "c", "function": {"arguments": "{\"a\":1}"}}),
            ),
            one(),
        ),
        (
            "arguments as an object",
            call(&json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": {"a": 1}}})) + &end(),
            one(),
        ),
        (
            "no arguments",
            call(&json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}})) + &end(),
            calls(&[json!({})]),
        ),
        ("an index as a text", whole("0".into(), "c", 1) + &end(), one()),
        ("an index of -1", whole((-1).into(), "c", 1) + &end(), one()),
        (
            "indexes from 1",
            whole(1.into(), "c", 1) + &whole(2.into(), "d", 2) + &end(),
            two(),
        ),
        (
            "index 0 for each",
            whole(0.into(), "c", 1) + &whole(0.into(), "d", 2) + &end(),
            two(),
        ),
        (
            "no indexes",
            whole(Value::Null, "c", 1) + &whole(Value::Null, "d", 2) + &end(),
            two(),
        ),
        (
            "both calls in one piece",
            delta(
                &json!({"tool_calls": [null, {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"index": 1, "id": "d", "function": {"name": "f", "arguments": "{\"a\":2}"}}]}),
            ) + &end(),
            two(),
        ),
        (
            "another reason to finish",
            whole(0.into(), "c", 1) + &self::end("stop"),
            one(),
        ),
        (
            "the older form",
            delta(&json!({"function_call": {"name": "f", "arguments": ""}}))
                + &delta(&json!({"function_call": {"arguments": "{\"a\":1}"}}))
                + &self::end("function_call"),
            one(),
        ),
    ]
}
