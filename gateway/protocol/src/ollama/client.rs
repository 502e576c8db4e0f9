//! A client of Ollama's API whose model's server speaks another protocol.

use super::{history, keep_alive};
use crate::Operation;
use crate::error::RequestError;
use crate::hub::{
    About, Chat, Encoder, Fields, Finish, Part, ToolPart, arguments, bad, message, untranslatable,
    without_lone_top_logprobs,
};
use crate::unsupported::Dropped;
use crate::usage::Usage;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Options under which OpenAI-compatible servers that sample as Ollama does know them too.
const SAMPLING: &[&str] = &[
    "temperature",
    "top_p",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
];

/// Reads a request. `context` is the tokens that the model has room for.
pub(crate) fn request(call: Operation, body: &[u8], context: u64, dropped: &mut Dropped) -> Result<Chat, RequestError> {
    let mut fields = Fields::read(body)?;
    let mut chat = Map::new();
    if call == Operation::OllamaChat {
        let turns = fields.list("messages")?;
        chat.insert("messages".to_owned(), history::messages(turns, dropped)?.into());
        let tools = fields.list("tools")?;
        if !tools.is_empty() {
            chat.insert("tools".to_owned(), tools.into());
            // Ollama does not know it, but some of its clients send it.
            fields.pass(&["tool_choice"], &mut chat);
        }
        fields.ignore(&["tool_choice"]);
    } else {
        generate(&mut fields, &mut chat)?;
    }
    options(&mut fields, &mut chat, context, dropped)?;
    match fields.take("format") {
        None => {}
        Some(format) if format == "" => {}
        Some(format) if format == "json" => {
            chat.insert("response_format".to_owned(), json!({"type": "json_object"}));
        }
        Some(schema @ Value::Object(_)) => {
            let format =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}});
            chat.insert("response_format".to_owned(), format);
        }
        Some(_) => return Err(bad("format", "must be json or a JSON schema")),
    }
    match fields.take("think") {
        None => {}
        Some(Value::Bool(thinks)) => {
            let effort = if thinks { "medium" } else { "none" };
            chat.insert("reasoning_effort".to_owned(), effort.into());
        }
        Some(effort) => {
            chat.insert("reasoning_effort".to_owned(), effort);
        }
    }
    // The server keeps its model loaded, whatever is asked; only that it be unloaded is not done.
    if !fields.peek("keep_alive").is_some_and(keep_alive::unloads) {
        fields.ignore(&["keep_alive"]);
    }
    fields.pass(&["logprobs", "top_logprobs"], &mut chat);
    without_lone_top_logprobs(&mut chat);
    fields.leave_rest(dropped)?;
    Ok(chat)
}

/// `/api/generate`: a question, or with `raw` a text to go on with.
fn generate(fields: &mut Fields, chat: &mut Chat) -> Result<(), RequestError> {
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let images = fields.list("images")?;
    let system = fields.text("system")?.filter(|system| !system.is_empty());
    let suffix = fields.text("suffix")?.filter(|suffix| !suffix.is_empty());
    for key in ["template", "context"] {
        let given = fields.take(key);
        if given.is_some_and(|given| given != "" && given != json!([])) {
            return Err(untranslatable(key));
        }
    }
    let is_raw = fields.take("raw").is_some_and(|raw| raw == true) || suffix.is_some();
    if is_raw {
        if let Some(name) = system
            .is_some()
            .then_some("system")
            .or((!images.is_empty()).then_some("images"))
        {
            return Err(untranslatable(name));
        }
        chat.insert("prompt".to_owned(), prompt.into());
        chat.extend(suffix.map(|suffix| ("suffix".to_owned(), suffix.into())));
        return Ok(());
    }
    let mut turns: Vec<Value> = system.map(|system| message("system", system)).into_iter().collect();
    turns.push(message("user", history::with_images(prompt, &images)));
    chat.insert("messages".to_owned(), turns.into());
    Ok(())
}

fn options(fields: &mut Fields, chat: &mut Chat, context: u64, dropped: &mut Dropped) -> Result<(), RequestError> {
    let Some(options) = fields.take("options") else {
        return Ok(());
    };
    let mut options = Fields::of("options.", options)?;
    options.pass(SAMPLING, chat);
    // A smaller context is one that the server has room for; a larger one is cut to what it has.
    let fits = |wanted: &Value| wanted.as_u64().is_some_and(|wanted| wanted <= context);
    if options.peek("num_ctx").is_some_and(fits) {
        options.ignore(&["num_ctx"]);
    }
    options.leave_rest(dropped)
}

/// Writes Ollama's answers, for `/api/chat` or `/api/generate`.
#[derive(Debug)]
pub(crate) struct OllamaEncoder {
    about: About,
    is_chat: bool,
    began: Instant,
    first: Option<Duration>,
    tools: Vec<ToolPart>,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

impl OllamaEncoder {
    pub(crate) fn new(about: About, is_chat: bool) -> Self {
        Self {
            about,
            is_chat,
            began: Instant::now(),
            first: None,
            tools: Vec::new(),
            finish: None,
            usage: None,
        }
    }

    fn line(&self, text: &str, reasoning: &str, logprobs: Vec<Value>) -> Value {
        let mut line = json!({"model": self.about.model, "created_at": timestamp(self.about.created)});
        let to = if self.is_chat {
            line["message"] = json!({"role": "assistant", "content": text});
            &mut line["message"]
        } else {
            line["response"] = text.into();
            &mut line
        };
        if !reasoning.is_empty() {
            to["thinking"] = reasoning.into();
        }
        line["done"] = false.into();
        if !logprobs.is_empty() {
            line["logprobs"] = logprobs.into();
        }
        line
    }

    /// The calls that were gathered: Ollama gives each as a whole.
    fn called(&mut self) -> Vec<Value> {
        let tools = std::mem::take(&mut self.tools);
        let called = tools.into_iter().map(|tool| {
            let arguments = arguments(&tool.arguments);
            json!({"id": tool.id, "function": {"index": tool.index, "name": tool.name, "arguments": arguments}})
        });
        called.collect()
    }

    fn end(&self, line: &mut Value) {
        let total = self.began.elapsed();
        let first = self.first.unwrap_or(total);
        let usage = self.usage.unwrap_or_default();
        line["done"] = true.into();
        line["done_reason"] = if self.finish == Some(Finish::Length) {
            "length"
        } else {
            "stop"
        }
        .into();
        line["total_duration"] = nanos(total);
        line["load_duration"] = 0.into();
        line["prompt_eval_count"] = usage.input_tokens.into();
        line["prompt_eval_duration"] = nanos(first);
        line["eval_count"] = usage.output_tokens.into();
        line["eval_duration"] = nanos(total.saturating_sub(first).max(Duration::from_nanos(1)));
    }

    fn gather(&mut self, part: &mut Part) {
        self.first = self.first.or_else(|| Some(self.began.elapsed()));
        self.finish = part.finish.or(self.finish);
        self.usage = part.usage.or(self.usage);
        gather(&mut self.tools, std::mem::take(&mut part.tools));
    }
}

/// Puts parts of calls to those that came before.
fn gather(all: &mut Vec<ToolPart>, parts: Vec<ToolPart>) {
    for part in parts {
        match all.iter_mut().find(|known| known.index == part.index) {
            Some(known) => known.arguments += &part.arguments,
            None => all.push(part),
        }
    }
}

impl Encoder for OllamaEncoder {
    fn whole(&mut self, mut part: Part) -> Value {
        self.gather(&mut part);
        let mut line = self.line(&part.text, &part.reasoning, part.logprobs);
        let called = self.called();
        if self.is_chat && !called.is_empty() {
            line["message"]["tool_calls"] = called.into();
        }
        self.end(&mut line);
        line
    }

    fn part(&mut self, mut part: Part, out: &mut Vec<u8>) {
        self.gather(&mut part);
        if !part.text.is_empty() || !part.reasoning.is_empty() {
            write(out, &self.line(&part.text, &part.reasoning, part.logprobs));
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let called = self.called();
        if self.is_chat && !called.is_empty() {
            let mut line = self.line("", "", Vec::new());
            line["message"]["tool_calls"] = called.into();
            write(out, &line);
        }
        let mut last = self.line("", "", Vec::new());
        self.end(&mut last);
        write(out, &last);
    }
}

fn write(out: &mut Vec<u8>, line: &Value) {
    // A value of strings, numbers and lists can be written, always.
    let _ = serde_json::to_writer(&mut *out, line);
    out.push(b'\n');
}

fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

fn nanos(duration: Duration) -> Value {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).into()
}
