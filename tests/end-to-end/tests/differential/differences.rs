//! The differences that the gateway makes on purpose, between an answer of a server and the same answer through the
//! gateway in the same protocol; `docs/api.md` has them as a table.

use super::answer::Answer;
use super::corpus::Request;
use serde_json::Value;
use std::fmt::Write;

/// A request with its answer from the server itself, and through the gateway.
pub(crate) struct Pair {
    pub(crate) request: Request,
    pub(crate) direct: Answer,
    pub(crate) through: Answer,
}

/// A difference that is documented.
pub(crate) struct Difference {
    pub(crate) request: &'static str,
    pub(crate) server: &'static str,
    pub(crate) gateway: &'static str,
    explains: fn(&Pair) -> bool,
}

/// The gateway's refusal of a request that is not of its protocol.
pub(crate) const INVALID: &str = "invalid request";

/// The most output tokens of the models in this test.
pub(crate) const MOST_OUTPUT: u64 = 4096;

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        request: "`model` missing, empty, not a string, or unknown",
        server: "may use its only model",
        gateway: "400; 404 if unknown: the model decides on limits, price and server",
        explains: |pair| {
            let model = pair.request.body.get("model").and_then(Value::as_str);
            matches!(pair.through.status, 400 | 404)
                && model != Some(&pair.request.model)
                && (pair.through.body.contains("`model`") || pair.through.body.contains("unknown model"))
        },
    },
    Difference {
        request: "output limit that is no number (`\"many\"`, `true`, `[]`)",
        server: "400, or uses its default",
        gateway: "400",
        explains: |pair| pair.limits().any(|limit| !is_number(limit)) && pair.refuses("must be a whole number"),
    },
    Difference {
        request: "output limit below 1, above the model's own, or written `8.0` or `\"8\"`",
        server: "may refuse it",
        gateway: "no limit below 0; lowered to the model's own; read as 8",
        explains: |pair| {
            let is_odd = |limit: &Value| {
                limit.as_u64().is_none_or(|tokens| tokens == 0 || tokens > MOST_OUTPUT) && is_number(limit)
            };
            pair.direct.is_refusal() && !pair.through.is_failure() && pair.limits().any(is_odd)
        },
    },
    Difference {
        request: "`n` that is below 1 or no number",
        server: "400, or uses 1",
        gateway: "400",
        explains: |pair| pair.refuses("`n` must be"),
    },
    Difference {
        request: "more than the caller's limits, quota or budget allow",
        server: "may refuse it for reasons of its own",
        gateway: "400 `request_exceeds_limit`, or 429",
        explains: |pair| pair.refuses("request_exceeds_limit") || pair.through.status == 429,
    },
    Difference {
        request: "`stream_options` or `options` that is no object",
        server: "400",
        gateway: "replaced by what the gateway adds to it",
        explains: |pair| {
            let fields = ["stream_options", "options"].map(|key| pair.request.body.get(key));
            let is_odd = fields.into_iter().flatten().any(|field| !field.is_object());
            pair.direct.is_refusal() && is_odd
        },
    },
    Difference {
        request: "`background: true`",
        server: "may ignore it",
        gateway: "the gateway runs the response in the background; 400 beside `stream: true`",
        explains: |pair| {
            let is_asked = pair.request.body.get("background").is_some_and(|value| *value == true);
            let is_queued = pair.through.status == 200 && pair.through.body.contains(r#""background":true"#);
            is_asked && (is_queued || pair.refuses("in the background cannot be streamed"))
        },
    },
    Difference {
        request: "any",
        server: "comments in a stream; llama.cpp's `timings` in its last chunk",
        gateway: "may be left out together with the usage event that the client did not ask for",
        explains: |pair| {
            pair.direct.status == pair.through.status
                && pair.direct.content_type == pair.through.content_type
                && without_comments(&pair.direct.body) == without_comments(&pair.through.body)
        },
    },
    Difference {
        request: "any",
        server: "500 or 501 for a request that the model cannot take (a picture, a feature)",
        gateway: "400 with the server's sentence",
        explains: |pair| {
            let said = |answer: &Answer| answer.sentence().unwrap_or_default();
            let is_own = said(&pair.through).contains(&said(&pair.direct));
            matches!(pair.direct.status, 500 | 501) && pair.through.status == 400 && is_own
        },
    },
];

impl Pair {
    /// The difference that explains why the answers differ; an error with both, where none does. `None`: they are
    /// equal.
    pub(crate) fn difference(&self) -> Result<Option<usize>, String> {
        if self.direct == self.through {
            return Ok(None);
        }
        let explanation = DIFFERENCES.iter().position(|difference| (difference.explains)(self));
        explanation.map(Some).ok_or_else(|| self.report())
    }

    /// Both answers, for a person.
    pub(crate) fn report(&self) -> String {
        let Self {
            request,
            direct,
            through,
        } = self;
        let cut = |text: &str| text.chars().take(1500).collect::<String>();
        format!(
            "{} {} {:?}\n  server:  {} {} {}\n  gateway: {} {} {}\n",
            request.model,
            request.path,
            request.set,
            direct.status,
            direct.content_type,
            cut(&direct.body),
            through.status,
            through.content_type,
            cut(&through.body)
        )
    }

    /// The values of the protocol's own output limits.
    fn limits(&self) -> impl Iterator<Item = &Value> {
        let pointers: &[&str] = match &*self.request.path {
            "/v1/responses" => &["/max_output_tokens"],
            "/api/chat" | "/api/generate" => &["/options/num_predict"],
            _ => &["/max_tokens", "/max_completion_tokens"],
        };
        let values = pointers.iter().filter_map(|pointer| self.request.body.pointer(pointer));
        values.filter(|value| !value.is_null())
    }

    fn refuses(&self, words: &str) -> bool {
        self.through.status == 400 && self.through.body.contains(words)
    }
}

/// Returns whether a limit is a number, or a text of one.
fn is_number(limit: &Value) -> bool {
    limit.is_number() || limit.as_str().is_some_and(|text| text.parse::<f64>().is_ok())
}

/// A stream without its comments, the empty lines after them, and timings.
fn without_comments(stream: &str) -> String {
    let lines = stream.split_inclusive('\n');
    let mut is_comment = false;
    let mut out = String::new();
    for line in lines {
        let was_comment = std::mem::replace(&mut is_comment, line.starts_with(':'));
        if !(is_comment || was_comment && line.trim().is_empty()) {
            out.push_str(&line.replace(",\"timings\":\"…\"", ""));
        }
    }
    out
}

/// The table as `docs/api.md` has it.
pub(crate) fn table() -> String {
    let mut page = String::from("| request | server alone | through Sluice |\n|---|---|---|\n");
    for Difference {
        request,
        server,
        gateway,
        ..
    } in DIFFERENCES
    {
        let _ = writeln!(page, "| {request} | {server} | {gateway} |");
    }
    page
}
