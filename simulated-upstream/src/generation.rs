//! One answer under way, the same for every API.

use crate::answer::{Answer, block_hashes, count_tokens};
use crate::engine::{Ask, BLOCK_TOKENS};
use crate::faults::{Fault, RETRY_AFTER, SPIKE, TOKENS_BEFORE};
use crate::pace::{Timing, Tokens};
use crate::{Model, Running, Server, tools};
use axum::http::StatusCode;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What a request wants, whatever API it came by.
#[derive(Debug, Default)]
pub(crate) struct Want {
    pub(crate) model: String,
    /// All that the model reads.
    pub(crate) prompt: String,
    pub(crate) limit: Option<u64>,
    /// Whether the answer is to be as long as it may.
    pub(crate) ignore_eos: bool,
    pub(crate) stop: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) tools: Vec<Value>,
    pub(crate) tool_choice: Option<Value>,
    /// The last message, for tools.
    pub(crate) last_said: Value,
    /// What the answer's JSON is to look like.
    pub(crate) schema: Option<Value>,
    /// How long the model is to stay loaded after it, where loading counts.
    pub(crate) keep_alive: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u64>,
    /// The answer is no JSON at all.
    pub(crate) is_garbage: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
            is_garbage: false,
        }
    }
}

/// The answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct Broken;

#[derive(Debug)]
pub(crate) struct Generation {
    server: Server,
    running: Running,
    pub(crate) model: Model,
    answer: Answer,
    tokens: Tokens,
    pub(crate) prompt_tokens: u64,
    /// Of those, how many were in memory.
    pub(crate) cached_tokens: u64,
    pub(crate) total: u64,
    pub(crate) made: u64,
    /// Whether it would have gone on.
    pub(crate) is_cut: bool,
    /// The tool that the answer calls, with the answer's text as arguments.
    pub(crate) tool: Option<String>,
    fault: Option<Fault>,
    pub(crate) began: Instant,
    pub(crate) first: Option<Duration>,
    last: Duration,
    /// How long the model took to load.
    pub(crate) loading: Duration,
}

impl Generation {
    /// Takes a request in, or refuses it.
    pub(crate) async fn begin(server: &Server, want: Want) -> Result<Self, Refusal> {
        let model = server.model(&want.model).ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                format!("model '{}' not found; there is no such model", want.model),
            )
        })?;
        let fault = Fault::asked_for(&want.prompt).or_else(|| server.0.faults.next());
        let began = Instant::now();
        if let Some(fault) = fault {
            fail_at_once(server, fault).await?;
        }
        let prompt_tokens = count_tokens(&want.prompt);
        if prompt_tokens > model.max_input_tokens {
            let most = model.max_input_tokens;
            let message = format!("the prompt has {prompt_tokens} tokens, at most {most} fit");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        let limit = want.limit.unwrap_or(model.max_output_tokens);
        let limit = limit.clamp(1, model.max_output_tokens);
        let call = tools::called(&want.tools, want.tool_choice.as_ref(), &want.last_said);
        let answer = match (&call, &want.schema, server.0.known.answer(&want.prompt)) {
            (Some((_, arguments)), _, _) => Answer::given(&arguments.to_string(), limit),
            (None, Some(schema), _) => Answer::given(&tools::value_of(schema, 0).to_string(), limit),
            (None, None, Some(known)) => Answer::given(known, limit),
            (None, None, None) => Answer::new(server.0.seed ^ want.seed, &want.prompt, limit, want.ignore_eos),
        };
        let answer = answer.stopping(&want.stop);
        let running = server.begin(&model.name);
        let loading = server.load(&model, want.keep_alive).await;
        let tokens = tokens(server, &model, &want.prompt, prompt_tokens, answer.tokens)?;
        Ok(Self {
            server: server.clone(),
            running,
            total: answer.tokens,
            is_cut: answer.is_cut,
            answer,
            tokens,
            model,
            prompt_tokens,
            cached_tokens: 0,
            made: 0,
            tool: call.map(|(name, _)| name),
            fault,
            began,
            first: None,
            last: Duration::ZERO,
            loading,
        })
    }

    /// The next token; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, Broken> {
        if self.made == self.total {
            return Ok(None);
        }
        let before = TOKENS_BEFORE.min(self.total / 2);
        match self.fault {
            Some(Fault::Stall) if self.made == before => std::future::pending::<()>().await,
            Some(Fault::Truncate) if self.made == before => return Err(Broken),
            _ => {}
        }
        let cached = self.tokens.next().await.ok_or(Broken)?;
        let now = self.began.elapsed();
        let model = &self.model.name;
        if self.first.is_none() {
            self.first = Some(now);
            self.cached_tokens = cached as u64;
            self.server.0.metrics.first_token(model, now);
        } else {
            self.server.0.metrics.token(model, now.saturating_sub(self.last));
        }
        self.last = now;
        self.made += 1;
        if self.made == self.total {
            self.running.complete(self.prompt_tokens, self.total);
            self.server.0.metrics.finished(model, now, self.is_cut);
        }
        Ok(self.answer.next())
    }

    /// The whole text.
    pub(crate) async fn whole(&mut self) -> Result<String, Broken> {
        let mut text = String::new();
        while let Some(piece) = self.next().await? {
            text.push_str(&piece);
        }
        Ok(text)
    }

    /// OpenAI's word for its end.
    pub(crate) fn finish_reason(&self) -> &'static str {
        match (self.is_cut, &self.tool) {
            (true, _) => "length",
            (false, Some(_)) => "tool_calls",
            (false, None) => "stop",
        }
    }
}

/// Faults that keep an answer from beginning.
async fn fail_at_once(server: &Server, fault: Fault) -> Result<(), Refusal> {
    let mut refusal = match fault {
        Fault::TooMany => Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests; try again"),
        Fault::Unavailable => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is overloaded; try again"),
        Fault::OutOfMemory => {
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "CUDA out of memory"));
        }
        Fault::Garbage => {
            let mut garbage = Refusal::new(StatusCode::OK, "<html>\u{0}this is no JSON");
            garbage.is_garbage = true;
            return Err(garbage);
        }
        Fault::Crash => {
            server.crash();
            close_the_connection()
        }
        Fault::Reset => close_the_connection(),
        Fault::Hang => return std::future::pending().await,
        Fault::Spike => {
            tokio::time::sleep(SPIKE).await;
            return Ok(());
        }
        Fault::Stall | Fault::Truncate => return Ok(()),
    };
    refusal.retry_after = Some(RETRY_AFTER.as_secs());
    Err(refusal)
}

/// Ends the task that serves the connection, and with it the connection, without a word to anybody.
pub(crate) fn close_the_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection is closed on purpose"))
}

fn tokens(
    server: &Server,
    model: &Model,
    prompt: &str,
    prompt_tokens: u64,
    output_tokens: u64,
) -> Result<Tokens, Refusal> {
    let Timing::Engine(profile) = &model.timing else {
        return Ok(Tokens::even(&model.timing, output_tokens));
    };
    let count = |tokens: u64| usize::try_from(tokens).unwrap_or(usize::MAX);
    let all = count(prompt_tokens.saturating_add(output_tokens));
    if all / BLOCK_TOKENS + 1 >= profile.kv_tokens / BLOCK_TOKENS {
        let message = format!("{all} tokens never fit into the memory of {}", profile.kv_tokens);
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let runner = server.runner(&model.name, profile);
    let ask = Ask {
        id: 0,
        prompt_tokens: count(prompt_tokens),
        blocks: block_hashes(prompt, BLOCK_TOKENS),
        output_tokens: count(output_tokens),
    };
    let (id, tokens) = runner.add(ask);
    Ok(Tokens::Engine { tokens, id, runner })
}
