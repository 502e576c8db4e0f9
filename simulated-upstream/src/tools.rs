//! Tool calls: made when one is required, or when the last user message names a tool.

use serde_json::{Map, Value, json};

/// The id of an answer's only tool call, in OpenAI's API.
pub(crate) const CALL_ID: &str = "call_simulated_0";

/// The tool that a request makes the model call, with arguments that its schema allows.
pub(crate) fn called(tools: &[Value], choice: Option<&Value>, last_message: &Value) -> Option<(String, Value)> {
    if choice.is_some_and(|choice| choice == "none") {
        return None;
    }
    // An answer to a call is not the beginning of another.
    if last_message["role"] != "user" {
        return None;
    }
    let name = |tool: &Value| tool["function"]["name"].as_str().map(str::to_owned);
    let wanted = choice.and_then(|choice| choice["function"]["name"].as_str());
    let is_demanded = choice.is_some_and(|choice| choice == "required");
    let said = last_message["content"].to_string();
    let tool = tools.iter().find(|tool| {
        name(tool)
            .is_some_and(|name| is_demanded || wanted == Some(&name) || (wanted.is_none() && said.contains(&name)))
    })?;
    Some((name(tool)?, value_of(&tool["function"]["parameters"], 0)))
}

/// The simplest value that a JSON schema allows.
pub(crate) fn value_of(schema: &Value, depth: usize) -> Value {
    if depth > 16 {
        return Value::Null;
    }
    if let Some(only) = schema.get("const").or_else(|| schema.pointer("/enum/0")) {
        return only.clone();
    }
    let kind = schema["type"]
        .as_str()
        .or_else(|| schema.pointer("/type/0").and_then(Value::as_str));
    match kind {
        Some("string") => "text".into(),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => true.into(),
        Some("array") => json!([value_of(&schema["items"], depth + 1)]),
        Some("null") => Value::Null,
        _ => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let all: Map<String, Value> = properties
                .map(|(key, schema)| (key.clone(), value_of(schema, depth + 1)))
                .collect();
            all.into()
        }
    }
}
