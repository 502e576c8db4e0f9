//! Code without fences, alone or among words, and programs that do more than was asked.

use super::{Style, indented};

pub(crate) const STYLES: &[Style] = &[
    ("the whole program", |parts| parts.program()),
    ("the function alone", |parts| parts.function()),
    ("the body", |parts| parts.body.clone()),
    ("the body without its first blanks", |parts| {
        parts.body.trim_start().to_owned()
    }),
    ("the body at the margin", |parts| {
        let lines = parts.body.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }),
    ("the body in a fence", |parts| format!("```python\n{}```", parts.body)),
    ("words before", |parts| {
        format!("Here is the solution:\n\n{}", parts.program())
    }),
    ("words after", |parts| {
        format!("{}\nThis function does it. For example, it works.", parts.program())
    }),
    ("words around the body", |parts| {
        format!("Here is the body:\n\n{}\n\nHope it helps!", parts.body.trim_end())
    }),
    ("lists before and after", |parts| {
        format!(
            "* Read the input\n* Compute\n\n{}\n* Complexity: O(n)\n* Note: fine",
            parts.program()
        )
    }),
    ("an indented block", |parts| {
        format!(
            "Here is the code:\n\n{}\n\nIt works.",
            indented(&parts.program(), "    ")
        )
    }),
    ("indented all over", |parts| indented(&parts.program(), "    ")),
    ("a tail cut in the next function", |parts| {
        format!("{}\n\ndef another(x):\n    if x ==", parts.program())
    }),
    ("a tail cut in the next function's docstring", |parts| {
        format!("```python\n{}\n\ndef another(x):\n    \"\"\"It does", parts.program())
    }),
    ("a body and a tail cut in the next function", |parts| {
        format!("{}\n\ndef another(x):\n    return [x for", parts.body)
    }),
    ("a body and a main program", |parts| {
        format!("{}\n\nif __name__ == \"__main__\":\n    print(input())\n", parts.body)
    }),
    ("the prompt twice", |parts| {
        format!("{}\n{}", parts.prompt, parts.program())
    }),
    ("defined twice", |parts| {
        format!("```python\n{}\n\n{}```", parts.draft_program(), parts.program())
    }),
    ("future annotations", |parts| {
        format!(
            "```python\nfrom __future__ import annotations\n\n{}```",
            parts.program()
        )
    }),
    ("future annotations with the function alone", |parts| {
        format!("from __future__ import annotations\n\n\n{}", parts.function())
    }),
    ("a class Solution", |parts| {
        let method = parts
            .function()
            .replacen('(', "(self, ", 1)
            .replace("(self, )", "(self)");
        // Where it calls itself, the method is not the function.
        if parts.body.contains(&format!("{}(", parts.entry_point)) {
            return parts.program();
        }
        format!(
            "```python\n{}class Solution:\n{}\n```",
            parts.head(),
            indented(&method, "    ")
        )
    }),
    ("a static method", |parts| {
        if parts.body.contains(&format!("{}(", parts.entry_point)) {
            return parts.program();
        }
        let method = indented(&parts.function(), "    ");
        format!("{}class Solution:\n    @staticmethod\n{method}\n", parts.head())
    }),
    ("a failing demonstration", |parts| {
        format!(
            "```python\n{}\n\nassert {}() == 'no such answer'\n```",
            parts.program(),
            parts.entry_point
        )
    }),
    ("a question to the user", |parts| {
        format!(
            "```python\n{}\n\nx = input(\"Enter: \")\nprint({}(x))\n```",
            parts.program(),
            parts.entry_point
        )
    }),
    ("unit tests that run", |parts| {
        format!(
            "```python\n{}\n\nimport unittest\n\nclass Test(unittest.TestCase):\n    def test(self):\n        self.assertTrue(False)\n\nunittest.main()\n```",
            parts.program()
        )
    }),
    ("much output", |parts| {
        format!("```python\n{}\nprint(\"x\" * 1000000)\n```", parts.program())
    }),
    ("a program that leaves", |parts| {
        format!(
            "```python\n{}\n\nimport sys\n\ndef main():\n    return 3\n\nsys.exit(main())\n```",
            parts.program()
        )
    }),
    ("an alias", |parts| {
        let inner = parts.program().replace(&format!("{}(", parts.entry_point), "solve_it(");
        format!("```python\n{inner}\n\n{} = solve_it\n```", parts.entry_point)
    }),
    ("a decorator", |parts| {
        format!(
            "```python\nimport functools\n\ndef traced(function):\n    @functools.wraps(function)\n    def inner(*args):\n        return function(*args)\n    return inner\n\n{}@traced\n{}```",
            parts.head(),
            parts.function()
        )
    }),
    ("a module that is missing and not needed", |parts| {
        format!("```python\nimport no_such_module_anywhere\n{}```", parts.program())
    }),
];
