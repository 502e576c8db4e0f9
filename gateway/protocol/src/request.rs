//! A parsed request: what policy needs of a body, and where in it policy's changes go.

use crate::error::RequestError;
use crate::scan::{Raw, Splices};
use crate::size::PromptSize;
use policy::{Class, Priority, Units};
use std::borrow::Cow;
use std::ops::Range;

/// The part of a body that policy needs. It borrows from the body; the rest is not looked at.
#[derive(Debug, Default)]
pub struct ParsedRequest<'a> {
    /// The model's name as the client gave it.
    pub model: Cow<'a, str>,
    /// True if the answer is to be streamed.
    pub is_streaming: bool,
    /// The most output tokens of each answer: the largest of all limits that were given, since servers differ in which
    /// of them they honor. `None`: no limit.
    pub max_tokens: Option<u64>,
    /// Answers that are made: prompts × the largest of `n`, `best_of` and `n_cmpl`. 0 where nothing is generated.
    pub answers: u64,
    /// The size of the prompt.
    pub size: PromptSize,
    /// True if the client itself asked for the usage of a stream.
    pub wants_usage: bool,
    /// The user that `/generate` names in its body.
    pub user_id: Option<Cow<'a, str>>,
    /// The project that `/generate` names in its body.
    pub project_id: Option<Cow<'a, str>>,
    /// A class or priority below the caller's own.
    pub lowered: Lowered,
    /// True if the answer is to be fetched later.
    pub in_background: bool,
    /// Loading or unloading of the model, as Ollama's requests without a prompt ask for.
    pub load: Option<ModelLoad>,
    /// Units that it uses apart from the tokens of prompts and answers.
    pub units: Units,
    /// The model that the body names, where the request's head names one too.
    pub model_of_body: Option<Cow<'a, str>>,
    /// Its fields about responses that the gateway stores.
    pub storage: Storage<'a>,
    /// The beginning of the prompt, as JSON: requests that begin alike are best served by the same server.
    pub prompt: Option<&'a str>,
    pub(crate) spans: Spans,
}

/// A request without a prompt: Ollama loads the model, or unloads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelLoad {
    /// Loads it.
    Load,
    /// Unloads it: `keep_alive` is 0.
    Unload,
}

impl ParsedRequest<'_> {
    /// Names of the fields that [`rewrite`] withholds from a server of the same protocol, for the header
    /// `x-sluice-dropped`: a `keep_alive` that would unload the model, which other projects use.
    pub fn withheld(&self) -> Vec<Cow<'static, str>> {
        let keep_alive = self.spans.unload.as_ref();
        keep_alive.map(|_| "keep_alive".into()).into_iter().collect()
    }
}

/// The class and priority to which a request lowers itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lowered {
    /// The class.
    pub class: Option<Class>,
    /// The priority.
    pub priority: Option<Priority>,
}

/// The values that policy may change, by their bytes in the body.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    pub(crate) model: Option<Range<usize>>,
    /// True if the model of the request's head counts, and not the body's.
    pub(crate) has_model_of_head: bool,
    /// Of a form, where its first delimiter begins.
    pub(crate) form_start: Option<usize>,
    /// Of a form, the header that gives the length of its model's name.
    pub(crate) model_length: Option<Range<usize>>,
    /// True if a body that names no model stays as it is.
    pub(crate) is_opaque: bool,
    pub(crate) limits: Vec<Limit>,
    pub(crate) min_tokens: Option<Limit>,
    /// OpenAI's `stream_options`, Ollama's `options`.
    pub(crate) options: Option<Range<usize>>,
    /// Of a response, that it is made in the background.
    pub(crate) background: Option<Range<usize>>,
    /// A `keep_alive` that has the model unloaded when the request is done.
    pub(crate) unload: Option<Range<usize>>,
}

/// An output limit in the body.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) key: &'static str,
    pub(crate) value: Limited,
    /// True if it stands there as a number: some servers ignore a string.
    pub(crate) is_number: bool,
    pub(crate) range: Range<usize>,
}

/// The value of an output limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    /// Nothing; but its key is there, and would be given twice if it were added.
    Null,
    /// That there is no limit: a number below 0.
    Unlimited,
    /// So many tokens.
    Tokens(u64),
}

impl Limit {
    /// Reads a limit, null too.
    pub(crate) fn read(key: &'static str, raw: Raw<'_>, body: &[u8]) -> Result<Option<Self>, RequestError> {
        let Some(range) = raw.range(body) else {
            return Ok(None);
        };
        let number = raw.number(key)?;
        let value = number.map_or(Limited::Null, |number| {
            number.value.map_or(Limited::Unlimited, Limited::Tokens)
        });
        Ok(Some(Self {
            key,
            value,
            is_number: number.is_none_or(|number| number.is_number),
            range,
        }))
    }

    /// Reads a limit of another server or protocol, which the model's server may not know: what cannot be read is left to
    /// the server.
    pub(crate) fn of_another(key: &'static str, raw: Raw<'_>, body: &[u8]) -> Option<Self> {
        Self::read(key, raw, body).ok().flatten()
    }

    /// Reads all limits that are given.
    pub(crate) fn read_all(given: &[(&'static str, Raw<'_>)], body: &[u8]) -> Result<Vec<Self>, RequestError> {
        let limits = given.iter().map(|(key, raw)| Self::read(key, *raw, body));
        limits.filter_map(Result::transpose).collect()
    }

    /// The largest of them; `None` where there is none, or one says that there is no limit.
    pub(crate) fn largest(limits: &[Self]) -> Option<u64> {
        let mut largest = None;
        for limit in limits {
            match limit.value {
                Limited::Null => {}
                Limited::Unlimited => return None,
                Limited::Tokens(tokens) => largest = largest.max(Some(tokens)),
            }
        }
        largest
    }
}

/// Changes of policy, to be written into the body.
#[derive(Debug, Clone, Copy)]
pub struct RequestChanges<'a> {
    /// The model's name at the server.
    pub model: &'a str,
    /// The most output tokens of each answer. `None`: the client gave no limit, and none is written.
    pub max_tokens: Option<u64>,
    /// True if the limit is written under the name that every server honors, whatever other names stand there. For
    /// servers whose default is not bounded by the model's context, or that ignore `max_completion_tokens`.
    pub must_limit: bool,
    /// True if a stream is asked for its usage where the client did not ask. Old servers refuse `stream_options`.
    pub asks_usage: bool,
}

impl<'a> RequestChanges<'a> {
    /// The changes for a request to which `granted` tokens an answer were granted.
    pub fn new(parsed: &ParsedRequest<'_>, model: &'a str, granted: u64, rule: LimitRule) -> Self {
        let says_something = |limit: &Limit| limit.value != Limited::Null;
        let must_limit = rule == LimitRule::UnderOwnName;
        let has_limit = rule != LimitRule::WhereGiven || parsed.spans.limits.iter().any(says_something);
        Self {
            model,
            max_tokens: has_limit.then_some(granted),
            must_limit,
            asks_usage: true,
        }
    }
}

/// When an output limit is written for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitRule {
    /// Where the client gave one; else the server's default counts, which the model's context bounds.
    WhereGiven,
    /// Always: policy lowered it.
    Always,
    /// Always, and under the name that every server honors: the server's default has no bound, or it ignores
    /// `max_completion_tokens`, as Ollama does.
    UnderOwnName,
}

/// Fields of OpenAI's responses about stored responses.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Storage<'a> {
    /// True if the response is to be stored. OpenAI stores by default; here only an explicit `true` counts.
    pub store: bool,
    /// The stored response that it goes on from.
    pub previous_response_id: Option<Cow<'a, str>>,
    /// True if it belongs to a conversation object.
    pub has_conversation: bool,
    /// Its input, as JSON, if that may refer to stored items.
    pub referring_input: Option<&'a str>,
}

impl Storage<'_> {
    /// Returns whether it says anything of stored responses.
    pub fn is_used(&self) -> bool {
        self.store || self.previous_response_id.is_some() || self.has_conversation || self.referring_input.is_some()
    }
}

/// Fields of a request's head that concern its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadFields<'h> {
    /// The model that an Azure client names in its path, or a pass-through request in its path or a header; it counts
    /// more than the body's.
    pub model: Option<&'h str>,
    /// The content type.
    pub content_type: Option<&'h str>,
}

/// Lowers every limit above the granted one to it, and adds one under `key` where it is needed.
pub(crate) fn splice_limits(
    key: &str,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
    changes: &RequestChanges<'_>,
    splices: &mut Splices,
) {
    let Some(granted) = changes.max_tokens else { return };
    let spans = &parsed.spans;
    // Where 0 means no limit, as for Ollama, one token is the nearest.
    let least = u64::from(changes.must_limit);
    for limit in &spans.limits {
        let allowed = match limit.value {
            Limited::Null => continue,
            Limited::Unlimited => granted,
            Limited::Tokens(tokens) => tokens.min(granted).max(least),
        };
        if limit.value != Limited::Tokens(allowed) || !limit.is_number {
            splices.replace(limit.range.clone(), allowed.to_string());
        }
    }
    // A server refuses a minimum above the limit.
    let minimum = spans.min_tokens.as_ref();
    if let Some(minimum) =
        minimum.filter(|minimum| matches!(minimum.value, Limited::Tokens(tokens) if tokens > granted))
    {
        splices.replace(minimum.range.clone(), granted.to_string());
    }
    let is_honored = |limit: &Limit| limit.key == key || (limit.key == "max_completion_tokens" && !changes.must_limit);
    let says_something = |limit: &Limit| limit.value != Limited::Null;
    if spans
        .limits
        .iter()
        .any(|limit| is_honored(limit) && says_something(limit))
    {
        return;
    }
    let allowed = parsed.max_tokens.unwrap_or(granted).min(granted).max(least).to_string();
    match spans.limits.iter().find(|limit| limit.key == key) {
        Some(null) => splices.replace(null.range.clone(), allowed),
        None => splices.add_key(body, 0, key, &allowed),
    }
}

/// The model's name, empty where it is missing.
pub(crate) fn model_named(model: Raw<'_>) -> Result<Cow<'_, str>, RequestError> {
    Ok(model.string("model")?.unwrap_or_default())
}

/// A batch class where OpenAI's `service_tier` is `flex`.
pub(crate) fn flex(service_tier: Raw<'_>) -> Option<Class> {
    (service_tier.text() == Some("\"flex\"")).then_some(Class::Batch)
}
