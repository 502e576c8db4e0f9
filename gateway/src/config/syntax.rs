//! Where the fault is when a file is not YAML. A parser notices most faults only a line or more later, and in its own words.

/// The line of the fault, from 1, and what is wrong with it, for an error that the parser has noticed at `line`.
pub(super) fn explain(text: &str, line: usize, error: &str) -> (usize, String) {
    let lines: Vec<&str> = text.lines().collect();
    let found = tab(&lines)
        .or_else(|| unclosed_quote(line, error))
        .or_else(|| unclosed_bracket(&lines, line))
        .or_else(|| reserved_beginning(&lines, line))
        .or_else(|| no_colon(&lines, line))
        .or_else(|| second_colon(&lines, line))
        .or_else(|| indentation(&lines, line));
    found.unwrap_or_else(|| {
        let words = error.split(" at byte ").next().unwrap_or(error);
        (line, format!("invalid YAML: {words}"))
    })
}

type Fault = Option<(usize, String)>;

/// A line without its comment, if it is not empty then.
fn content(line: &str) -> Option<&str> {
    let line = line.split(" #").next().unwrap_or(line).trim_end();
    (!line.trim().is_empty() && !line.trim_start().starts_with('#')).then_some(line)
}

/// The last line with content before a line, with its number.
fn before<'a>(lines: &[&'a str], line: usize) -> Option<(usize, &'a str)> {
    let mut earlier = (1..line.min(lines.len() + 1)).rev();
    earlier.find_map(|number| Some((number, content(lines[number - 1])?)))
}

fn at<'a>(lines: &[&'a str], line: usize) -> Option<&'a str> {
    content(lines.get(line.checked_sub(1)?)?)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn tab(lines: &[&str]) -> Fault {
    let has_tab = |line: &&str| line.trim_start_matches(' ').starts_with('\t') && !line.trim().is_empty();
    let at = lines.iter().position(has_tab)?;
    Some((at + 1, "the line is indented by a tab; use spaces".to_owned()))
}

fn unclosed_quote(line: usize, error: &str) -> Fault {
    error
        .contains("quoted scalar")
        .then(|| (line, "the quote is not closed".to_owned()))
}

/// The innermost bracket that is still open where the parser has stopped.
fn unclosed_bracket(lines: &[&str], line: usize) -> Fault {
    let mut open: Vec<(usize, char)> = Vec::new();
    for (number, text) in (1..=line).zip(lines) {
        let mut quote = None;
        for each in content(text).unwrap_or_default().chars() {
            match (quote, each) {
                (None, '"' | '\'') => quote = Some(each),
                (Some(open), _) if open == each => quote = None,
                (None, '[' | '{') => open.push((number, each)),
                (None, ']' | '}') => drop(open.pop()),
                _ => {}
            }
        }
    }
    let (number, bracket) = open.pop()?;
    Some((number, format!("`{bracket}` is not closed")))
}

/// A value that begins with a character that YAML keeps for itself.
fn reserved_beginning(lines: &[&str], line: usize) -> Fault {
    let (key, value) = at(lines, line)?.split_once(": ")?;
    value.trim_start().starts_with(['@', '`', '%']).then(|| {
        let (key, value) = (key.trim(), value.trim());
        (
            line,
            format!(
                "a value that begins with `{}` must be in quotes: write `{key}: \"{value}\"`",
                &value[..1]
            ),
        )
    })
}

/// A key without its colon, before or where the parser has stopped.
fn no_colon(lines: &[&str], line: usize) -> Fault {
    let has_none = |text: &str| {
        let text = text.trim_start();
        !text.contains(": ") && !text.ends_with(':') && !text.starts_with("- ") && !text.starts_with(['"', '\''])
    };
    let here = at(lines, line).map(|text| (line, text));
    let (number, text) = before(lines, line)
        .filter(|(_, text)| has_none(text))
        .or(here.filter(|(_, text)| has_none(text)))?;
    let key = text.split_whitespace().next().unwrap_or_default();
    Some((number, format!("`{}` has no colon; write `{key}: …`", text.trim())))
}

/// A value that has a colon of its own.
fn second_colon(lines: &[&str], line: usize) -> Fault {
    let text = at(lines, line)?;
    let (key, value) = text.split_once(": ")?;
    let is_plain = !value.starts_with(['"', '\'', '[', '{']);
    (is_plain && value.contains(": ")).then(|| {
        let message = format!(
            "a value that contains `: ` must be in quotes: write `{}: \"{value}\"`",
            key.trim()
        );
        (line, message)
    })
}

/// A line that does not begin where its block does.
fn indentation(lines: &[&str], line: usize) -> Fault {
    let (text, (number, above)) = (at(lines, line)?, before(lines, line)?);
    let (here, there) = (indent(text), indent(above));
    (here != there).then(|| {
        let message = format!(
            "the line begins in column {}, and line {number} in column {}: lines of one block begin in the same column",
            here + 1,
            there + 1
        );
        (line, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, String) {
        match marked_yaml::parse_yaml(0, text) {
            Err(marked_yaml::LoadError::ScanError(mark, scan)) => explain(text, mark.line(), &scan.to_string()),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_line_of_the_fault_is_named_and_not_the_one_after() {
        for (text, line, words) in [
            ("a:\n  b 1\n  c: 2\n", 2, "has no colon; write `b: …`"),
            ("a:\n  b\n  c: 2\n", 2, "has no colon"),
            ("a:\n  b: 1\n\tc: 2\n", 3, "by a tab"),
            (
                "a:\n  b: 1\n    c: 2\n",
                3,
                "begins in column 5, and line 2 in column 3",
            ),
            ("a:\n  b: \"1\n  c: 2\n", 2, "quote is not closed"),
            ("a:\n  b: [1, 2\n  c: 2\n", 2, "`[` is not closed"),
            ("a:\n  b: {x: 1\n  c: 2\n", 2, "`{` is not closed"),
            ("a:\n  b: x: y\n", 2, "write `b: \"x: y\"`"),
            ("a:\n  b: @x\n", 2, "write `b: \"@x\"`"),
            (
                "a:\n  # no colon here\n  b 1\n\n  # none here\n  c: 2\n",
                3,
                "`b 1` has no colon",
            ),
        ] {
            let (at, said) = fault(text);
            assert!(at == line && said.contains(words), "{text}: {at}: {said}");
        }
    }
}
