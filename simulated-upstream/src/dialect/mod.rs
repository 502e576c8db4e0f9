//! Differences between servers of OpenAI's API and current vLLM: in the bytes of its streams, in its usage, in
//! its refusals. A dialect is a family, whose refusals it has, and a set of quirks; the names of real servers stand for
//! such sets.

mod chunk;
mod refusals;
mod write;

/// A difference between servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    Spaces,
    Multiline,
    Crlf,
    Cr,
    NoColonSpace,
    Comments,
    CommentWithin,
    EventLines,
    NoDone,
    NoRoleChunk,
    RoleEverywhere,
    RoleNull,
    FinishEmpty,
    StopFinish,
    UsageNull,
    UsageZero,
    UsageFloat,
    NoUsage,
    Timings,
    ReasoningNull,
    ReasoningTwice,
    ToolIndexZero,
    ToolIndexAbsent,
    ToolWhole,
    ToolIdEmpty,
    ToolArgumentsObject,
    StreamIgnored,
    AlwaysStreams,
    AnyModel,
    NoPictures,
    NoFinalNewline,
    ErrorEvent,
    ErrorField,
    ErrorThenDone,
}

/// Every quirk: its name, and what it does.
const QUIRKS: &[(&str, Quirk, &str)] = &[
    (
        "spaces",
        Quirk::Spaces,
        "JSON has a space after each colon and comma, as Python's json.dumps writes it",
    ),
    (
        "multiline",
        Quirk::Multiline,
        "an event's JSON is indented over several data lines",
    ),
    ("crlf", Quirk::Crlf, "lines of streams end in CR LF"),
    ("cr", Quirk::Cr, "lines of streams end in CR alone"),
    ("no-colon-space", Quirk::NoColonSpace, "no space after `data:`"),
    ("comments", Quirk::Comments, "a comment before every event"),
    (
        "comment-within",
        Quirk::CommentWithin,
        "a comment line right before every data line, without an empty line",
    ),
    (
        "event-lines",
        Quirk::EventLines,
        "every event has `event:` and `id:` lines",
    ),
    ("no-done", Quirk::NoDone, "streams end without [DONE]"),
    (
        "no-role-chunk",
        Quirk::NoRoleChunk,
        "the role comes with the first content",
    ),
    ("role-everywhere", Quirk::RoleEverywhere, "every chunk has the role"),
    ("role-null", Quirk::RoleNull, "the role's chunk has content null"),
    (
        "finish-empty",
        Quirk::FinishEmpty,
        "finish_reason is \"\" until the end",
    ),
    (
        "stop-finish",
        Quirk::StopFinish,
        "a tool call ends with finish_reason stop",
    ),
    ("usage-null", Quirk::UsageNull, "every chunk has usage null"),
    ("usage-zero", Quirk::UsageZero, "every usage is zero"),
    ("usage-float", Quirk::UsageFloat, "counts of usage are floats"),
    ("no-usage", Quirk::NoUsage, "no usage at all"),
    ("timings", Quirk::Timings, "the end has llama.cpp's timings"),
    (
        "reasoning-null",
        Quirk::ReasoningNull,
        "reasoning and reasoning_content are there, null",
    ),
    (
        "reasoning-twice",
        Quirk::ReasoningTwice,
        "a thought comes first, under both names",
    ),
    (
        "tool-index-zero",
        Quirk::ToolIndexZero,
        "every tool call of a stream has index 0",
    ),
    (
        "tool-index-absent",
        Quirk::ToolIndexAbsent,
        "tool calls of a stream have no index",
    ),
    ("tool-whole", Quirk::ToolWhole, "a tool call comes in one chunk"),
    ("tool-id-empty", Quirk::ToolIdEmpty, "tool calls have the id \"\""),
    (
        "tool-arguments-object",
        Quirk::ToolArgumentsObject,
        "arguments of a whole tool call are an object, not a text",
    ),
    (
        "stream-ignored",
        Quirk::StreamIgnored,
        "a whole answer where a stream was asked for",
    ),
    (
        "always-streams",
        Quirk::AlwaysStreams,
        "a stream where a whole answer was asked for",
    ),
    (
        "any-model",
        Quirk::AnyModel,
        "any model name is answered by the first model",
    ),
    (
        "no-pictures",
        Quirk::NoPictures,
        "a picture is refused with llama.cpp's status 500",
    ),
    (
        "no-final-newline",
        Quirk::NoFinalNewline,
        "the last line of Ollama's stream has no newline",
    ),
    (
        "error-event",
        Quirk::ErrorEvent,
        "an error within a stream is an event named error",
    ),
    (
        "error-field",
        Quirk::ErrorField,
        "an error within a stream is a field `error:`, not data",
    ),
    (
        "error-then-done",
        Quirk::ErrorThenDone,
        "an error within a stream is followed by [DONE]",
    ),
];

/// The shape of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Family {
    /// `{"error": {message, type, param, code: 400}}`.
    #[default]
    Vllm,
    /// `{"object": "error", message, type, param, code}`: vLLM before 0.10, SGLang.
    FastChat,
    /// `{"error": {code, message, type}}`.
    LlamaCpp,
    /// `{"error": {message, type, param, code: null}}`, as OpenAI has it: Ollama, LocalAI.
    OpenAi,
    /// `{"error": "…"}`.
    Text,
}

/// A named dialect: its family, its quirks, and the server that it is taken from.
type Named = (&'static str, Family, &'static [Quirk], &'static str);

/// The dialects by name.
const DIALECTS: &[Named] = &[
    ("vllm", Family::Vllm, &[Quirk::ErrorThenDone], "vLLM 0.12 and later"),
    (
        "vllm-0.11",
        Family::Vllm,
        &[Quirk::ReasoningNull, Quirk::ErrorThenDone],
        "vLLM 0.11.1: a whole message has reasoning and reasoning_content, null too (RFC #27755)",
    ),
    (
        "vllm-0.6",
        Family::FastChat,
        &[Quirk::ErrorThenDone],
        "vLLM 0.6: refusals without `error` around them",
    ),
    (
        "llama.cpp",
        Family::LlamaCpp,
        &[Quirk::RoleNull, Quirk::Timings, Quirk::AnyModel, Quirk::NoPictures],
        "llama.cpp's server with one text model",
    ),
    (
        "llama-cpp-python",
        Family::OpenAi,
        &[Quirk::Spaces, Quirk::Crlf, Quirk::AnyModel, Quirk::Comments],
        "llama-cpp-python's server (json.dumps, sse-starlette)",
    ),
    (
        "sglang",
        Family::FastChat,
        &[Quirk::UsageNull, Quirk::ReasoningNull],
        "SGLang 0.5",
    ),
    (
        "ollama",
        Family::OpenAi,
        &[
            Quirk::NoRoleChunk,
            Quirk::RoleEverywhere,
            Quirk::ToolWhole,
            Quirk::ToolIndexZero,
        ],
        "Ollama's OpenAI API: a call in one chunk, every index 0 (ollama/ollama#15457)",
    ),
    (
        "lmstudio",
        Family::Text,
        &[Quirk::NoRoleChunk, Quirk::RoleEverywhere, Quirk::ErrorEvent],
        "LM Studio",
    ),
    (
        "localai",
        Family::OpenAi,
        &[Quirk::FinishEmpty, Quirk::UsageZero, Quirk::ToolIndexZero],
        "LocalAI: usage of zeros in every chunk (mudler/LocalAI#1744), finish_reason \"\" (#5102)",
    ),
    (
        "mlx-lm",
        Family::Text,
        &[Quirk::Spaces, Quirk::NoRoleChunk, Quirk::RoleEverywhere],
        "mlx-lm's server (json.dumps)",
    ),
    (
        "tgi",
        Family::Text,
        &[Quirk::NoColonSpace, Quirk::NoRoleChunk, Quirk::RoleEverywhere],
        "Hugging Face TGI",
    ),
];

/// The dialect of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    family: Family,
    bits: u64,
}

impl Dialect {
    /// Reads a dialect's name, and after it quirks to add or, with a minus, to take away: `sglang,crlf,-usage-null`.
    ///
    /// # Errors
    /// A name that is neither, with those that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut dialect = Self::default();
        for (part, is_first) in text.split(',').map(str::trim).zip((0..).map(|at| at == 0)) {
            if part.is_empty() {
                continue;
            }
            if let (true, Some((_, family, quirks, _))) = (is_first, DIALECTS.iter().find(|known| known.0 == part)) {
                dialect.family = *family;
                dialect.bits = quirks.iter().fold(0, |bits, quirk| bits | quirk.bit());
                continue;
            }
            let name = part.trim_start_matches('-');
            let Some((_, quirk, _)) = QUIRKS.iter().find(|known| known.0 == name) else {
                return Err(unknown(part));
            };
            if part.starts_with('-') {
                dialect.bits &= !quirk.bit();
            } else {
                dialect.bits |= quirk.bit();
            }
        }
        Ok(dialect)
    }

    /// Returns whether it has a quirk.
    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.bits & quirk.bit() != 0
    }

    /// Returns whether its streams are vLLM's to the byte: then chunks can be written without a detour.
    pub(crate) fn is_plain(&self) -> bool {
        self.bits & !(Quirk::ErrorThenDone.bit() | Quirk::AnyModel.bit()) == 0
    }
}

impl Quirk {
    fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// Every dialect and every quirk, a line each.
pub fn list() -> String {
    let dialects = DIALECTS.iter().map(|(name, _, _, server)| (name, server));
    let quirks = QUIRKS.iter().map(|(name, _, what)| (name, what));
    let lines = |text: String, (name, what): (&&str, &&str)| text + &format!("{name:<24}{what}\n");
    let text = dialects.fold("Dialects:\n".to_owned(), lines);
    quirks.fold(text + "\nQuirks:\n", lines)
}

fn unknown(part: &str) -> String {
    let dialects: Vec<&str> = DIALECTS.iter().map(|known| known.0).collect();
    let quirks: Vec<&str> = QUIRKS.iter().map(|known| known.0).collect();
    format!(
        "there is no dialect or quirk `{part}`; dialects, of which the first name may be one: {}; quirks: {}",
        dialects.join(", "),
        quirks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_is_a_name_and_quirks_added_and_taken_away() {
        let dialect = Dialect::parse("sglang, crlf, -usage-null").expect("a dialect");
        assert!(dialect.has(Quirk::Crlf) && dialect.has(Quirk::ReasoningNull) && !dialect.has(Quirk::UsageNull));
        assert!(Dialect::parse("").expect("none").is_plain());
        assert!(Dialect::parse("vllm").expect("vllm").is_plain());
        assert!(Dialect::parse("spaces").expect("a quirk alone").has(Quirk::Spaces));
        let error = Dialect::parse("crlf,sglang").expect_err("a name in the second place");
        assert!(
            error.contains("`sglang`") && error.contains("llama.cpp") && error.contains("no-done"),
            "{error}"
        );
    }

    #[test]
    fn every_quirk_stands_once_in_the_table_and_has_a_bit_of_its_own() {
        let bits = QUIRKS.iter().fold(0u64, |bits, (name, quirk, _)| {
            assert_eq!(bits & quirk.bit(), 0, "{name}");
            bits | quirk.bit()
        });
        assert_eq!(bits, (1 << QUIRKS.len()) - 1);
    }
}
