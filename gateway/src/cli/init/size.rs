//! Limits that so many people do not reach by working, only by accident: a loop, a script, a flood.

use super::Published;
use std::fmt::Write as _;

/// Tokens of a prompt that is long for a person: a file or some pages, with the conversation so far.
const PROMPT: u64 = 4_000;

/// Requests that every person may send at once, by a tool that works in parallel.
pub(in crate::cli) const AT_ONCE: u64 = 4;

/// Requests a minute for each person, however short they are.
pub(in crate::cli) const REQUESTS_PER_PERSON: u64 = 20;

/// A context that fits most models, for servers that do not say theirs.
const ASSUMED_CONTEXT: u64 = 8_192;

/// No answer of a person's is longer, unless a model has less.
const LONGEST_ANSWER: u64 = 4_096;

/// A team's limits.
pub(super) struct Size {
    pub(super) people: u64,
    /// Of the model with the largest requests.
    model: String,
    prompt: u64,
    answer: u64,
    pub(super) requests_per_minute: u64,
    pub(super) tokens_per_minute: u64,
    pub(super) max_active_requests: usize,
    pub(super) max_queue_size: usize,
}

/// The longest prompt and answer of a model: together no more than its context.
fn lengths(context: Option<u64>) -> (u64, u64) {
    let context = context.unwrap_or(ASSUMED_CONTEXT);
    let answer = (context / 2).clamp(1, LONGEST_ANSWER);
    (context.saturating_sub(answer).max(1), answer)
}

impl Published {
    /// The longest prompt and answer.
    pub(super) fn lengths(&self) -> (u64, u64) {
        let (input, answer) = lengths(self.context);
        (
            self.extras.max_input.unwrap_or(input),
            self.extras.max_output.unwrap_or(answer),
        )
    }
}

impl Size {
    pub(super) fn of(people: usize, models: &[Published]) -> Self {
        let charge = |model: &Published| {
            let (input, answer) = model.lengths();
            (input.min(PROMPT), answer, model.name.clone())
        };
        let largest = models
            .iter()
            .map(charge)
            .max_by_key(|(prompt, answer, _)| prompt + answer);
        let (prompt, answer, model) = largest.unwrap_or_default();
        let people_count = people as u64;
        // A number of slots that servers say is what they can run; others are found by `auto`.
        let slots: Option<usize> = models.iter().map(|model| model.slots).sum();
        Self {
            people: people_count,
            model,
            prompt,
            answer,
            requests_per_minute: round_up(people_count.saturating_mul(REQUESTS_PER_PERSON).max(60)),
            tokens_per_minute: round_up(people_count.saturating_mul(AT_ONCE).saturating_mul(prompt + answer)),
            max_active_requests: slots.unwrap_or(0).max(if slots.is_some() {
                1
            } else {
                people.saturating_mul(2).max(50)
            }),
            max_queue_size: people.saturating_mul(10).max(100),
        }
    }

    /// The arithmetic, for whoever checks it.
    pub(super) fn report(&self) -> String {
        let mut text = String::new();
        let each = self.prompt + self.answer;
        let _ = writeln!(
            text,
            "size check: {} people at once, each with {} prompt tokens and up to {} answer tokens of {}:\n  {} requests of {} \
             a minute, {} tokens of {} a minute; {} run at once, {} may wait",
            self.people,
            self.prompt,
            self.answer,
            self.model,
            self.people,
            self.requests_per_minute,
            self.people.saturating_mul(each),
            self.tokens_per_minute,
            self.max_active_requests,
            self.max_queue_size
        );
        text
    }
}

/// The next number with two digits and zeros: 331,840 becomes 340,000.
pub(in crate::cli) fn round_up(number: u64) -> u64 {
    let mut unit = 1_u64;
    while number / unit >= 100 {
        unit = unit.saturating_mul(10);
    }
    number.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::Extras;
    use crate::cli::init::detect::Protocol;

    #[test]
    fn forty_people_at_once_are_within_the_limits_of_their_team() {
        let model = |context| Published {
            name: "m".to_owned(),
            protocol: Protocol::OpenAi,
            servers: Vec::new(),
            context,
            slots: None,
            extras: Extras::default(),
        };
        for context in [Some(2_048), Some(32_768), Some(1_000_000), None] {
            for people in [1_u64, 40, 1_000] {
                let size = Size::of(usize::try_from(people).expect("small"), &[model(context)]);
                let (input, answer) = lengths(context);
                assert!(input + answer <= context.unwrap_or(ASSUMED_CONTEXT));
                assert!(
                    size.tokens_per_minute >= people * (input.min(4_000) + answer),
                    "{context:?} {people}"
                );
                assert!(size.requests_per_minute >= people && size.max_queue_size as u64 >= people);
            }
        }
    }

    #[test]
    fn limits_are_round() {
        assert_eq!([round_up(60), round_up(331_840), round_up(101)], [60, 340_000, 110]);
    }
}
