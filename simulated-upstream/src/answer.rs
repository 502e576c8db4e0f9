//! Readable text of an exact number of tokens: a token is a word of the answer.

const WORDS: &[&str] = &[
    "the", "sky", "is", "blue", "because", "light", "scatters", "when", "it", "meets", "small", "parts", "of", "air",
    "and", "a", "model", "that", "reads", "this", "prompt", "would", "answer", "with", "care", "so", "here", "are",
    "words", "in", "an", "order", "which", "depends", "on", "what", "was", "asked", "more", "short", "waves", "turn",
    "aside", "than", "long", "ones", "do", "every", "day", "until", "evening", "comes",
];

/// Bytes of a word, or of a given text, in one token.
const TOKEN_BYTES: usize = 6;

/// Tokens of a text: a word has one for each six bytes begun.
pub fn count_tokens(text: &str) -> u64 {
    text.split_whitespace()
        .map(|word| word.len().div_ceil(TOKEN_BYTES) as u64)
        .sum()
}

/// The numbers of a text's tokens. A number is the token's bytes, the first the highest, and a last bit that says
/// whether it begins a word: it can be turned back without a table, and is below 2^49.
pub(crate) fn token_ids(text: &str) -> Vec<u64> {
    let mut ids = Vec::new();
    for word in text.split_whitespace() {
        for (at, piece) in word.as_bytes().chunks(TOKEN_BYTES).enumerate() {
            let bytes = piece.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            ids.push(bytes << 1 | u64::from(at == 0));
        }
    }
    ids
}

/// The text of such numbers, its words a space apart.
///
/// # Errors
/// A number that is no token's.
pub(crate) fn text_of_ids(ids: &[u64]) -> Result<String, u64> {
    let mut text = Vec::new();
    for id in ids {
        let bytes = (id >> 1).to_be_bytes();
        let begin = bytes.iter().position(|byte| *byte != 0).ok_or(*id)?;
        if bytes.len() - begin > TOKEN_BYTES {
            return Err(*id);
        }
        if id & 1 == 1 && !text.is_empty() {
            text.push(b' ');
        }
        text.extend(&bytes[begin..]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Hashes of a text's whole blocks of so many tokens, each of all up to its end.
pub(crate) fn block_hashes(text: &str, block: usize) -> Vec<u64> {
    let mut hashes = Vec::new();
    let (mut hash, mut tokens) = (BASIS, 0);
    for word in text.split_whitespace() {
        for piece in word.as_bytes().chunks(TOKEN_BYTES) {
            hash = fnv(hash, piece);
            hash = fnv(hash, &[0]);
            tokens += 1;
            if tokens % block == 0 {
                hashes.push(hash);
            }
        }
    }
    hashes
}

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a (Fowler, Noll, Vo).
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// An answer to come: its tokens are made one by one.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    state: u64,
    made: u64,
    /// Tokens that it will have.
    pub(crate) tokens: u64,
    /// True if it would have gone on.
    pub(crate) is_cut: bool,
    /// Its pieces, where they are given.
    given: Option<Vec<String>>,
    /// The text before which it ends, where one was met.
    pub(crate) stopped_by: Option<String>,
}

impl Answer {
    /// The answer of `seed` to a prompt, at most `limit` tokens long. Left alone it has 32 to 159, or with `fills`
    /// always as many as it may.
    pub(crate) fn new(seed: u64, prompt: &str, limit: u64, fills: bool) -> Self {
        let hash = fnv(seed ^ BASIS, prompt.as_bytes());
        let natural = if fills { limit } else { 32 + hash % 128 };
        Self {
            state: hash | 1,
            made: 0,
            tokens: natural.min(limit),
            is_cut: fills || natural > limit,
            given: None,
            stopped_by: None,
        }
    }

    /// A given text, at most `limit` tokens of it.
    pub(crate) fn given(text: &str, limit: u64) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let pieces = letters.chunks(TOKEN_BYTES).map(String::from_iter).collect();
        Self::of(pieces, limit, false)
    }

    fn of(pieces: Vec<String>, limit: u64, is_cut: bool) -> Self {
        let natural = pieces.len() as u64;
        Self {
            state: 1,
            made: 0,
            tokens: natural.min(limit).max(1),
            is_cut: is_cut || natural > limit,
            given: Some(pieces),
            stopped_by: None,
        }
    }

    /// The same, ending before the first of these texts.
    pub(crate) fn stopping(self, stops: &[String]) -> Self {
        let stops: Vec<&String> = stops.iter().filter(|stop| !stop.is_empty()).collect();
        if stops.is_empty() {
            return self;
        }
        let (limit, is_cut) = (self.tokens, self.is_cut);
        let pieces: Vec<String> = self.collect();
        let text = pieces.concat();
        let met = stops.iter().filter_map(|stop| Some((text.find(*stop)?, *stop)));
        let Some((end, stop)) = met.min_by_key(|(at, _)| *at) else {
            return Self::of(pieces, limit, is_cut);
        };
        let mut kept = Vec::new();
        let mut at = 0;
        for piece in pieces {
            let left = end.saturating_sub(at);
            at += piece.len();
            if left == 0 {
                break;
            }
            kept.push(if piece.len() > left {
                piece[..left].to_owned()
            } else {
                piece
            });
        }
        Self {
            stopped_by: Some(stop.clone()),
            ..Self::of(kept, limit, false)
        }
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
            return Some(given.get(at).cloned().unwrap_or_default());
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
            for fills in [false, true] {
                let answer = Answer::new(3, "why is the sky blue", limit, fills);
                let text = answer.clone().collect::<String>();
                assert_eq!(text.split(' ').count() as u64, answer.tokens);
                assert_eq!(
                    text,
                    Answer::new(3, "why is the sky blue", limit, fills).collect::<String>()
                );
                assert!(answer.tokens <= limit && (!fills || answer.tokens == limit));
            }
        }
    }

    #[test]
    fn tokens_have_numbers_that_can_be_turned_back() {
        let text = "extraordinary größe a \u{1F600}";
        let ids = token_ids(text);
        assert_eq!(ids.len() as u64, count_tokens(text));
        assert!(ids.iter().all(|id| *id < 1 << 49));
        assert_eq!(text_of_ids(&ids).as_deref(), Ok(text));
        assert_eq!(text_of_ids(&[0]), Err(0));
        assert_eq!(text_of_ids(&[u64::MAX]), Err(u64::MAX));
    }

    #[test]
    fn an_answer_ends_before_a_stop() {
        let whole = Answer::new(3, "why", 50, true).collect::<String>();
        let word = whole.split(' ').nth(5).expect("a word");
        let stop = format!(" {word}");
        let stopped = Answer::new(3, "why", 50, true).stopping(&[stop.clone(), String::new()]);
        assert!(!stopped.is_cut);
        let text = stopped.collect::<String>();
        assert!(whole.starts_with(&text) && !text.contains(&stop) && whole[text.len()..].starts_with(&stop));
        assert_eq!(
            Answer::new(3, "why", 50, true)
                .stopping(&["§".to_owned()])
                .collect::<String>(),
            whole
        );
    }

    #[test]
    fn prompts_that_begin_alike_have_the_same_first_blocks() {
        let words = |count: usize| (0..count).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ");
        let (short, long) = (block_hashes(&words(40), 16), block_hashes(&words(100), 16));
        assert_eq!((short.len(), long.len()), (2, 6));
        assert_eq!(long[..2], short[..]);
        assert_ne!(block_hashes(&format!("x {}", words(40)), 16)[0], short[0]);
    }
}
