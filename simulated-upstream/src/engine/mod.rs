//! A continuously batching engine, step by step, as vLLM's is: what decodes takes a token each, what is left of the
//! step's budget goes to prompts in the order of their arrival, chunk by chunk. Memory for keys and values comes in
//! blocks; blocks of the same beginning are shared; when none is left, the latest request is preempted and computed
//! again.
//!
//! Pure: it has no clock. A caller asks for a step, and waits as long as it took, or does not wait at all.

mod blocks;
mod noise;
mod profile;

pub use blocks::BLOCK_TOKENS;
pub use profile::{About, AttentionKernel, Profile, ProfileError, Schedule, Speculation};

use crate::random::Random;
use blocks::Blocks;
use noise::Noise;
use std::collections::VecDeque;
use std::time::Duration;

/// A request to the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineRequest {
    /// Its own, for as long as it is there.
    pub id: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Hashes of the prompt's whole blocks; each of all up to its end. Shorter than the prompt, or empty, where nothing
    /// is shared.
    pub blocks: Vec<u64>,
    /// Tokens of the answer, at least 1.
    pub output_tokens: usize,
}

/// A request that is in the engine.
#[derive(Debug, Clone)]
struct Sequence {
    request: EngineRequest,
    /// Tokens whose keys and values are in memory.
    done: usize,
    generated: usize,
    held: Vec<blocks::Held>,
    /// Of its prompt, how many were in memory already when it was first admitted.
    cached: Option<usize>,
}

impl Sequence {
    /// Tokens that have to be in memory before the next one can be made.
    fn needed(&self) -> usize {
        self.request.prompt_tokens + self.generated
    }

    fn is_decoding(&self) -> bool {
        self.generated > 0 && self.done + 1 >= self.needed()
    }
}

/// A token that a step has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Whose.
    pub id: u64,
    /// Which of the answer, from 0.
    pub index: usize,
    /// True if it is the last.
    pub is_last: bool,
    /// With the first: tokens of the prompt that were in memory already.
    pub cached_tokens: usize,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its duration.
    pub took: Duration,
    /// The requests that it computed for the first time.
    pub admitted: Vec<u64>,
    /// The tokens that it made.
    pub made: Vec<Made>,
}

/// The observable state of an engine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gauges {
    /// Requests that are computed.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Part of the memory in use, 0 to 1.
    pub kv_usage: f64,
    /// The number of preemptions so far.
    pub preemptions: u64,
    /// Prompt tokens looked for in memory, and found there, so far.
    pub prefix_queries: u64,
    /// See `prefix_queries`.
    pub prefix_hits: u64,
}

/// The engine of one model on one server.
#[derive(Debug, Clone)]
pub struct Engine {
    profile: Profile,
    noise: Noise,
    /// Which drafts are accepted.
    drafts: Random,
    blocks: Blocks,
    /// In the order of arrival: the last is preempted first, and readmitted first.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// Of this step.
    admitted: Vec<u64>,
    preemptions: u64,
    prefix_queries: u64,
    prefix_hits: u64,
}

impl Engine {
    /// An idle engine; `seed` is that of its noise.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            noise: Noise::new(seed, profile.noise),
            drafts: Random::new(!seed),
            blocks: Blocks::new(profile.kv_tokens / BLOCK_TOKENS, profile.prefix_cache),
            profile,
            running: Vec::new(),
            waiting: VecDeque::new(),
            admitted: Vec::new(),
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
        }
    }

    /// Its profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Returns whether a request of so many tokens can ever be computed.
    pub fn fits(&self, tokens: usize) -> bool {
        tokens.div_ceil(BLOCK_TOKENS) < self.blocks.total()
    }

    /// Takes a request in; it waits for its turn.
    pub fn add(&mut self, mut request: EngineRequest) {
        request.output_tokens = request.output_tokens.max(1);
        request.prompt_tokens = request.prompt_tokens.max(1);
        self.waiting.push_back(Sequence {
            request,
            done: 0,
            generated: 0,
            held: Vec::new(),
            cached: None,
        });
    }

    /// Lets a request go, wherever it is.
    pub fn cancel(&mut self, id: u64) {
        self.waiting.retain(|sequence| sequence.request.id != id);
        if let Some(at) = self.running.iter().position(|sequence| sequence.request.id == id) {
            let sequence = self.running.remove(at);
            self.blocks.release(sequence.held);
        }
    }

    /// Returns whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The observable state now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            running: self.running.len(),
            waiting: self.waiting.len(),
            kv_usage: self.blocks.usage(),
            preemptions: self.preemptions,
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
        }
    }

    /// Computes one step; `None` if there is nothing to do.
    pub fn step(&mut self) -> Option<Step> {
        if self.is_idle() {
            return None;
        }
        let (chunks, work) = self.schedule();
        let made = self.advance(&chunks);
        let took = self.profile.step_ms(&work) * self.noise.factor();
        Some(Step {
            took: Duration::from_secs_f64(took / 1000.0),
            admitted: std::mem::take(&mut self.admitted),
            made,
        })
    }

    /// The chunk of each running sequence, in order, and the work that they are together.
    fn schedule(&mut self) -> (Vec<(usize, usize)>, Work) {
        match self.profile.schedule {
            Schedule::Mixed => self.schedule_phase(Phase::Both),
            Schedule::PrefillFirst => {
                let prefill = self.schedule_phase(Phase::Prefill);
                if prefill.1.tokens > 0 {
                    return prefill;
                }
                self.schedule_phase(Phase::Decode)
            }
        }
    }

    fn schedule_phase(&mut self, phase: Phase) -> (Vec<(usize, usize)>, Work) {
        let mut budget = self.profile.token_budget;
        let mut work = Work::default();
        let mut chunks = self.schedule_running(phase, &mut budget, &mut work);
        if phase != Phase::Decode {
            chunks = self.schedule_waiting(chunks, &mut budget, &mut work);
        }
        (chunks, work)
    }

    /// One token for each sequence that decodes, a chunk for each whose prompt is not read to its end; in the order of
    /// arrival. The tokens of each running sequence, and those drafted for it, in their order.
    fn schedule_running(&mut self, phase: Phase, budget: &mut usize, work: &mut Work) -> Vec<(usize, usize)> {
        let mut chunks = Vec::with_capacity(self.running.len());
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &self.running[at];
            let chunk = (sequence.needed() - sequence.done).min(*budget);
            let drafted = self.drafted(sequence, *budget - chunk);
            let upto = sequence.done + chunk + drafted;
            if chunk == 0 || !phase.includes(sequence) {
                chunks.push((0, 0));
                at += 1;
                continue;
            }
            if !self.make_room(at, upto) {
                // It was the last, and was preempted itself.
                continue;
            }
            work.add(&self.profile, &self.running[at], chunk);
            work.tokens += drafted;
            *budget -= chunk + drafted;
            chunks.push((chunk, drafted));
            at += 1;
        }
        chunks
    }

    /// Tokens that are drafted for a sequence, of those left in the budget.
    fn drafted(&self, sequence: &Sequence, left: usize) -> usize {
        let Some(drafts) = self.profile.speculation.as_ref().filter(|_| sequence.is_decoding()) else {
            return 0;
        };
        let remaining = sequence.request.output_tokens - sequence.generated;
        drafts.tokens.min(left).min(remaining - 1)
    }

    /// Of so many drafted tokens, how many are accepted.
    fn accepted(&mut self, drafted: usize) -> usize {
        let acceptance = self
            .profile
            .speculation
            .as_ref()
            .map_or(0.0, |drafts| drafts.acceptance);
        (0..drafted).take_while(|_| self.drafts.part() < acceptance).count()
    }

    /// Reserves memory for a running sequence up to a token, preempting later ones. False if it was preempted itself.
    fn make_room(&mut self, at: usize, upto: usize) -> bool {
        loop {
            let sequence = &mut self.running[at];
            if self.blocks.grow(&mut sequence.held, upto) {
                return true;
            }
            let last = self.running.len() - 1;
            let mut victim = self.running.remove(last);
            self.blocks.release(std::mem::take(&mut victim.held));
            victim.done = 0;
            self.preemptions += 1;
            self.waiting.push_front(victim);
            if last == at {
                return false;
            }
        }
    }

    /// Admits waiting sequences while there is a slot, budget and memory for their next chunk.
    fn schedule_waiting(
        &mut self,
        mut chunks: Vec<(usize, usize)>,
        budget: &mut usize,
        work: &mut Work,
    ) -> Vec<(usize, usize)> {
        while *budget > 0 && self.running.len() < self.profile.max_sequences {
            let Some(mut sequence) = self.waiting.pop_front() else {
                break;
            };
            let reused = self.blocks.reuse(&mut sequence.held, &sequence.request.blocks);
            // The last token is always computed: the next one comes of it.
            let reused = reused.min(sequence.needed() - 1);
            let chunk = (sequence.needed() - reused).min(*budget);
            if !self.blocks.grow(&mut sequence.held, reused + chunk) {
                self.blocks.release(std::mem::take(&mut sequence.held));
                self.waiting.push_front(sequence);
                break;
            }
            if sequence.cached.is_none() {
                sequence.cached = Some(reused);
                self.admitted.push(sequence.request.id);
                self.prefix_queries += sequence.request.prompt_tokens as u64;
                self.prefix_hits += reused as u64;
            }
            sequence.done = reused;
            work.add(&self.profile, &sequence, chunk);
            *budget -= chunk;
            chunks.push((chunk, 0));
            self.running.push(sequence);
        }
        chunks
    }

    /// Applies the results of the chunks: new tokens, and finished sequences.
    fn advance(&mut self, chunks: &[(usize, usize)]) -> Vec<Made> {
        let mut made = Vec::with_capacity(self.running.len());
        let mut ended = Vec::new();
        for (at, (chunk, drafted)) in chunks.iter().enumerate() {
            let accepted = self.accepted(*drafted);
            let sequence = &mut self.running[at];
            sequence.done += chunk;
            if *chunk == 0 || sequence.done < sequence.needed() {
                continue;
            }
            self.blocks.share(&mut sequence.held, &sequence.request.blocks);
            // Accepted drafts are in memory already.
            sequence.done += accepted;
            for _ in 0..=accepted {
                let is_last = sequence.generated + 1 == sequence.request.output_tokens;
                made.push(Made {
                    id: sequence.request.id,
                    index: sequence.generated,
                    is_last,
                    cached_tokens: sequence.cached.unwrap_or(0),
                });
                sequence.generated += 1;
                if is_last {
                    ended.push(at);
                }
            }
        }
        for at in ended.into_iter().rev() {
            let sequence = self.running.remove(at);
            self.blocks.release(sequence.held);
        }
        made
    }
}

/// The part of the work that a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Prefill,
    Decode,
    Both,
}

impl Phase {
    fn includes(self, sequence: &Sequence) -> bool {
        match self {
            Phase::Both => true,
            Phase::Prefill => !sequence.is_decoding(),
            Phase::Decode => sequence.is_decoding(),
        }
    }
}

/// The quantities of a step on which its time depends.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) tokens: usize,
    pub(crate) sequences: usize,
    /// Sequences of which a part of the prompt is computed.
    pub(crate) prompts: usize,
    /// Tokens that those who decode look back at, together.
    pub(crate) context: usize,
    /// Pairs of tokens of the prompts' chunks.
    pub(crate) pairs: f64,
}

impl Work {
    fn add(&mut self, profile: &Profile, sequence: &Sequence, chunk: usize) {
        self.tokens += chunk;
        self.sequences += 1;
        if sequence.is_decoding() {
            self.context += profile.lookback(sequence.done);
        } else {
            self.prompts += 1;
            self.pairs += profile.pairs(sequence.done, chunk);
        }
    }
}
