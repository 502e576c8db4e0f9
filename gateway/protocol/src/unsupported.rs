//! Fields that the protocol of a model's server cannot say, and what becomes of each: one table, which the code asks and
//! from which a part of `docs/api.md` is written.
//!
//! A gateway must not say no to what a server would take or ignore. So bookkeeping is left out in silence, a hint is left
//! out and named in `x-sluice-dropped`, and only what would change the meaning of the answer is refused.

mod rules;

use crate::error::{ErrorCode, RequestError};
use Treatment::{Hint, Ignored, Refused};
use rules::RULES;
use std::borrow::Cow;
use std::fmt::Write;

/// A model's setting for hints that its server's protocol cannot express.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unsupported {
    /// Leave them out and name them.
    #[default]
    Drop,
    /// Refuse the request.
    Refuse,
}

/// The treatment of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// The gateway's own business, or without any effect on the answer: left out in silence.
    Ignored,
    /// Left out and named, or refused, as the model's `unsupported` says.
    Hint,
    /// Refused: the answer would mean something else.
    Refused,
}

/// Where a field is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// In a request of OpenAI's chat completions, completions or embeddings.
    OpenAi,
    Responses,
    Anthropic,
    Ollama,
    /// In any request for a server that speaks Ollama's API.
    OllamaServer,
}

impl Side {
    const ALL: [Side; 5] = [
        Side::OpenAi,
        Side::Responses,
        Side::Anthropic,
        Side::Ollama,
        Side::OllamaServer,
    ];

    fn title(self) -> &'static str {
        match self {
            Side::OpenAi => "OpenAI's chat completions, completions, embeddings",
            Side::Responses => "OpenAI's responses",
            Side::Anthropic => "Anthropic's messages",
            Side::Ollama => "Ollama's API",
            Side::OllamaServer => "any protocol, to a server of Ollama's API",
        }
    }
}

/// Fields with the same treatment for the same reason.
struct Rule {
    side: Side,
    /// Paths; one that ends with `*` stands for all that begin so.
    fields: &'static [&'static str],
    treatment: Treatment,
    why: &'static str,
}

const fn rule(side: Side, treatment: Treatment, fields: &'static [&'static str], why: &'static str) -> Rule {
    Rule {
        side,
        fields,
        treatment,
        why,
    }
}

/// Hints that were left out of one request.
#[derive(Debug, Clone)]
pub(crate) struct Dropped {
    pub(crate) side: Side,
    unsupported: Unsupported,
    names: Vec<Cow<'static, str>>,
}

impl Dropped {
    pub(crate) fn new(side: Side, unsupported: Unsupported) -> Self {
        Self {
            side,
            unsupported,
            names: Vec::new(),
        }
    }

    /// The names of the fields that were left out, each once, in the order of the request.
    pub(crate) fn into_names(self) -> Vec<Cow<'static, str>> {
        self.names
    }

    /// A field that cannot be said.
    ///
    /// # Errors
    /// It changes the meaning of the answer, or the model's configuration wants no hint to be left out.
    pub(crate) fn leave_out(&mut self, path: &str) -> Result<(), RequestError> {
        match (treatment(self.side, path), self.unsupported) {
            (Ignored, _) => Ok(()),
            (Hint, Unsupported::Drop) => {
                if !self.names.iter().any(|name| name == path) {
                    self.names.push(Cow::Owned(path.to_owned()));
                }
                Ok(())
            }
            (Refused, _) | (Hint, Unsupported::Refuse) => Err(untranslatable(path)),
        }
    }
}

/// A refusal that names what cannot be expressed in the upstream's protocol.
pub(crate) fn untranslatable(name: &str) -> RequestError {
    let message = format!("`{name}` cannot be translated into the protocol of this model's server; leave it out");
    RequestError::param(ErrorCode::BadRequest, name.to_owned(), message)
}

/// The value of the header `x-sluice-dropped`; `None` where nothing was left out. Names come from the client's JSON: a
/// character that no header may have becomes a question mark.
pub fn dropped_header(dropped: &[Cow<'static, str>]) -> Option<String> {
    let is_allowed = |character: char| character.is_ascii_graphic() && character != ',';
    let name = |name: &Cow<'static, str>| -> String {
        let characters = name.chars().take(LONGEST_NAME);
        characters
            .map(|character| if is_allowed(character) { character } else { '?' })
            .collect()
    };
    let names: Vec<String> = dropped.iter().take(MOST_NAMES).map(name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Names in `x-sluice-dropped`, and characters of one, at most.
const MOST_NAMES: usize = 20;
const LONGEST_NAME: usize = 80;

/// The treatment of a field: by its own name before any pattern, and the first rule of those that fit.
fn treatment(side: Side, path: &str) -> Treatment {
    let rules = || RULES.iter().filter(|rule| rule.side == side);
    let exact = rules().find(|rule| rule.fields.contains(&path));
    let pattern = || rules().find(|rule| rule.fields.iter().any(|field| matches(field, path)));
    exact.or_else(pattern).map_or(Hint, |rule| rule.treatment)
}

/// Returns whether a pattern with one `*` fits.
fn matches(pattern: &str, path: &str) -> bool {
    pattern
        .split_once('*')
        .is_some_and(|(before, after)| path.strip_prefix(before).is_some_and(|rest| rest.ends_with(after)))
}

/// The table as `docs/api.md` has it.
pub fn table() -> String {
    let mut page = String::from("| request | fields | treatment | reason |\n|---|---|---|---|\n");
    for side in Side::ALL {
        for rule in RULES.iter().filter(|rule| rule.side == side) {
            let fields: Vec<String> = rule.fields.iter().map(|field| format!("`{field}`")).collect();
            let is = match rule.treatment {
                Ignored => "ignored",
                Hint => "dropped and named",
                Refused => "refused",
            };
            let _ = writeln!(
                page,
                "| {} | {} | {is} | {} |",
                side.title(),
                fields.join(", "),
                rule.why
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_named_once_and_only_refused_where_the_model_says_so() {
        let mut dropped = Dropped::new(Side::Anthropic, Unsupported::Drop);
        for path in [
            "context_management",
            "cache_control",
            "tools.defer_loading",
            "tools.defer_loading",
            "unheard_of",
        ] {
            assert_eq!(dropped.leave_out(path), Ok(()), "{path}");
        }
        assert_eq!(
            dropped.clone().into_names(),
            ["context_management", "tools.defer_loading", "unheard_of"]
        );
        assert_eq!(dropped.leave_out("mcp_servers"), Err(untranslatable("mcp_servers")));
        let mut strict = Dropped::new(Side::Anthropic, Unsupported::Refuse);
        assert_eq!(strict.leave_out("cache_control"), Ok(()));
        assert_eq!(
            strict.leave_out("context_management"),
            Err(untranslatable("context_management"))
        );
    }

    #[test]
    fn a_fields_own_name_counts_before_any_pattern() {
        assert_eq!(treatment(Side::Anthropic, "messages.content.redacted_thinking"), Hint);
        assert_eq!(
            treatment(Side::Anthropic, "messages.content.web_search_tool_result"),
            Hint
        );
        assert_eq!(treatment(Side::Anthropic, "messages.content.hologram"), Refused);
        assert_eq!(treatment(Side::Responses, "input.web_search_call"), Hint);
        assert_eq!(treatment(Side::Responses, "input.computer_call"), Refused);
    }

    /// `SLUICE_WRITE_DOCS=1 cargo test -p protocol the_page_on_the_api` writes it.
    #[test]
    fn the_page_on_the_api_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
        let page = std::fs::read_to_string(path).expect("the page");
        let (begin, end) = (
            "<!-- unsupported fields: begin -->\n",
            "<!-- unsupported fields: end -->",
        );
        let (before, rest) = page.split_once(begin).expect("where the table begins");
        let (there, after) = rest.split_once(end).expect("where it ends");
        if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{begin}{}{end}{after}", table())).expect("written");
            return;
        }
        assert_eq!(there, table(), "write it with SLUICE_WRITE_DOCS=1");
    }
}
