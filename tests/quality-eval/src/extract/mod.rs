//! Code in a model's reply. This part reads the reply as a text: it removes reasoning and finds blocks. A reply can
//! often be read in several ways; all of them are passed in order of preference to `sandbox/program.py`, which has
//! what is Python and assembles the program.

mod fences;
mod reasoning;

pub(crate) use fences::Block;
use fences::Reading;

/// Tags that enclose an answer; each is as good as a line break.
const ENCLOSING: [&str; 9] = [
    "answer",
    "solution",
    "code",
    "python",
    "output",
    "final",
    "PYTHON",
    "ANSWER",
    "tool_call",
];

/// The blocks of a reply, in each way in which it can be read, the likeliest first.
pub(crate) fn readings(reply: &str) -> Vec<Vec<Block>> {
    let reply = reply
        .trim_start_matches('\u{feff}')
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let mut readings: Vec<Vec<Block>> = Vec::new();
    for answer in reasoning::answers(&reply) {
        let plain = without_tags(&answer);
        for text in [&answer, &plain].into_iter().chain(unquoted(&answer).as_ref()) {
            readings.push(fences::blocks(text, Reading::Strict));
            if ["```", "~~~", "'''python"].iter().any(|mark| text.contains(mark)) {
                readings.push(fences::blocks(text, Reading::Continued));
                readings.push(fences::blocks(text, Reading::Lenient));
                readings.push(vec![Block::unfenced(fences::outside(text))]);
            } else {
                readings.push(vec![Block::unfenced(text.trim_matches('\n'))]);
            }
        }
        readings.push(html_code(&answer));
        readings.push(between_backticks(&answer));
    }
    let mut kept: Vec<Vec<Block>> = Vec::new();
    for mut blocks in readings {
        blocks.retain(|block| !block.text.trim().is_empty());
        if !blocks.is_empty() && !kept.contains(&blocks) {
            kept.push(blocks);
        }
    }
    kept
}

/// The text with a line break for each tag that encloses an answer.
fn without_tags(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ENCLOSING {
        for tag in [
            format!("<{name}>"),
            format!("</{name}>"),
            format!("[{name}]"),
            format!("[/{name}]"),
        ] {
            text = text.replace(&tag, "\n");
        }
    }
    text
}

/// The text without the marks of a quotation, where fences are quoted.
fn unquoted(text: &str) -> Option<String> {
    let is_quoted = |line: &str| line.starts_with('>') && !line.starts_with(">>>");
    let has_quoted_fence = |line: &str| is_quoted(line) && line.trim_start_matches(['>', ' ']).starts_with("```");
    text.lines().any(has_quoted_fence).then(|| {
        let lines = text.lines().map(|line| match line.strip_prefix('>') {
            Some(rest) if is_quoted(line) => rest.strip_prefix(' ').unwrap_or(rest),
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// The contents of `<code>` elements.
fn html_code(text: &str) -> Vec<Block> {
    let parts = text.split("<code").skip(1);
    let inner = parts.filter_map(|part| {
        let (_, code) = part.split_once('>')?;
        let (code, _) = code.split_once("</code>")?;
        Some(Block::unfenced(code.replace("<br>", "\n").replace("<br/>", "\n")))
    });
    inner.collect()
}

/// Text between single backticks, over several lines.
fn between_backticks(text: &str) -> Vec<Block> {
    if text.contains("```") {
        return Vec::new();
    }
    if let Some(inner) = text.trim().strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
        return vec![Block::unfenced(inner)];
    }
    let spans = text.split('`').skip(1).step_by(2);
    spans
        .filter(|span| span.trim().contains('\n'))
        .map(Block::unfenced)
        .collect()
}
