//! Blocks of Markdown, and what else encloses code.

use super::{Parts, Style, indented};

pub(crate) const STYLES: &[Style] = &[
    ("a block of python", |parts| {
        format!("```python\n{}```", parts.program())
    }),
    ("a block of py", |parts| {
        format!("Sure!\n\n```py\n{}```\n", parts.program())
    }),
    ("a block of Python3", |parts| {
        format!("```Python3\n{}```", parts.program())
    }),
    ("a block without a language", |parts| {
        format!("Here it is:\n```\n{}```\nDone.", parts.program())
    }),
    ("attributes in braces", |parts| {
        format!("```{{.python .numberLines}}\n{}```", parts.program())
    }),
    ("a title in the info string", |parts| {
        format!("```python title=\"solution.py\"\n{}```", parts.program())
    }),
    ("tildes", |parts| format!("~~~python\n{}~~~\nok", parts.program())),
    ("four backticks around three", |parts| {
        format!(
            "````python\n{}\n# ```\n# an example\n# ```\n````\nThat is all.",
            parts.program()
        )
    }),
    ("a longer closing fence", |parts| {
        format!("```python\n{}`````\nThanks", parts.program())
    }),
    ("an open fence", |parts| {
        format!("Sure.\n```python\n{}", parts.program())
    }),
    ("a closing fence only", |parts| {
        format!("{}```\n\nThis is the function.", parts.program())
    }),
    ("a body and a closing fence", |parts| format!("{}```\n", parts.body)),
    ("a body, a closing fence, and an example", |parts| {
        format!(
            "{}```\n\nExample:\n\n```python\nprint({}.__name__)\n```\n",
            parts.body, parts.entry_point
        )
    }),
    ("a fence after words", |parts| {
        format!("Here is the code: ```python\n{}```", parts.program())
    }),
    ("code on the fence's line", |parts| {
        format!("```python import math\n{}```", parts.program())
    }),
    ("a closing fence after code", |parts| {
        format!("```python\n{}```", parts.program().trim_end())
    }),
    ("a fence in a list", |parts| {
        format!(
            "1. Think.\n2. Write:\n\n   ```python\n{}\n   ```\n3. Done.",
            indented(&parts.program(), "   ")
        )
    }),
    ("a fence on a list's line", |parts| {
        format!(
            "- Explanation\n- ```python\n{}\n  ```\n",
            indented(&parts.program(), "  ")
        )
    }),
    ("a quotation", |parts| {
        let lines = indented(&parts.program(), "> ")
            .replace("\n\n", "\n>\n")
            .replace("\n\n", "\n>\n");
        format!("> ```python\n{lines}\n> ```\n")
    }),
    ("fences in a docstring", |parts| {
        format!(
            "```python\n{}{}\n    \"\"\"Answers.\n\n    ```\n    {}(...)\n    ```\n    \"\"\"\n{}```",
            parts.head(),
            parts.signature(),
            parts.entry_point,
            body_with_inner_imports(parts)
        )
    }),
    ("fences at the margin in a docstring", |parts| {
        format!(
            "```python\n{}{}\n    \"\"\"Answers.\n```\n{}(...)\n```\n    \"\"\"\n{}```\nDone.",
            parts.head(),
            parts.signature(),
            parts.entry_point,
            body_with_inner_imports(parts)
        )
    }),
    ("imports in a block of their own", |parts| {
        format!(
            "First the imports:\n```python\nimport math\nfrom typing import *\n```\nThen the function:\n```python\n{}```",
            parts.program()
        )
    }),
    ("a body that needs imports from another block", |parts| {
        format!(
            "```python\nimport math\n```\nand\n```python\n    _ = math.pi\n{}```",
            parts.body
        )
    }),
    ("a helper in a block of its own", |parts| {
        format!(
            "A helper:\n```python\ndef identity(value):\n    return value\n```\nThe function:\n```python\n{}    identity(0)\n{}```",
            parts.prompt, parts.body
        )
    }),
    ("a helper in a later block", |parts| {
        format!(
            "```python\n{}    identity(0)\n{}```\nIt uses this:\n```python\ndef identity(value):\n    return value\n```",
            parts.prompt, parts.body
        )
    }),
    ("an example before", |parts| {
        format!(
            "Usage:\n```python\nprint({}())\n```\nCode:\n```python\n{}```",
            parts.entry_point,
            parts.program()
        )
    }),
    ("an example after", |parts| {
        format!(
            "```python\n{}```\nUsage:\n```python\nprint({}())\n```",
            parts.program(),
            parts.entry_point
        )
    }),
    ("shell commands before", |parts| {
        format!(
            "```bash\npip install numpy\n```\n```python\n{}```\n```\nTrue\nFalse\n```",
            parts.program()
        )
    }),
    ("a corrected attempt", |parts| {
        format!(
            "First attempt:\n```python\n{}```\nThat has a mistake. Corrected:\n```python\n{}```",
            parts.draft_program(),
            parts.program()
        )
    }),
    ("a signature, then the function", |parts| {
        format!(
            "```python\n{}    ...\n```\nFilled in:\n```python\n{}```",
            parts.prompt,
            parts.program()
        )
    }),
    ("the prompt and the body in two blocks", |parts| {
        format!(
            "The prompt:\n```python\n{}```\nThe body:\n```python\n{}```",
            parts.prompt, parts.body
        )
    }),
    ("a forgotten closing fence", |parts| {
        format!("```python\nimport math\n```python\n{}```", parts.program())
    }),
    ("HTML", |parts| {
        let escaped = parts
            .program()
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        format!("<p>Here:</p>\n<pre><code class=\"language-python\">{escaped}</code></pre>")
    }),
    ("single backticks", |parts| format!("`{}`", parts.program().trim())),
    ("answer tags", |parts| {
        format!("<answer>\n```python\n{}```\n</answer>", parts.program())
    }),
    ("answer tags without a fence", |parts| {
        format!("<answer>{}</answer>", parts.program())
    }),
    ("PYTHON tags", |parts| {
        format!("[PYTHON]\n{}[/PYTHON]\n", parts.program())
    }),
];

/// The body, after what the prompt imports inside of its function.
fn body_with_inner_imports(parts: &Parts) -> String {
    let imports = parts.prompt[parts.head().len()..]
        .lines()
        .skip(1)
        .take_while(|line| line.trim_start().starts_with("import "));
    let imports: Vec<&str> = imports.collect();
    let imports = if imports.is_empty() {
        String::new()
    } else {
        imports.join("\n") + "\n"
    };
    format!("{imports}{}", parts.body)
}
