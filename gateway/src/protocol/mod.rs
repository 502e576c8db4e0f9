//! The protocols that clients speak: bytes in, what policy needs out; and refusals in each one's
//! shape. Pure: no pingora, no tokio, no SQL.

mod anthropic;
pub(crate) mod catalogue;
mod embeddings;
pub(crate) mod generate;
pub(crate) mod hub;
pub(crate) mod meter;
mod ollama;
mod openai;
pub(crate) mod refuse;
pub(crate) mod responses;
pub(crate) mod scan;
pub(crate) mod stream;
pub(crate) mod translate;

pub(crate) use scan::beginning;

use policy::{Class, Priority};
use refuse::Stop;
use scan::{Places, Splices};
use std::borrow::Cow;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    OpenAi,
    /// OpenAI's responses, whose streams are of another shape.
    Responses,
    Anthropic,
    Ollama,
    /// The original system's own.
    Generate,
}

impl Protocol {
    /// As in the ledger and the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::OpenAi | Protocol::Responses => "openai",
            Protocol::Anthropic => "anthropic",
            Protocol::Ollama => "ollama",
            Protocol::Generate => "generate",
        }
    }
}

/// A request for a model's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
    Messages,
    CountTokens,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    OllamaEmbeddings,
    OllamaShow,
    Generate,
}

impl Call {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Call::ChatCompletions | Call::Completions | Call::Embeddings => Protocol::OpenAi,
            Call::Responses => Protocol::Responses,
            Call::Messages | Call::CountTokens => Protocol::Anthropic,
            Call::Generate => Protocol::Generate,
            _ => Protocol::Ollama,
        }
    }

    /// Where clients ask for it.
    pub(crate) fn client_path(self) -> &'static str {
        match self {
            Call::Generate => "/generate",
            other => other.upstream_path(),
        }
    }

    /// Where an upstream that speaks this protocol expects it.
    pub(crate) fn upstream_path(self) -> &'static str {
        match self {
            Call::ChatCompletions | Call::Generate => "/v1/chat/completions",
            Call::Completions => "/v1/completions",
            Call::Embeddings => "/v1/embeddings",
            Call::Responses => "/v1/responses",
            Call::Messages => "/v1/messages",
            Call::CountTokens => "/v1/messages/count_tokens",
            Call::OllamaChat => "/api/chat",
            Call::OllamaGenerate => "/api/generate",
            Call::OllamaEmbed => "/api/embed",
            Call::OllamaEmbeddings => "/api/embeddings",
            Call::OllamaShow => "/api/show",
        }
    }

    /// Whether the answer is made of output tokens.
    pub(crate) fn generates(self) -> bool {
        !matches!(
            self,
            Call::Embeddings | Call::CountTokens | Call::OllamaEmbed | Call::OllamaEmbeddings | Call::OllamaShow
        )
    }
}

/// What a method and a path ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Call(Call),
    Models,
    Model(&'a str),
    Tags,
    Ps,
    Version,
    Health,
    /// `/usage/me`: the caller's own.
    Usage,
    /// OpenAI's files and batches.
    Kept(Kept<'a>),
    /// A response that is made in the background.
    Response(Background<'a>),
    /// `/requests/{id}`: how far it has come.
    Status(&'a str),
    /// The same, with `DELETE`: cancel it.
    Cancel(&'a str),
    /// Ollama's model management, which no client may do through a gateway.
    Management,
    /// The path exists, with this method.
    WrongMethod(&'static str),
    NotFound,
}

/// What may be done with files and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept<'a> {
    Upload,
    Files,
    File(&'a str),
    Content(&'a str),
    DeleteFile(&'a str),
    CreateBatch,
    Batches,
    Batch(&'a str),
    CancelBatch(&'a str),
}

/// What may be done with a response that is made in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Background<'a> {
    Show(&'a str),
    Cancel(&'a str),
    Delete(&'a str),
}

fn response<'a>(method: &str, path: &'a str) -> Option<Route<'a>> {
    let parts: Vec<&str> = path.strip_prefix("/v1/responses/")?.split('/').collect();
    Some(Route::Response(match (parts.as_slice(), method) {
        ([id], "GET") if !id.is_empty() => Background::Show(id),
        ([id], "DELETE") if !id.is_empty() => Background::Delete(id),
        ([id, "cancel"], "POST") if !id.is_empty() => Background::Cancel(id),
        ([_], _) => return Some(Route::WrongMethod("GET, DELETE")),
        ([_, "cancel"], _) => return Some(Route::WrongMethod("POST")),
        _ => return None,
    }))
}

fn kept<'a>(method: &str, path: &'a str) -> Option<Route<'a>> {
    let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    let wrong = |wanted| Some(Route::WrongMethod(wanted));
    Some(Route::Kept(match (parts.as_slice(), method) {
        (["files"], "POST") => Kept::Upload,
        (["files"], "GET") => Kept::Files,
        (["files", id], "GET") => Kept::File(id),
        (["files", id], "DELETE") => Kept::DeleteFile(id),
        (["files", id, "content"], "GET") => Kept::Content(id),
        (["batches"], "POST") => Kept::CreateBatch,
        (["batches"], "GET") => Kept::Batches,
        (["batches", id], "GET") => Kept::Batch(id),
        (["batches", id, "cancel"], "POST") => Kept::CancelBatch(id),
        (["files" | "batches"], _) => return wrong("GET, POST"),
        (["files", _], _) => return wrong("GET, DELETE"),
        (["files", _, "content"] | ["batches", _], _) => return wrong("GET"),
        (["batches", _, "cancel"], _) => return wrong("POST"),
        _ => return None,
    }))
}

/// Routes a request; `path` is without query.
pub(crate) fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    let (wanted, route) = match path {
        "/v1/chat/completions" => ("POST", Route::Call(Call::ChatCompletions)),
        "/v1/completions" => ("POST", Route::Call(Call::Completions)),
        "/v1/embeddings" => ("POST", Route::Call(Call::Embeddings)),
        "/v1/responses" => ("POST", Route::Call(Call::Responses)),
        "/v1/messages" => ("POST", Route::Call(Call::Messages)),
        "/v1/messages/count_tokens" => ("POST", Route::Call(Call::CountTokens)),
        "/v1/models" => ("GET", Route::Models),
        "/api/chat" => ("POST", Route::Call(Call::OllamaChat)),
        "/api/generate" => ("POST", Route::Call(Call::OllamaGenerate)),
        "/api/embed" => ("POST", Route::Call(Call::OllamaEmbed)),
        "/api/embeddings" => ("POST", Route::Call(Call::OllamaEmbeddings)),
        "/api/show" => ("POST", Route::Call(Call::OllamaShow)),
        "/api/tags" => ("GET", Route::Tags),
        "/api/ps" => ("GET", Route::Ps),
        "/api/version" => ("GET", Route::Version),
        "/api/pull" | "/api/push" | "/api/create" | "/api/copy" | "/api/delete" => {
            return Route::Management;
        }
        "/usage/me" => ("GET", Route::Usage),
        "/generate" => ("POST", Route::Call(Call::Generate)),
        "/health" | "/" => ("GET", Route::Health),
        _ if path.starts_with("/api/blobs/") => return Route::Management,
        _ if path.starts_with("/v1/responses/") => {
            return response(method, path).unwrap_or(Route::NotFound);
        }
        _ if path.starts_with("/v1/files") || path.starts_with("/v1/batches") => {
            return kept(method, path).unwrap_or(Route::NotFound);
        }
        _ if path.starts_with("/requests/") => match (method, &path["/requests/".len()..]) {
            ("DELETE", id) => return Route::Cancel(id),
            (_, id) => ("GET", Route::Status(id)),
        },
        _ => match path.strip_prefix("/v1/models/") {
            Some(id) if !id.is_empty() => ("GET", Route::Model(id)),
            _ => return Route::NotFound,
        },
    };
    if method == wanted || (method == "HEAD" && wanted == "GET") {
        route
    } else {
        Route::WrongMethod(wanted)
    }
}

/// The protocol that a path belongs to, for the shape of a refusal.
pub(crate) fn protocol_of(path: &str) -> Protocol {
    if path.starts_with("/api/") {
        Protocol::Ollama
    } else if path.starts_with("/v1/messages") {
        Protocol::Anthropic
    } else if path.starts_with("/generate") || path.starts_with("/requests") {
        Protocol::Generate
    } else {
        Protocol::OpenAi
    }
}

/// What was understood of a body. Borrows from it; the rest of the body is not looked at.
#[derive(Debug)]
pub(crate) struct Understood<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) is_streaming: bool,
    /// Tokens that the client allows for each answer.
    pub(crate) max_tokens: Option<u64>,
    /// Answers wanted.
    pub(crate) answers: u64,
    /// Bytes of all that the model will read.
    pub(crate) prompt_bytes: usize,
    /// Whether the client asked for a stream's usage itself.
    pub(crate) wants_usage: bool,
    /// Only `/generate` says who asks in its body.
    pub(crate) user_id: Option<Cow<'a, str>>,
    pub(crate) project_id: Option<Cow<'a, str>>,
    /// A class or band lower than the caller's own.
    pub(crate) lowered: Lowered,
    /// Whether the answer is to be fetched later.
    pub(crate) in_background: bool,
    /// What the model reads first, as JSON: requests that begin alike are best served by the same server.
    pub(crate) prompt: Option<&'a str>,
    places: Places,
}

/// How a request lowers its own standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lowered {
    pub(crate) class: Option<Class>,
    pub(crate) priority: Option<Priority>,
}

/// What policy changed, to be spliced into the body.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    /// The model's name at the upstream.
    pub(crate) model: &'a str,
    /// The most tokens each answer may have.
    pub(crate) max_tokens: u64,
}

/// Reads what policy needs; anything else in the body stays unread.
pub(crate) fn understand(call: Call, body: &[u8]) -> Result<Understood<'_>, Stop> {
    match call.protocol() {
        Protocol::OpenAi => openai::understand(body),
        Protocol::Responses => responses::understand(body),
        Protocol::Anthropic => anthropic::understand(body),
        Protocol::Ollama => ollama::understand(call, body),
        Protocol::Generate => generate::understand(body),
    }
}

/// The model's name at the upstream, where it is another.
fn splice_model(understood: &Understood<'_>, changes: &Changes<'_>, splices: &mut Splices) {
    if changes.model != understood.model
        && let Some(place) = &understood.places.model
    {
        splices.replace(place.clone(), scan::quoted(changes.model));
    }
}

/// The limit of an answer, where it is another, at its place or under a new key.
fn splice_limit(key: &str, body: &[u8], understood: &Understood<'_>, changes: &Changes<'_>, splices: &mut Splices) {
    if understood.max_tokens == Some(changes.max_tokens) {
        return;
    }
    let limit = changes.max_tokens.to_string();
    match &understood.places.max_tokens {
        Some(place) => splices.replace(place.clone(), limit),
        None => splices.add_key(body, 0, key, &limit),
    }
}

/// The body for the upstream: the client's bytes but for what had to change. `None`: unchanged.
pub(crate) fn rewrite(call: Call, body: &[u8], understood: &Understood<'_>, changes: &Changes<'_>) -> Option<Vec<u8>> {
    let mut splices = Splices::default();
    match call.protocol() {
        Protocol::OpenAi => openai::changes(call, body, understood, changes, &mut splices),
        Protocol::Responses => responses::changes(body, understood, changes, &mut splices),
        Protocol::Anthropic if call == Call::Messages => anthropic::changes(body, understood, changes, &mut splices),
        Protocol::Ollama => ollama::changes(call, body, understood, changes, &mut splices),
        // Its own counts are the gateway's; its own words are always translated.
        Protocol::Anthropic | Protocol::Generate => {}
    }
    splices.apply(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_contract_is_routed() {
        assert_eq!(
            route("POST", "/v1/chat/completions"),
            Route::Call(Call::ChatCompletions)
        );
        assert_eq!(route("GET", "/v1/models/a/b"), Route::Model("a/b"));
        assert_eq!(route("POST", "/api/pull"), Route::Management);
        assert_eq!(route("DELETE", "/api/delete"), Route::Management);
        assert_eq!(route("GET", "/v1/chat/completions"), Route::WrongMethod("POST"));
        assert_eq!(route("HEAD", "/health"), Route::Health);
        assert_eq!(route("TRACE", "/nowhere"), Route::NotFound);
        assert_eq!(route("GET", "/v1/models/"), Route::NotFound);
        assert_eq!(route("POST", "/v1/messages"), Route::Call(Call::Messages));
        assert_eq!(route("GET", "/v1/responses/r"), Route::Response(Background::Show("r")));
        assert_eq!(
            route("POST", "/v1/responses/r/cancel"),
            Route::Response(Background::Cancel("r"))
        );
        assert_eq!(route("GET", "/v1/responses/"), Route::WrongMethod("GET, DELETE"));
        assert_eq!(route("GET", "/v1/files/a/content"), Route::Kept(Kept::Content("a")));
        assert_eq!(
            route("POST", "/v1/batches/b/cancel"),
            Route::Kept(Kept::CancelBatch("b"))
        );
        assert_eq!(route("PUT", "/v1/files"), Route::WrongMethod("GET, POST"));
        assert_eq!(route("GET", "/v1/files/a/b/c"), Route::NotFound);
    }
}
