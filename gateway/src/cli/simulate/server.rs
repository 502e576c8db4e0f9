//! Simulated servers of a model: an engine that batches continuously, or durations that are given.

use super::workload::Request;
use policy::{Candidate, ServerLoad};
use simulated_upstream::Timing;
use simulated_upstream::engine::{BLOCK_TOKENS, Engine, EngineRequest, Made, Step};
use std::time::Duration;

/// The servers of one model.
#[derive(Debug)]
pub(super) struct Pool {
    timing: Option<Timing>,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    engine: Option<Engine>,
    /// What its engine computes at present.
    step: Option<Step>,
    /// Tokens of its requests, and their number.
    load: u64,
    running: usize,
}

/// What follows from sending a request to a server.
#[derive(Debug, PartialEq)]
pub(super) enum Sent {
    /// Its first token and its end come after these times.
    Known(Duration, Duration),
    /// The server has begun a step, which ends after this time.
    Stepping(usize, Duration),
    /// It joins the steps of its server.
    Joined(usize),
}

impl Pool {
    /// So many servers; without a timing, requests take as long as was measured of them.
    pub(super) fn new(timing: Option<Timing>, servers: usize, seed: u64) -> Self {
        let server = |number: usize| Server {
            engine: match &timing {
                Some(Timing::Engine(profile)) => {
                    Some(Engine::new((**profile).clone(), seed.wrapping_add(number as u64)))
                }
                _ => None,
            },
            step: None,
            load: 0,
            running: 0,
        };
        Self {
            servers: (0..servers.max(1)).map(server).collect(),
            timing,
        }
    }

    /// Returns whether a request can ever be served.
    pub(super) fn fits(&self, request: &Request) -> bool {
        let tokens = usize::try_from(request.ask.input_tokens + request.output_tokens).unwrap_or(usize::MAX);
        let engine = self.servers[0].engine.as_ref();
        engine.is_none_or(|engine| engine.fits(tokens))
    }

    /// Sends a request to the server that the gateway would choose. Returns which it is, and what follows.
    pub(super) fn send(&mut self, id: u64, request: &Request) -> (usize, Sent) {
        let candidates = self.servers.iter().zip(1..);
        let candidates: Vec<Candidate> = candidates
            .map(|(server, hash)| Candidate {
                hash,
                load: server.load,
                weight: 1,
            })
            .collect();
        let tokens = size(request);
        // The gateway knows a conversation by its first messages; here by its first piece.
        let at = policy::pick(&candidates, request.prefix.first().copied(), tokens).unwrap_or(0);
        let server = &mut self.servers[at];
        server.load += tokens;
        server.running += 1;
        let Some(engine) = &mut server.engine else {
            let (first, end) = duration(self.timing.as_ref(), request);
            return (at, Sent::Known(first, end));
        };
        engine.add(EngineRequest {
            id,
            prompt_tokens: usize::try_from(request.ask.input_tokens).unwrap_or(usize::MAX),
            blocks: blocks(request),
            output_tokens: usize::try_from(request.output_tokens).unwrap_or(usize::MAX),
        });
        let sent = match server.begin_step() {
            Some(took) => Sent::Stepping(at, took),
            None => Sent::Joined(at),
        };
        (at, sent)
    }

    /// Ends a server's step. Returns the tokens that it made, and how long the next step takes, if there is one.
    pub(super) fn end_step(&mut self, at: usize) -> (Vec<Made>, Option<Duration>) {
        let server = &mut self.servers[at];
        let made = server.step.take().map(|step| step.made).unwrap_or_default();
        (made, server.begin_step())
    }

    /// Frees what a request took of its server, which `was_aborted` or had completed it.
    pub(super) fn release(&mut self, at: usize, id: u64, request: &Request, was_aborted: bool) {
        let server = &mut self.servers[at];
        server.load = server.load.saturating_sub(size(request));
        server.running = server.running.saturating_sub(1);
        if let Some(engine) = server.engine.as_mut().filter(|_| was_aborted) {
            engine.cancel(id);
        }
    }

    /// The load that the servers report, if they are engines.
    pub(super) fn report(&self) -> Option<ServerLoad> {
        let mut load = ServerLoad::default();
        for server in &self.servers {
            let gauges = server.engine.as_ref()?.gauges();
            load.running += gauges.running;
            load.waiting += gauges.waiting;
            load.kv_used = Some(load.kv_used.unwrap_or_default().max(gauges.kv_usage));
        }
        Some(load)
    }
}

impl Server {
    /// Begins a step if there is something to do and none under way. Returns how long it takes.
    fn begin_step(&mut self) -> Option<Duration> {
        if self.step.is_some() {
            return None;
        }
        self.step = self.engine.as_mut()?.step();
        self.step.as_ref().map(|step| step.took)
    }
}

fn size(request: &Request) -> u64 {
    request.ask.input_tokens + request.output_tokens
}

/// To the first token and to the end.
fn duration(timing: Option<&Timing>, request: &Request) -> (Duration, Duration) {
    match timing {
        Some(Timing::Whole(whole)) => (*whole / 5, *whole),
        Some(Timing::Steady(first, each)) => {
            let gaps = u32::try_from(request.output_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
            (*first, *first + *each * gaps)
        }
        Some(Timing::Engine(_)) | None => {
            let (held, first) = request.measured.unwrap_or_default();
            (first, held)
        }
    }
}

/// Hashes of a prompt's blocks: a piece of the trace is as many blocks.
fn blocks(request: &Request) -> Vec<u64> {
    let in_piece = super::trace::PIECE / BLOCK_TOKENS as u64;
    let whole = request.ask.input_tokens / BLOCK_TOKENS as u64;
    let of_pieces = request
        .prefix
        .iter()
        .flat_map(|piece| (0..in_piece).map(move |at| piece.wrapping_mul(1 << 16) + at));
    of_pieces
        .take(usize::try_from(whole.saturating_sub(1)).unwrap_or(usize::MAX))
        .collect()
}
