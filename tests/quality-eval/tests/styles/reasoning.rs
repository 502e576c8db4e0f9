//! Reasoning before the answer. What is considered there has the other body.

use super::{Parts, Style};

/// Thoughts with a draft in them.
fn thoughts(parts: &Parts) -> String {
    format!("Maybe so:\n```python\n{}```\nWait, is this it?", parts.draft_program())
}

fn answer(parts: &Parts) -> String {
    format!("```python\n{}```", parts.program())
}

pub(crate) const STYLES: &[Style] = &[
    ("think tags", |parts| {
        format!("<think>\n{}\n</think>\n\n{}", thoughts(parts), answer(parts))
    }),
    ("think tags in capitals", |parts| {
        format!("<THINK>{}</THINK>\n{}", thoughts(parts), answer(parts))
    }),
    ("think without its opening tag", |parts| {
        format!("{}\n</think>\n\n{}", thoughts(parts), answer(parts))
    }),
    ("think with an open fence", |parts| {
        format!(
            "<think>\n```python\n{}</think>\n{}",
            parts.draft_program(),
            answer(parts)
        )
    }),
    ("think, then the bare body", |parts| {
        format!("<think>{}</think>\n{}", thoughts(parts), parts.body)
    }),
    ("think twice", |parts| {
        format!(
            "<think>{}</think>\nLet me see.\n<think>again</think>\n{}",
            thoughts(parts),
            answer(parts)
        )
    }),
    ("thinking tags", |parts| {
        format!("<thinking>\n{}\n</thinking>\n{}", thoughts(parts), answer(parts))
    }),
    ("reasoning tags", |parts| {
        format!("<reasoning>\n{}\n</reasoning>\n{}", thoughts(parts), answer(parts))
    }),
    ("reasoning and answer tags", |parts| {
        format!(
            "<reasoning>\n{}\n</reasoning>\n<answer>\n{}</answer>",
            thoughts(parts),
            parts.program()
        )
    }),
    ("Magistral's tags", |parts| {
        format!("[THINK]{}[/THINK]{}", thoughts(parts), answer(parts))
    }),
    ("Kimi's marks", |parts| {
        format!("◁think▷{}◁/think▷{}", thoughts(parts), answer(parts))
    }),
    ("OpenThinker's marks", |parts| {
        format!(
            "<|begin_of_thought|>\n{}\n<|end_of_thought|>\n\n<|begin_of_solution|>\n{}\n<|end_of_solution|>",
            thoughts(parts),
            answer(parts)
        )
    }),
    ("gpt-oss's channels", |parts| {
        format!(
            "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
            thoughts(parts),
            answer(parts)
        )
    }),
    ("gpt-oss's channels with commentary", |parts| {
        format!(
            "<|channel|>analysis<|message|>{0}<|end|><|start|>assistant<|channel|>commentary<|message|>{0}<|end|><|start|>assistant<|channel|>final<|message|>{1}",
            thoughts(parts),
            parts.program()
        )
    }),
    ("gpt-oss's channels without their tokens", |parts| {
        format!("analysis{}assistantfinal{}", thoughts(parts), answer(parts))
    }),
    ("thoughts that do not end, with the answer in them", |parts| {
        format!("<think>\nI write it down.\n{}\nThat should do.", answer(parts))
    }),
    ("a tag that is written about", |parts| {
        format!(
            "```python\n{}\n# The tag </think> ends thoughts.\nTAG = \"</think>\"\n```",
            parts.program()
        )
    }),
    ("the end of a turn", |parts| {
        format!(
            "{}<|im_end|>\n<|im_start|>user\nAnd now wrong:\n```python\n{}```",
            answer(parts),
            parts.draft_program()
        )
    }),
    ("the end of a turn after bare code", |parts| {
        format!("{}</s>", parts.program())
    }),
];
