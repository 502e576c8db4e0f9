//! An estimate of how many tokens a text has, where no server has said.
//!
//! A byte-pair tokenizer first divides a text into words with the space before them, groups of digits, runs of
//! punctuation and of white space, and then those into tokens. The estimate adds weights instead: of each character by
//! its class and by the class of the one before (where a word begins, most of a token does), of each letter (which tells
//! languages in Latin script apart), and of each character beyond ASCII by its script. Vocabularies differ by factors on
//! some scripts, so that each [`Tokenizer`] has weights of its own; all are added at once, in the lanes of a vector,
//! since the model is not known yet where texts are measured. The weights were fitted to counts of real tokenizers.

mod weights;

use weights::{AFTER, BRACKET, CHARACTERS, LATER_LETTERS, LETTERS, OPERATOR, WORDS};

/// A weight for each family of tokenizers, in 256ths of a token.
type Lanes = [i16; 8];

/// 256ths of a token.
const TOKEN: i64 = 256;

/// No tokenizer makes fewer tokens of a text other than white space and repetitions: a bound of the estimate.
const MOST_BYTES_PER_TOKEN: u64 = 16;

/// Of a brace or comma that stands for a part of the model's chat template: a quarter of a token.
const STRUCTURE: i64 = TOKEN / 4;

/// Of the quotation marks and the colon of a string in JSON, which are most often one token with each other.
const QUOTES: i64 = TOKEN * 3 / 4;

/// Parts of a long string in a prompt that are measured, evenly spread over it, and their bytes.
const PARTS: usize = 16;
const PART: usize = 256;

/// Characters that are added before the lanes could overflow.
const CHUNK: usize = 32;

/// A family of tokenizers; the number of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tokenizer {
    /// OpenAI's o200k: GPT-4o and later, gpt-oss.
    O200k,
    /// Llama 3 and 4, whose vocabulary begins with cl100k (GPT-3.5, GPT-4, Phi-4).
    Llama,
    /// Qwen 2 to 3.
    Qwen,
    /// `DeepSeek` V3 and R1.
    DeepSeek,
    /// Gemma 2 and 3, Gemini.
    Gemma,
    /// Mistral's Tekken: Nemo and later.
    Mistral,
    /// The median of all.
    #[default]
    Unknown,
}

impl Tokenizer {
    /// The family of a model, by its name.
    pub fn of_model(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["qwen", "qwq"]) {
            Self::Qwen
        } else if has(&["llama-2", "llama2", "codellama", "tinyllama"]) {
            Self::Unknown
        } else if has(&["gpt-3.5", "gpt-4-", "phi-4", "phi4", "llama"]) || name == "gpt-4" {
            Self::Llama
        } else if has(&["gpt", "o200k"]) {
            Self::O200k
        } else if has(&["deepseek"]) {
            Self::DeepSeek
        } else if has(&["gemma", "gemini"]) {
            Self::Gemma
        } else if has(&[
            "mistral",
            "mixtral",
            "ministral",
            "magistral",
            "devstral",
            "codestral",
            "pixtral",
        ]) {
            Self::Mistral
        } else {
            Self::Unknown
        }
    }
}

/// Size of a text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TextSize {
    /// Bytes of UTF-8.
    pub bytes: u64,
    /// Those of characters beyond ASCII.
    pub wide_bytes: u64,
    /// By family, in 256ths of a token.
    sums: [i64; 8],
}

impl TextSize {
    /// The size of plain text.
    pub fn of(text: &str) -> Self {
        let mut counter = Counter::default();
        counter.add(text);
        counter.size
    }

    /// The size of text that may not be UTF-8.
    pub(crate) fn of_bytes(text: &[u8]) -> Self {
        Self::of(&String::from_utf8_lossy(text))
    }

    /// The size of a JSON string's text, given with its escapes and without its quotes.
    pub(crate) fn of_escaped(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut counter = Counter::default();
        let mut rest = &*text;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
            counter.add(&rest[..at]);
            let mut characters = rest[at + 1..].chars();
            if let Some(character) = unescaped(&mut characters) {
                counter.add_character(character);
            }
            rest = characters.as_str();
        }
        counter.add(rest);
        counter.size
    }

    /// The size of a JSON string of a prompt: of a long one by parts of it, which bounds the time that it takes.
    pub(crate) fn of_prompt(text: &[u8]) -> Self {
        const MEASURED: usize = PARTS * PART;
        if text.len() <= MEASURED {
            return Self::of_escaped(text);
        }
        let (mut size, mut measured) = (Self::default(), 0);
        for part in text.chunks(text.len() / PARTS).take(PARTS) {
            let part = whole_characters(&part[..PART]);
            size += Self::of_escaped(part);
            measured += part.len() as u64;
        }
        size.scaled(text.len() as u64, measured.max(1))
    }

    /// The same of `all` bytes in place of `measured`.
    fn scaled(self, all: u64, measured: u64) -> Self {
        let exact = |part: u64| part.saturating_mul(all) / measured;
        Self {
            bytes: exact(self.bytes),
            wide_bytes: exact(self.wide_bytes),
            sums: self
                .sums
                .map(|sum| i64::try_from(exact(u64::try_from(sum).unwrap_or(0))).unwrap_or(i64::MAX)),
        }
    }

    /// Adds so many characters of JSON around texts.
    pub(crate) fn add_structure(&mut self, characters: u64) {
        self.bytes += characters;
        let more = STRUCTURE.saturating_mul(i64::try_from(characters).unwrap_or(i64::MAX));
        self.sums = self.sums.map(|sum| sum.saturating_add(more));
    }

    /// Adds the quotation marks of a string that the model reads as JSON.
    pub(crate) fn add_quotes(&mut self) {
        self.sums = self.sums.map(|sum| sum.saturating_add(QUOTES));
    }

    /// The same text so many times.
    pub(crate) fn times(self, times: u64) -> Self {
        let factor = i64::try_from(times).unwrap_or(i64::MAX);
        Self {
            bytes: self.bytes.saturating_mul(times),
            wide_bytes: self.wide_bytes.saturating_mul(times),
            sums: self.sums.map(|sum| sum.saturating_mul(factor)),
        }
    }

    /// Tokens, rounded; of a text that is not empty at least one, and at most one a byte.
    pub fn tokens(&self, tokenizer: Tokenizer) -> u64 {
        let sum = self.sums[tokenizer as usize].saturating_add(TOKEN / 2) / TOKEN;
        let least = (self.bytes / MOST_BYTES_PER_TOKEN).max(1);
        u64::try_from(sum).unwrap_or(0).max(least).min(self.bytes)
    }
}

impl std::ops::AddAssign for TextSize {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.wide_bytes = self.wide_bytes.saturating_add(other.wide_bytes);
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The part of a text in UTF-8 without the pieces of characters at its ends.
fn whole_characters(text: &[u8]) -> &[u8] {
    let begins = |byte: &u8| byte & 0xc0 != 0x80;
    let start = text.iter().position(begins).unwrap_or(0);
    let end = match text.last() {
        Some(last) if !last.is_ascii() => text.iter().rposition(begins).unwrap_or(text.len()),
        _ => text.len(),
    };
    &text[start..end.max(start)]
}

/// The character of an escape whose backslash was read; of a surrogate pair its first half is a character of four
/// bytes, and its second one none.
fn unescaped(characters: &mut std::str::Chars<'_>) -> Option<char> {
    match characters.next() {
        Some('n' | 'r') => Some('\n'),
        Some('t') => Some('\t'),
        Some('u') => {
            let digits = characters.as_str().get(..4);
            let Some(unit) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
                return Some(char::REPLACEMENT_CHARACTER);
            };
            *characters = characters.as_str()[4..].chars();
            match unit {
                0xd800..0xdc00 => Some('\u{10000}'),
                0xdc00..0xe000 => None,
                unit => char::from_u32(unit),
            }
        }
        other => Some(other.unwrap_or('\\')),
    }
}

/// The class of a character, by which the weight of the next one is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Class {
    /// A letter of lower case, or a Latin one beyond ASCII.
    Lower,
    Upper,
    Digit,
    /// Also what is before a text.
    #[default]
    Space,
    /// A line end, or a tab.
    Line,
    Punctuation,
    /// Another character beyond ASCII.
    Wide,
}

/// Their number.
const CLASSES: usize = 7;

/// The row of weights after four letters of a word, and the bits of [`Counter::run`] by which it is chosen.
const LATER: usize = CLASSES;
const FOUR_LETTERS: u32 = 0b1111;

impl Class {
    const fn of_ascii(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' => Self::Lower,
            b'A'..=b'Z' => Self::Upper,
            b'0'..=b'9' => Self::Digit,
            b' ' => Self::Space,
            b'\n' | b'\r' | b'\t' => Self::Line,
            _ => Self::Punctuation,
        }
    }
}

/// The weight of an ASCII character after one of the class `row`, or in the row [`LATER`].
const fn weight_of_ascii(row: usize, byte: u8) -> Lanes {
    let before = if row == LATER { Class::Lower as usize } else { row };
    let weight = AFTER[before][Class::of_ascii(byte) as usize];
    match byte {
        b'a'..=b'z' if row == LATER => {
            let letter = (byte - b'a') as usize;
            plus(weight, plus(LETTERS[letter], LATER_LETTERS[letter]))
        }
        b'a'..=b'z' => plus(weight, LETTERS[(byte - b'a') as usize]),
        b'A'..=b'Z' => plus(weight, LETTERS[(byte - b'A') as usize]),
        b'"' | b'{' | b'}' | b'[' | b']' | b'(' | b')' => plus(weight, BRACKET),
        b'_' | b'/' | b'\\' | b'=' | b'<' | b'>' => plus(weight, OPERATOR),
        _ => weight,
    }
}

const fn plus(mut one: Lanes, other: Lanes) -> Lanes {
    let mut lane = 0;
    while lane < one.len() {
        one[lane] += other[lane];
        lane += 1;
    }
    one
}

/// The class of each ASCII character.
static ASCII_CLASSES: [Class; 128] = {
    let mut table = [Class::Space; 128];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = Class::of_ascii(byte);
        byte += 1;
    }
    table
};

/// The weight of each ASCII character, by row.
static ASCII_WEIGHTS: [[Lanes; 128]; CLASSES + 1] = {
    let mut table = [[[0; 8]; 128]; CLASSES + 1];
    let mut row = 0;
    while row < table.len() {
        let mut byte: u8 = 0;
        while byte < 128 {
            table[row][byte as usize] = weight_of_ascii(row, byte);
            byte += 1;
        }
        row += 1;
    }
    table
};

/// Scripts that vocabularies treat apart, and letters of single languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    Latin1,
    LatinExtended,
    Czech,
    Romanian,
    Polish,
    Hungarian,
    Turkish,
    Vietnamese,
    /// Combining marks.
    Mark,
    Greek,
    Cyrillic,
    Ukrainian,
    Armenian,
    Hebrew,
    Arabic,
    Persian,
    Urdu,
    Devanagari,
    Bengali,
    Tamil,
    Telugu,
    Indic,
    Thai,
    Georgian,
    Rare,
    Sign,
    CjkPunctuation,
    Kana,
    Han,
    Hangul,
    /// Four bytes, such as emoji.
    Supplementary,
}

impl Script {
    fn of(character: char) -> Self {
        match character {
            ..'\u{100}' => Self::Latin1,
            ..'\u{250}' => Self::of_latin(character),
            ..'\u{370}' => Self::Mark,
            '\u{370}'..'\u{400}' | '\u{1f00}'..'\u{2000}' => Self::Greek,
            'і' | 'ї' | 'є' | 'ґ' | 'І' | 'Ї' | 'Є' | 'Ґ' => Self::Ukrainian,
            '\u{400}'..'\u{530}' => Self::Cyrillic,
            '\u{530}'..'\u{590}' => Self::Armenian,
            '\u{590}'..'\u{600}' => Self::Hebrew,
            'ٹ' | 'ڈ' | 'ڑ' | 'ں' | 'ے' | 'ہ' | 'ھ' => Self::Urdu,
            '\u{671}'..'\u{700}' => Self::Persian,
            '\u{600}'..'\u{800}' => Self::Arabic,
            '\u{900}'..'\u{980}' => Self::Devanagari,
            '\u{980}'..'\u{a00}' => Self::Bengali,
            '\u{b80}'..'\u{c00}' => Self::Tamil,
            '\u{c00}'..'\u{c80}' => Self::Telugu,
            '\u{a00}'..'\u{e00}' => Self::Indic,
            '\u{e00}'..'\u{f00}' => Self::Thai,
            '\u{10a0}'..'\u{1100}' => Self::Georgian,
            '\u{1e00}'..'\u{1f00}' => Self::Vietnamese,
            ..'\u{2000}' => Self::Rare,
            ..'\u{2e80}' => Self::Sign,
            ..'\u{3040}' | '\u{ff00}'..'\u{fff0}' => Self::CjkPunctuation,
            ..'\u{3100}' => Self::Kana,
            '\u{ac00}'..='\u{d7ff}' => Self::Hangul,
            ..'\u{10000}' => Self::Han,
            _ => Self::Supplementary,
        }
    }

    /// The languages of letters between U+0100 and U+024F.
    fn of_latin(character: char) -> Self {
        match character {
            'ě' | 'ř' | 'š' | 'ž' | 'ů' | 'č' | 'ť' | 'ď' | 'ň' | 'Ě' | 'Ř' | 'Š' | 'Ž' | 'Ů' | 'Č' | 'Ť' | 'Ď'
            | 'Ň' => Self::Czech,
            'ă' | 'ș' | 'ț' | 'ţ' | 'Ă' | 'Ș' | 'Ț' | 'Ţ' => Self::Romanian,
            'ą' | 'ć' | 'ę' | 'ł' | 'ń' | 'ś' | 'ż' | 'ź' | 'Ą' | 'Ć' | 'Ę' | 'Ł' | 'Ń' | 'Ś' | 'Ż' | 'Ź' => {
                Self::Polish
            }
            'ő' | 'ű' | 'Ő' | 'Ű' => Self::Hungarian,
            'ğ' | 'ı' | 'ş' | 'İ' | 'Ş' | 'Ğ' => Self::Turkish,
            _ => Self::LatinExtended,
        }
    }

    /// Returns whether its letters make words together with those of ASCII.
    fn is_latin(self) -> bool {
        (self as usize) <= Self::Mark as usize
    }
}

#[derive(Debug, Default)]
struct Counter {
    size: TextSize,
    before: Class,
    /// The last characters as bits, the last one lowest: 1 for a letter of the same word, which a capital begins.
    run: u32,
}

impl Counter {
    fn add(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let ascii = rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
            self.add_ascii(&rest.as_bytes()[..ascii]);
            let mut characters = rest[ascii..].chars();
            while let Some(character) = characters.as_str().chars().next().filter(|next| !next.is_ascii()) {
                characters.next();
                self.add_wide(character);
            }
            rest = characters.as_str();
        }
    }

    fn add_character(&mut self, character: char) {
        if let Ok(byte @ ..0x80) = u8::try_from(character) {
            self.add_ascii(&[byte]);
        } else {
            self.add_wide(character);
        }
    }

    fn add_ascii(&mut self, text: &[u8]) {
        self.size.bytes += text.len() as u64;
        for chunk in text.chunks(CHUNK) {
            let mut lanes = [0_i16; 8];
            let (mut before, mut run) = (self.before, self.run);
            for byte in chunk {
                let byte = usize::from(*byte & 0x7f);
                let row = if run & FOUR_LETTERS == FOUR_LETTERS {
                    LATER
                } else {
                    before as usize
                };
                for (lane, weight) in lanes.iter_mut().zip(&ASCII_WEIGHTS[row][byte]) {
                    *lane = lane.wrapping_add(*weight);
                }
                before = ASCII_CLASSES[byte];
                let (is_lower, is_upper) = (u32::from(before == Class::Lower), u32::from(before == Class::Upper));
                // Without a branch: all bits remain after a letter of lower case only.
                run = ((run << 1) & 0_u32.wrapping_sub(is_lower)) | is_lower | is_upper;
            }
            (self.before, self.run) = (before, run);
            self.add_lanes(&lanes);
        }
    }

    fn add_wide(&mut self, character: char) {
        let bytes = character.len_utf8() as u64;
        self.size.bytes += bytes;
        self.size.wide_bytes += bytes;
        let script = Script::of(character);
        self.add_lanes(&CHARACTERS[script as usize]);
        if script.is_latin() {
            (self.before, self.run) = (Class::Lower, self.run << 1 | 1);
            return;
        }
        if !matches!(self.before, Class::Lower | Class::Upper | Class::Wide) {
            self.add_lanes(&WORDS[script as usize]);
        }
        (self.before, self.run) = (Class::Wide, 0);
    }

    fn add_lanes(&mut self, lanes: &Lanes) {
        for (sum, lane) in self.size.sums.iter_mut().zip(lanes) {
            *sum += i64::from(*lane);
        }
    }
}

#[cfg(test)]
mod tests;
