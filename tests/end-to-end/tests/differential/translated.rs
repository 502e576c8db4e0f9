//! Requests whose protocol the model's server does not speak: what its own API would have taken the gateway must take,
//! unless `docs/api.md` says that the field is refused, and the answer must be of the same kind: words, or a call of a
//! tool.

use super::differences::Pair;
use serde_json::Value;

/// Fields that the page says are refused, by the last part of their names.
pub(crate) fn refused_fields(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.contains("| refused |"));
    let fields = rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    fields
        .map(|field| field.trim_end_matches('*').trim_end_matches('.').to_owned())
        .collect()
}

impl Pair {
    /// The reason why the answer through the gateway is no translation of the server's own answer to the same request;
    /// `None` if it is one.
    pub(crate) fn mistranslation(&self, refused: &[String]) -> Option<String> {
        if self.direct.is_failure() {
            // A request that is wrong may be understood better in another protocol; but never is it the server's fault.
            return (self.through.status >= 500).then(|| self.report());
        }
        if self.through.is_failure() {
            let sentence = self.through.sentence().unwrap_or_default();
            let is_documented = refused.iter().any(|field| sentence.contains(&format!("`{field}")))
                || self.difference().is_ok()
                || sentence.contains(super::differences::INVALID);
            return (!is_documented).then(|| self.report());
        }
        // The simulated server's words hang on how a protocol writes a conversation down; whether it answers in words
        // or calls a tool must be the same.
        let is_same = text(&self.direct.body).is_empty() == text(&self.through.body).is_empty();
        (!is_same).then(|| self.report())
    }
}

/// The text of an answer in any protocol, streamed or whole.
pub(crate) fn text(body: &str) -> String {
    if let Ok(whole) = serde_json::from_str::<Value>(body) {
        return of_event(&whole);
    }
    let events = body.lines().filter_map(|line| {
        let data = line.strip_prefix("data:").unwrap_or(line);
        serde_json::from_str::<Value>(data.trim()).ok()
    });
    events.map(|event| of_event(&event)).collect()
}

fn of_event(event: &Value) -> String {
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |list: &Value| -> String {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|part| string(&part["text"]))
            .collect()
    };
    let choice = &event["choices"][0];
    match event["type"].as_str() {
        Some("response.output_text.delta") => return string(&event["delta"]),
        Some("content_block_delta") => return string(&event["delta"]["text"]),
        Some("message") => return texts(&event["content"]),
        Some(_) => return String::new(),
        None => {}
    }
    let output = event["output"].as_array().into_iter().flatten();
    let output: String = output.map(|item| texts(&item["content"])).collect();
    [
        string(&choice["message"]["content"]),
        string(&choice["delta"]["content"]),
        string(&choice["text"]),
        string(&event["message"]["content"]),
        string(&event["response"]),
        output,
    ]
    .concat()
}
