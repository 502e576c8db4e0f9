//! An estimate of how many tokens a text has, for answers whose server does not say.
//!
//! Byte-pair tokenizers first divide a text into words with the space before them, groups of digits, runs of
//! punctuation and runs of white space, and then those into tokens; most words are one. The estimate does the first
//! step exactly and the second one by length. Its weights were fitted to the o200k and Llama 3 vocabularies (see the test).

/// Weights, in hundredths of a token.
const WORD: u64 = 100;
/// Each letter of a word after its first [`SHORT_WORD`].
const LONG_LETTER: u64 = 11;
const SHORT_WORD: u32 = 6;
/// Digits go in groups of up to three.
const DIGIT_GROUP: u32 = 3;
/// Punctuation goes in pairs, such as `):` or `",`.
const PUNCTUATION_GROUP: u32 = 2;
/// A letter of two bytes: accents, Greek, Cyrillic, Arabic.
const TWO_BYTE_LETTER: u64 = 38;
/// A character of three bytes: Chinese, Japanese, Korean, Indic.
const THREE_BYTE_LETTER: u64 = 72;
/// A character of four bytes, such as an emoji.
const FOUR_BYTE_LETTER: u64 = 200;

/// Size of a text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TextSize {
    pub bytes: u64,
    /// In hundredths.
    tokens: u64,
}

impl TextSize {
    /// The size of plain text.
    pub fn of(text: &str) -> Self {
        let mut counter = Counter::default();
        for character in text.chars() {
            counter.add(character);
        }
        counter.size
    }

    /// The size of a JSON string's text, given with its escapes and without its quotes.
    pub(crate) fn of_escaped(text: &str) -> Self {
        let mut counter = Counter::default();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            counter.add(if character == '\\' {
                unescaped(&mut characters)
            } else {
                character
            });
        }
        counter.size
    }

    /// Tokens, rounded; of a text that is not empty at least one.
    pub fn tokens(self) -> u64 {
        (self.tokens + 50) / 100 + u64::from(self.bytes > 0 && self.tokens < 50)
    }
}

impl std::ops::AddAssign for TextSize {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.tokens += other.tokens;
    }
}

/// The character of an escape whose backslash was read.
fn unescaped(characters: &mut std::str::Chars<'_>) -> char {
    match characters.next() {
        Some('n' | 'r') => '\n',
        Some('t') => '\t',
        Some('u') => {
            let unit = characters
                .as_str()
                .get(..4)
                .and_then(|digits| u32::from_str_radix(digits, 16).ok());
            if unit.is_some() {
                *characters = characters.as_str()[4..].chars();
            }
            // Half of a pair counts as a character of three bytes; both halves so as one of more.
            unit.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        other => other.unwrap_or('\\'),
    }
}

/// What the last character was part of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Run {
    #[default]
    Nothing,
    Word,
    Digits,
    Punctuation,
    /// One space, which goes with what follows it.
    Space,
    /// More white space, a token of its own.
    Blank,
}

#[derive(Debug, Default)]
struct Counter {
    size: TextSize,
    run: Run,
    length: u32,
}

impl Counter {
    fn add(&mut self, character: char) {
        self.size.bytes += character.len_utf8() as u64;
        let run = match character {
            'a'..='z' | 'A'..='Z' => Run::Word,
            '0'..='9' => Run::Digits,
            ' ' if self.run != Run::Space && self.run != Run::Blank => Run::Space,
            ' ' | '\n' | '\t' | '\r' => Run::Blank,
            _ if character.is_ascii() => Run::Punctuation,
            _ => return self.add_wide(character),
        };
        let goes_on = self.run == run;
        self.length = if goes_on { self.length + 1 } else { 1 };
        self.size.tokens += match run {
            Run::Word if goes_on && self.length > SHORT_WORD => LONG_LETTER,
            Run::Digits if self.length % DIGIT_GROUP == 1 => WORD,
            Run::Punctuation if self.length % PUNCTUATION_GROUP == 1 => WORD,
            Run::Word | Run::Blank if !goes_on => WORD,
            _ => 0,
        };
        self.run = run;
    }

    fn add_wide(&mut self, character: char) {
        let weight = match character.len_utf8() {
            2 => TWO_BYTE_LETTER,
            3 => THREE_BYTE_LETTER,
            _ => FOUR_BYTE_LETTER,
        };
        // An accented letter is part of its word.
        let is_within = self.run == Run::Word && character.len_utf8() == 2;
        self.size.tokens += weight;
        if !is_within {
            self.run = Run::Nothing;
            self.length = 0;
        }
    }
}
