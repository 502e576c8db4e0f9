//! Exact token counts from a `tokenizer.json` (Hugging Face's format), where the program is built with it.

use std::path::Path;

/// A model's own tokenizer.
#[derive(Debug, Clone)]
pub(crate) struct Tokenizer {
    #[cfg(feature = "tokenizer")]
    inner: std::sync::Arc<tokenizers::Tokenizer>,
}

/// Words that prompts need at least, to differ from each other.
const FEWEST_WORDS: usize = 32;

#[cfg(feature = "tokenizer")]
impl Tokenizer {
    /// Reads a file, or the `tokenizer.json` of a directory.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let file = if path.is_dir() {
            path.join("tokenizer.json")
        } else {
            path.to_owned()
        };
        let inner = tokenizers::Tokenizer::from_file(&file)
            .map_err(|error| format!("cannot read the tokenizer {}: {error}", file.display()))?;
        Ok(Self {
            inner: std::sync::Arc::new(inner),
        })
    }

    /// Tokens of a text, without those that a chat template adds.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.inner.encode_fast(text, false).map_or(0, |encoded| encoded.len())
    }

    /// Words that are one token each, at the beginning of a text and inside it: those of `preferred`, else of the
    /// vocabulary.
    ///
    /// # Errors
    /// There are too few.
    pub(crate) fn single_token_words(&self, preferred: &[&str]) -> Result<Vec<String>, String> {
        let is_single = |word: &str| {
            let is_itself = self.inner.encode_fast(word, false).is_ok_and(|encoded| {
                // A word that is not in the vocabulary may be one token as well: the unknown one.
                let decoded = self.inner.decode(encoded.get_ids(), false);
                encoded.len() == 1 && decoded.is_ok_and(|decoded| decoded.trim() == word)
            });
            is_itself && self.count(&format!("{word} {word} {word}")) == 3
        };
        let mut words: Vec<String> = preferred
            .iter()
            .filter(|word| is_single(word))
            .map(|word| (*word).to_owned())
            .collect();
        if words.len() < FEWEST_WORDS {
            let mut vocabulary: Vec<(u32, String)> = self
                .inner
                .get_vocab(false)
                .into_iter()
                .map(|(word, id)| (id, word))
                .collect();
            vocabulary.sort_unstable();
            let bare = vocabulary.iter().map(|(_, word)| word.trim_start_matches(['Ġ', '▁']));
            let plain = bare.filter(|word| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase()));
            let mut more: Vec<String> = plain
                .filter(|word| is_single(word))
                .map(str::to_owned)
                .take(256)
                .collect();
            words.append(&mut more);
            words.sort_unstable();
            words.dedup();
        }
        let all = words.join(" ");
        if words.len() < FEWEST_WORDS || self.count(&all) != words.len() {
            return Err(format!(
                "the tokenizer has only {} words that are one token each: prompts of exact lengths cannot be made with it",
                words.len()
            ));
        }
        Ok(words)
    }
}

#[cfg(not(feature = "tokenizer"))]
#[allow(clippy::unused_self)]
impl Tokenizer {
    /// # Errors
    /// Always: the program is built without tokenizers.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        Err(format!(
            "cannot read the tokenizer {}: this program was built without `--features tokenizer`",
            path.display()
        ))
    }

    pub(crate) fn count(&self, _text: &str) -> usize {
        0
    }

    /// # Errors
    /// Always.
    pub(crate) fn single_token_words(&self, _preferred: &[&str]) -> Result<Vec<String>, String> {
        Err(format!("no {FEWEST_WORDS} words without a tokenizer"))
    }
}
