//! The table of models, and what cells of tables are made of.

use crate::score::Scored;
use crate::terminal::visible;
use std::fmt::Write as _;

/// The table of models, for a page or a terminal.
pub(crate) fn comparison(scored: &[Scored]) -> String {
    let mut text =
        "| model | problems | pass@1 | 95 % interval | average latency | P95 latency | cost | cost per passed |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for one in scored {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} to {} | {:.2} s | {:.2} s | {} | {} |",
            cell(&one.model),
            one.problems,
            percent(one.pass_at_1),
            percent(one.interval.0),
            percent(one.interval.1),
            one.average_end_to_end,
            one.p95_end_to_end,
            euros(Some(one.cost)),
            euros(one.cost_per_passed),
        );
    }
    text
}

/// A share, such as `71.3 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// An amount of money; a dash without one.
pub(crate) fn euros(amount: Option<f64>) -> String {
    amount.map_or("–".to_owned(), |amount| format!("€{amount:.6}"))
}

/// A count with its noun in the right number.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A text as one cell of a table: a single line, without markup and control characters.
pub(crate) fn cell(message: &str) -> String {
    let line = visible(message).split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(160).collect();
    let more = if short.len() < line.len() { " …" } else { "" };
    // Text from programs is not markup.
    let escaped = short
        .replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('`', "'")
        .replace('[', "\\[");
    if escaped.is_empty() {
        String::new()
    } else {
        format!("{escaped}{more}")
    }
}
