//! Separates a model's answer from its reasoning: tagged thoughts (`<think>`, `[THINK]`, …) and the channels of gpt-oss's
//! harmony format (<https://cookbook.openai.com/articles/openai-harmony>).

/// Names of tags that enclose reasoning, in lower case. DeepSeek-R1, Qwen3 and Magistral use the first; the others are
/// asked for in prompts or used by fine-tuned models.
const NAMES: [&str; 10] = [
    "think",
    "thinking",
    "thought",
    "thoughts",
    "reason",
    "reasoning",
    "reflection",
    "scratchpad",
    "analysis",
    "seed:think",
];
/// Other pairs of marks: Kimi's, OpenThinker's and Sky-T1's.
const PAIRS: [(&str, &str); 2] = [("◁think▷", "◁/think▷"), ("<|begin_of_thought|>", "<|end_of_thought|>")];
/// Marks that end a turn; servers that do not know a model's template let them through.
const TURN_ENDS: [&str; 10] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end|>",
    "<|return|>",
    "<|end▁of▁sentence|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// The answer; then, where reasoning was not closed or is all there is, the reasoning, if it has a complete block of code.
pub(super) fn answers(reply: &str) -> Vec<String> {
    let (answer, unfinished) = channels(reply).unwrap_or_else(|| tagged(reply));
    let complete = unfinished.filter(|text| text.matches("```").count() >= 2);
    let texts = [Some(answer), complete].into_iter().flatten();
    texts
        .map(|text| without_turn_end(&text).to_owned())
        .filter(|text| !text.trim().is_empty())
        .collect()
}

/// The last message of the `final` channel; otherwise the unfinished `analysis`.
fn channels(reply: &str) -> Option<(String, Option<String>)> {
    let message = |text: &str| {
        let text = text.split_once("<|message|>").map_or(text, |(_, message)| message);
        let end = ["<|end|>", "<|return|>", "<|start|>", "<|call|>"]
            .iter()
            .filter_map(|mark| text.find(mark))
            .min();
        text[..end.unwrap_or(text.len())].to_owned()
    };
    if let Some((_, text)) = reply.rsplit_once("<|channel|>final") {
        return Some((message(text), None));
    }
    if let Some((_, text)) = reply.rsplit_once("<|channel|>") {
        // An answer may follow the analysis without a channel of its own, or stand in `commentary`.
        let after = text.rsplit_once("<|end|>").map_or("", |(_, after)| after).trim();
        let after = after.strip_prefix("<|start|>assistant").unwrap_or(after);
        return Some(if !text.starts_with("analysis") {
            (message(text), None)
        } else if after.is_empty() {
            (String::new(), Some(message(text)))
        } else {
            (message(after), None)
        });
    }
    // The same after a server has removed the special tokens.
    let (_, answer) = reply
        .trim_start()
        .strip_prefix("analysis")?
        .rsplit_once("assistantfinal")?;
    Some((answer.to_owned(), None))
}

/// A tag of reasoning in a text.
struct Tag {
    start: usize,
    end: usize,
    closes: bool,
}

/// The text outside of tags; and inside of the last one, if nothing closes it or nothing follows it.
fn tagged(reply: &str) -> (String, Option<String>) {
    let mut answer = String::new();
    let mut unfinished = None;
    let mut opened = None;
    let mut at = 0;
    for tag in tags(reply) {
        match (opened, tag.closes) {
            (None, false) => {
                answer.push_str(&reply[at..tag.start]);
                answer.push('\n');
                opened = Some(tag.end);
            }
            (None, true) => {
                // Chat templates may begin the reply inside of the reasoning.
                answer.push_str(&reply[at..tag.start]);
                unfinished = Some(std::mem::take(&mut answer));
            }
            (Some(_), true) => opened = None,
            (Some(_), false) => {}
        }
        at = tag.end;
    }
    if let Some(start) = opened {
        return (answer, Some(reply[start..].to_owned()));
    }
    answer.push_str(&reply[at..]);
    let stands_alone = answer.trim().is_empty();
    (answer, unfinished.filter(|_| stands_alone))
}

/// The tags in order. One in a comment, or quoted, is part of what is written about.
fn tags(reply: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(offset) = reply[from..].find(['<', '[', '◁']) {
        let start = from + offset;
        let width = reply[start..].chars().next().map_or(1, char::len_utf8);
        from = start + width;
        if let Some((length, closes)) = tag_at(&reply[start..])
            && !is_quoted(&reply[..start])
        {
            from = start + length;
            found.push(Tag {
                start,
                end: from,
                closes,
            });
        }
    }
    found
}

/// The length of the tag that a text begins with, and whether it closes.
fn tag_at(text: &str) -> Option<(usize, bool)> {
    for (open, close) in PAIRS {
        if text.starts_with(open) {
            return Some((open.len(), false));
        }
        if text.starts_with(close) {
            return Some((close.len(), true));
        }
    }
    let (end, is_square) = match text.as_bytes().first()? {
        b'<' => ('>', false),
        b'[' => (']', true),
        _ => return None,
    };
    let (name, _) = text[1..].split_once(end)?;
    let length = name.len() + 2;
    let (name, closes) = name.strip_prefix('/').map_or((name, false), |name| (name, true));
    let is_known = if is_square {
        name == "THINK"
    } else {
        NAMES.contains(&name.to_lowercase().as_str())
    };
    is_known.then_some((length, closes))
}

fn is_quoted(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_inline_code = before.ends_with('`') && !before.ends_with("``");
    line.trim_start().starts_with('#') || is_inline_code || before.ends_with(['"', '\''])
}

/// The text up to the first mark at the end of a line that ends the turn.
fn without_turn_end(text: &str) -> &str {
    let marks = TURN_ENDS.iter().flat_map(|mark| text.match_indices(mark));
    let ends = marks.filter(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let is_at_line_end = rest.split('\n').next().is_some_and(|line| line.trim().is_empty());
        (is_at_line_end || rest.starts_with("<|")) && !text[..*at].trim().is_empty()
    });
    let end = ends.map(|(at, _)| at).min();
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::answers;

    #[test]
    fn reasoning_is_no_part_of_the_answer() {
        for reply in [
            "<think>a</think>b",
            "<THINKING>\na\n</THINKING>\nb",
            "<reasoning>a<reasoning>a</reasoning>b",
            "[THINK]a[/THINK]b",
            "a, as `</think>` says\n</think>\n\nb",
            "a</think>b",
            "◁think▷a◁/think▷b",
            "<|begin_of_thought|>a<|end_of_thought|>\nb",
            "<think>a</think><think>a</think>b<|im_end|>",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            "<|channel|>final <|constrain|>json<|message|>b",
            "<|channel|>analysis<|message|>a<|end|>b",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|message|>b<|return|>",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b",
            "analysisaaassistantfinalb",
            "b</s>",
            "b<|im_end|>\n<|im_start|>user\nc",
        ] {
            let answers = answers(reply);
            assert_eq!(answers.len(), 1, "{reply}: {answers:?}");
            assert_eq!(answers[0].trim(), "b", "{reply}");
        }
    }

    #[test]
    fn unfinished_reasoning_counts_only_with_a_complete_block() {
        assert!(answers("<think>a").is_empty());
        assert!(answers("<think>```python\nx = 1").is_empty());
        assert_eq!(answers("<think>a\n```\nx = 1\n```\n").len(), 1);
        assert!(answers("<|channel|>analysis<|message|>a").is_empty());
        assert!(answers("<think>```\nx\n```</think>").is_empty());
    }

    #[test]
    fn a_tag_in_code_is_code() {
        let reply = "x = '</think>'\n# </think> ends it\ny = a[THINK]\n";
        assert_eq!(
            answers("x = '</think>'\n# </think> ends it\n"),
            ["x = '</think>'\n# </think> ends it\n"]
        );
        assert!(!answers(reply).is_empty());
    }
}
