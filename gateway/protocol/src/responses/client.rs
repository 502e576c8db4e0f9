//! A client of OpenAI's responses whose model's server speaks chat completions, or another protocol.

use super::history;
use crate::error::RequestError;
use crate::hub::{
    About, Chat, Encoder, Fields, Finish, Offered, Part, ToolPart, bad, event, message, untranslatable,
    without_lone_top_logprobs,
};
use crate::unsupported::{Dropped, Side, Unsupported};
use crate::usage::Usage;
use serde_json::{Map, Value, json};

/// Fields of a request that its answer repeats.
const REPEATED: &[&str] = &[
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "temperature",
    "top_p",
    "metadata",
    "parallel_tool_calls",
    "max_output_tokens",
    "background",
    "truncation",
];

/// Reads a request; what of it an answer repeats is given too.
pub(crate) fn request(body: &[u8]) -> Result<(Chat, Map<String, Value>), RequestError> {
    read(body, &mut Dropped::new(Side::Responses, Unsupported::Drop))
}

/// Reads a request; what of it an answer repeats is given too.
pub(crate) fn read(body: &[u8], dropped: &mut Dropped) -> Result<(Chat, Map<String, Value>), RequestError> {
    let mut fields = Fields::read(body)?;
    let mut chat = Map::new();
    let repeated = REPEATED
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), fields.peek(key)?.clone())))
        .collect();
    let mut turns: Vec<Value> = fields
        .text("instructions")?
        .map(|text| message("system", text))
        .into_iter()
        .collect();
    match fields.take("input") {
        Some(Value::String(text)) => turns.push(message("user", text)),
        Some(Value::Array(items)) => history::items(items, &mut turns, dropped)?,
        _ => return Err(bad("input", "must be a text or a list of items")),
    }
    chat.insert("messages".to_owned(), turns.into());
    fields.pass(
        &["temperature", "top_p", "top_logprobs", "parallel_tool_calls"],
        &mut chat,
    );
    tools(&mut fields, &mut chat, dropped)?;
    include(&mut fields, &mut chat, dropped)?;
    without_lone_top_logprobs(&mut chat);
    if let Some(text) = fields.take("text") {
        let mut text = Fields::of("text.", text)?;
        if let Some(format) = text.take("format") {
            chat.extend(response_format(&format, dropped)?.map(|format| ("response_format".to_owned(), format)));
        }
        text.pass(&["verbosity"], &mut chat);
        text.leave_rest(dropped)?;
    }
    if let Some(reasoning) = fields.take("reasoning") {
        let mut reasoning = Fields::of("reasoning.", reasoning)?;
        reasoning.rename("effort", "reasoning_effort", &mut chat);
        // The reasoning is given whole, where its server gives it.
        reasoning.ignore(&["summary", "generate_summary"]);
        reasoning.leave_rest(dropped)?;
    }
    if fields
        .peek("truncation")
        .is_some_and(|truncation| truncation == "disabled")
    {
        fields.ignore(&["truncation"]);
    }
    fields.leave_rest(dropped)?;
    Ok((chat, repeated))
}

/// Translates `include`.
fn include(fields: &mut Fields, chat: &mut Chat, dropped: &mut Dropped) -> Result<(), RequestError> {
    for wanted in fields.list("include")? {
        match wanted.as_str() {
            Some("message.output_text.logprobs") => {
                chat.insert("logprobs".to_owned(), true.into());
            }
            // There is none: the reasoning of these servers is not secret.
            Some("reasoning.encrypted_content") => {}
            other => dropped.leave_out(&format!("include.{}", other.unwrap_or_default()))?,
        }
    }
    Ok(())
}

fn response_format(format: &Value, dropped: &mut Dropped) -> Result<Option<Value>, RequestError> {
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "json_object"}))),
        Some("json_schema") => {
            let mut schema = Fields::of("text.format.", format.clone())?;
            let mut to = Map::new();
            schema.pass(&["name", "description", "schema", "strict"], &mut to);
            schema.ignore(&["type"]);
            schema.leave_rest(dropped)?;
            Ok(Some(json!({"type": "json_schema", "json_schema": to})))
        }
        _ => Err(untranslatable("text.format.type")),
    }
}

fn tools(fields: &mut Fields, chat: &mut Chat, dropped: &mut Dropped) -> Result<(), RequestError> {
    let mut offered = Offered::default();
    for tool in fields.list("tools")? {
        let mut tool = Fields::of("tools.", tool)?;
        let name = tool.peek("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = tool.text("type")?.unwrap_or_default();
        if kind != "function" {
            offered.leave_out(
                if name.is_empty() { &kind } else { &name },
                &format!("tools.{kind}"),
                dropped,
            )?;
            continue;
        }
        let mut function = Map::new();
        tool.pass(&["name", "description", "parameters", "strict"], &mut function);
        tool.leave_rest(dropped)?;
        offered
            .functions
            .push(json!({"type": "function", "function": function}));
    }
    offered.choice = match fields.take("tool_choice") {
        Some(Value::Object(choice)) => Some(choose(&choice.into(), &mut offered)?),
        choice => choice,
    };
    offered.write(chat)
}

/// A choice that is an object: one tool, or some of those that are offered.
fn choose(choice: &Value, offered: &mut Offered) -> Result<Value, RequestError> {
    match choice["type"].as_str() {
        Some("allowed_tools") => {
            let allowed: Vec<&Value> = choice["tools"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|tool| &tool["name"])
                .collect();
            offered
                .functions
                .retain(|tool| allowed.contains(&&tool["function"]["name"]));
            Ok(choice["mode"].as_str().unwrap_or("auto").into())
        }
        Some(kind) => offered.named(choice["name"].as_str().unwrap_or(kind)),
        None => Err(untranslatable("tool_choice.type")),
    }
}

/// Writes responses.
#[derive(Debug)]
pub(crate) struct ResponseEncoder {
    about: About,
    repeated: Map<String, Value>,
    /// Events so far.
    sequence: u64,
    /// Items that are complete.
    output: Vec<Value>,
    open: Option<Open>,
    finish: Finish,
    usage: Option<Usage>,
    has_begun: bool,
}

/// The item that is being written.
#[derive(Debug)]
struct Open {
    kind: Kind,
    text: String,
    logprobs: Vec<Value>,
    tool: ToolPart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    /// With the index of the call.
    Tool(usize),
}

impl ResponseEncoder {
    pub(crate) fn new(about: About, repeated: Map<String, Value>) -> Self {
        Self {
            about,
            repeated,
            sequence: 0,
            output: Vec::new(),
            open: None,
            finish: Finish::Stop,
            usage: None,
            has_begun: false,
        }
    }

    fn response(&self, status: &str, output: &[Value]) -> Value {
        let mut response = shape(&self.about, &self.repeated, status);
        response["output"] = output.into();
        if self.finish == Finish::Length && status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else if status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "content_filter"});
        }
        if status != "in_progress" {
            response["usage"] = figures(self.usage.unwrap_or_default());
        }
        response
    }

    fn event(&mut self, name: &str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        event(out, Some(name), &data);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.has_begun {
            return;
        }
        self.has_begun = true;
        let response = self.response("in_progress", &[]);
        self.event("response.created", json!({"response": response}), out);
        self.event("response.in_progress", json!({"response": response}), out);
    }

    /// The open item as it stands.
    fn item(&self, open: &Open, status: &str) -> Value {
        let id = item_id(&self.about, open.kind, self.output.len());
        let text = if status == "in_progress" { "" } else { &open.text };
        match open.kind {
            Kind::Message => {
                let content = json!([output_text(text, &open.logprobs)]);
                let content = if status == "in_progress" { json!([]) } else { content };
                json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
            }
            Kind::Reasoning => {
                let content = json!([{"type": "reasoning_text", "text": text}]);
                let content = if status == "in_progress" { json!([]) } else { content };
                json!({"id": id, "type": "reasoning", "summary": [], "content": content})
            }
            Kind::Tool(_) => json!({"id": id, "type": "function_call", "call_id": open.tool.id,
                "name": open.tool.name, "arguments": text, "status": status}),
        }
    }

    /// Goes on in an item of the kind, opening one if another is open.
    fn open(&mut self, kind: Kind, tool: &ToolPart, out: &mut Vec<u8>) {
        if self.open.as_ref().is_some_and(|open| open.kind == kind) {
            return;
        }
        self.close("completed", out);
        let open = Open {
            kind,
            text: String::new(),
            logprobs: Vec::new(),
            tool: tool.clone(),
        };
        let (index, item) = (self.output.len(), self.item(&open, "in_progress"));
        self.open = Some(open);
        self.event(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
            out,
        );
        let part = match kind {
            Kind::Message => output_text("", &[]),
            Kind::Reasoning => json!({"type": "reasoning_text", "text": ""}),
            Kind::Tool(_) => return,
        };
        let data = json!({"item_id": item["id"], "output_index": index, "content_index": 0, "part": part});
        self.event("response.content_part.added", data, out);
    }

    fn close(&mut self, status: &str, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let (index, item) = (self.output.len(), self.item(&open, status));
        let mut done = json!({"item_id": item["id"], "output_index": index});
        match open.kind {
            Kind::Message | Kind::Reasoning => {
                done["content_index"] = 0.into();
                let mut with_part = done.clone();
                with_part["part"] = item["content"][0].clone();
                done["text"] = open.text.into();
                let name = if open.kind == Kind::Message {
                    done["logprobs"] = open.logprobs.into();
                    "response.output_text.done"
                } else {
                    "response.reasoning_text.done"
                };
                self.event(name, done, out);
                self.event("response.content_part.done", with_part, out);
            }
            Kind::Tool(_) => {
                done["name"] = item["name"].clone();
                done["arguments"] = open.text.into();
                self.event("response.function_call_arguments.done", done, out);
            }
        }
        self.event(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
            out,
        );
        self.output.push(item);
    }

    fn delta(&mut self, name: &str, text: &str, logprobs: Option<Vec<Value>>, out: &mut Vec<u8>) {
        let index = self.output.len();
        let Some(open) = &mut self.open else { return };
        open.text += text;
        let mut data = json!({"item_id": item_id(&self.about, open.kind, index), "output_index": index, "delta": text});
        if !matches!(open.kind, Kind::Tool(_)) {
            data["content_index"] = 0.into();
        }
        if let Some(logprobs) = logprobs {
            open.logprobs.extend_from_slice(&logprobs);
            data["logprobs"] = logprobs.into();
        }
        self.event(name, data, out);
    }
}

impl Encoder for ResponseEncoder {
    fn whole(&mut self, part: Part) -> Value {
        self.finish = part.finish();
        let mut unread = Vec::new();
        self.part(part, &mut unread);
        let status = status(self.finish);
        self.close(status, &mut unread);
        self.response(status, &self.output)
    }

    fn part(&mut self, part: Part, out: &mut Vec<u8>) {
        self.begin(out);
        let no_tool = ToolPart::default();
        if !part.reasoning.is_empty() {
            self.open(Kind::Reasoning, &no_tool, out);
            self.delta("response.reasoning_text.delta", &part.reasoning, None, out);
        }
        if !part.text.is_empty() {
            self.open(Kind::Message, &no_tool, out);
            self.delta("response.output_text.delta", &part.text, Some(part.logprobs), out);
        }
        for tool in part.tools {
            self.open(Kind::Tool(tool.index), &tool, out);
            if !tool.arguments.is_empty() {
                self.delta("response.function_call_arguments.delta", &tool.arguments, None, out);
            }
        }
        self.finish = part.finish.unwrap_or(self.finish);
        self.usage = part.usage.or(self.usage);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        let status = status(self.finish);
        self.close(status, out);
        let response = self.response(status, &self.output);
        self.event(&format!("response.{status}"), json!({"response": response}), out);
    }
}

fn status(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Tools => "completed",
        Finish::Length | Finish::Filter => "incomplete",
    }
}

fn item_id(about: &About, kind: Kind, index: usize) -> String {
    let prefix = match kind {
        Kind::Message => "msg",
        Kind::Reasoning => "rs",
        Kind::Tool(_) => "fc",
    };
    format!("{prefix}_{}_{index}", about.request_id)
}

fn output_text(text: &str, logprobs: &[Value]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
}

/// A response without output, with what it repeats of its request.
pub(crate) fn shape(about: &About, repeated: &Map<String, Value>, status: &str) -> Value {
    let mut response = json!({
        "id": format!("resp_{}", about.request_id),
        "object": "response",
        "created_at": about.created,
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": null,
        "metadata": {},
        "model": about.model,
        "output": [],
        "parallel_tool_calls": true,
        "previous_response_id": about.previous_response_id,
        "reasoning": {"effort": null, "summary": null},
        "store": about.store,
        "temperature": null,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "truncation": "disabled",
        "usage": null,
    });
    for (key, value) in repeated {
        response[key] = value.clone();
    }
    response
}

/// Usage in the words of responses.
fn figures(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    })
}
