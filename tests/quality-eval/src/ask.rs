//! Requests through the gateway: the original's `/generate` with polling, a chat, or a completion. A refusal with
//! `retry-after` is retried.

use crate::dataset::Problem;
use clap::ValueEnum;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An API of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Api {
    /// `POST /generate`; what is queued is polled.
    Generate,
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`, for models that only go on with a text.
    Completions,
}

/// The form of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Style {
    /// An instruction.
    Chat,
    /// The beginning of the program alone.
    Completion,
}

/// The gateway to ask, and the parameters of requests.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) http: Client,
    pub(crate) base: String,
    pub(crate) api: Api,
    pub(crate) style: Style,
    pub(crate) user: String,
    pub(crate) project: String,
    pub(crate) key: Option<String>,
    pub(crate) max_tokens: u64,
    pub(crate) temperature: Option<f64>,
    pub(crate) poll_interval: Duration,
    /// The time that one request may take in all, with queueing and retries.
    pub(crate) timeout: Duration,
}

/// The outcome of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) http_status: u16,
    /// `completed`, `rejected`, `failed`, `timed_out`, `cancelled`.
    pub(crate) simulator_status: String,
    /// From the accepted request to its answer.
    pub(crate) latency_seconds: f64,
    /// From the first try.
    pub(crate) end_to_end_latency_seconds: f64,
    pub(crate) estimated_input_tokens: u64,
    pub(crate) estimated_output_tokens: u64,
    pub(crate) estimated_cost_eur: f64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_eur: f64,
    pub(crate) tries: u32,
    /// The reply as it was received.
    pub(crate) reply: Option<String>,
    /// The reason why there is none.
    pub(crate) reason: String,
}

impl Answer {
    /// Returns whether the gateway refused it; such a request does not count against the model.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(&*self.simulator_status, "rejected" | "timed_out")
    }
}

/// Stop sequences for completion models, which would continue with another program.
const STOPS: [&str; 4] = ["\nclass ", "\ndef ", "\nif __name__", "\nprint("];

impl Asker {
    /// Checks that the gateway answers.
    pub(crate) async fn check_gateway(&self) -> Result<(), String> {
        let url = format!("{}/health", self.base);
        self.http.get(&url).send().await.map(drop).map_err(|error| {
            format!(
                "no gateway answers at {}: {}; start the gateway with `sluice serve`, or give its address with --base-url",
                self.base,
                deepest(&error)
            )
        })
    }

    /// Asks until there is an answer, or the time has passed.
    pub(crate) async fn ask(&self, model: &str, problem: &Problem) -> Answer {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = Instant::now();
            let (mut answer, retry_after) = self.one_try(model, problem, began).await;
            answer.tries = tries;
            answer.latency_seconds = sent.elapsed().as_secs_f64();
            answer.end_to_end_latency_seconds = began.elapsed().as_secs_f64();
            match retry_after {
                Some(wait) if began.elapsed() + wait < self.timeout => tokio::time::sleep(wait).await,
                _ => return answer,
            }
        }
    }

    async fn one_try(&self, model: &str, problem: &Problem, began: Instant) -> (Answer, Option<Duration>) {
        let remaining = self.timeout.saturating_sub(began.elapsed());
        let sent = self.request(model, problem).timeout(remaining).send().await;
        let failed = |reason: String| {
            let answer = Answer {
                simulator_status: "failed".to_owned(),
                reason,
                ..Answer::default()
            };
            (answer, None)
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return failed("no answer in time (--poll-timeout)".to_owned()),
            Err(error) => return failed(deepest(&error)),
        };
        let status = response.status();
        let wait = retry_after(&response);
        let cost = header(&response, "x-sluice-cost-eur");
        let body: Value = match response.bytes().await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) => return failed(deepest(&error)),
        };
        if status.is_success() {
            let mut answer = match self.api {
                Api::Generate => self.polled(body, began).await,
                Api::Chat => read(&body, "/choices/0/message/content"),
                Api::Completions => read(&body, "/choices/0/text"),
            };
            answer.http_status = status.as_u16();
            answer.cost_eur = cost.unwrap_or(answer.cost_eur);
            return (answer, None);
        }
        let reason = ["/error/code", "/error/message", "/detail", "/error"]
            .iter()
            .find_map(|place| body.pointer(place)?.as_str())
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("an error"));
        let answer = Answer {
            http_status: status.as_u16(),
            simulator_status: status_without_answer(status, reason).to_owned(),
            reason: format!("HTTP {}: {reason}", status.as_u16()),
            ..Answer::default()
        };
        (answer, wait)
    }

    fn request(&self, model: &str, problem: &Problem) -> RequestBuilder {
        let prompt = put(problem, self.style);
        let (path, mut body) = match self.api {
            Api::Generate => (
                "/generate",
                json!({
                    "user_id": self.user, "project_id": self.project, "model": model, "prompt": prompt,
                    "max_tokens": self.max_tokens, "request_type": "interactive",
                }),
            ),
            Api::Chat => (
                "/v1/chat/completions",
                json!({
                    "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": self.max_tokens,
                }),
            ),
            Api::Completions => (
                "/v1/completions",
                json!({"model": model, "prompt": prompt, "max_tokens": self.max_tokens, "stop": STOPS}),
            ),
        };
        if let (Some(temperature), Api::Chat | Api::Completions) = (self.temperature, self.api) {
            body["temperature"] = json!(temperature);
        }
        self.identified(self.http.post(format!("{}{path}", self.base)).json(&body))
    }

    /// Adds the caller's identity.
    fn identified(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request
                .header("x-sluice-user", &self.user)
                .header("x-sluice-project", &self.project),
        }
    }

    /// The answer of `/generate`, polled where it is queued.
    async fn polled(&self, mut body: Value, began: Instant) -> Answer {
        let id = body["request_id"].as_str().unwrap_or_default().to_owned();
        while matches!(body["status"].as_str(), Some("queued" | "processing")) {
            if began.elapsed() > self.timeout {
                let cancel = self.http.delete(format!("{}/requests/{id}", self.base));
                let _ = self.identified(cancel).send().await;
                return Answer {
                    simulator_status: "failed".to_owned(),
                    reason: "no answer in time (--poll-timeout)".to_owned(),
                    ..Answer::default()
                };
            }
            tokio::time::sleep(self.poll_interval).await;
            let asked = self.identified(self.http.get(format!("{}/requests/{id}", self.base)));
            // A poll that fails is not the end of what is polled.
            if let Ok(response) = asked.send().await
                && let Ok(polled) = response.json().await
            {
                body = polled;
            }
        }
        let mut answer = read(&body, "/message");
        body["status"]
            .as_str()
            .unwrap_or("failed")
            .clone_into(&mut answer.simulator_status);
        if answer.simulator_status != "completed" {
            answer.reason = answer.reply.take().unwrap_or_default();
        }
        answer
    }
}

/// The meaning of an HTTP error: the gateway refused the request, or a server failed at it.
fn status_without_answer(status: StatusCode, reason: &str) -> &'static str {
    let is_refusal = match status {
        StatusCode::SERVICE_UNAVAILABLE => !matches!(reason, "no_healthy_upstream" | "upstream_error"),
        status => status.is_client_error(),
    };
    if is_refusal { "rejected" } else { "failed" }
}

/// The prompt for a problem.
pub(crate) fn put(problem: &Problem, style: Style) -> String {
    match (style, problem.is_code) {
        (Style::Completion, _) => problem.prompt.clone(),
        (Style::Chat, true) => format!(
            "Complete this Python function. Reply with the whole function, its imports included, in one ```python \
             block.\n\n```python\n{}\n```\n",
            problem.prompt.trim_end()
        ),
        (Style::Chat, false) => format!(
            "{}\n\nReply with the Python code in one ```python block.\n",
            problem.prompt.trim_end()
        ),
    }
}

/// The reply, usage and cost in a response of any API.
fn read(body: &Value, reply: &str) -> Answer {
    let count = |places: &[&str]| {
        let found = places.iter().find_map(|place| body.pointer(place)?.as_u64());
        found.unwrap_or_default()
    };
    let money = |place: &str| body.pointer(place).and_then(Value::as_f64).unwrap_or_default();
    let (input, output) = (
        count(&["/usage/prompt_tokens", "/input_tokens"]),
        count(&["/usage/completion_tokens", "/output_tokens"]),
    );
    Answer {
        simulator_status: "completed".to_owned(),
        estimated_input_tokens: count(&["/estimated_input_tokens", "/usage/prompt_tokens"]),
        estimated_output_tokens: count(&["/estimated_output_tokens", "/usage/completion_tokens"]),
        estimated_cost_eur: money("/estimated_cost_eur"),
        input_tokens: input,
        output_tokens: output,
        cost_eur: money("/cost_eur"),
        reply: body.pointer(reply).and_then(Value::as_str).map(str::to_owned),
        ..Answer::default()
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    header(response, "retry-after").and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn header(response: &Response, name: &str) -> Option<f64> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// The innermost cause of an error.
fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_gateway_is_a_rejection() {
        for (status, reason, meaning) in [
            (500, "Internal Server Error", "failed"),
            (502, "upstream_error", "failed"),
            (503, "no_healthy_upstream", "failed"),
            (504, "upstream_timeout", "failed"),
            (429, "rate_limit_exceeded", "rejected"),
            (503, "queue_full", "rejected"),
            (403, "unknown_user", "rejected"),
        ] {
            let code = StatusCode::from_u16(status).expect("a status");
            assert_eq!(status_without_answer(code, reason), meaning, "{status} {reason}");
        }
    }
}
