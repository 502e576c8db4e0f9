//! Streams as clients read them, by what the protocols' own pages say; it shares no code with the gateway.

use serde_json::Value;

/// A client's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Chat,
    Messages,
    Responses,
    Ollama,
}

/// The content of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Name and arguments.
    pub(crate) calls: Vec<(String, Value)>,
    /// stop, length or tools.
    pub(crate) finish: String,
    /// Tokens of prompt and answer.
    pub(crate) usage: (u64, u64),
}

/// Events of a stream: name and data (WHATWG HTML, "Interpreting an event stream").
fn events(text: &str) -> Vec<(String, String)> {
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), Vec::new());
    for line in text.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => data.push(value.to_owned()),
            "" if line.is_empty() => {
                let (name, data) = (std::mem::take(&mut name), std::mem::take(&mut data));
                events.extend((!data.is_empty()).then(|| (name, data.join("\n"))));
            }
            _ => {}
        }
    }
    events
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn arguments(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| json.into())
}

/// Reads a whole stream.
///
/// # Errors
/// The stream's error, or what it lacks at its end.
pub(crate) fn read(client: Client, stream: &str) -> Result<Answer, String> {
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("{error}: {text}"));
    if client == Client::Ollama {
        let lines = stream.lines().filter(|line| !line.trim().is_empty());
        return ollama(&lines.map(json).collect::<Result<Vec<_>, _>>()?);
    }
    let mut is_done = false;
    let mut all = Vec::new();
    for (name, data) in events(stream) {
        if data == "[DONE]" {
            is_done = true;
            continue;
        }
        let event = json(&data)?;
        if client != Client::Chat && event["type"] != name {
            return Err(format!("an event `{name}` of another type: {data}"));
        }
        if !event["error"].is_null() || event["type"] == "error" || event["type"] == "response.failed" {
            return Err(data);
        }
        all.push(event);
    }
    match client {
        Client::Messages => messages(&all),
        Client::Responses => responses(&all),
        _ if is_done => Ok(chat(&all)),
        _ => Err("no [DONE]".to_owned()),
    }
}

/// OpenAI's chat completions.
fn chat(events: &[Value]) -> Answer {
    let mut answer = Answer::default();
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in events {
        let usage = &event["usage"];
        if usage.is_object() {
            answer.usage = (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]));
        }
        for choice in list(&event["choices"]) {
            let delta = &choice["delta"];
            answer.text += &text(&delta["content"]);
            answer.reasoning += &text(&delta["reasoning_content"]);
            for call in list(&delta["tool_calls"]) {
                let index = usize::try_from(count(&call["index"])).expect("an index");
                calls.resize(calls.len().max(index + 1), Default::default());
                calls[index].0 += &text(&call["function"]["name"]);
                calls[index].1 += &text(&call["function"]["arguments"]);
            }
            if let Some(finish) = choice["finish_reason"].as_str() {
                if finish == "tool_calls" { "tools" } else { finish }.clone_into(&mut answer.finish);
            }
        }
    }
    answer.calls = calls.into_iter().map(|(name, json)| (name, arguments(&json))).collect();
    answer
}

/// Anthropic's messages.
fn messages(events: &[Value]) -> Result<Answer, String> {
    let mut answer = Answer::default();
    let mut blocks: Vec<(Value, String)> = Vec::new();
    for event in events {
        let index = usize::try_from(count(&event["index"])).expect("an index");
        match event["type"].as_str().unwrap_or_default() {
            "content_block_start" => blocks.push((event["content_block"].clone(), String::new())),
            "content_block_delta" => {
                let delta = &event["delta"];
                let (key, kind) = match delta["type"].as_str() {
                    Some("text_delta") => ("text", "text"),
                    Some("thinking_delta") => ("thinking", "thinking"),
                    Some("input_json_delta") => ("partial_json", "tool_use"),
                    other => return Err(format!("an unknown delta {other:?}")),
                };
                if blocks[index].0["type"] != kind {
                    return Err(format!("a delta in a block of another type: {event}"));
                }
                blocks[index].1 += &text(&delta[key]);
            }
            "message_delta" => {
                let (reason, usage) = (text(&event["delta"]["stop_reason"]), &event["usage"]);
                answer.finish = match reason.as_str() {
                    "end_turn" | "stop_sequence" => "stop".to_owned(),
                    "max_tokens" => "length".to_owned(),
                    "tool_use" => "tools".to_owned(),
                    _ => reason,
                };
                answer.usage = (
                    count(&usage["input_tokens"]) + count(&usage["cache_read_input_tokens"]),
                    count(&usage["output_tokens"]),
                );
            }
            _ => {}
        }
    }
    if events.last().is_none_or(|event| event["type"] != "message_stop") {
        return Err("no message_stop".to_owned());
    }
    for (block, content) in blocks {
        match block["type"].as_str() {
            Some("text") => answer.text += &content,
            Some("thinking") => answer.reasoning += &content,
            _ => {
                let json = if content.is_empty() { "{}" } else { &content };
                answer.calls.push((text(&block["name"]), arguments(json)));
            }
        }
    }
    Ok(answer)
}

/// OpenAI's responses, by the response that the last event has.
fn responses(events: &[Value]) -> Result<Answer, String> {
    let last = events.last().ok_or("no event")?;
    let response = &last["response"];
    let mut answer = Answer {
        finish: match last["type"].as_str() {
            Some("response.completed") => "stop",
            Some("response.incomplete") => "length",
            other => return Err(format!("ends with {other:?}")),
        }
        .to_owned(),
        usage: (
            count(&response["usage"]["input_tokens"]),
            count(&response["usage"]["output_tokens"]),
        ),
        ..Answer::default()
    };
    for item in list(&response["output"]) {
        let texts: String = list(&item["content"]).iter().map(|part| text(&part["text"])).collect();
        match item["type"].as_str() {
            Some("message") => answer.text += &texts,
            Some("reasoning") => answer.reasoning += &texts,
            _ => {
                let arguments = arguments(&text(&item["arguments"]));
                answer.calls.push((text(&item["name"]), arguments));
                "tools".clone_into(&mut answer.finish);
            }
        }
    }
    Ok(answer)
}

/// Ollama's chat.
fn ollama(lines: &[Value]) -> Result<Answer, String> {
    let mut answer = Answer::default();
    for line in lines {
        if !line["error"].is_null() {
            return Err(line.to_string());
        }
        let message = &line["message"];
        answer.text += &text(&message["content"]);
        answer.reasoning += &text(&message["thinking"]);
        for call in list(&message["tool_calls"]) {
            let function = &call["function"];
            answer
                .calls
                .push((text(&function["name"]), function["arguments"].clone()));
        }
    }
    let last = lines.last().filter(|line| line["done"] == true).ok_or("no last line")?;
    answer.finish = text(&last["done_reason"]);
    if !answer.calls.is_empty() && answer.finish == "stop" {
        "tools".clone_into(&mut answer.finish);
    }
    answer.usage = (count(&last["prompt_eval_count"]), count(&last["eval_count"]));
    Ok(answer)
}
