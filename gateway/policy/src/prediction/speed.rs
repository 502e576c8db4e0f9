//! The time that a model's servers take for a token of a prompt and for one of an answer.
//!
//! Least squares through the origin over the answers so far, the older ones forgotten exponentially. Both times are found
//! from whole durations, so answers that are not streamed teach as much as streams.

use crate::charge::Tokens;

/// The part of what was known that is kept at each answer: half is forgotten after 34.
const KEPT: f64 = 0.98;

/// The weight of the prior: a token of the prompt takes a hundredth of one of the answer.
const PRIOR_RATIO: f64 = 0.01;

/// The sums of the normal equations.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Speed {
    input_input: f64,
    input_output: f64,
    output_output: f64,
    input_seconds: f64,
    output_seconds: f64,
}

impl Speed {
    /// Learns from one answer.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn learn(&mut self, tokens: Tokens, seconds: f64) {
        let (input, output) = (tokens.uncached as f64, tokens.output as f64);
        let add = |sum: &mut f64, value: f64| *sum = KEPT * *sum + value;
        add(&mut self.input_input, input * input);
        add(&mut self.input_output, input * output);
        add(&mut self.output_output, output * output);
        add(&mut self.input_seconds, input * seconds);
        add(&mut self.output_seconds, output * seconds);
    }

    /// The seconds that a request of this size takes; before anything is known, in units of an answer's token.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn seconds(&self, tokens: Tokens) -> f64 {
        let (per_input, per_output) = self.per_token();
        per_input * tokens.uncached as f64 + per_output * tokens.output as f64
    }

    /// Seconds for a token of the prompt, and of the answer; none is negative.
    fn per_token(&self) -> (f64, f64) {
        if self.input_input + self.output_output <= 0.0 {
            return (PRIOR_RATIO, 1.0);
        }
        let determinant = self.input_input * self.output_output - self.input_output * self.input_output;
        // Where sizes go together, they cannot be told apart: the prior's ratio decides.
        if determinant > 1e-3 * self.input_input * self.output_output {
            let input =
                (self.input_seconds * self.output_output - self.output_seconds * self.input_output) / determinant;
            let output =
                (self.output_seconds * self.input_input - self.input_seconds * self.input_output) / determinant;
            if input >= 0.0 && output >= 0.0 {
                return (input, output);
            }
            if input >= 0.0 {
                return (self.input_seconds / self.input_input, 0.0);
            }
            return (0.0, self.output_seconds / self.output_output);
        }
        let square =
            PRIOR_RATIO * PRIOR_RATIO * self.input_input + 2.0 * PRIOR_RATIO * self.input_output + self.output_output;
        let scale = (PRIOR_RATIO * self.input_seconds + self.output_seconds) / square;
        (PRIOR_RATIO * scale, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Durations made of two known times per token are explained by these.
        #[test]
        fn the_times_for_a_token_are_found(
            per_input in 0.0001..0.01f64, per_output in 0.005..0.1f64,
            sizes in prop::collection::vec((1..5000u32, 1..1000u32), 20..100),
        ) {
            let mut speed = Speed::default();
            for (input, output) in &sizes {
                let seconds = per_input * f64::from(*input) + per_output * f64::from(*output);
                speed.learn(Tokens::new((*input).into(), 0, (*output).into()), seconds);
            }
            let seconds = speed.seconds(Tokens::new(1000, 0, 100));
            let expected = per_input * 1000.0 + per_output * 100.0;
            prop_assert!((seconds / expected - 1.0).abs() < 0.05, "{seconds} instead of {expected}");
        }

        /// Whatever durations come, no size takes a negative time, and a larger one takes no less.
        #[test]
        fn a_larger_request_never_takes_less(
            answers in prop::collection::vec((0..100_000u64, 0..100_000u64, 0.0..1000.0f64), 0..50),
            input in 0..10_000u64, output in 0..10_000u64,
        ) {
            let mut speed = Speed::default();
            for (input, output, seconds) in answers {
                speed.learn(Tokens::new(input, 0, output), seconds);
            }
            let seconds = speed.seconds(Tokens::new(input, 0, output));
            prop_assert!(seconds >= 0.0 && seconds.is_finite());
            prop_assert!(speed.seconds(Tokens::new(input + 100, 0, output)) >= seconds);
            prop_assert!(speed.seconds(Tokens::new(input, 0, output + 100)) >= seconds);
        }
    }
}
