//! One request, from sending it to its final status.

use super::{Runner, lock};
use crate::client::{retry_after, text, transport_failure};
use crate::protocol::Protocol;
use crate::protocol::answer::{self, Failure};
use crate::protocol::request::{self, Request};
use crate::protocol::stream::StreamReader;
use crate::sample::Sample;
use crate::workload::Session;
use crate::workload::message::{Message, Role};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Response};
use std::time::{Duration, Instant};

/// A request under way.
pub(super) struct Exchange<'a> {
    runner: &'a Runner,
    pub(super) headers: &'a HeaderMap,
    pub(super) sample: Sample,
    /// Latencies count from here: when it was sent, or would have been but for `--max-in-flight`.
    pub(super) start: Instant,
    is_conversation: bool,
    /// True if the answer itself is needed, for the next turn or to count its tokens.
    keeps_text: bool,
    answer: Option<String>,
}

impl Runner {
    /// Sends one turn of a session; whether it was completed.
    pub(super) async fn turn(
        &self,
        session: &Session,
        number: usize,
        history: &mut Vec<Message>,
        due: Instant,
        waited: Duration,
    ) -> bool {
        let turn = &session.turns[number];
        history.append(&mut self.settings.text.messages(&turn.prompt));
        let user = &self.settings.users[session.user];
        let body = Bytes::from(request::body(
            self.settings.protocol,
            &Request {
                model: &session.model,
                messages: history,
                max_tokens: turn.max_tokens,
                user: &user.id,
                project: user.project.as_deref().filter(|_| self.settings.projects_are_known),
                kind: &session.kind,
                is_streaming: self.settings.is_streaming,
            },
            &self.settings.extra_body,
        ));
        let has_next = number + 1 < session.turns.len();
        let sent = Instant::now();
        let mut exchange = Exchange {
            runner: self,
            headers: &self.settings.headers[session.user],
            sample: self.sample(session, number, sent, due + waited),
            start: sent.checked_sub(waited).unwrap_or(sent),
            is_conversation: session.turns.len() > 1,
            keeps_text: has_next || self.settings.tokenizer.is_some(),
            answer: None,
        };
        exchange.sample.in_flight_wait_seconds = waited.as_secs_f64();
        self.live.began();
        let is_interrupted = tokio::select! {
            biased;
            () = exchange.complete(session, body) => false,
            () = self.stop.cancelled() => true,
        };
        if is_interrupted {
            let first = std::mem::take(&mut exchange.sample.backend_status);
            exchange.fail("interrupted", Failure::new("interrupted", "the run was interrupted"));
            exchange.sample.final_backend_status = std::mem::replace(&mut exchange.sample.backend_status, first);
        }
        let Exchange { sample, answer, .. } = exchange;
        let is_completed = sample.is_completed();
        self.live.ended(&sample);
        lock(&self.samples).push(sample);
        if is_completed && has_next {
            let live = || Message::new(Role::Assistant, answer.unwrap_or_default());
            history.push(turn.fixed_answer.clone().unwrap_or_else(live));
        }
        is_completed
    }

    fn sample(&self, session: &Session, number: usize, sent: Instant, due: Instant) -> Sample {
        let user = &self.settings.users[session.user];
        Sample {
            request_index: session.turns[number].index,
            user_id: user.id.clone(),
            project_id: user.project.clone().unwrap_or_default(),
            model: session.model.clone(),
            backend_name: self.settings.backends.get(&session.model).cloned().unwrap_or_default(),
            request_type: session.kind.clone(),
            at_seconds: sent.saturating_duration_since(self.began).as_secs_f64(),
            send_lag_seconds: sent.saturating_duration_since(due).as_secs_f64(),
            max_tokens: session.turns[number].max_tokens,
            session: session.number,
            turn: number,
            ..Sample::default()
        }
    }
}

impl Exchange<'_> {
    async fn complete(&mut self, session: &Session, body: Bytes) {
        let settings = &self.runner.settings;
        let mut headers = self.headers.clone();
        if session.kind == "batch" {
            headers.insert("x-sluice-class", hyper::header::HeaderValue::from_static("batch"));
        }
        if self.is_conversation
            && let Ok(value) = format!("session-{}", session.number).parse()
        {
            headers.insert("x-sluice-session", value);
        }
        for attempt in 0..=settings.retries {
            self.sample.retries = attempt;
            let deadline = tokio::time::Instant::now() + settings.request_timeout;
            let done = tokio::time::timeout_at(deadline, self.attempt(headers.clone(), body.clone())).await;
            let after = done.unwrap_or_else(|_| {
                let seconds = settings.request_timeout.as_secs_f64();
                self.fail(
                    "timed_out",
                    Failure::new("request_timeout", &format!("no complete answer within {seconds} s")),
                );
                None
            });
            match after.filter(|_| attempt < settings.retries) {
                Some(after) => tokio::time::sleep(after).await,
                None => break,
            }
        }
        if self.sample.backend_status == "queued" && settings.polls {
            self.poll().await;
        } else {
            self.sample.final_backend_status.clone_from(&self.sample.backend_status);
            self.sample.end_to_end_latency_seconds = Some(self.start.elapsed().as_secs_f64());
        }
    }

    /// Records that the request was not completed.
    pub(super) fn fail(&mut self, status: &str, failure: Failure) {
        status.clone_into(&mut self.sample.backend_status);
        self.sample.reason = failure.reason;
        self.sample.error = failure.message;
    }

    /// Sends the request once; returns the time of a retry, if it was refused with one.
    async fn attempt(&mut self, headers: HeaderMap, body: Bytes) -> Option<Duration> {
        self.sample.reason.clear();
        self.sample.error.clear();
        let settings = &self.runner.settings;
        let sent = self
            .runner
            .http
            .send(Method::POST, settings.uri.clone(), headers, body)
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(failure) => {
                self.sample.http_status = 0;
                self.fail("failed", failure);
                return None;
            }
        };
        self.head(&response);
        let is_success = response.status().is_success();
        let has_stream = settings.is_streaming && is_success && settings.protocol.has_streams();
        let after = retry_after(response.headers()).filter(|_| matches!(self.sample.http_status, 429 | 503));
        if has_stream {
            self.stream(response.into_body()).await;
            return None;
        }
        self.whole(Bytes::new(), response.into_body(), is_success).await;
        after
    }

    /// Reads an answer that is not a stream, of which `begun` has arrived.
    async fn whole(&mut self, begun: Bytes, rest: Incoming, is_success: bool) {
        match rest.collect().await {
            Ok(rest) => {
                let body = [begun, rest.to_bytes()].concat();
                if is_success {
                    self.success(&body);
                } else {
                    self.refusal(&body);
                }
            }
            Err(error) => self.fail("failed", transport_failure(&error)),
        }
        self.sample.latency_seconds = Some(self.start.elapsed().as_secs_f64());
    }

    fn head(&mut self, response: &Response<Incoming>) {
        let (sample, headers) = (&mut self.sample, response.headers());
        sample.http_status = response.status().as_u16();
        let queued = text(headers, "x-sluice-queue-ms").parse::<f64>();
        sample.queue_wait_seconds = queued.ok().map(|millis| millis / 1000.0);
        let id = ["x-sluice-request-id", "x-request-id"].map(|name| text(headers, name));
        id[usize::from(id[0].is_empty())].clone_into(&mut sample.request_id);
        text(headers, "x-sluice-degraded").clone_into(&mut sample.degraded);
    }

    fn success(&mut self, body: &[u8]) {
        match answer::read(body, self.keeps_text) {
            Err(failure) => self.fail("failed", failure),
            Ok(read) => {
                let sample = &mut self.sample;
                sample.input_tokens = read.input_tokens.filter(|tokens| *tokens > 0);
                sample.request_id = read.request_id.unwrap_or(std::mem::take(&mut sample.request_id));
                sample.project_id = read.project.unwrap_or(std::mem::take(&mut sample.project_id));
                sample.backend_name = read.backend.unwrap_or(std::mem::take(&mut sample.backend_name));
                sample.backend_status = read.status.unwrap_or_else(|| "completed".to_owned());
                self.answer = read.text;
                self.count_output(read.output_tokens, None);
            }
        }
    }

    fn refusal(&mut self, body: &[u8]) {
        let status = self.sample.http_status;
        let word = match status {
            408 | 504 => "timed_out",
            // Anthropic's servers are overloaded with 529.
            400..=499 | 503 | 529 => "rejected",
            _ => "failed",
        };
        self.fail(word, Failure::from_body(body, &format!("http_{status}")));
    }

    /// Tokens of the answer: as the server counts, else by the tokenizer, else one for each chunk. A server that counts
    /// none, unless none came, does not count.
    fn count_output(&mut self, usage: Option<u64>, chunks: Option<u64>) {
        let usage = usage.filter(|tokens| *tokens > 0 || chunks == Some(0));
        let tokenizer = self.runner.settings.tokenizer.as_ref();
        let counted = || Some(tokenizer?.count(self.answer.as_deref()?) as u64);
        let (tokens, source) = match (usage, counted, chunks) {
            (Some(tokens), ..) => (Some(tokens), "usage"),
            (None, counted, chunks) => match counted() {
                Some(tokens) => (Some(tokens), "tokenizer"),
                None => (chunks, if chunks.is_some() { "chunks" } else { "" }),
            },
        };
        self.sample.output_tokens = tokens;
        source.clone_into(&mut self.sample.token_source);
    }

    async fn stream(&mut self, mut body: Incoming) {
        let mut reader = StreamReader::new(self.runner.settings.protocol, self.keeps_text);
        let (mut chunks, mut first, mut last) = (0u64, None::<Instant>, None::<Instant>);
        let (mut has_begun, mut broken) = (false, None);
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    broken = Some(transport_failure(&error));
                    break;
                }
            };
            let Some(data) = frame.data_ref() else { continue };
            let now = Instant::now();
            if self.is_whole(data, &mut has_begun) {
                return self.whole(data.clone(), body, true).await;
            }
            let arrived = reader.push(data);
            if arrived == 0 {
                continue;
            }
            if let Some(last) = last {
                let gap = now.saturating_duration_since(last).as_micros();
                self.sample.gaps.push(u32::try_from(gap).unwrap_or(u32::MAX));
            } else {
                first = Some(now);
                let seconds = now.saturating_duration_since(self.start).as_secs_f64();
                self.sample.time_to_first_token_seconds = Some(seconds);
                self.sample.latency_seconds = Some(seconds);
            }
            // There is no time between tokens that arrive together.
            self.sample.gaps.extend(std::iter::repeat_n(0, arrived - 1));
            last = Some(now);
            chunks += arrived as u64;
        }
        let end = reader.finish(broken);
        self.answer = end.text;
        self.sample.input_tokens = end.usage.input_tokens.filter(|tokens| *tokens > 0);
        self.count_output(end.usage.output_tokens, Some(chunks));
        if let (Some(first), Some(last)) = (first, last) {
            self.between(first, last);
        }
        self.runner.live.tokens(chunks);
        match end.failure {
            None => "completed".clone_into(&mut self.sample.backend_status),
            Some(failure) => self.fail("failed", failure),
        }
    }

    /// Returns whether an answer begins like no stream: a server that does not stream answers with one object, a proxy
    /// with a page. What its head says of it is often wrong.
    fn is_whole(&self, data: &[u8], has_begun: &mut bool) -> bool {
        let text = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
        let first = text.trim_ascii_start().first().filter(|_| !*has_begun);
        *has_begun |= first.is_some();
        let is_object = !matches!(
            self.runner.settings.protocol,
            Protocol::Ollama | Protocol::OllamaGenerate
        );
        first.is_some_and(|first| matches!(first, b'<' | b'[') || (*first == b'{' && is_object))
    }

    /// Time to the last token, and from the first to the last by the tokens between.
    fn between(&mut self, first: Instant, last: Instant) {
        self.sample.time_to_last_token_seconds = Some(last.saturating_duration_since(self.start).as_secs_f64());
        let between = last.saturating_duration_since(first).as_secs_f64();
        let tokens = self.sample.output_tokens.unwrap_or(0);
        if tokens > 1 && between > 0.0 {
            let tokens = u32::try_from(tokens - 1).unwrap_or(u32::MAX);
            self.sample.time_per_output_token_seconds = Some(between / f64::from(tokens));
        }
    }

    /// The server and settings that polling needs.
    pub(super) fn runner(&self) -> &Runner {
        self.runner
    }
}
