//! Answers from a file, so that the right verdict on each is known: a share of them is wrong.

use serde::Deserialize;

/// Answers to prompts that contain a known text.
#[derive(Debug, Clone, Default)]
pub struct Known {
    entries: Vec<Entry>,
    /// True if prompts without a known answer are echoed.
    echoes: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    prompt: String,
    answer: String,
}

#[derive(Deserialize)]
struct Line {
    prompt: String,
    #[serde(alias = "canonical_solution")]
    answer: String,
    /// The answer that is sent if it is meant to be wrong.
    #[serde(default = "wrong")]
    wrong: String,
}

fn wrong() -> String {
    "    pass\n".to_owned()
}

impl Known {
    /// Reads JSON lines `{"prompt", "answer", "wrong"?}` (HumanEval's `canonical_solution` is an answer too). Of every
    /// so many lines `correct`, 0 to 1, are answered right, evenly spread and exactly.
    ///
    /// # Errors
    /// A line that is none, with its number.
    pub fn read(text: &str, correct: f64) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
            let is_right = share(entries.len() + 1, correct) > share(entries.len(), correct);
            entries.push(Entry {
                prompt: line.prompt.trim().to_owned(),
                answer: if is_right { line.answer } else { line.wrong },
            });
        }
        Ok(Self { entries, echoes: false })
    }

    /// The same, and whatever is not known is answered with itself.
    #[must_use]
    pub fn echoing(mut self) -> Self {
        self.echoes = true;
        self
    }

    /// The answer to a prompt, if it is known: that of the longest text in it.
    pub(crate) fn answer<'a>(&'a self, prompt: &'a str) -> Option<&'a str> {
        let fitting = self.entries.iter().filter(|entry| prompt.contains(&entry.prompt));
        let longest = fitting.max_by_key(|entry| entry.prompt.len());
        longest
            .map(|entry| entry.answer.as_str())
            .or(self.echoes.then_some(prompt))
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn share(count: usize, part: f64) -> usize {
    (count as f64 * part.clamp(0.0, 1.0) + 1e-9).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_share_is_right_and_the_longest_text_counts() {
        let lines: Vec<String> = (0..50)
            .map(|number| format!("{{\"prompt\": \"question {number}.\", \"answer\": \"a{number}\"}}"))
            .collect();
        let lines = lines.join("\n");
        let known = Known::read(&lines, 0.4).expect("lines");
        let right = (0..50)
            .filter(|number| known.answer(&format!("Please: question {number}.")) == Some(&format!("a{number}")));
        assert_eq!(right.count(), 20);
        assert_eq!(known.answer("something else"), None);
        assert!(
            Known::read("{\"prompt\": 1}", 1.0)
                .expect_err("wrong")
                .starts_with("line 1")
        );
    }
}
