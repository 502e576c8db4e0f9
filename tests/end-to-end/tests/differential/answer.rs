//! Answers as they are compared: without the ids and times that differ from one answer to the next.

use super::corpus::Request;
use serde_json::Value;

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    /// The body, in which the values of [`VARYING`] keys are `"…"`.
    pub(crate) body: String,
}

/// Keys whose values are ids, times, or depend on what else a server has in its cache.
const VARYING: &[&str] = &[
    "id",
    "item_id",
    "call_id",
    "created",
    "created_at",
    "completed_at",
    "time_ms",
    "request_id",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
    "timings",
    "prompt_tokens_details",
    "system_fingerprint",
];

impl Answer {
    /// Sends a request to a server's base URL.
    pub(crate) async fn of(http: &reqwest::Client, url: &str, request: &Request) -> Self {
        let send = || {
            let sent = http.post(format!("{url}{}", request.path)).json(&request.body);
            sent.bearer_auth("sk-up").send()
        };
        let answer = match send().await {
            // A server may close an idle connection at the moment in which a request is sent on it (RFC 9112 section
            // 9.3.1); a fresh connection tells this from a server that fails.
            Err(error) if error.is_request() => send().await,
            answer => answer,
        };
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let content_type = answer
            .headers()
            .get("content-type")
            .map(|value| value.to_str().expect("text").to_owned());
        let body = answer
            .text()
            .await
            .unwrap_or_else(|error| format!("broken off: {error}"));
        Self {
            status,
            content_type: content_type.unwrap_or_default().replace("; charset=utf-8", ""),
            body: stable(&body),
        }
    }

    /// The sentence of an error.
    pub(crate) fn sentence(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        let texts = ["/error/message", "/error", "/message", "/detail"];
        let text = texts.iter().find_map(|pointer| body.pointer(pointer)?.as_str());
        text.map(str::to_owned)
    }

    pub(crate) fn is_failure(&self) -> bool {
        self.status >= 400
    }

    pub(crate) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }
}

/// A body in which the values of varying keys are replaced, and every other byte is as it was.
pub(crate) fn stable(body: &str) -> String {
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(start) = rest.find('"') {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let end = string_end(from);
        let (string, after) = from.split_at(end);
        out.push_str(string);
        rest = after;
        let name = string.trim_matches('"');
        let colon = after.trim_start_matches([' ', '\t', '\n', '\r']);
        if let Some(value) = colon.strip_prefix(':').filter(|_| VARYING.contains(&name)) {
            let value = value.trim_start();
            let value_start = rest.len() - value.len();
            out.push_str(&rest[..value_start]);
            out.push_str("\"…\"");
            rest = &value[value_end(value)..];
        }
    }
    out.push_str(rest);
    out
}

/// The length of the string at the beginning, with its quotes.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the JSON value at the beginning.
fn value_end(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            b'"' => {
                at += string_end(&text[at..]);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}
