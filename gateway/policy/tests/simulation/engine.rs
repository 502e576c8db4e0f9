//! A model server with continuous batching, in the shape of vLLM V1, in steps of its own time. In each step a running
//! sequence that decodes takes one token; what is left of the token budget reads prompts in chunks, first come, first
//! served. A sequence is let in while a sequence slot and the KV blocks of its first chunk are free. Where a decode
//! finds no free block, the latest arrival is preempted and computed again from the start.

use std::collections::VecDeque;

/// Tokens of a KV block.
const BLOCK: u64 = 16;

/// The cost of a server's steps, and its capacity.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub name: &'static str,
    /// Milliseconds to read the weights once.
    pub weights_ms: f64,
    /// Milliseconds to compute a token.
    pub token_ms: f64,
    /// Milliseconds to read a token of context while decoding.
    pub context_ms: f64,
    /// Milliseconds of attention, a token of a chunk by a token before it.
    pub attention_ms: f64,
    /// Milliseconds to sample and schedule a sequence.
    pub sequence_ms: f64,
    /// Milliseconds before the queue: HTTP and tokenizer.
    pub api_ms: f64,
    pub kv_tokens: u64,
    pub max_sequences: usize,
    /// Tokens that a step computes at most.
    pub step_tokens: u64,
}

/// Llama 3.1 8B on an H100, as `max-num-batched-tokens` 8192 serves it.
pub const LLAMA_8B_H100: Profile = Profile {
    name: "llama3.1-8b, H100",
    weights_ms: 6.3,
    token_ms: 0.0215,
    context_ms: 7.6e-5,
    attention_ms: 5.3e-7,
    sequence_ms: 0.010,
    api_ms: 7.5,
    kv_tokens: 421_000,
    max_sequences: 256,
    step_tokens: 8192,
};

/// Llama 3 8B on an A100 of 80 GB, in steps of 2048 tokens.
pub const LLAMA_8B_A100: Profile = Profile {
    name: "llama3-8b, A100",
    weights_ms: 10.8,
    token_ms: 0.0685,
    context_ms: 1.25e-4,
    attention_ms: 1.7e-6,
    sequence_ms: 0.015,
    api_ms: 8.0,
    kv_tokens: 421_000,
    max_sequences: 256,
    step_tokens: 2048,
};

/// Llama 3 70B on four H100.
pub const LLAMA_70B_H100: Profile = Profile {
    name: "llama3-70b, 4 × H100",
    weights_ms: 18.5,
    token_ms: 0.0600,
    context_ms: 4.8e-5,
    attention_ms: 6.6e-7,
    sequence_ms: 0.020,
    api_ms: 8.0,
    kv_tokens: 433_000,
    max_sequences: 256,
    step_tokens: 8192,
};

/// A request in the server. Times are milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Sequence {
    /// Whatever the caller knows it by.
    pub id: usize,
    pub input: u64,
    pub output: u64,
    /// When it reaches the queue.
    arrives: f64,
    pub first_token: Option<f64>,
    generated: u64,
    /// Tokens of the prompt, and of what must be computed again, that have been read.
    read: u64,
    again: u64,
    held: u64,
}

impl Sequence {
    fn prompt_tokens(&self) -> u64 {
        self.input + self.again
    }

    fn decodes(&self) -> bool {
        self.read >= self.prompt_tokens()
    }
}

/// A server.
pub struct Engine {
    profile: Profile,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    used: u64,
    /// Sequences that lost their blocks.
    pub preempted: u64,
}

/// The work of a step.
#[derive(Default)]
struct Step {
    budget: u64,
    decoding: Vec<usize>,
    context: u64,
    chunks: Vec<(usize, u64)>,
    chunk_tokens: u64,
    chunk_attention: f64,
}

impl Engine {
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            waiting: VecDeque::new(),
            running: Vec::new(),
            used: 0,
            preempted: 0,
        }
    }

    pub fn send(&mut self, id: usize, input: u64, output: u64, now: f64) {
        self.waiting.push_back(Sequence {
            id,
            input,
            output,
            arrives: now + self.profile.api_ms,
            first_token: None,
            generated: 0,
            read: 0,
            again: 0,
            held: 0,
        });
    }

    /// The values of `/metrics`: running, waiting, part of the KV cache in use.
    pub fn load(&self, now: f64) -> (usize, usize, f64) {
        let waiting = self.waiting.iter().filter(|waits| waits.arrives <= now).count();
        (
            self.running.len(),
            waiting,
            self.used as f64 / self.profile.kv_tokens as f64,
        )
    }

    /// When the first of those who wait reaches the queue.
    pub fn next_arrival(&self) -> Option<f64> {
        self.waiting.front().map(|first| first.arrives)
    }

    /// Runs one step from `now`. Returns its end and the requests that finish then; `None` if no request runs or waits.
    pub fn step(&mut self, now: f64) -> Option<(f64, Vec<Sequence>)> {
        let mut step = Step {
            budget: self.profile.step_tokens,
            ..Step::default()
        };
        self.decode(&mut step);
        self.read_prompts(&mut step);
        self.admit(&mut step, now);
        if step.chunks.is_empty() && step.decoding.is_empty() {
            return None;
        }
        let end = now + self.duration(&step);
        Some((end, self.finish(&step, end)))
    }

    fn decode(&mut self, step: &mut Step) {
        let candidates: Vec<usize> = self.running.iter().filter(|x| x.decodes()).map(|x| x.id).collect();
        for id in candidates {
            let Some(at) = self.running.iter().position(|x| x.id == id) else {
                continue;
            };
            let need =
                blocks(self.running[at].input + self.running[at].generated + 1).saturating_sub(self.running[at].held);
            while need > 0 && self.used + need > self.profile.kv_tokens && self.running.len() > at {
                self.preempt_last();
            }
            let Some(sequence) = self.running.get_mut(at) else {
                continue;
            };
            self.used += need;
            sequence.held += need;
            step.context += sequence.input + sequence.generated;
            step.budget -= 1;
            step.decoding.push(id);
        }
    }

    fn preempt_last(&mut self) {
        let Some(mut last) = self.running.pop() else { return };
        self.used -= last.held;
        (last.held, last.read, last.again) = (0, 0, last.generated);
        self.preempted += 1;
        self.waiting.push_front(last);
    }

    fn read_prompts(&mut self, step: &mut Step) {
        for sequence in &mut self.running {
            if sequence.decodes() || step.budget == 0 {
                continue;
            }
            let chunk = step.budget.min(sequence.prompt_tokens() - sequence.read);
            let need = blocks(sequence.read + chunk) - sequence.held;
            if self.used + need > self.profile.kv_tokens {
                continue;
            }
            self.used += need;
            sequence.held += need;
            step.chunk(sequence, chunk);
        }
    }

    fn admit(&mut self, step: &mut Step, now: f64) {
        while let Some(first) = self.waiting.front().copied()
            && self.running.len() < self.profile.max_sequences
            && step.budget > 0
            && first.arrives <= now
        {
            let chunk = step.budget.min(first.prompt_tokens());
            let need = blocks(chunk);
            if self.used + need > self.profile.kv_tokens {
                break;
            }
            self.waiting.pop_front();
            self.used += need;
            self.running.push(Sequence { held: need, ..first });
            step.chunk(&first, chunk);
        }
    }

    fn duration(&self, step: &Step) -> f64 {
        let profile = &self.profile;
        let tokens = step.decoding.len() as f64 + step.chunk_tokens as f64;
        let sequences = (step.decoding.len() + step.chunks.len()) as f64;
        (profile.weights_ms.powf(1.5) + (profile.token_ms * tokens).powf(1.5)).powf(1.0 / 1.5)
            + profile.context_ms * step.context as f64
            + profile.attention_ms * step.chunk_attention
            + profile.sequence_ms * sequences
    }

    fn finish(&mut self, step: &Step, end: f64) -> Vec<Sequence> {
        for (id, chunk) in &step.chunks {
            if let Some(sequence) = self.running.iter_mut().find(|x| x.id == *id) {
                sequence.read += chunk;
            }
        }
        let mut finished = Vec::new();
        let works = |x: &Sequence| step.decoding.contains(&x.id) || step.chunks.iter().any(|(id, _)| *id == x.id);
        for sequence in &mut self.running {
            if sequence.decodes() && sequence.held > 0 && works(sequence) {
                sequence.generated += 1;
                sequence.first_token.get_or_insert(end);
            }
        }
        self.running.retain(|sequence| {
            let is_done = sequence.generated >= sequence.output;
            if is_done {
                self.used -= sequence.held;
                finished.push(*sequence);
            }
            !is_done
        });
        finished
    }
}

impl Step {
    fn chunk(&mut self, sequence: &Sequence, chunk: u64) {
        self.chunks.push((sequence.id, chunk));
        self.chunk_tokens += chunk;
        self.chunk_attention += chunk as f64 * (2 * sequence.read + chunk) as f64;
        self.budget -= chunk;
    }
}

fn blocks(tokens: u64) -> u64 {
    tokens.div_ceil(BLOCK) * BLOCK
}
