//! Prompts of a given length: random words, each one token of the tokenizer that is in use.

use super::Prompt;
use super::message::{Message, Role};
use super::tokenizer::Tokenizer;
use simulated_upstream::random::Random;
use std::sync::Arc;

/// Tokens in one block of a trace with `hash_ids` (Mooncake's traces, FAST '25: 512).
pub(crate) const BLOCK_TOKENS: usize = 512;

/// Words that are one token each in most tokenizers, and in the simulated upstream's.
const WORDS: &[&str] = &[
    "water", "gate", "lock", "level", "canal", "flow", "open", "close", "boat", "wait", "river", "bank", "rise",
    "fall", "hold", "light", "house", "table", "green", "stone", "paper", "right", "left", "north", "south", "east",
    "west", "small", "large", "early", "late", "first", "second", "third", "world", "people", "place", "point",
    "number", "part", "time", "year", "work", "hand", "side", "line", "group", "case", "week", "book", "story",
    "month", "power", "money", "city", "name", "team", "idea", "body", "back", "face", "door", "health", "game",
];

/// Makes texts; equal for equal seeds.
#[derive(Debug, Clone)]
pub(crate) struct TextMaker {
    words: Arc<[String]>,
    seed: u64,
}

impl TextMaker {
    /// # Errors
    /// The tokenizer has too few words that are one token each, alone and among others.
    pub(crate) fn new(tokenizer: Option<&Tokenizer>, seed: u64) -> Result<Self, String> {
        let words: Vec<String> = match tokenizer {
            None => WORDS.iter().map(|word| (*word).to_owned()).collect(),
            Some(tokenizer) => tokenizer.single_token_words(WORDS)?,
        };
        Ok(Self {
            words: words.into(),
            seed,
        })
    }

    /// A prompt's messages.
    pub(crate) fn messages(&self, prompt: &Prompt) -> Vec<Message> {
        let text = match prompt {
            Prompt::Messages(messages) => return messages.to_vec(),
            Prompt::Words { tokens, shared, stream } => self.shared_and_own(*tokens, *shared, *stream),
            Prompt::Blocks { hash_ids, tokens } => self.blocks(hash_ids, *tokens),
        };
        vec![Message::new(Role::User, text)]
    }

    /// `tokens` words, of which the first `shared` are the same in all prompts of a run.
    fn shared_and_own(&self, tokens: usize, shared: usize, stream: u64) -> String {
        let mut text = String::with_capacity(tokens * 6);
        let shared = shared.min(tokens);
        self.append(&mut text, &mut Random::new(self.seed ^ 0x5eed), shared);
        let own = Random::new(self.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next();
        self.append(&mut text, &mut Random::new(own), tokens - shared);
        text
    }

    /// Blocks of words that follow from their hash ids alone: equal ids make equal text.
    fn blocks(&self, hash_ids: &[u64], tokens: usize) -> String {
        let mut text = String::with_capacity(tokens * 6);
        let mut left = tokens;
        for id in hash_ids {
            let count = left.min(BLOCK_TOKENS);
            let mut random = Random::new(self.seed ^ id.wrapping_mul(0xd6e8_feb8_6659_fd93));
            self.append(&mut text, &mut random, count);
            left -= count;
        }
        // A trace whose ids cover less than its length: the rest is like no other.
        let rest = hash_ids.iter().fold(1u64, |sum, id| sum.rotate_left(7) ^ id);
        self.append(&mut text, &mut Random::new(self.seed ^ rest), left);
        text
    }

    fn append(&self, text: &mut String, random: &mut Random, count: usize) {
        for _ in 0..count {
            if !text.is_empty() {
                text.push(' ');
            }
            let at = usize::try_from(random.next() % self.words.len() as u64).unwrap_or(0);
            text.push_str(&self.words[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(prompt: &Prompt) -> String {
        let maker = TextMaker::new(None, 3).expect("words");
        maker.messages(prompt)[0].text().into_owned()
    }

    #[test]
    fn equal_hash_ids_make_equal_blocks_and_others_do_not() {
        let words = |hash_ids: &[u64], tokens| {
            let text = text(&Prompt::Blocks {
                hash_ids: hash_ids.into(),
                tokens,
            });
            text.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, other) = (words(&[46, 47, 48], 1200), words(&[46, 47, 99, 100], 1700));
        assert_eq!((one.len(), other.len()), (1200, 1700));
        assert_eq!(one[..1024], other[..1024]);
        assert_ne!(one[1024..1034], other[1024..1034]);
        assert_eq!(
            words(&[46, 47, 48], 1300)[..1200],
            one[..],
            "a block that is cut is the beginning of the block"
        );
        assert_eq!(words(&[], 10).len(), 10);
    }

    #[test]
    fn prompts_have_exactly_their_words_and_share_exactly_their_prefix() {
        let words = |stream| {
            let text = text(&Prompt::Words {
                tokens: 50,
                shared: 20,
                stream,
            });
            text.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, other) = (words(1), words(2));
        assert_eq!((one.len(), other.len()), (50, 50));
        assert_eq!(one[..20], other[..20]);
        assert_ne!(one[20..], other[20..]);
    }
}
