//! The length of an answer, predicted from what like requests produced before.
//!
//! A request is seen in contexts, each narrower than the one before: its model, then its user, key and `max_tokens` on
//! that model, then the beginning of its prompt. The mean of a context is moved from that of the wider one as far as the
//! answers seen in it allow: with n answers by n / (n + [`PRIOR`]) (shrinkage, as in Efron and Morris, "Data Analysis Using
//! Stein's Estimator", 1975). What was never seen is predicted as its model's mean.
//!
//! The memory is bounded: a table of fixed size, in which a context that is met often displaces one that is not.

mod speed;

pub(crate) use speed::Speed;

use crate::AdmissionRequest;

/// Contexts that are remembered, over all models: 96 KiB.
const CONTEXTS: usize = 4096;

/// Answers that the wider context's mean is worth.
const PRIOR: f32 = 4.0;

/// Answers after which the oldest count less: a mean follows changes within so many answers.
const MEMORY: u16 = 32;

/// The contexts of a request, from the wider to the narrower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Contexts([u64; 2]);

impl Contexts {
    /// The contexts of a request. `max_tokens` counts by powers of two.
    pub(crate) fn of(ask: &AdmissionRequest) -> Self {
        let length = ask.max_tokens.max(1).ilog2();
        let key = ask.key.map_or(0, |key| u64::from(key.0) + 1);
        let caller = [
            u64::from(ask.model.0),
            u64::from(ask.project.0),
            u64::from(ask.user.0),
            key,
            u64::from(length),
        ];
        let caller = caller.into_iter().fold(0, |hash, part| mix(hash ^ part));
        let prompt = ask.hints.prompt.map_or(0, |prompt| mix(caller ^ mix(prompt)).max(1));
        Self([caller.max(1), prompt])
    }

    /// Those that are known; 0 stands for none.
    fn known(self) -> impl Iterator<Item = u64> {
        self.0.into_iter().filter(|context| *context != 0)
    }
}

/// The mean length of answers in a context.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    context: u64,
    answers: f32,
    mean: f32,
    /// How often it may be missed before another context takes its place.
    lives: u32,
}

/// The lengths of answers by context.
#[derive(Debug)]
pub(crate) struct Predictor {
    cells: Vec<Cell>,
}

impl Default for Predictor {
    fn default() -> Self {
        Self {
            cells: vec![Cell::default(); CONTEXTS],
        }
    }
}

impl Predictor {
    /// The length of an answer that is expected, in tokens, where all answers of the model have a mean of `model`.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn predict(&self, contexts: Contexts, model: f64) -> f64 {
        let known = contexts.known().map(|context| &self.cells[place(context)]);
        let predicted = known
            .zip(contexts.known())
            .fold(model as f32, |wider, (cell, context)| {
                if cell.context == context {
                    (cell.answers * cell.mean + PRIOR * wider) / (cell.answers + PRIOR)
                } else {
                    wider
                }
            });
        predicted.into()
    }

    /// Learns the length of an answer.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn learn(&mut self, contexts: Contexts, output_tokens: u64) {
        let length = output_tokens as f32;
        for context in contexts.known() {
            let cell = &mut self.cells[place(context)];
            if cell.context != context {
                if cell.lives > 0 {
                    cell.lives -= 1;
                    continue;
                }
                *cell = Cell {
                    context,
                    ..Cell::default()
                };
            }
            cell.lives = (cell.lives + 1).min(MEMORY.into());
            cell.answers = (cell.answers + 1.0).min(MEMORY.into());
            cell.mean += (length - cell.mean) / cell.answers;
        }
    }
}

/// The place of a context in the table.
#[allow(clippy::cast_possible_truncation)]
fn place(context: u64) -> usize {
    (context % CONTEXTS as u64) as usize
}

/// Every bit of the result depends on every bit of the number (SplitMix64; Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
