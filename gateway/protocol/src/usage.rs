//! Usage: the figures that a server gives, and a sound count in the place of those that cannot be.

use crate::tokens::TextSize;

/// Tokens of one request.
#[allow(clippy::struct_field_names)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Of the input, how many the upstream had in its cache.
    pub cached_input_tokens: u64,
}

/// Where the figures come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// All are the upstream's own.
    Upstream,
    /// The output was counted from what was delivered.
    Counted,
    /// At least the input is an estimate from the size of the request, and no output was counted.
    Estimated,
}

impl Source {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Source::Upstream => "upstream",
            Source::Counted => "counted",
            Source::Estimated => "estimated",
        }
    }
}

/// Upper bounds of a request's usage, against which a server's figures are checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Tokens of the prompt as estimated from its size.
    pub estimated_input: u64,
    /// The longest prompt that the model can have read. `None`: not known.
    pub max_input: Option<u64>,
    /// The limit of an answer times the number of answers. `None`: not known.
    pub max_output: Option<u64>,
    /// Bytes of a token of this model's answers, if that was learned.
    pub bytes_per_token: Option<f64>,
}

/// More tokens than any request has; a server that says so has lost count.
const TOO_MANY: u64 = 100_000_000;

/// A figure below this share of what was counted is wrong: a count from the text is within a factor of two for every
/// tokenizer and language that was tried.
const FAR_BELOW: u64 = 4;

/// The figures of a server, each absent where it gave none that can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// All of the prompt, cached or not.
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) total: Option<u64>,
    pub(crate) cached: Option<u64>,
    /// Tokens of reasoning, within `output` for most servers.
    pub(crate) reasoning: Option<u64>,
    /// The sound that was read, in milliseconds.
    pub(crate) audio_millis: Option<u64>,
    /// The images that were made.
    pub(crate) images: Option<u64>,
    /// Zeros are meant: the server only loaded its model.
    pub(crate) is_nothing: bool,
}

impl Reported {
    /// Takes over what newer figures say. Streams repeat their usage with growing figures, and some with zeros or
    /// nulls between them, which take back nothing.
    pub(crate) fn update(&mut self, newer: Self) {
        let newer_or_old = |new: Option<u64>, old: Option<u64>| new.filter(|new| *new > 0).or(old).or(new);
        self.input = newer_or_old(newer.input, self.input);
        self.output = newer_or_old(newer.output, self.output);
        self.total = newer_or_old(newer.total, self.total);
        self.cached = newer_or_old(newer.cached, self.cached);
        self.reasoning = newer_or_old(newer.reasoning, self.reasoning);
        self.audio_millis = newer.audio_millis.or(self.audio_millis);
        self.images = newer.images.or(self.images);
        self.is_nothing |= newer.is_nothing;
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The tokens of the output. xAI and Gemini count reasoning apart from it: then the total is the sum of all three.
    fn output(&self) -> Option<u64> {
        let (output, reasoning) = (self.output?, self.reasoning.unwrap_or(0));
        let all = output.saturating_add(reasoning);
        let is_apart = self.total == Some(self.input.unwrap_or(0).saturating_add(all));
        Some(if is_apart { all } else { output })
    }

    /// The figures as they were given, without a check; what is missing follows from the total. `None` where there is none.
    pub(crate) fn usage(&self) -> Option<Usage> {
        if self.is_empty() {
            return None;
        }
        let from_total = |other: Option<u64>| self.total.unwrap_or(0).saturating_sub(other.unwrap_or(0));
        let input_tokens = self.input.unwrap_or_else(|| from_total(self.output));
        Some(Usage {
            input_tokens,
            output_tokens: self.output().unwrap_or_else(|| from_total(Some(input_tokens))),
            cached_input_tokens: self.cached.unwrap_or(0),
        })
    }
}

/// The part of an answer that went to the client.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delivered {
    /// Tokens of each piece, rounded up to one: for most servers a piece is a token.
    pub(crate) pieces: u64,
    pub(crate) size: TextSize,
    /// Answers that were begun (OpenAI's `n`), where that is known.
    pub(crate) answers: u32,
}

impl Delivered {
    /// Tokens of what was delivered, by size; at most what was allowed.
    fn tokens(&self, bounds: &Bounds) -> u64 {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let by_rate = bounds
            .bytes_per_token
            .filter(|rate| rate.is_finite() && *rate >= 1.0)
            .map(|rate| (self.size.bytes as f64 / rate).round() as u64);
        // A learned rate that is far from the text's own count was learned from other texts.
        let counted = self.pieces;
        let counted = by_rate.map_or(counted, |rate| rate.clamp(counted, counted.saturating_mul(2)));
        counted.min(bounds.max_output.unwrap_or(u64::MAX))
    }
}

/// The usage and its source. `generates`: the answer is made of output tokens.
pub(crate) fn settle(reported: &Reported, delivered: &Delivered, bounds: &Bounds, generates: bool) -> (Usage, Source) {
    if reported.is_nothing && delivered.pieces == 0 {
        return (Usage::default(), Source::Upstream);
    }
    let counted = delivered.tokens(bounds);
    let output = if generates {
        output(reported, delivered, counted, bounds)
    } else {
        Some(reported.output.filter(|output| *output < TOO_MANY).unwrap_or(0))
    };
    let input = input(reported, output.unwrap_or(counted), bounds, generates);
    let input_tokens = input.unwrap_or(bounds.estimated_input);
    let usage = Usage {
        input_tokens,
        output_tokens: output.unwrap_or(counted),
        // More than there was to read: which of the two is wrong is not known, and the dearer reading is taken.
        cached_input_tokens: reported
            .cached
            .filter(|cached| input.is_some() && *cached <= input_tokens)
            .unwrap_or(0),
    };
    let source = match (input, output) {
        (Some(_), Some(_)) => Source::Upstream,
        (_, None) if delivered.pieces > 0 => Source::Counted,
        _ => Source::Estimated,
    };
    (usage, source)
}

/// The server's figure of the output, if it can be true.
fn output(reported: &Reported, delivered: &Delivered, counted: u64, bounds: &Bounds) -> Option<u64> {
    let from_total = || reported.total?.checked_sub(reported.input?);
    let output = reported
        .output()
        .or_else(from_total)
        .filter(|output| *output < TOO_MANY)?;
    if output > bounds.max_output.unwrap_or(u64::MAX).max(counted) {
        return None;
    }
    // A server that reports one of several answers is off by their number.
    let least = match delivered.answers {
        0 | 1 => counted / FAR_BELOW,
        _ => counted - counted / 3,
    };
    (output >= least && (output > 0 || counted == 0)).then_some(output)
}

/// The server's figure of the input, if it can be true.
fn input(reported: &Reported, output: u64, bounds: &Bounds, generates: bool) -> Option<u64> {
    let from_total = || match reported.output {
        Some(output) => reported.total?.checked_sub(output),
        None if generates => reported.total?.checked_sub(output).filter(|input| *input > 0),
        None => reported.total,
    };
    let known = |input: Option<u64>| input.filter(|input| *input > 0 || bounds.estimated_input == 0);
    let input = known(reported.input).or_else(|| known(from_total()))?;
    (input < TOO_MANY && input <= bounds.max_input.unwrap_or(u64::MAX)).then_some(input)
}
