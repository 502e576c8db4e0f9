//! A client of Anthropic's messages whose model's server speaks another protocol.

use crate::hub::{
    About, Chat, Encoder, Fields, Finish, Part, ToolPart, bad, event, function, message, simplest, untranslatable,
};
use crate::meter::Usage;
use crate::refuse::RequestError;
use serde_json::{Map, Value, json};

/// Reads a request.
pub(crate) fn request(body: &[u8]) -> Result<Chat, RequestError> {
    let mut fields = Fields::read(body)?;
    let mut chat = Map::new();
    // Who asks is known here; a cache is kept by the server, whatever is marked.
    fields.ignore(&[
        "model",
        "max_tokens",
        "stream",
        "metadata",
        "service_tier",
        "cache_control",
    ]);
    let mut said = Vec::new();
    match fields.take("system") {
        None => {}
        Some(Value::String(text)) => said.push(message("system", text)),
        Some(Value::Array(blocks)) => said.push(message("system", simplest(texts("system.", blocks)?))),
        Some(_) => return Err(bad("system", "must be a text or a list of blocks")),
    }
    for one in fields.list("messages")? {
        messages(one, &mut said)?;
    }
    chat.insert("messages".to_owned(), said.into());
    fields.pass(&["temperature", "top_p", "top_k"], &mut chat);
    fields.rename("stop_sequences", "stop", &mut chat);
    tools(&mut fields, &mut chat)?;
    if let Some(thinking) = fields.take("thinking") {
        chat.extend(effort(&thinking)?.map(|effort| ("reasoning_effort".to_owned(), effort.into())));
    }
    output(&mut fields, &mut chat)?;
    fields.nothing_else()?;
    Ok(chat)
}

/// How much thought a budget of tokens is, in OpenAI's three words.
fn effort(thinking: &Value) -> Result<Option<&'static str>, RequestError> {
    match (thinking["type"].as_str(), thinking["budget_tokens"].as_u64()) {
        (Some("disabled"), _) => Ok(None),
        (Some("enabled"), Some(0..=2048)) => Ok(Some("low")),
        (Some("enabled"), Some(2049..=8192)) => Ok(Some("medium")),
        (Some("enabled"), _) => Ok(Some("high")),
        (Some("adaptive"), _) => Ok(Some("medium")),
        _ => Err(untranslatable("thinking.type")),
    }
}

fn output(fields: &mut Fields, chat: &mut Chat) -> Result<(), RequestError> {
    let config = fields.take("output_config");
    let format = fields.take("output_format");
    let mut given = format;
    if let Some(config) = config {
        let mut config = Fields::of("output_config.", config)?;
        given = config.take("format").or(given);
        config.rename("effort", "reasoning_effort", chat);
        config.nothing_else()?;
    }
    if let Some(format) = given {
        if format["type"] != "json_schema" {
            return Err(untranslatable("output_config.format.type"));
        }
        let format = json!({"type": "json_schema",
            "json_schema": {"name": "answer", "schema": format["schema"], "strict": true}});
        chat.insert("response_format".to_owned(), format);
    }
    Ok(())
}

fn tools(fields: &mut Fields, chat: &mut Chat) -> Result<(), RequestError> {
    let mut tools = Vec::new();
    for tool in fields.list("tools")? {
        let mut tool = Fields::of("tools.", tool)?;
        if let Some(kind) = tool.text("type")?.filter(|kind| kind != "custom") {
            return Err(untranslatable(&format!("tools.{kind}")));
        }
        let mut function = Map::new();
        tool.pass(&["name", "description", "strict"], &mut function);
        tool.rename("input_schema", "parameters", &mut function);
        tool.ignore(&["cache_control"]);
        tool.nothing_else()?;
        tools.push(json!({"type": "function", "function": function}));
    }
    if !tools.is_empty() {
        chat.insert("tools".to_owned(), tools.into());
    }
    let Some(choice) = fields.take("tool_choice") else {
        return Ok(());
    };
    let mut choice = Fields::of("tool_choice.", choice)?;
    let name = choice.take("name").unwrap_or_default();
    let to = match choice.text("type")?.as_deref() {
        Some("auto") => "auto".into(),
        Some("any") => "required".into(),
        Some("none") => "none".into(),
        Some("tool") => json!({"type": "function", "function": {"name": name}}),
        _ => return Err(bad("tool_choice.type", "must be auto, any, tool or none")),
    };
    chat.insert("tool_choice".to_owned(), to);
    if choice
        .take("disable_parallel_tool_use")
        .is_some_and(|disabled| disabled == true)
    {
        chat.insert("parallel_tool_calls".to_owned(), false.into());
    }
    choice.nothing_else()
}

/// Blocks of which all are text.
fn texts(within: &'static str, blocks: Vec<Value>) -> Result<Vec<Value>, RequestError> {
    let text = |block: Value| match (block["type"].as_str(), &block["text"]) {
        (Some("text"), Value::String(text)) => Ok(json!({"type": "text", "text": text})),
        (other, _) => Err(untranslatable(&format!("{within}{}", other.unwrap_or("type")))),
    };
    blocks.into_iter().map(text).collect()
}

/// One of Anthropic's messages; a tool's results, which it has inside, are messages of their own elsewhere.
fn messages(one: Value, said: &mut Vec<Value>) -> Result<(), RequestError> {
    let mut one = Fields::of("messages.", one)?;
    let role = one.text("role")?.unwrap_or_default();
    let blocks = match one.take("content") {
        Some(Value::Array(blocks)) => blocks,
        Some(Value::String(text)) => {
            one.nothing_else()?;
            said.push(message(&role, text));
            return Ok(());
        }
        _ => return Err(bad("messages.content", "must be a text or a list of blocks")),
    };
    one.nothing_else()?;
    let (mut parts, mut calls, mut thought) = (Vec::new(), Vec::new(), String::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => parts.push(json!({"type": "text", "text": block["text"]})),
            Some("image") => parts.push(image(&block["source"])?),
            Some("tool_use") => calls.push(function(
                block["name"].as_str().unwrap_or_default(),
                &block["input"].to_string(),
                block["id"].as_str().unwrap_or_default(),
            )),
            Some("tool_result") => said.push(tool_result(block)?),
            Some("thinking") => thought += block["thinking"].as_str().unwrap_or_default(),
            other => return Err(untranslatable(&format!("messages.content.{}", other.unwrap_or("type")))),
        }
    }
    if parts.is_empty() && calls.is_empty() && thought.is_empty() {
        return Ok(());
    }
    let content = if parts.is_empty() { Value::Null } else { simplest(parts) };
    let mut to = json!({"role": role, "content": content});
    if !calls.is_empty() {
        to["tool_calls"] = calls.into();
    }
    if !thought.is_empty() {
        to["reasoning_content"] = thought.into();
    }
    said.push(to);
    Ok(())
}

fn image(source: &Value) -> Result<Value, RequestError> {
    let url = match source["type"].as_str() {
        Some("base64") => {
            let text = |key: &str| source[key].as_str().unwrap_or_default();
            format!("data:{};base64,{}", text("media_type"), text("data"))
        }
        Some("url") => source["url"].as_str().unwrap_or_default().to_owned(),
        other => {
            return Err(untranslatable(&format!(
                "messages.content.source.{}",
                other.unwrap_or("type")
            )));
        }
    };
    Ok(json!({"type": "image_url", "image_url": {"url": url}}))
}

fn tool_result(mut block: Value) -> Result<Value, RequestError> {
    let content = match block["content"].take() {
        Value::Null => String::new().into(),
        Value::String(text) => text.into(),
        Value::Array(blocks) => simplest(texts("messages.content.tool_result.", blocks)?),
        _ => {
            return Err(bad(
                "messages.content.tool_result.content",
                "must be a text or a list of blocks",
            ));
        }
    };
    Ok(json!({"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}))
}

/// Writes messages.
#[derive(Debug)]
pub(crate) struct MessageEncoder {
    about: About,
    has_begun: bool,
    /// The block that is open, and how many were opened.
    open: Option<Block>,
    blocks: usize,
    finish: Finish,
    usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thought,
    /// With the index of the call.
    Tool(usize),
}

impl MessageEncoder {
    pub(crate) fn new(about: About) -> Self {
        Self {
            about,
            has_begun: false,
            open: None,
            blocks: 0,
            finish: Finish::Stop,
            usage: None,
        }
    }

    fn message(&self, content: &[Value], stop_reason: Option<Finish>, usage: &Value) -> Value {
        json!({
            "id": format!("msg_{}", self.about.request_id),
            "type": "message",
            "role": "assistant",
            "model": self.about.model,
            "content": content,
            "stop_reason": stop_reason.map(stop_word),
            "stop_sequence": null,
            "usage": usage,
        })
    }

    /// Goes on in the block that fits, opening one if another is open.
    fn block(&mut self, block: Block, start: &Value, out: &mut Vec<u8>) -> usize {
        if self.open != Some(block) {
            self.close(out);
            let index = self.blocks;
            let begun = json!({"type": "content_block_start", "index": index, "content_block": start});
            event(out, Some("content_block_start"), &begun);
            self.open = Some(block);
            self.blocks += 1;
        }
        self.blocks - 1
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            let ended = json!({"type": "content_block_stop", "index": self.blocks - 1});
            event(out, Some("content_block_stop"), &ended);
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        // The figures come at the end; until then the prompt's are an estimate.
        let usage = figures(Usage {
            input_tokens: self.about.prompt_tokens,
            ..Usage::default()
        });
        let started = json!({"type": "message_start", "message": self.message(&[], None, &usage)});
        event(out, Some("message_start"), &started);
    }
}

fn delta(index: usize, delta: &Value, out: &mut Vec<u8>) {
    let piece = json!({"type": "content_block_delta", "index": index, "delta": delta});
    event(out, Some("content_block_delta"), &piece);
}

fn tool_use(tool: &ToolPart, input: &Value) -> Value {
    json!({"type": "tool_use", "id": tool.id, "name": tool.name, "input": input})
}

impl Encoder for MessageEncoder {
    fn whole(&mut self, part: Part) -> Value {
        let mut content = Vec::new();
        if !part.thought.is_empty() {
            content.push(json!({"type": "thinking", "thinking": part.thought, "signature": ""}));
        }
        if !part.text.is_empty() {
            content.push(json!({"type": "text", "text": part.text}));
        }
        content.extend(part.tools.iter().map(|tool| {
            let input = serde_json::from_str(&tool.arguments).unwrap_or_else(|_| json!({}));
            tool_use(tool, &input)
        }));
        let usage = figures(part.usage.unwrap_or_default());
        self.message(&content, Some(part.finish()), &usage)
    }

    fn part(&mut self, part: Part, out: &mut Vec<u8>) {
        self.begin(out);
        if !part.thought.is_empty() {
            let start = json!({"type": "thinking", "thinking": "", "signature": ""});
            let index = self.block(Block::Thought, &start, out);
            delta(index, &json!({"type": "thinking_delta", "thinking": part.thought}), out);
        }
        if !part.text.is_empty() {
            let index = self.block(Block::Text, &json!({"type": "text", "text": ""}), out);
            delta(index, &json!({"type": "text_delta", "text": part.text}), out);
        }
        for tool in &part.tools {
            let index = self.block(Block::Tool(tool.index), &tool_use(tool, &json!({})), out);
            if !tool.arguments.is_empty() {
                delta(
                    index,
                    &json!({"type": "input_json_delta", "partial_json": tool.arguments}),
                    out,
                );
            }
        }
        self.finish = part.finish.unwrap_or(self.finish);
        self.usage = part.usage.or(self.usage);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.close(out);
        let usage = figures(self.usage.unwrap_or_default());
        let last = json!({"type": "message_delta", "usage": usage,
            "delta": {"stop_reason": stop_word(self.finish), "stop_sequence": null}});
        event(out, Some("message_delta"), &last);
        event(out, Some("message_stop"), &json!({"type": "message_stop"}));
    }
}

fn stop_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Tools => "tool_use",
        Finish::Filter => "refusal",
    }
}

/// Usage in Anthropic's words: what came from a cache is counted apart.
fn figures(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens.saturating_sub(usage.cached_input_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    })
}
