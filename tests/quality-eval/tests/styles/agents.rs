//! Replies of models that were trained to call tools, to edit files, or for another page's markup than Markdown, and chat
//! templates that show through.

use super::{Parts, Style, indented};
use serde_json::json;

/// A program as a JSON string, without its quotes.
fn escaped(text: &str) -> String {
    let quoted = json!(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn fenced(parts: &Parts) -> String {
    format!("```python\n{}```", parts.program())
}

pub(super) const STYLES: &[Style] = &[
    ("a tool call in JSON", |parts| {
        json!({"name": "python", "arguments": {"code": parts.program()}}).to_string()
    }),
    ("a tool call of Hermes and Qwen", |parts| {
        let call = json!({"name": "python", "arguments": {"code": parts.program()}});
        format!("<tool_call>\n{call}\n</tool_call>")
    }),
    ("a tool call of Qwen3-Coder", |parts| {
        format!(
            "I'll write it.\n<tool_call>\n<function=write_file>\n<parameter=path>\nsolution.py\n</parameter>\n<parameter=content>\n{}</parameter>\n</function>\n</tool_call>",
            parts.program()
        )
    }),
    ("a tool call of GLM", |parts| {
        format!(
            "<tool_call>python\n<arg_key>code</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
            parts.program()
        )
    }),
    ("a tool call of Mistral", |parts| {
        let call = json!({"code": parts.program()});
        format!("[TOOL_CALLS]python[ARGS]{call}")
    }),
    ("a tool call of DeepSeek", |parts| {
        format!(
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>python\n{}\n<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
            fenced(parts)
        )
    }),
    ("Llama's python tag", |parts| {
        format!("<|python_tag|>{}<|eom_id|>", parts.program())
    }),
    ("an artifact", |parts| {
        format!(
            "Here it is.\n\n<antArtifact identifier=\"solution\" type=\"application/vnd.ant.code\" language=\"python\" title=\"Solution\">\n{}</antArtifact>\n\nIt compares all pairs.",
            parts.program()
        )
    }),
    ("a file written by a shell", |parts| {
        format!(
            "```bash\ncat > solution.py << 'EOF'\n{}EOF\npython3 solution.py\n```",
            parts.program()
        )
    }),
    ("a search and a replacement", |parts| {
        format!(
            "solution.py\n```python\n<<<<<<< SEARCH\n=======\n{}>>>>>>> REPLACE\n```",
            parts.program()
        )
    }),
    ("a file's name before a fence", |parts| {
        format!(
            "**solution.py**\n\n{}\n\nRun it with `python solution.py`.",
            fenced(parts)
        )
    }),
    ("a file's name in the info string", |parts| {
        format!("```python:src/solution.py\n{}```", parts.program())
    }),
    ("a file's name as the info string", |parts| {
        format!("```solution.py\n{}```", parts.program())
    }),
    ("a file's first lines", |parts| {
        format!(
            "```python\n#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# solution.py\n{}```",
            parts.program()
        )
    }),
    ("cells of a script", |parts| {
        format!("# %%\n{}\n# %% [markdown]\n# Complexity: quadratic.\n", parts.program())
    }),
    ("a notebook", |parts| {
        let lines: Vec<String> = parts.program().split_inclusive('\n').map(str::to_owned).collect();
        json!({"cells": [{"cell_type": "markdown", "source": ["# Solution"]}, {"cell_type": "code", "source": lines}],
            "nbformat": 4})
        .to_string()
    }),
    ("a block of YAML", |parts| {
        format!(
            "```yaml\nlanguage: python\ncode: |\n{}\n```",
            indented(&parts.program(), "  ")
        )
    }),
    ("code tags", |parts| format!("<code>\n{}</code>", parts.program())),
    ("solution tags around a fence", |parts| {
        format!("<solution>\n{}\n</solution>", fenced(parts))
    }),
    ("python tags", |parts| format!("<python>\n{}</python>", parts.program())),
    ("a section to unfold", |parts| {
        format!(
            "<details>\n<summary>Solution</summary>\n\n{}\n\n</details>",
            fenced(parts)
        )
    }),
    ("bulletin board's tags", |parts| {
        format!("[code=python]\n{}[/code]", parts.program())
    }),
    ("LaTeX's listing", |parts| {
        format!(
            "\\begin{{lstlisting}}[language=Python]\n{}\\end{{lstlisting}}",
            parts.program()
        )
    }),
    ("reStructuredText", |parts| {
        format!(
            "The function:\n\n.. code-block:: python\n\n{}\n\nIt is quadratic.\n",
            indented(&parts.program(), "   ")
        )
    }),
    ("Org's source block", |parts| {
        format!("#+begin_src python\n{}#+end_src\n", parts.program())
    }),
    ("three single quotes as a fence", |parts| {
        format!("'''python\n{}'''", parts.program())
    }),
    ("another language after it", |parts| {
        format!(
            "{}\n\nIn JavaScript:\n\n```javascript\nfunction {}() {{\n  return null;\n}}\n```",
            fenced(parts),
            parts.entry_point
        )
    }),
    ("another language before it", |parts| {
        format!(
            "In C++ one would write:\n\n```cpp\nint main() {{ return 0; }}\n```\n\n{}",
            fenced(parts)
        )
    }),
    ("its output after it", |parts| {
        format!("{}\n\nOutput:\n\n```\nTrue\nFalse\n```", fenced(parts))
    }),
    ("an outline of dots before it", |parts| {
        format!(
            "```python\n{}    ...\n```\n\nFilled in:\n\n{}",
            parts.prompt,
            fenced(parts)
        )
    }),
    ("pseudocode before it", |parts| {
        format!(
            "```text\nfor each pair:\n    compare\n```\n\n```python\n{}```",
            parts.program()
        )
    }),
    ("an instruction template's heading", |parts| {
        format!("### Response:\n{}\n### Instruction:\nNow explain it.\n", fenced(parts))
    }),
    ("the user's next turn made up", |parts| {
        format!("{}\n\nUser: Thank you!\n\nAssistant: You're welcome!", fenced(parts))
    }),
    ("the next turn in ChatML", |parts| {
        format!("{}<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>", parts.program())
    }),
    ("Cohere's thinking", |parts| {
        format!(
            "<|START_THINKING|>Perhaps\n```python\n{}```\nNo.<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
            parts.draft_program(),
            fenced(parts)
        )
    }),
    ("Seed's thinking", |parts| {
        format!(
            "<seed:think>Perhaps\n```python\n{}```\n</seed:think>{}",
            parts.draft_program(),
            fenced(parts)
        )
    }),
    ("thought tags", |parts| {
        format!(
            "<thought>\n```python\n{}```\n</thought>\n\n{}",
            parts.draft_program(),
            fenced(parts)
        )
    }),
    ("no thoughts", |parts| {
        format!("<think>\n\n</think>\n\n{}", fenced(parts))
    }),
    ("thoughts and answer tags around bare code", |parts| {
        format!("<think>Pairs.</think><answer>\n{}</answer>", parts.program())
    }),
    ("escaped underscores", |parts| {
        parts.function().replace('_', "\\_").replace("\\_\\_", "__")
    }),
    ("a string with escapes", |parts| {
        format!("\"{}\"", escaped(&parts.program()))
    }),
    ("a language's name on a line of its own", |parts| {
        format!("python\n{}", parts.program())
    }),
    ("a copy button's words", |parts| {
        format!("python\nCopy code\n{}", parts.program())
    }),
];
