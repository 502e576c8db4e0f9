//! Messages of a conversation.

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// A message that is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// A role and a text.
    Text { role: Role, text: Arc<str> },
    /// A message of a data set, unchanged: pictures, tool calls, tool results.
    Given(Arc<Value>),
}

/// The role of a message's author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

impl Message {
    pub(crate) fn new(role: Role, text: impl Into<Arc<str>>) -> Self {
        Message::Text {
            role,
            text: text.into(),
        }
    }

    /// A message of a data set in OpenAI's form.
    pub(crate) fn from_value(value: Value) -> Self {
        let role = match value["role"].as_str() {
            Some("system" | "developer") => Some(Role::System),
            Some("user") => Some(Role::User),
            Some("assistant") => Some(Role::Assistant),
            _ => None,
        };
        let is_plain = value.as_object().is_some_and(|fields| fields.len() == 2);
        match (role, value["content"].as_str()) {
            (Some(role), Some(text)) if is_plain => Message::new(role, text),
            _ => Message::Given(Arc::new(value)),
        }
    }

    pub(crate) fn is(&self, role: Role) -> bool {
        match self {
            Message::Text { role: own, .. } => *own == role,
            Message::Given(value) => value["role"] == role.word(),
        }
    }

    /// Returns whether messages after it refer to it: it calls tools.
    pub(crate) fn calls_tools(&self) -> bool {
        matches!(self, Message::Given(value) if !value["tool_calls"].is_null())
    }

    /// Its text, for APIs that take nothing else.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Message::Text { text, .. } => Cow::Borrowed(text),
            Message::Given(value) => match &value["content"] {
                Value::String(text) => Cow::Borrowed(text),
                Value::Array(parts) => {
                    let texts = parts.iter().filter_map(|part| part["text"].as_str());
                    Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
                }
                _ => Cow::Borrowed(""),
            },
        }
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Message::Given(value) => value.serialize(serializer),
            Message::Text { role, text } => {
                let mut fields = serializer.serialize_struct("Message", 2)?;
                fields.serialize_field("role", role.word())?;
                fields.serialize_field("content", &**text)?;
                fields.end()
            }
        }
    }
}
