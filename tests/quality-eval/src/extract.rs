//! Code from a model's reply: out of fences and prose, whole or as what goes on after a prompt, however it is indented.
//!
//! One reply can often be read in several ways; all of them are given, in order, and the first that is Python counts.
//! Only Python can say which, and that is asked in the sandbox.

use crate::dataset::Problem;

/// The programs that a reply may mean, the likeliest first; none if there is nothing in it.
pub(crate) fn programs(reply: &str, problem: &Problem) -> Vec<String> {
    let reply = without_thoughts(reply).replace("\r\n", "\n");
    let mut programs = Vec::new();
    let mut offer = |program: String| {
        if !programs.contains(&program) {
            programs.push(program);
        }
    };
    let blocks = fenced(&reply);
    let entry_point = problem.entry_point.as_deref();
    let defining = blocks.iter().filter(|block| defines(block, entry_point));
    let others = blocks.iter().filter(|block| !defines(block, entry_point));
    let has_fence = reply.contains("```") || reply.contains("~~~");
    let unfenced = (!has_fence && reply.lines().any(is_code)).then_some(&reply);
    for text in defining.chain(others).chain(unfenced) {
        // A tab is a step further in, or goes to the next eighth column.
        for code in [text.clone(), text.replace('\t', "    "), text.replace('\t', "        ")] {
            if defines(&code, entry_point) || !problem.is_code {
                let wholes = [Some(code.clone()), without_prose(&code), dedented(&code)];
                for code in wholes.into_iter().flatten() {
                    offer(whole_program(&code, problem));
                }
            }
            if problem.is_code {
                let bodies = [
                    Some(code.clone()),
                    indented(&code),
                    first_line_indented(&code),
                    without_prose(&code),
                ];
                for body in bodies.into_iter().flatten() {
                    offer(format!("{}{body}", problem.prompt));
                }
            }
        }
    }
    // Several blocks may be one program in parts.
    if blocks.len() > 1 {
        offer(whole_program(&blocks.join("\n\n"), problem));
    }
    programs
}

/// A model's thoughts, which are not its answer.
fn without_thoughts(reply: &str) -> &str {
    match reply.rfind("</think>") {
        Some(end) => &reply[end + "</think>".len()..],
        None => reply,
    }
}

/// What stands between fences of three or more backticks or tildes; the last may be open.
fn fenced(reply: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize, Vec<&str>)> = None;
    for line in reply.lines() {
        let trimmed = line.trim_start();
        let mark = trimmed.chars().next().filter(|mark| "`~".contains(*mark));
        let length = mark.map_or(0, |mark| trimmed.chars().take_while(|each| *each == mark).count());
        match (&mut open, mark) {
            (None, Some(mark)) if length >= 3 => {
                let inset = line.len() - trimmed.len();
                open = Some((mark.to_string().repeat(length), inset, Vec::new()));
            }
            (Some((fence, ..)), _) if trimmed.trim_end() == fence => {
                blocks.extend(open.take().map(joined));
            }
            // A fence in a list is inset, and so is all that is in it.
            (Some((_, inset, lines)), _) => lines.push(
                line.get(..*inset)
                    .filter(|start| start.trim().is_empty())
                    .map_or(line, |start| &line[start.len()..]),
            ),
            (None, _) => {}
        }
    }
    blocks.extend(open.take().map(joined));
    blocks.retain(|block| !block.trim().is_empty());
    blocks
}

fn joined((_, _, lines): (String, usize, Vec<&str>)) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Whether there is a definition of the function that is asked for.
fn defines(code: &str, entry_point: Option<&str>) -> bool {
    code.lines().any(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        let named = line
            .strip_prefix("def ")
            .map(|rest| rest.split('(').next().unwrap_or_default().trim());
        match entry_point {
            Some(name) => named == Some(name),
            None => named.is_some(),
        }
    })
}

/// A whole function, after what the prompt has before its own: imports, and functions that it may call.
fn whole_program(code: &str, problem: &Problem) -> String {
    if !problem.is_code {
        return code.to_owned();
    }
    let head = format!("def {}", problem.entry_point.as_deref().unwrap_or_default());
    let at = problem.prompt.find(&head).unwrap_or(0);
    format!("{}{code}", &problem.prompt[..at])
}

/// From the first line of code to the last, where words stand before or after.
fn without_prose(code: &str) -> Option<String> {
    let lines: Vec<&str> = code.lines().collect();
    let first = lines.iter().position(|line| begins_code(line))?;
    let mut kept = Vec::new();
    let mut is_in_text = false;
    for line in &lines[first..] {
        let is_inset = line.starts_with([' ', '\t']) || line.trim().is_empty() || line.starts_with([')', ']', '}']);
        if !is_inset && !is_in_text && !begins_code(line) {
            break;
        }
        is_in_text ^= line.matches("\"\"\"").count() % 2 == 1;
        kept.push(*line);
    }
    (kept.len() < lines.len()).then(|| format!("{}\n", kept.join("\n")))
}

/// Whether a line, wherever it begins, is a statement and not words.
fn is_code(line: &str) -> bool {
    let line = line.trim();
    let first = line.split([' ', '(', ':']).next().unwrap_or_default();
    match first {
        "def" | "class" | "for" | "while" | "if" | "elif" | "else" | "with" | "try" | "except" | "async" => {
            line.contains(':')
        }
        "import" | "return" | "raise" | "pass" | "yield" | "assert" | "break" | "continue" => {
            !line.ends_with(['.', '!', '?'])
        }
        "from" => line.contains(" import "),
        _ => {
            is_assignment(line)
                || (line.ends_with(')') && first.len() < line.len() && line[first.len()..].starts_with('('))
        }
    }
}

/// `name = …`, `name: type = …`, `name[…] = …`
fn is_assignment(line: &str) -> bool {
    let name = line
        .split([' ', '=', ':', '[', '.', '+', '-', ','])
        .next()
        .unwrap_or_default();
    let is_name = !name.is_empty() && name.chars().all(|each| each.is_alphanumeric() || each == '_');
    let rest = line.get(name.len()..).unwrap_or_default();
    let is_next = rest.trim_start().starts_with(['=', '[', ':', '.', '+', '-', ',']);
    is_name && is_next && rest.contains('=')
}

/// Whether a line at the margin can be code.
fn begins_code(line: &str) -> bool {
    let is_indented = line.starts_with([' ', '\t']) && !line.trim().is_empty();
    is_indented || line.starts_with(['@', '#']) || is_code(line)
}

/// Everything one step further in, as the body of a function.
fn indented(code: &str) -> Option<String> {
    let first = code.lines().find(|line| !line.trim().is_empty())?;
    (!first.starts_with([' ', '\t'])).then(|| {
        let lines = code.lines().map(|line| {
            if line.trim().is_empty() {
                String::new()
            } else {
                format!("    {line}")
            }
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    })
}

/// Only the first line further in: a server has taken the blanks at the beginning away.
fn first_line_indented(code: &str) -> Option<String> {
    let code = code.trim_start_matches('\n');
    (!code.starts_with([' ', '\t']) && code.lines().count() > 1).then(|| format!("    {code}"))
}

/// All of it as far out as its first line is.
fn dedented(code: &str) -> Option<String> {
    let first = code.lines().find(|line| !line.trim().is_empty())?;
    let inset = first.len() - first.trim_start().len();
    (inset > 0).then(|| {
        let lines = code.lines().map(|line| match line.get(..inset) {
            Some(blank) if blank.trim().is_empty() => &line[inset..],
            _ => line.trim_start(),
        });
        lines.collect::<Vec<_>>().join("\n") + "\n"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Tests;
    use std::io::Write;
    use std::process::{Command, Stdio};

    const PROMPT: &str =
        "import math\n\n\ndef helper(x):\n    return x\n\n\ndef add(a, b):\n    \"\"\" Adds.\n    \"\"\"\n";

    fn problem() -> Problem {
        Problem {
            task_id: "t".to_owned(),
            prompt: PROMPT.to_owned(),
            is_code: true,
            entry_point: Some("add".to_owned()),
            canonical: String::new(),
            setup: String::new(),
            tests: Tests::Script { code: String::new() },
        }
    }

    /// What the first program that is Python answers to `add(1, 2)`, as the sandbox would choose it.
    fn answers(reply: &str) -> String {
        const CHOOSE: &str = "import ast, json, sys\nfor program in json.load(sys.stdin):\n    try: code = compile(program, 'p', 'exec')\n    except SyntaxError: continue\n    if not any(getattr(node, 'name', '') == 'add' for node in ast.parse(program).body): continue\n    names = {'__name__': 'p'}\n    exec(code, names)\n    print(names['add'](1, 2)); break\nelse: print('none')";
        let programs = serde_json::to_vec(&programs(reply, &problem())).expect("JSON");
        let mut python = Command::new("python3")
            .args(["-I", "-c", CHOOSE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        python
            .stdin
            .take()
            .expect("piped")
            .write_all(&programs)
            .expect("written");
        let output = python.wait_with_output().expect("ended");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn code_is_found_however_a_model_wraps_it() {
        let whole = "def add(a, b):\n    if a:\n        a = a + 0\n    return helper(a) + b\n";
        let replies = [
            whole.to_owned(),
            format!("{PROMPT}    return a + b\n"),
            format!("Sure! Here is it:\n\n```python\n{whole}```\nIt adds.\n"),
            format!("```\n{whole}"),
            format!("~~~py\n{whole}~~~"),
            format!(
                "1. So:\n   ```python\n   {}\n   ```\n",
                whole.trim_end().replace('\n', "\n   ")
            ),
            format!("Example:\n```python\nprint(add(1, 2))\n```\nAnswer:\n```python\n{whole}```\n"),
            format!("Here is the function:\n\n{whole}\nThis function adds two numbers. Enjoy!"),
            format!("<think>def add(a, b): return 7</think>\n```python\n{whole}```"),
            "    return a + b\n".to_owned(),
            "\treturn a + b\n".to_owned(),
            "    if a:\n\treturn a + b\n    return b\n".to_owned(),
            "return a + b".to_owned(),
            "c = a\nreturn c + b".to_owned(),
            "c = a\n    return c + b".to_owned(),
            "```python\n    return a + b\n```".to_owned(),
            "```python\nreturn a + b\n```".to_owned(),
            "for x in [a]:\n    return x + b".to_owned(),
            "for x in [a]:\n        return x + b".to_owned(),
            "    return a + b\n\nThis adds the numbers, as asked.\n".to_owned(),
            format!("    {}", whole.replace('\n', "\n    ")),
            whole.replace("    ", "\t"),
            whole.replace('\n', "\r\n"),
            format!("```python\ndef other():\n    return 1\n```\nand\n```python\n{whole}```"),
            format!("{whole}\nif __name__ == \"__main__\":\n    print(add(input(), 1))\n"),
            "from math import *\n\ndef add(a, b):\n    return a + b\n\nThe code above works.".to_owned(),
        ];
        for reply in replies {
            assert_eq!(
                answers(&reply),
                "3",
                "{reply:?} gives {:?}",
                programs(&reply, &problem())
            );
        }
    }

    #[test]
    fn nothing_is_made_of_nothing_and_broken_code_stays_broken() {
        assert!(programs("", &problem()).is_empty());
        assert!(programs("```python\n```", &problem()).is_empty());
        assert!(programs("<think>I wonder</think>\n", &problem()).is_empty());
        for prose in [
            " members however if has up saw sense said church",
            "I am sorry, I cannot help with that. If you want, ask again.",
            "Return the sum of both.",
        ] {
            assert!(programs(prose, &problem()).is_empty(), "{prose}");
        }
        assert_eq!(answers("    c = a\n      return c + b\n"), "none");
    }
}
