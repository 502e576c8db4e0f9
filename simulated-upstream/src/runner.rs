//! An engine in real time: its steps take as long as they say.

use crate::clock;
use crate::engine::{Engine, EngineRequest, Gauges, Profile};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// Where requests are handed to an engine. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    commands: mpsc::UnboundedSender<Command>,
    gauges: Arc<Mutex<Gauges>>,
    next_id: Arc<AtomicU64>,
    /// When the front end is free again.
    front: Arc<Mutex<Instant>>,
    pub(crate) profile: Arc<Profile>,
}

/// A token that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    /// Of the prompt's tokens, how many were in memory.
    pub(crate) cached: usize,
    /// When the request was computed for the first time.
    pub(crate) scheduled: Instant,
}

/// Where the tokens of a request go.
#[derive(Debug)]
struct Receiver {
    tokens: mpsc::UnboundedSender<Token>,
    scheduled: Instant,
}

#[derive(Debug)]
enum Command {
    Add(EngineRequest, mpsc::UnboundedSender<Token>),
    Cancel(u64),
    /// Everything is lost.
    Crash,
}

impl Runner {
    /// Starts an engine; it ends with the last clone.
    pub(crate) fn start(profile: &Profile, seed: u64) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        let gauges = Arc::new(Mutex::new(Gauges::default()));
        tokio::spawn(run(Engine::new(profile.clone(), seed), received, Arc::clone(&gauges)));
        Self {
            commands,
            gauges,
            next_id: Arc::new(AtomicU64::new(0)),
            front: Arc::new(Mutex::new(clock::now())),
            profile: Arc::new(profile.clone()),
        }
    }

    /// Waits until the server's front end has passed a request on that came at `from`.
    pub(crate) async fn pass_front(&self, from: Instant) {
        let passed = {
            let mut free = self.front.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(from) + self.profile.front_time();
            *free
        };
        clock::until(passed + self.profile.api_time()).await;
    }

    /// Submits a request; each token is sent as it is made.
    pub(crate) fn add(&self, mut request: EngineRequest) -> (u64, mpsc::UnboundedReceiver<Token>) {
        request.id = self.next_id.fetch_add(1, Relaxed);
        let id = request.id;
        let (sender, tokens) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::Add(request, sender));
        (id, tokens)
    }

    pub(crate) fn cancel(&self, id: u64) {
        let _ = self.commands.send(Command::Cancel(id));
    }

    pub(crate) fn crash(&self) {
        let _ = self.commands.send(Command::Crash);
    }

    pub(crate) fn gauges(&self) -> Gauges {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(mut engine: Engine, mut commands: mpsc::UnboundedReceiver<Command>, gauges: Arc<Mutex<Gauges>>) {
    let mut receivers: HashMap<u64, Receiver> = HashMap::new();
    // When the step that is computed ends. Steps follow each other without a gap, however late this task is woken.
    let mut due = clock::now();
    loop {
        if engine.is_idle() {
            let Some(command) = commands.recv().await else { return };
            take(command, &mut engine, &mut receivers);
            due = clock::now();
        }
        while let Ok(command) = commands.try_recv() {
            take(command, &mut engine, &mut receivers);
        }
        let step = engine.step();
        *gauges.lock().unwrap_or_else(PoisonError::into_inner) = engine.gauges();
        let Some(step) = step else { continue };
        for id in &step.admitted {
            if let Some(receiver) = receivers.get_mut(id) {
                receiver.scheduled = due;
            }
        }
        due += step.took;
        clock::until(due).await;
        for made in step.made {
            let Some(receiver) = receivers.get(&made.id) else {
                continue;
            };
            let token = Token {
                cached: made.cached_tokens,
                scheduled: receiver.scheduled,
            };
            let is_heard = receiver.tokens.send(token).is_ok();
            if made.is_last || !is_heard {
                receivers.remove(&made.id);
            }
        }
    }
}

fn take(command: Command, engine: &mut Engine, receivers: &mut HashMap<u64, Receiver>) {
    match command {
        Command::Add(request, tokens) => {
            let scheduled = clock::now();
            receivers.insert(request.id, Receiver { tokens, scheduled });
            engine.add(request);
        }
        Command::Cancel(id) => {
            if receivers.remove(&id).is_some() {
                engine.cancel(id);
            }
        }
        Command::Crash => {
            for (id, _) in receivers.drain() {
                engine.cancel(id);
            }
        }
    }
}
