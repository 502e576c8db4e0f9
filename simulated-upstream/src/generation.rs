//! One answer under way, the same for every API.

use crate::answer::{Answer, block_hashes, count_tokens};
use crate::clock;
use crate::engine::{BLOCK_TOKENS, EngineRequest};
use crate::faults::{Fault, RETRY_AFTER, SPIKE, TOKENS_BEFORE};
use crate::metrics::Figure;
use crate::pace::{Timing, Tokens};
use crate::refusal::Refusal;
use crate::{Model, Running, Server, tools};
use axum::http::StatusCode;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A request for one answer, in the terms that all APIs share.
#[derive(Debug, Default)]
pub(crate) struct GenerationRequest {
    pub(crate) model: String,
    /// All that the model reads.
    pub(crate) prompt: String,
    pub(crate) limit: Option<u64>,
    /// True if a prompt and limit that exceed the model's context together are refused, as vLLM does.
    pub(crate) within_context: bool,
    /// True if the answer is to be as long as it may.
    pub(crate) ignore_eos: bool,
    pub(crate) stop: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) tools: Vec<Value>,
    pub(crate) tool_choice: Option<Value>,
    /// The last message, for tools.
    pub(crate) last_message: Value,
    /// The JSON schema of the answer.
    pub(crate) schema: Option<Value>,
    /// The time for which the model stays loaded afterwards, on servers that unload models.
    pub(crate) keep_alive: Option<Duration>,
}

/// The answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct Broken {
    /// The client gets an error in the API's words, and not just the end of the connection.
    pub(crate) is_reported: bool,
}

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
    /// True if it would have gone on.
    pub(crate) is_cut: bool,
    /// The tool that the answer calls, with the answer's text as arguments.
    pub(crate) tool: Option<String>,
    fault: Option<Fault>,
    pub(crate) began: Instant,
    pub(crate) first: Option<Duration>,
    last: Duration,
    /// Before it was computed for the first time.
    queued: Duration,
    /// The time that the model took to load.
    pub(crate) loading: Duration,
}

impl Generation {
    /// Takes a request in, or refuses it.
    pub(crate) async fn begin(server: &Server, request: GenerationRequest) -> Result<Self, Refusal> {
        let model = server.model_named(Some(&request.model))?;
        let fault = Fault::asked_for(&request.prompt).or_else(|| server.0.faults.next());
        let began = clock::now();
        if let Some(fault) = fault {
            fail_at_once(server, fault).await?;
        }
        let prompt_tokens = count_tokens(&request.prompt);
        fits(
            server,
            &model,
            prompt_tokens,
            request.limit.filter(|_| request.within_context),
        )?;
        let limit = request.limit.unwrap_or(model.max_output_tokens);
        let limit = limit.clamp(1, model.max_output_tokens);
        let call = tools::called(&request.tools, request.tool_choice.as_ref(), &request.last_message);
        let answer = match (&call, &request.schema, server.0.known.answer(&request.prompt)) {
            (Some((_, arguments)), _, _) => Answer::given(&arguments.to_string(), limit),
            (None, Some(schema), _) => Answer::given(&tools::value_of(schema, 0).to_string(), limit),
            (None, None, Some(known)) => Answer::given(known, limit),
            (None, None, None) => Answer::new(server.0.seed ^ request.seed, &request.prompt, limit, request.ignore_eos),
        };
        let answer = answer.stopping(&request.stop);
        let running = server.begin(&model.name);
        let loading = server.load(&model, request.keep_alive).await;
        let tokens = tokens(
            server,
            &model,
            &request.prompt,
            (prompt_tokens, answer.tokens),
            began + loading,
        )
        .await?;
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
            queued: Duration::ZERO,
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
            Some(Fault::Truncate) if self.made == before => return Err(Broken { is_reported: false }),
            Some(Fault::EngineError) if self.made == before => return Err(Broken { is_reported: true }),
            _ => {}
        }
        let token = self.tokens.next().await.ok_or(Broken { is_reported: false })?;
        let now = clock::now().duration_since(self.began);
        let metrics = &self.server.0.metrics;
        if self.first.is_none() {
            self.first = Some(now);
            self.cached_tokens = token.cached as u64;
            self.queued = token.scheduled.saturating_duration_since(self.began);
            metrics.observe(&self.model.name, Figure::FirstToken, now.as_secs_f64());
        } else {
            let after = now.saturating_sub(self.last).as_secs_f64();
            metrics.observe(&self.model.name, Figure::InterToken, after);
        }
        self.last = now;
        self.made += 1;
        if self.made == self.total {
            self.running.complete(self.prompt_tokens, self.total);
            self.measure();
        }
        Ok(self.answer.next())
    }

    /// The figures of a request that is finished.
    #[allow(clippy::cast_precision_loss)]
    fn measure(&self) {
        let first = self.first.unwrap_or(self.last);
        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        let decode = seconds(first, self.last);
        let figures = [
            (Figure::Whole, self.last.as_secs_f64()),
            (Figure::Queue, self.queued.as_secs_f64()),
            (Figure::Prefill, seconds(self.queued, first)),
            (Figure::Decode, decode),
            (Figure::Inference, seconds(self.queued, self.last)),
            (Figure::PromptTokens, self.prompt_tokens as f64),
            (Figure::GenerationTokens, self.total as f64),
            (Figure::MostGenerationTokens, self.total as f64),
        ];
        let metrics = &self.server.0.metrics;
        for (figure, value) in figures {
            metrics.observe(&self.model.name, figure, value);
        }
        if self.total > 1 {
            metrics.observe(
                &self.model.name,
                Figure::PerOutputToken,
                decode / (self.total - 1) as f64,
            );
        }
        metrics.finished(&self.model.name, self.is_cut);
    }

    /// The text before which it ends, where one was met.
    pub(crate) fn stopped_by(&self) -> Option<&str> {
        self.answer.stopped_by.as_deref()
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
        Fault::Stall | Fault::Truncate | Fault::EngineError => return Ok(()),
    };
    refusal.retry_after = Some(RETRY_AFTER.as_secs());
    Err(refusal)
}

/// Ends the task that serves the connection, and with it the connection, without a word to anybody.
pub(crate) fn close_the_connection() -> ! {
    std::panic::resume_unwind(Box::new("the connection is closed on purpose"))
}

/// Returns whether a prompt, and what is asked for after it, are within the model's context.
fn fits(server: &Server, model: &Model, prompt_tokens: u64, limit: Option<u64>) -> Result<(), Refusal> {
    let context = model.context();
    if server.0.dialect.is_llama_cpp() {
        if prompt_tokens < model.max_input_tokens {
            return Ok(());
        }
        let message = format!(
            "request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
        );
        let mut refusal = Refusal::bad(message, None);
        refusal.details = vec![("n_prompt_tokens", prompt_tokens.into()), ("n_ctx", context.into())];
        return Err(refusal);
    }
    let wanted = limit.unwrap_or(0);
    let total = prompt_tokens.saturating_add(wanted);
    if prompt_tokens <= model.max_input_tokens && total <= context {
        return Ok(());
    }
    let message = format!(
        "This model's maximum context length is {context} tokens. However, you requested {wanted} output tokens and your \
         prompt contains at least {prompt_tokens} input tokens, for a total of at least {total} tokens. Please reduce the \
         length of the input prompt or the number of requested output tokens."
    );
    Err(Refusal::bad(message, Some("input_tokens")))
}

/// Hands a request to its engine, once the server's front end is done with it.
async fn tokens(
    server: &Server,
    model: &Model,
    prompt: &str,
    (prompt_tokens, output_tokens): (u64, u64),
    from: Instant,
) -> Result<Tokens, Refusal> {
    let Timing::Engine(profile) = &model.timing else {
        return Ok(Tokens::even(&model.timing, output_tokens));
    };
    let count = |tokens: u64| usize::try_from(tokens).unwrap_or(usize::MAX);
    let all = count(prompt_tokens.saturating_add(output_tokens));
    if all / BLOCK_TOKENS + 1 >= profile.kv_tokens / BLOCK_TOKENS {
        let message = format!("{all} tokens never fit into the memory of {}", profile.kv_tokens);
        return Err(Refusal::bad(message, Some("input_tokens")));
    }
    let runner = server.runner(&model.name, profile);
    runner.pass_front(from).await;
    let request = EngineRequest {
        id: 0,
        prompt_tokens: count(prompt_tokens),
        blocks: block_hashes(prompt, BLOCK_TOKENS),
        output_tokens: count(output_tokens),
    };
    let (id, tokens) = runner.add(request);
    Ok(Tokens::Engine { tokens, id, runner })
}
