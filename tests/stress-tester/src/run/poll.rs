//! Polling of queued requests until they have a final status.

use super::exchange::Exchange;
use crate::protocol::answer::Failure;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The state that a poll reports.
enum Poll {
    Waits,
    Ended(Value),
    /// An answer that is none, such as a proxy's error page: worth another try.
    Unclear(Failure),
    /// The server reports that there is no such request, or that it may not be seen.
    Lost(Failure),
}

impl Exchange<'_> {
    /// Polls until the request has a final status or the time for that is over.
    pub(super) async fn poll(&mut self) {
        let settings = &self.runner().settings;
        let (interval, timeout) = (settings.poll_interval, settings.poll_timeout);
        let began = Instant::now();
        let path = format!("/requests/{}", self.sample.request_id);
        loop {
            tokio::time::sleep(interval).await;
            self.sample.polling_attempts += 1;
            // One poll that hangs does not use up the time of all.
            let one = timeout
                .saturating_sub(began.elapsed())
                .clamp(Duration::from_millis(100), Duration::from_secs(5));
            match self.ask(&path, one).await {
                Poll::Waits => {}
                Poll::Ended(body) => {
                    self.ended(&body);
                    break;
                }
                Poll::Unclear(failure) => {
                    self.sample.polling_failures += 1;
                    self.sample.polling_error = format!("{}: {}", failure.reason, failure.message);
                }
                Poll::Lost(failure) => {
                    "failed".clone_into(&mut self.sample.final_backend_status);
                    self.sample.polling_error.clone_from(&failure.message);
                    (self.sample.reason, self.sample.error) = (failure.reason, failure.message);
                    break;
                }
            }
            if began.elapsed() >= timeout {
                "timed_out".clone_into(&mut self.sample.final_backend_status);
                "poll_timeout".clone_into(&mut self.sample.reason);
                self.sample.error = format!("no final status within {} s of polling", timeout.as_secs_f64());
                break;
            }
        }
        self.sample.final_latency_seconds = Some(began.elapsed().as_secs_f64());
        self.sample.end_to_end_latency_seconds = Some(self.start.elapsed().as_secs_f64());
    }

    async fn ask(&self, path: &str, timeout: Duration) -> Poll {
        let got = tokio::time::timeout(timeout, self.runner().http.get(path, self.headers)).await;
        let (status, body) = match got {
            Err(_) => return Poll::Unclear(Failure::new("poll_timeout", "no answer to a poll")),
            Ok(Err(failure)) => return Poll::Unclear(failure),
            Ok(Ok(answered)) => answered,
        };
        match body["status"].as_str() {
            Some("queued" | "processing") => Poll::Waits,
            Some("completed" | "failed" | "rejected" | "timed_out" | "cancelled") => Poll::Ended(body),
            _ => {
                let failure = Failure::from_body(body.to_string().as_bytes(), &format!("http_{status}"));
                match status {
                    404 if body["status"] == "not_found" => Poll::Lost(Failure {
                        reason: "not_found".into(),
                        ..failure
                    }),
                    401 | 403 | 404 | 410 => Poll::Lost(failure),
                    _ => Poll::Unclear(failure),
                }
            }
        }
    }

    fn ended(&mut self, body: &Value) {
        let sample = &mut self.sample;
        let text = |names: &[&str]| names.iter().find_map(|name| body[*name].as_str()).map(str::to_owned);
        sample.final_backend_status = text(&["status"]).unwrap_or_default();
        sample.input_tokens = body["input_tokens"].as_u64();
        sample.output_tokens = body["output_tokens"].as_u64();
        if sample.output_tokens.is_some() {
            "usage".clone_into(&mut sample.token_source);
        }
        sample.project_id = text(&["project_id"]).unwrap_or(std::mem::take(&mut sample.project_id));
        sample.backend_name = text(&["backend_name", "backend"]).unwrap_or(std::mem::take(&mut sample.backend_name));
        if sample.final_backend_status != "completed" {
            sample.reason = text(&["detail", "reason"]).unwrap_or_else(|| sample.final_backend_status.clone());
            sample.error = text(&["message"]).unwrap_or_default();
        }
    }
}
