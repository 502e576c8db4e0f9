//! Conversations that the gateway stores: what a request says of them, the history that takes the place of a
//! `previous_response_id`, and the items as `GET /v1/responses/{id}/input_items` lists them.

use super::references::{StoredItems, may_refer};
use super::{Head, whole};
use crate::error::RequestError;
use crate::request::Storage;
use crate::scan::{Splices, top_level};
use crate::wire::sse::Event;
use crate::wire::{Framing, records};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Fields of a request about stored responses.
pub(super) fn storage_of<'a>(head: &Head<'a>) -> Storage<'a> {
    let previous = head.previous_response_id;
    Storage {
        store: head.store.text() == Some("true"),
        previous_response_id: previous.string("previous_response_id").ok().flatten(),
        has_conversation: head.conversation.text().is_some(),
        referring_input: head.input.text().filter(|input| may_refer(input)),
    }
}

/// A request that depends on nothing that is stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Stateless {
    /// Its body, with the history before its own input.
    pub body: Vec<u8>,
    /// Its own input, as JSON, with the items in the place of references to them.
    pub input: String,
}

/// Puts a conversation's history (items as JSON, with commas between) and the items that the request refers to into it;
/// its server is asked to store nothing.
///
/// # Errors
/// `bad_request` if the body is no JSON object, or its `input` is neither a text nor a list; `item_not_found`.
pub fn stateless(body: &[u8], history: &str, stored: &StoredItems) -> Result<Stateless, RequestError> {
    let head: Head<'_> = top_level(body)?;
    let own = stored.resolve(head.input.text().unwrap_or("[]"))?;
    let items =
        items_of(&own).ok_or_else(|| RequestError::invalid("input", "`input` must be a text or a list of items"))?;
    let mut splices = Splices::default();
    if !history.is_empty() || matches!(own, Cow::Owned(_)) {
        let comma = if history.is_empty() || items.is_empty() {
            ""
        } else {
            ","
        };
        let all = format!("[{history}{comma}{items}]");
        match head.input.range(body) {
            Some(range) => splices.replace(range, all),
            None => splices.add_key(body, 0, "input", &all),
        }
    }
    if let Some(range) = head.previous_response_id.range(body) {
        splices.replace(range, "null");
    }
    if let Some(range) = head.store.range(body) {
        splices.replace(range, "false");
    }
    Ok(Stateless {
        body: splices.apply(body).unwrap_or_else(|| body.to_vec()),
        input: own.into_owned(),
    })
}

/// The items of a list, with commas between, as they stand there; a text is what a user says.
pub(super) fn items_of(input: &str) -> Option<Cow<'_, str>> {
    if input.starts_with('"') {
        return Some(Cow::Owned(format!(r#"{{"role":"user","content":{input}}}"#)));
    }
    let items = input.strip_prefix('[')?.strip_suffix(']')?;
    Some(Cow::Borrowed(items.trim()))
}

/// The history that a turn of a conversation leaves: its own input and the response's output, as JSON with commas between.
/// `None` if either is not what a response has.
pub fn history(input: &str, response: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        output: &'a RawValue,
    }
    let response: Response<'_> = serde_json::from_str(response).ok()?;
    let (input, output) = (items_of(input)?, items_of(response.output.get())?);
    let comma = if input.is_empty() || output.is_empty() { "" } else { "," };
    Some([&*input, comma, &*output].concat())
}

/// The input items of a turn as they are listed: each with an id, made from the response's where the client gave none, and
/// a content that is a list of parts.
pub fn input_items(input: &str, response_id: &str) -> Vec<Value> {
    let Some(items) = items_of(input) else {
        return Vec::new();
    };
    let items: Vec<Value> = serde_json::from_str(&format!("[{items}]")).unwrap_or_default();
    let name = response_id.strip_prefix("resp_").unwrap_or(response_id);
    let listed = items.into_iter().enumerate();
    listed.map(|(index, item)| input_item(item, name, index)).collect()
}

fn input_item(mut item: Value, name: &str, index: usize) -> Value {
    let Some(fields) = item.as_object_mut() else {
        return item;
    };
    let kind = fields
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("message")
        .to_owned();
    if kind == "message" {
        let is_assistants = fields.get("role").is_some_and(|role| role == "assistant");
        let part = if is_assistants { "output_text" } else { "input_text" };
        if let Some(content) = fields.get_mut("content").filter(|content| content.is_string()) {
            let text = content.take();
            *content = json!([{"type": part, "text": text}]);
        }
        fields.entry("status").or_insert_with(|| "completed".into());
    }
    if !fields.get("id").is_some_and(Value::is_string) {
        let prefix = match kind.as_str() {
            "message" => "msg",
            "reasoning" => "rs",
            "function_call" => "fc",
            "function_call_output" => "fco",
            _ => "item",
        };
        fields.insert("id".to_owned(), format!("{prefix}_{name}_in_{index}").into());
    }
    fields.insert("type".to_owned(), kind.into());
    item
}

/// A stored response as a stream of events, without those up to the sequence number `after`.
pub fn replay(response: &Value, after: Option<u64>) -> Vec<u8> {
    let mut events = Vec::new();
    whole::write_stream(response, after, &mut events);
    events
}

/// The response in the end of a stream; `None` if the stream did not end with one.
pub fn last_response(events: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Last {
        #[serde(rename = "type")]
        kind: String,
        response: Value,
    }
    let ended = |record: &[u8]| {
        let last: Last = serde_json::from_slice(Event::parse(record).trimmed()?).ok()?;
        matches!(last.kind.as_str(), "response.completed" | "response.incomplete").then_some(last.response)
    };
    records(Framing::EventStream, events).filter_map(ended).last()
}

/// Corrects the storage fields in answers of a server that speaks this API itself: it was asked to store nothing, and
/// the response's id is the gateway's.
#[derive(Debug)]
pub struct Label {
    /// The response's id.
    pub id: String,
    /// The stored response that it goes on from.
    pub previous_response_id: Option<String>,
    /// True if the response is stored.
    pub store: bool,
}

impl Label {
    /// Puts a whole response right. What is no JSON object stays as it is.
    pub fn whole(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut response: Value = serde_json::from_slice(body).ok()?;
        let fields = response.as_object_mut()?;
        for (key, value) in self.fields() {
            fields.insert(key.to_owned(), value);
        }
        Some(response.to_string().into_bytes())
    }

    /// Puts whole events of a stream right.
    pub fn events(&self, events: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(events.len() + 128);
        for line in events.split_inclusive(|byte| *byte == b'\n') {
            match self.line(line) {
                Some(new) => out.extend_from_slice(&new),
                None => out.extend_from_slice(line),
            }
        }
        out
    }

    /// A line of an event that has a response in it, put right.
    fn line(&self, line: &[u8]) -> Option<Vec<u8>> {
        let data = line.strip_prefix(b"data:")?;
        memchr::memmem::find(data, b"\"response\"")?;
        let mut event: Value = serde_json::from_slice(data).ok()?;
        let response = event.get_mut("response")?.as_object_mut()?;
        for (key, value) in self.fields() {
            response.insert(key.to_owned(), value);
        }
        let end = if line.ends_with(b"\r\n") { "\r\n" } else { "\n" };
        Some(format!("data: {event}{end}").into_bytes())
    }

    fn fields(&self) -> [(&'static str, Value); 3] {
        [
            ("id", self.id.as_str().into()),
            ("previous_response_id", json!(self.previous_response_id)),
            ("store", self.store.into()),
        ]
    }
}

/// The end of a stream whose response could not be stored after all.
pub fn not_stored(end: &[u8]) -> Vec<u8> {
    let stored = b"\"store\":true";
    let mut out = Vec::with_capacity(end.len() + 1);
    let mut copied = 0;
    for at in memchr::memmem::find_iter(end, stored) {
        out.extend_from_slice(&end[copied..at]);
        out.extend_from_slice(b"\"store\":false");
        copied = at + stored.len();
    }
    out.extend_from_slice(&end[copied..]);
    out
}

#[cfg(test)]
mod tests;
