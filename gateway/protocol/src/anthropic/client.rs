//! A client of Anthropic's messages whose model's server speaks another protocol.

use super::history;
use crate::error::RequestError;
use crate::hub::{
    About, Chat, Encoder, Fields, Finish, Offered, Part, ToolPart, arguments, bad, event, message, simplest,
    untranslatable,
};
use crate::unsupported::Dropped;
use crate::usage::Usage;
use serde_json::{Map, Value, json};

/// Reads a request.
pub(crate) fn request(body: &[u8], dropped: &mut Dropped) -> Result<Chat, RequestError> {
    let mut fields = Fields::read(body)?;
    if fields.take("thread").is_some() {
        return Err(RequestError::thread_unsupported());
    }
    let mut chat = Map::new();
    let mut turns = Vec::new();
    match fields.take("system") {
        None => {}
        Some(Value::String(text)) => turns.push(message("system", text)),
        Some(Value::Array(blocks)) => turns.push(message("system", simplest(history::texts("system.", blocks)?))),
        Some(_) => return Err(bad("system", "must be a text or a list of blocks")),
    }
    for one in fields.list("messages")? {
        history::message(one, &mut turns, dropped)?;
    }
    chat.insert("messages".to_owned(), turns.into());
    fields.pass(&["temperature", "top_p", "top_k"], &mut chat);
    fields.rename("stop_sequences", "stop", &mut chat);
    tools(&mut fields, &mut chat, dropped)?;
    if let Some(thinking) = fields.take("thinking") {
        match effort(&thinking) {
            Ok(effort) => chat.extend(effort.map(|effort| ("reasoning_effort".to_owned(), effort.into()))),
            Err(Unknown) => dropped.leave_out("thinking.type")?,
        }
    }
    output(&mut fields, &mut chat, dropped)?;
    fields.leave_rest(dropped)?;
    Ok(chat)
}

/// A way of thinking that is not known here.
struct Unknown;

/// The reasoning effort that a budget of tokens is, in OpenAI's three words.
fn effort(thinking: &Value) -> Result<Option<&'static str>, Unknown> {
    match (thinking["type"].as_str(), thinking["budget_tokens"].as_u64()) {
        (Some("disabled"), _) => Ok(None),
        (Some("enabled"), Some(0..=2048)) => Ok(Some("low")),
        (Some("enabled"), Some(2049..=8192)) | (Some("adaptive"), _) => Ok(Some("medium")),
        (Some("enabled"), _) => Ok(Some("high")),
        _ => Err(Unknown),
    }
}

fn output(fields: &mut Fields, chat: &mut Chat, dropped: &mut Dropped) -> Result<(), RequestError> {
    let config = fields.take("output_config");
    let format = fields.take("output_format");
    let mut given = format;
    if let Some(config) = config {
        let mut config = Fields::of("output_config.", config)?;
        given = config.take("format").or(given);
        if let Some(effort) = config.take("effort") {
            // The highest that every server of OpenAI's API knows.
            let effort = if effort == "max" || effort == "xhigh" {
                "high".into()
            } else {
                effort
            };
            chat.insert("reasoning_effort".to_owned(), effort);
        }
        config.leave_rest(dropped)?;
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

fn tools(fields: &mut Fields, chat: &mut Chat, dropped: &mut Dropped) -> Result<(), RequestError> {
    let mut offered = Offered::default();
    for tool in fields.list("tools")? {
        let mut tool = Fields::of("tools.", tool)?;
        let name = tool.peek("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(kind) = tool.text("type")?.filter(|kind| kind != "custom") {
            offered.leave_out(&name, &format!("tools.{kind}"), dropped)?;
            continue;
        }
        let mut function = Map::new();
        tool.pass(&["name", "description", "strict"], &mut function);
        tool.rename("input_schema", "parameters", &mut function);
        tool.leave_rest(dropped)?;
        offered
            .functions
            .push(json!({"type": "function", "function": function}));
    }
    if let Some(choice) = fields.take("tool_choice") {
        let mut choice = Fields::of("tool_choice.", choice)?;
        let name = choice.text("name")?.unwrap_or_default();
        offered.choice = Some(match choice.text("type")?.as_deref() {
            Some("auto") => "auto".into(),
            Some("any") => "required".into(),
            Some("none") => "none".into(),
            Some("tool") => offered.named(&name)?,
            _ => return Err(bad("tool_choice.type", "must be auto, any, tool or none")),
        });
        if choice
            .take("disable_parallel_tool_use")
            .is_some_and(|disabled| disabled == true)
        {
            chat.insert("parallel_tool_calls".to_owned(), false.into());
        }
        choice.leave_rest(dropped)?;
    }
    offered.write(chat)
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
    stop_sequence: Option<String>,
    usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Reasoning,
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
            stop_sequence: None,
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
            "stop_reason": stop_reason.map(|finish| self.stop_word(finish)),
            "stop_sequence": self.stop_sequence,
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

    fn stop_word(&self, finish: Finish) -> &'static str {
        match finish {
            Finish::Stop if self.stop_sequence.is_some() => "stop_sequence",
            Finish::Stop => "end_turn",
            Finish::Length => "max_tokens",
            Finish::Tools => "tool_use",
            Finish::Filter => "refusal",
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
        if !part.reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": part.reasoning, "signature": ""}));
        }
        if !part.text.is_empty() {
            content.push(json!({"type": "text", "text": part.text}));
        }
        content.extend(
            part.tools
                .iter()
                .map(|tool| tool_use(tool, &arguments(&tool.arguments))),
        );
        let usage = figures(part.usage.unwrap_or_default());
        self.stop_sequence.clone_from(&part.stop_sequence);
        self.message(&content, Some(part.finish()), &usage)
    }

    fn part(&mut self, part: Part, out: &mut Vec<u8>) {
        self.begin(out);
        if !part.reasoning.is_empty() {
            let start = json!({"type": "thinking", "thinking": "", "signature": ""});
            let index = self.block(Block::Reasoning, &start, out);
            delta(
                index,
                &json!({"type": "thinking_delta", "thinking": part.reasoning}),
                out,
            );
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
        self.stop_sequence = part.stop_sequence.or(self.stop_sequence.take());
        self.usage = part.usage.or(self.usage);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.close(out);
        let usage = figures(self.usage.unwrap_or_default());
        let last = json!({"type": "message_delta", "usage": usage,
            "delta": {"stop_reason": self.stop_word(self.finish), "stop_sequence": self.stop_sequence}});
        event(out, Some("message_delta"), &last);
        event(out, Some("message_stop"), &json!({"type": "message_stop"}));
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
