//! An engine in real time: its steps take as long as they say.

use crate::clock;
use crate::engine::{Ask, Engine, Gauges, Profile};
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
    pub(crate) profile: Arc<Profile>,
}

#[derive(Debug)]
enum Command {
    Add(Ask, mpsc::UnboundedSender<usize>),
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
            profile: Arc::new(profile.clone()),
        }
    }

    /// Hands a request in; each token is told as it is made.
    pub(crate) fn add(&self, mut ask: Ask) -> (u64, mpsc::UnboundedReceiver<usize>) {
        ask.id = self.next_id.fetch_add(1, Relaxed);
        let id = ask.id;
        let (tell, tokens) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::Add(ask, tell));
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
    let mut tellers: HashMap<u64, mpsc::UnboundedSender<usize>> = HashMap::new();
    // When the step that is computed ends. Steps follow each other without a gap, however late this task is woken.
    let mut due = Instant::now();
    loop {
        if engine.is_idle() {
            let Some(command) = commands.recv().await else { return };
            take(command, &mut engine, &mut tellers);
            due = Instant::now();
        }
        while let Ok(command) = commands.try_recv() {
            take(command, &mut engine, &mut tellers);
        }
        let step = engine.step();
        *gauges.lock().unwrap_or_else(PoisonError::into_inner) = engine.gauges();
        let Some(step) = step else { continue };
        due += step.took;
        clock::until(due).await;
        for made in step.made {
            let Some(teller) = tellers.get(&made.id) else { continue };
            let is_heard = teller.send(made.cached_tokens).is_ok();
            if made.is_last || !is_heard {
                tellers.remove(&made.id);
            }
        }
    }
}

fn take(command: Command, engine: &mut Engine, tellers: &mut HashMap<u64, mpsc::UnboundedSender<usize>>) {
    match command {
        Command::Add(ask, teller) => {
            tellers.insert(ask.id, teller);
            engine.add(ask);
        }
        Command::Cancel(id) => {
            if tellers.remove(&id).is_some() {
                engine.cancel(id);
            }
        }
        Command::Crash => {
            for (id, _) in tellers.drain() {
                engine.cancel(id);
            }
        }
    }
}
