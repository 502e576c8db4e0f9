//! A simulated LLM server: OpenAI's, Anthropic's and Ollama's APIs, plain and streamed, with exact usage; the same
//! answer to the same question, by seed; and the time that a real server takes, by a profile. For trying a gateway, and
//! for planning capacity, without a GPU.

mod answer;
mod anthropic;
pub mod calibrate;
mod clock;
pub mod dialect;
pub mod engine;
mod faults;
pub mod fit;
mod generation;
mod known;
#[cfg(test)]
mod live_tests;
mod metrics;
mod ollama;
mod openai;
mod pace;
pub mod plan;
pub mod random;
mod refusal;
mod replay;
pub mod report;
mod responses;
mod routes;
mod runner;
mod slo;
mod sse;
mod tools;

pub use answer::count_tokens;
pub use dialect::Dialect;
pub use faults::{Fault, Rates};
pub use known::Known;
pub use pace::Timing;
pub use replay::Recording;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use dialect::Quirk;
use engine::Profile;
use generation::Broken;
use refusal::Refusal;
use runner::Runner;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// A model that is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The name that requests use.
    pub name: String,
    /// Its timing.
    pub timing: Timing,
    /// The longest prompt, in tokens.
    pub max_input_tokens: u64,
    /// The longest answer, in tokens.
    pub max_output_tokens: u64,
    /// The model of which this is an adapter (LoRA), if it is one.
    pub adapter_of: Option<String>,
}

impl Model {
    /// A model with room for almost anything.
    pub fn new(name: impl Into<String>, timing: Timing) -> Self {
        Self {
            name: name.into(),
            timing,
            max_input_tokens: 1 << 20,
            max_output_tokens: 1 << 16,
            adapter_of: None,
        }
    }

    /// The longest prompt and answer together, in tokens.
    pub fn context(&self) -> u64 {
        self.max_input_tokens.saturating_add(self.max_output_tokens)
    }
}

/// Deviations from vLLM's behavior.
#[derive(Debug, Default)]
pub struct Behavior {
    /// Varies the answers and the noise.
    pub seed: u64,
    /// Answers that are given.
    pub known: Known,
    /// Faults that happen by themselves.
    pub faults: Rates,
    /// The dialect of its OpenAI API.
    pub dialect: Dialect,
    /// Answers that are replayed.
    pub recording: Recording,
}

/// The server.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    models: RwLock<Vec<Model>>,
    seed: u64,
    known: Known,
    faults: Rates,
    dialect: Dialect,
    recording: Recording,
    metrics: metrics::Metrics,
    /// Engines that run, by model.
    runners: Mutex<HashMap<String, Runner>>,
    /// Models that are loaded, where loading takes time: until when.
    loaded: Mutex<HashMap<String, Instant>>,
    started: Instant,
    /// It has crashed, and is back so many milliseconds after its start.
    down_until: AtomicU64,
}

/// A request under way; counted as aborted if it is dropped before its end.
#[derive(Debug)]
struct Running {
    server: Server,
    model: String,
    is_complete: bool,
}

/// The time for which a model stays loaded if the request does not specify one; Ollama's default.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

impl Server {
    /// `seed` varies the answers and the noise.
    pub fn new(models: Vec<Model>, seed: u64) -> Self {
        Self::with(
            models,
            Behavior {
                seed,
                ..Behavior::default()
            },
        )
    }

    /// The same with any behavior.
    pub fn with(models: Vec<Model>, behavior: Behavior) -> Self {
        Self(Arc::new(Inner {
            models: RwLock::new(models),
            seed: behavior.seed,
            known: behavior.known,
            faults: behavior.faults,
            dialect: behavior.dialect,
            recording: behavior.recording,
            metrics: metrics::Metrics::default(),
            runners: Mutex::default(),
            loaded: Mutex::default(),
            started: Instant::now(),
            down_until: AtomicU64::new(0),
        }))
    }

    /// Serves until the listener fails or the future is dropped.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, routes::router(self)).await
    }

    /// Serves these models from now on; answers under way are finished.
    pub fn set_models(&self, models: Vec<Model>) {
        let mut runners = lock(&self.0.runners);
        runners.retain(|name, runner| {
            let same = models.iter().find(|model| model.name == *name);
            same.is_some_and(|model| matches!(&model.timing, Timing::Engine(profile) if **profile == *runner.profile))
        });
        *self.0.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    fn models(&self) -> Vec<Model> {
        self.0.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn model(&self, name: &str) -> Option<Model> {
        let models = self.0.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().find(|model| model.name == name).cloned()
    }

    /// The model that a request asks for: the first where it names none, or where the dialect does not care.
    fn model_named(&self, name: Option<&str>) -> Result<Model, Refusal> {
        let models = self.0.models.read().unwrap_or_else(PoisonError::into_inner);
        let named = match name {
            Some(name) => models.iter().find(|model| model.name == name),
            None => models.first(),
        };
        let any = models.first().filter(|_| self.0.dialect.has(Quirk::AnyModel));
        let found = named.or(any).cloned();
        found.ok_or_else(|| Refusal::no_model(name.unwrap_or_default()))
    }

    /// The engine of a model; an adapter shares that of the model that it adapts.
    fn runner(&self, model: &str, profile: &Profile) -> Runner {
        let known = self.model(model);
        let of = known
            .and_then(|model| model.adapter_of)
            .unwrap_or_else(|| model.to_owned());
        let mut runners = lock(&self.0.runners);
        let runner = runners.entry(of).or_insert_with(|| Runner::start(profile, self.0.seed));
        runner.clone()
    }

    fn runner_if_started(&self, model: &str) -> Option<Runner> {
        lock(&self.0.runners).get(model).cloned()
    }

    fn begin(&self, model: &str) -> Running {
        self.0.metrics.began(model);
        Running {
            server: self.clone(),
            model: model.to_owned(),
            is_complete: false,
        }
    }

    /// Loads a model where that takes time, and keeps it for a while; how long it took.
    async fn load(&self, model: &Model, keep_alive: Option<Duration>) -> Duration {
        let Timing::Engine(profile) = &model.timing else {
            return Duration::ZERO;
        };
        if profile.load_seconds == 0.0 {
            return Duration::ZERO;
        }
        let began = Instant::now();
        let is_loaded = lock(&self.0.loaded)
            .get(&model.name)
            .is_some_and(|until| *until > began);
        if !is_loaded {
            tokio::time::sleep(Duration::from_secs_f64(profile.load_seconds)).await;
        }
        let until = Instant::now() + keep_alive.unwrap_or(KEEP_ALIVE);
        lock(&self.0.loaded).insert(model.name.clone(), until);
        began.elapsed()
    }

    /// The models in memory, and for how much longer; `None`: for good.
    fn in_memory(&self) -> Vec<(Model, Option<Duration>)> {
        let loaded = lock(&self.0.loaded);
        let now = Instant::now();
        let in_memory = self.models().into_iter().filter_map(|model| match &model.timing {
            Timing::Engine(profile) if profile.load_seconds > 0.0 => {
                let left = loaded.get(&model.name)?.checked_duration_since(now)?;
                (!left.is_zero()).then_some((model, Some(left)))
            }
            _ => Some((model, None)),
        });
        in_memory.collect()
    }

    /// Everything that runs is lost; connections are refused for a while.
    fn crash(&self) {
        let until = self.0.started.elapsed() + faults::RETRY_AFTER;
        self.0
            .down_until
            .store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Relaxed);
        for runner in lock(&self.0.runners).values() {
            runner.crash();
        }
        lock(&self.0.loaded).clear();
    }

    fn is_down(&self) -> bool {
        self.0.started.elapsed().as_millis() < u128::from(self.0.down_until.load(Relaxed))
    }
}

impl Running {
    fn complete(&mut self, prompt_tokens: u64, generation_tokens: u64) {
        let metrics = &self.server.0.metrics;
        metrics.prompt_tokens.fetch_add(prompt_tokens, Relaxed);
        metrics.generation_tokens.fetch_add(generation_tokens, Relaxed);
        self.is_complete = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.0.metrics.ended(&self.model, self.is_complete);
    }
}

/// A stream without a trailer.
fn streamed(
    content_type: &'static str,
    pieces: impl futures_util::Stream<Item = Result<String, Broken>> + Send + 'static,
) -> Response {
    let head = [("content-type", content_type), ("cache-control", "no-cache")];
    (head, Body::from_stream(pieces)).into_response()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
