//! Readable text of an exact number of tokens: a token is a word of the answer.

const WORDS: &[&str] = &[
    "the", "sky", "is", "blue", "because", "light", "scatters", "when", "it", "meets", "small", "parts", "of", "air",
    "and", "a", "model", "that", "reads", "this", "prompt", "would", "answer", "with", "care", "so", "here", "are",
    "words", "in", "an", "order", "which", "depends", "on", "what", "was", "asked", "more", "short", "waves", "turn",
    "aside", "than", "long", "ones", "do", "every", "day", "until", "evening", "comes",
];

/// Tokens of a text: a word has one for each six bytes begun.
pub fn count_tokens(text: &str) -> u64 {
    text.split_whitespace().map(|word| word.len().div_ceil(6) as u64).sum()
}

/// An answer to come: its words are made one by one.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    state: u64,
    made: u64,
    /// Tokens that it will have.
    pub(crate) tokens: u64,
    /// Whether it would have gone on.
    pub(crate) is_cut: bool,
    /// Its pieces, where they are given.
    given: Option<Vec<String>>,
}

/// Letters of a given text in one token.
const GIVEN_TOKEN: usize = 6;

impl Answer {
    /// The answer of `seed` to a prompt, at most `limit` tokens long. Left alone it has 32 to 159.
    pub(crate) fn new(seed: u64, prompt: &str, limit: u64) -> Self {
        let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in prompt.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let natural = 32 + hash % 128;
        Self {
            state: hash | 1,
            made: 0,
            tokens: natural.min(limit),
            is_cut: natural > limit,
            given: None,
        }
    }

    /// A given text, at most `limit` tokens of it.
    pub(crate) fn given(text: &str, limit: u64) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let pieces: Vec<String> = letters.chunks(GIVEN_TOKEN).map(String::from_iter).collect();
        let natural = pieces.len() as u64;
        Self {
            state: 1,
            made: 0,
            tokens: natural.min(limit),
            is_cut: natural > limit,
            given: Some(pieces),
        }
    }

    /// The whole text.
    pub(crate) fn text(self) -> String {
        self.collect()
    }
}

impl Iterator for Answer {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.made == self.tokens {
            return None;
        }
        self.made += 1;
        if let Some(given) = &self.given {
            let at = usize::try_from(self.made - 1).unwrap_or(usize::MAX);
            return given.get(at).cloned();
        }
        // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let index = usize::try_from(self.state % WORDS.len() as u64).unwrap_or(0);
        let space = if self.made == 1 { "" } else { " " };
        Some(format!("{space}{}", WORDS[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_exactly_the_tokens_that_it_says_and_is_the_same_every_time() {
        for limit in [1, 7, 31, 32, 1000] {
            let answer = Answer::new(3, "why is the sky blue", limit);
            let text = answer.clone().text();
            assert_eq!(text.split(' ').count() as u64, answer.tokens);
            assert_eq!(text, Answer::new(3, "why is the sky blue", limit).text());
            assert!(answer.tokens <= limit);
        }
    }
}
