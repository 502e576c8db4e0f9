//! Requests whose protocol the model's server does not speak: what its own API would have taken the gateway must take,
//! unless `docs/api.md` says that the field is refused, and the answer must have the same contents: text, calls of tools,
//! reason to end and output tokens.

use super::contents::Contents;
use super::differences::Pair;

/// Fields that the page says are refused, by the last part of their names.
pub(crate) fn refused_fields(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.contains("| refused |"));
    let fields = rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    fields
        .map(|field| field.trim_end_matches('*').trim_end_matches('.').to_owned())
        .collect()
}

impl Pair {
    /// The reason why the answer through the gateway is no translation of the server's own answer to the same request;
    /// `None` if it is one.
    pub(crate) fn mistranslation(&self, refused: &[String]) -> Option<String> {
        if self.direct.is_failure() {
            // A request that is wrong may be understood better in another protocol; but never is it the server's fault.
            return (self.through.status >= 500).then(|| self.report());
        }
        if self.through.is_failure() {
            let sentence = self.through.sentence().unwrap_or_default();
            let is_documented = refused.iter().any(|field| sentence.contains(&format!("`{field}")))
                || self.difference().is_ok()
                || sentence.contains(super::differences::INVALID);
            return (!is_documented).then(|| self.report());
        }
        let (direct, through) = (Contents::of(&self.direct.body), Contents::of(&self.through.body));
        (direct != through && !self.means_another_translated())
            .then(|| format!("{direct:?}\n{through:?}\n{}", self.report()))
    }

    /// Returns whether the request has a field that the server reads in one protocol only: vLLM's Messages API ignores
    /// `output_config.format`, and vLLM since 0.12 `guided_json`; Ollama's has no `tool_choice`. Of two limits of the
    /// output, of which servers honor one or the other, the larger is granted and sent.
    fn means_another_translated(&self) -> bool {
        let has = |pointer| self.request.body.pointer(pointer).is_some_and(|value| !value.is_null());
        let is_free_to_call = self.request.model == "ollama" && has("/tool_choice");
        is_free_to_call
            || has("/output_config/format")
            || has("/guided_json")
            || (has("/max_tokens") && has("/max_completion_tokens"))
    }
}
