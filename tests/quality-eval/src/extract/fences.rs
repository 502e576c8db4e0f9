//! Blocks of code in Markdown (CommonMark 0.31, section 4.5, and what models make of it).

use serde::Serialize;

/// A block of code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Block {
    /// The language that its fence names, in lower case; empty without one.
    pub(crate) tag: String,
    pub(crate) text: String,
}

impl Block {
    pub(super) fn unfenced(text: impl Into<String>) -> Self {
        Self {
            tag: String::new(),
            text: text.into(),
        }
    }
}

/// The strictness with which a fence is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A fence that is indented further than the opening one, or is in a docstring, is part of the code.
    Strict,
    /// Every fence ends a block.
    Lenient,
    /// As strict, but the reply begins inside of a block: its opening fence was part of the prompt, or is lost.
    Continued,
}

struct Open {
    mark: char,
    length: usize,
    /// The bytes of blanks before it. A fence in a list is indented, and so is all that is in it.
    indent: usize,
    block: Block,
}

impl Open {
    fn new(mark: char, length: usize, indent: usize, info: &str) -> Self {
        let (tag, code) = info_string(info);
        let text = code.map(|code| format!("{code}\n")).unwrap_or_default();
        let block = Block { tag, text };
        Self {
            mark,
            length,
            indent,
            block,
        }
    }

    fn push(&mut self, line: &str) {
        let code = line
            .get(..self.indent)
            .filter(|start| start.trim().is_empty())
            .map_or(line, |start| &line[start.len()..]);
        self.block.text.push_str(code);
        self.block.text.push('\n');
    }

    fn is_in_docstring(&self) -> bool {
        ["\"\"\"", "'''"]
            .iter()
            .any(|quotes| self.block.text.matches(quotes).count() % 2 == 1)
    }

    /// The effect of a line on the block.
    fn meets(&self, line: &str, reading: Reading) -> Line {
        let trimmed = line.trim();
        let is_protected = reading != Reading::Lenient && self.is_in_docstring();
        let run = run_length(trimmed, self.mark);
        if run >= self.length && !is_protected {
            let indent = line.len() - line.trim_start().len();
            let rest = trimmed[run..].trim_start();
            let is_inside = reading != Reading::Lenient && indent > self.indent;
            if rest.is_empty() && !is_inside {
                return Line::Closes;
            }
            if run == self.length && !rest.is_empty() && (is_python(rest) || reading == Reading::Lenient) {
                return if is_python(rest) { Line::Reopens } else { Line::Closes };
            }
        }
        let content = trimmed.trim_end_matches(self.mark);
        let is_fence_at_end = trimmed.len() - content.len() >= self.length && run == 0;
        if is_fence_at_end && !is_protected && !content.contains("```") {
            return Line::ClosesAfterCode;
        }
        Line::Code
    }
}

enum Line {
    Code,
    Closes,
    /// The closing fence is at the end of the last line of code.
    ClosesAfterCode,
    /// A fence with a language: the one before it was not closed.
    Reopens,
}

/// The blocks of a text; the last may be open.
pub(super) fn blocks(text: &str, reading: Reading) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open = (reading == Reading::Continued).then(|| Open::new('`', 3, 0, ""));
    for line in text.lines() {
        let Some(current) = &mut open else {
            match opening(line) {
                Some(Opening::Block(opened)) => open = Some(opened),
                Some(Opening::Whole(block)) => blocks.push(block),
                None => {}
            }
            continue;
        };
        match current.meets(line, reading) {
            Line::Code => current.push(line),
            Line::ClosesAfterCode => {
                current.push(line.trim_end().trim_end_matches(current.mark));
                blocks.extend(open.take().map(|open| open.block));
            }
            Line::Closes => blocks.extend(open.take().map(|open| open.block)),
            Line::Reopens => {
                blocks.extend(open.take().map(|open| open.block));
                if let Some(Opening::Block(opened)) = opening(line) {
                    open = Some(opened);
                }
            }
        }
    }
    blocks.extend(open.map(|open| open.block));
    blocks.retain(|block| !block.text.trim().is_empty());
    blocks
}

/// The text outside of blocks.
pub(super) fn outside(text: &str) -> String {
    let mut outside = String::new();
    let mut open: Option<Open> = None;
    for line in text.lines() {
        match &mut open {
            Some(current) => match current.meets(line, Reading::Strict) {
                Line::Code => current.push(line),
                Line::Closes | Line::ClosesAfterCode => open = None,
                Line::Reopens => {}
            },
            None => match opening(line) {
                Some(Opening::Block(opened)) => open = Some(opened),
                Some(Opening::Whole(_)) => {}
                None => {
                    outside.push_str(line);
                    outside.push('\n');
                }
            },
        }
    }
    outside
}

enum Opening {
    Block(Open),
    /// A block that opens and closes in its line.
    Whole(Block),
}

/// The block that a line opens, also after words (`Here it is: ```python`).
fn opening(line: &str) -> Option<Opening> {
    // Some models write a docstring's quotes for backticks; only a language name distinguishes them from a docstring.
    let is_language = |info: &&str| is_python(info) && !info.trim().contains(char::is_whitespace);
    if let Some(info) = line.strip_prefix("'''").filter(is_language) {
        return Some(Opening::Block(Open::new('\'', 3, 0, info)));
    }
    let at = [line.find("```"), line.find("~~~")].into_iter().flatten().min()?;
    let before = &line[..at];
    let mark = line[at..].chars().next()?;
    let length = run_length(&line[at..], mark);
    let info = &line[at + length..];
    if mark == '~' && !before.trim().is_empty() {
        return None;
    }
    if mark == '`'
        && let Some((code, _)) = info.split_once("```")
    {
        let (tag, rest) = info_string(code);
        let text = rest.unwrap_or(if is_python(code) { "" } else { code });
        return Some(Opening::Whole(Block {
            tag,
            text: format!("{text}\n"),
        }));
    }
    // A list's mark counts as indentation, for the lines that follow it.
    let indent = if before.trim().is_empty() || is_list_mark(before.trim()) {
        at
    } else {
        before.len() - before.trim_start().len()
    };
    Some(Opening::Block(Open::new(mark, length, indent, info)))
}

/// `-`, `*`, `+`, `1.` or `1)`
fn is_list_mark(text: &str) -> bool {
    let number = text.trim_end_matches(['.', ')']);
    matches!(text, "-" | "*" | "+")
        || number.len() + 1 == text.len() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn run_length(text: &str, mark: char) -> usize {
    text.chars().take_while(|each| *each == mark).count()
}

/// The language of an info string (`python`, `{.python}`, `py title="a.py"`), and code after it on the same line.
fn info_string(info: &str) -> (String, Option<&str>) {
    let info = info.trim();
    let (first, rest) = info.split_once(char::is_whitespace).unwrap_or((info, ""));
    if starts_code(info) {
        return (String::new(), Some(info));
    }
    let tag = first
        .trim_start_matches(['{', '.'])
        .trim_end_matches(['}', ':'])
        .to_lowercase();
    (tag, Some(rest.trim()).filter(|rest| starts_code(rest)))
}

fn starts_code(text: &str) -> bool {
    ["from ", "import ", "def ", "class ", "@", "# ", "return "]
        .iter()
        .any(|start| text.starts_with(start))
}

fn is_python(info: &str) -> bool {
    let tag = info_string(info).0;
    ["python", "py", "python3", "python2", "ipython"].contains(&tag.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, reading: Reading) -> Vec<String> {
        blocks(text, reading).into_iter().map(|block| block.text).collect()
    }

    #[test]
    fn fences_are_those_of_commonmark() {
        // Examples 119, 121, 122, 124, 126, 131 and 142 of CommonMark 0.31.
        assert_eq!(texts("```\n<\n >\n```", Reading::Strict), ["<\n >\n"]);
        assert_eq!(texts("```\naaa\n~~~\n```", Reading::Strict), ["aaa\n~~~\n"]);
        assert_eq!(texts("~~~\naaa\n```\n~~~", Reading::Strict), ["aaa\n```\n"]);
        assert_eq!(texts("````\naaa\n```\n``````", Reading::Strict), ["aaa\n```\n"]);
        assert_eq!(texts("```", Reading::Strict), Vec::<String>::new());
        assert_eq!(texts(" ```\n aaa\naaa\n```", Reading::Strict), ["aaa\naaa\n"]);
        let ruby = blocks("```ruby\ndef foo(x)\n  return 3\nend\n```", Reading::Strict);
        assert_eq!(
            (&*ruby[0].tag, &*ruby[0].text),
            ("ruby", "def foo(x)\n  return 3\nend\n")
        );
    }

    #[test]
    fn fences_are_found_where_models_put_them() {
        let whole = |text: &str| texts(text, Reading::Strict);
        assert_eq!(whole("Here: ```python\nx\n```"), ["x\n"]);
        assert_eq!(whole("```python from a import b\nx\n```"), ["from a import b\nx\n"]);
        assert_eq!(whole("1. ```py\n   x\n   ```"), ["x\n"]);
        assert_eq!(whole("```python\nx = 1```\nDone"), ["x = 1\n"]);
        assert_eq!(whole("```python\nx\n```python\ny\n```"), ["x\n", "y\n"]);
        assert_eq!(whole("```python x = 1```"), Vec::<String>::new());
        assert_eq!(whole("```python import a```"), ["import a\n"]);
        let docstring = "```\ndef f():\n  \"\"\"\n```\na\n```\n  \"\"\"\n```\n";
        assert_eq!(whole(docstring), ["def f():\n  \"\"\"\n```\na\n```\n  \"\"\"\n"]);
        assert_eq!(whole("'''python\nx\n'''\nDone"), ["x\n"]);
        assert_eq!(whole("'''Python is nice.\nx\n'''"), Vec::<String>::new());
        assert_eq!(texts("x\n```\nDone", Reading::Continued)[0], "x\n");
        assert_eq!(texts("```\nx\n    ```\ny\n```", Reading::Lenient)[0], "x\n");
        assert_eq!(outside("a\n```\nb\n```\nc"), "a\nc\n");
    }
}
