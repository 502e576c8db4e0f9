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

#[cfg(all(test, feature = "tokenizer"))]
mod tests {
    use super::*;
    use crate::workload::Prompt;
    use crate::workload::text::TextMaker;
    use serde_json::json;
    use std::collections::BTreeSet;

    /// A byte-level BPE tokenizer, as GPT-2's and Llama 3's are, that has learnt some words with and without a space before
    /// them.
    fn byte_level(words: &[String]) -> serde_json::Value {
        let (mut merges, mut known) = (Vec::new(), BTreeSet::new());
        known.extend(('a'..='z').map(String::from).chain(["Ġ".to_owned()]));
        for word in words {
            let mut left = String::new();
            for letter in word.chars() {
                if !left.is_empty() && known.insert(format!("{left}{letter}")) {
                    merges.push(format!("{left} {letter}"));
                }
                left.push(letter);
            }
        }
        for word in words {
            known.insert(format!("Ġ{word}"));
            merges.push(format!("Ġ {word}"));
        }
        let vocabulary: serde_json::Map<_, _> = known
            .into_iter()
            .zip(0..)
            .map(|(token, id)| (token, json!(id)))
            .collect();
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0", "added_tokens": [], "pre_tokenizer": bytes, "decoder": bytes,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
        })
    }

    #[test]
    fn prompts_have_exactly_their_tokens_by_a_byte_level_tokenizer() {
        let words: Vec<String> = ('a'..='h')
            .flat_map(|one| ('i'..='p').map(move |other| format!("qu{one}{other}x")))
            .collect();
        let dir = tempfile::TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("tokenizer.json"), byte_level(&words).to_string()).expect("writable");
        let tokenizer = Tokenizer::load(dir.path()).expect("a tokenizer");
        assert_eq!(
            tokenizer.count("quaix water"),
            1 + 6,
            "a word that it knows, and the bytes of one that it does not"
        );
        let maker = TextMaker::new(Some(&tokenizer), 1).expect("words");
        for tokens in [1, 37, 5000] {
            let text = maker.messages(&Prompt::Words {
                tokens,
                shared: 10,
                stream: 5,
            })[0]
                .text()
                .into_owned();
            assert_eq!(tokenizer.count(&text), tokens);
        }
    }
}
