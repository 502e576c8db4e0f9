//! Text that servers, editors, pages and chat windows have changed on its way.

use super::Style;

pub(crate) const STYLES: &[Style] = &[
    ("CRLF", |parts| parts.program().replace('\n', "\r\n")),
    ("CRLF in a fence", |parts| {
        format!("Sure\n```python\n{}```\nok", parts.program()).replace('\n', "\r\n")
    }),
    ("CR alone", |parts| parts.program().replace('\n', "\r")),
    ("tabs", |parts| parts.program().replace("    ", "\t")),
    ("tabs in the body alone", |parts| parts.body.replace("    ", "\t")),
    ("tabs in the fenced body", |parts| {
        format!("```python\n{}```", parts.body.replace("    ", "\t"))
    }),
    ("two blanks a step", |parts| {
        let lines = parts.body.lines().map(|line| {
            let code = line.trim_start();
            format!("{}{code}", " ".repeat((line.len() - code.len()) / 2))
        });
        format!("{}\n", lines.collect::<Vec<_>>().join("\n"))
    }),
    ("no-break spaces", |parts| {
        format!(
            "```python\n{}```",
            parts.program().replace("    ", "\u{a0}\u{a0}\u{a0}\u{a0}")
        )
    }),
    ("a byte order mark", |parts| {
        format!("\u{feff}```python\n\u{feff}{}```", parts.program())
    }),
    ("a byte order mark before bare code", |parts| {
        format!("\u{feff}{}", parts.program())
    }),
    ("zero-width spaces", |parts| {
        format!("```python\n{}```", parts.program().replace('\n', "\u{200b}\n"))
    }),
    ("typographic quotes around the docstring", |parts| {
        let body = parts.program().replace("\"\"\"", "“““");
        format!("```python\n{body}```")
    }),
    ("HTML's escapes", |parts| {
        let escaped = parts
            .program()
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        format!("```python\n{}```", escaped.replace('"', "&quot;"))
    }),
    ("a session", |parts| {
        let lines = parts.program().trim_end().replace('\n', "\n... ");
        format!("```python\n>>> {lines}\n```")
    }),
    ("a patch", |parts| {
        format!(
            "```diff\n@@ -0,0 +1 @@\n+{}\n```",
            parts.program().trim_end().replace('\n', "\n+")
        )
    }),
    ("line numbers", |parts| {
        let program = parts.program();
        let lines = program.trim_end().lines().zip(1..);
        let lines: Vec<String> = lines.map(|(line, number)| format!("{number:>3} | {line}")).collect();
        format!("```python\n{}\n```", lines.join("\n"))
    }),
    ("JSON", |parts| {
        serde_json::json!({"language": "python", "code": parts.program()}).to_string()
    }),
    ("JSON in a fence", |parts| {
        format!(
            "```json\n{}\n```",
            serde_json::json!({"explanation": "As asked.", "code": parts.program()})
        )
    }),
    ("blank lines at the beginning", |parts| format!("\n\n\n{}", parts.body)),
];
