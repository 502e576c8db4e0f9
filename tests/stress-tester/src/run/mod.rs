//! Sends the sessions of a workload, in a closed loop or at their times, and observes what becomes of each request.

pub(crate) mod client_health;
mod exchange;
mod poll;

use crate::client::Http;
use crate::live::Live;
use crate::protocol::Protocol;
use crate::sample::Sample;
use crate::scenario::User;
use crate::workload::Session;
use crate::workload::message::Message;
use crate::workload::text::TextMaker;
use crate::workload::tokenizer::Tokenizer;
use client_health::{ClientHealth, Probe};
use hyper::{HeaderMap, Uri};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The settings by which requests are sent.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) protocol: Protocol,
    pub(crate) uri: Uri,
    pub(crate) is_streaming: bool,
    pub(crate) polls: bool,
    pub(crate) poll_interval: Duration,
    pub(crate) poll_timeout: Duration,
    /// For each HTTP request, to the last byte of its answer.
    pub(crate) request_timeout: Duration,
    /// The users that send: the scenario's, or the holders of keys.
    pub(crate) users: Vec<User>,
    /// Headers by user; those of a user's own key are in them.
    pub(crate) headers: Vec<HeaderMap>,
    /// True if the admin listener confirmed the users' projects, so that bodies can name them.
    pub(crate) projects_are_known: bool,
    /// The backend of each model, where it is known.
    pub(crate) backends: HashMap<String, String>,
    pub(crate) concurrency: usize,
    pub(crate) gap: Duration,
    pub(crate) think_time: Duration,
    /// The number of retries after refusals with `retry-after`.
    pub(crate) retries: u32,
    /// Requests under way at once in an open loop, at most; more wait, and that counts.
    pub(crate) max_in_flight: usize,
    /// Fields added to every body.
    pub(crate) extra_body: Map<String, Value>,
    pub(crate) text: TextMaker,
    pub(crate) tokenizer: Option<Tokenizer>,
    /// Threads that the client runs on.
    pub(crate) threads: usize,
}

/// The observations of all requests.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) samples: Vec<Sample>,
    pub(crate) lasted: Duration,
    /// Requests that were not sent: the run was interrupted, or a turn before them was not completed.
    pub(crate) not_sent: usize,
    pub(crate) client: ClientHealth,
}

/// Runs a workload to its end. At Ctrl-C or SIGTERM nothing more is sent, and what is under way is interrupted.
pub(crate) async fn run(http: &Http, sessions: Vec<Session>, settings: Arc<Settings>, live: Arc<Live>) -> Observed {
    let planned: usize = sessions.iter().map(|session| session.turns.len()).sum();
    let runner = Arc::new(Runner {
        http: http.clone(),
        settings,
        live: Arc::clone(&live),
        began: Instant::now(),
        stop: CancellationToken::new(),
        samples: Mutex::new(Vec::with_capacity(planned)),
    });
    let probe = Probe::start(runner.began);
    let interrupts = tokio::spawn(interrupt(Arc::clone(&runner)));
    if sessions.first().is_some_and(|session| session.at.is_some()) {
        open_loop(&runner, sessions).await;
    } else {
        closed_loop(&runner, sessions).await;
    }
    interrupts.abort();
    let lasted = runner.began.elapsed();
    live.end();
    let client = probe.end(runner.settings.threads);
    let samples = std::mem::take(&mut *lock(&runner.samples));
    Observed {
        not_sent: planned.saturating_sub(samples.len()),
        samples,
        lasted,
        client,
    }
}

async fn interrupt(runner: Arc<Runner>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    runner
        .live
        .say("interrupted: reports are written of the requests so far");
    runner.stop.cancel();
}

/// Clients, each of which begins the next session when its own has ended.
async fn closed_loop(runner: &Arc<Runner>, sessions: Vec<Session>) {
    let sessions = Arc::new(sessions);
    let next = Arc::new(AtomicUsize::new(0));
    let clients = (0..runner.settings.concurrency.min(sessions.len())).map(|_| {
        let (runner, sessions, next) = (Arc::clone(runner), Arc::clone(&sessions), Arc::clone(&next));
        tokio::spawn(async move {
            let mut due = Instant::now();
            while let Some(session) = sessions
                .get(next.fetch_add(1, Relaxed))
                .filter(|_| !runner.is_stopped())
            {
                runner.session(session, due, Duration::ZERO).await;
                due = runner.pause(runner.settings.gap).await;
            }
        })
    });
    futures_util::future::join_all(clients).await;
}

/// Begins each session at its time, whether those before have ended or not. A thread of its own keeps the times:
/// timers of the runtime are exact to a millisecond only.
async fn open_loop(runner: &Arc<Runner>, sessions: Vec<Session>) {
    let slots = Arc::new(Semaphore::new(runner.settings.max_in_flight));
    let (running, mut ended) = mpsc::channel::<()>(1);
    let runtime = tokio::runtime::Handle::current();
    let sender = Arc::clone(runner);
    let schedule = move || {
        for session in sessions {
            let due = sender.began + session.at.unwrap_or_default();
            if !sender.wait_until(due) {
                return;
            }
            let (runner, slots, running) = (Arc::clone(&sender), Arc::clone(&slots), running.clone());
            runtime.spawn(async move {
                let (slot, waited) = match slots.try_acquire() {
                    Ok(slot) => (Ok(slot), Duration::ZERO),
                    Err(_) => {
                        let begun = Instant::now();
                        (slots.acquire().await, begun.elapsed())
                    }
                };
                if !runner.is_stopped() {
                    runner.session(&session, due, waited).await;
                }
                drop((slot, running));
            });
        }
    };
    let schedule = tokio::task::spawn_blocking(schedule);
    // Each session holds a sender until it has ended.
    while ended.recv().await.is_some() {}
    let _ = schedule.await;
}

struct Runner {
    http: Http,
    settings: Arc<Settings>,
    live: Arc<Live>,
    began: Instant,
    stop: CancellationToken,
    samples: Mutex<Vec<Sample>>,
}

impl Runner {
    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Sleeps in a thread; false when the run is stopped before.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if self.is_stopped() || left.is_zero() {
                return !self.is_stopped();
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Waits; returns when the pause was to end.
    async fn pause(&self, pause: Duration) -> Instant {
        let due = Instant::now() + pause;
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.stop.cancelled() => {}
            }
        }
        due
    }

    /// The turns of a session, one after the other, as long as each is completed.
    async fn session(&self, session: &Session, due: Instant, waited: Duration) {
        let mut history: Vec<Message> = Vec::new();
        let (mut due, mut waited) = (due, waited);
        for number in 0..session.turns.len() {
            if number > 0 {
                due = self.pause(self.settings.think_time).await;
                waited = Duration::ZERO;
            }
            if self.is_stopped() || !self.turn(session, number, &mut history, due, waited).await {
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
