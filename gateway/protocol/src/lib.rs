//! The protocols that clients speak: bytes in, what policy needs out; and refusals in each one's
//! shape. Pure: no pingora, no tokio, no SQL.

mod anthropic;
mod calls;
pub mod catalogue;
#[cfg(test)]
mod corpus;
mod embeddings;
pub mod generate;
pub mod hub;
pub mod meter;
mod ollama;
mod openai;
pub mod refuse;
pub mod responses;
pub mod scan;
pub mod stream;
pub mod tokens;
pub mod translate;
pub mod unsupported;
pub mod upstream_error;
pub mod whole;
mod wire;

pub use scan::beginning;

use policy::{Class, Priority};
use refuse::RequestError;
use scan::{Places, Splices};
use std::borrow::Cow;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
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
    pub fn name(self) -> &'static str {
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
pub enum Operation {
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

impl Operation {
    pub fn protocol(self) -> Protocol {
        match self {
            Operation::ChatCompletions | Operation::Completions | Operation::Embeddings => Protocol::OpenAi,
            Operation::Responses => Protocol::Responses,
            Operation::Messages | Operation::CountTokens => Protocol::Anthropic,
            Operation::Generate => Protocol::Generate,
            _ => Protocol::Ollama,
        }
    }

    /// Where clients ask for it.
    pub fn client_path(self) -> &'static str {
        match self {
            Operation::Generate => "/generate",
            other => other.upstream_path(),
        }
    }

    /// Where an upstream that speaks this protocol expects it.
    pub fn upstream_path(self) -> &'static str {
        match self {
            Operation::ChatCompletions | Operation::Generate => "/v1/chat/completions",
            Operation::Completions => "/v1/completions",
            Operation::Embeddings => "/v1/embeddings",
            Operation::Responses => "/v1/responses",
            Operation::Messages => "/v1/messages",
            Operation::CountTokens => "/v1/messages/count_tokens",
            Operation::OllamaChat => "/api/chat",
            Operation::OllamaGenerate => "/api/generate",
            Operation::OllamaEmbed => "/api/embed",
            Operation::OllamaEmbeddings => "/api/embeddings",
            Operation::OllamaShow => "/api/show",
        }
    }

    /// Whether the answer is made of output tokens.
    pub fn generates(self) -> bool {
        !matches!(
            self,
            Operation::Embeddings
                | Operation::CountTokens
                | Operation::OllamaEmbed
                | Operation::OllamaEmbeddings
                | Operation::OllamaShow
        )
    }
}

/// What a method and a path ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Operation(Operation),
    Models,
    Model(&'a str),
    Tags,
    Ps,
    Version,
    Health,
    /// `/usage/me`: the caller's own.
    Usage,
    /// OpenAI's files and batches.
    FilesAndBatches(FilesAndBatches<'a>),
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
pub enum FilesAndBatches<'a> {
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
pub enum Background<'a> {
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
    Some(Route::FilesAndBatches(match (parts.as_slice(), method) {
        (["files"], "POST") => FilesAndBatches::Upload,
        (["files"], "GET") => FilesAndBatches::Files,
        (["files", id], "GET") => FilesAndBatches::File(id),
        (["files", id], "DELETE") => FilesAndBatches::DeleteFile(id),
        (["files", id, "content"], "GET") => FilesAndBatches::Content(id),
        (["batches"], "POST") => FilesAndBatches::CreateBatch,
        (["batches"], "GET") => FilesAndBatches::Batches,
        (["batches", id], "GET") => FilesAndBatches::Batch(id),
        (["batches", id, "cancel"], "POST") => FilesAndBatches::CancelBatch(id),
        (["files" | "batches"], _) => return wrong("GET, POST"),
        (["files", _], _) => return wrong("GET, DELETE"),
        (["files", _, "content"] | ["batches", _], _) => return wrong("GET"),
        (["batches", _, "cancel"], _) => return wrong("POST"),
        _ => return None,
    }))
}

/// Routes a request; `path` is without query.
pub fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    let (wanted, route) = match path {
        "/v1/chat/completions" => ("POST", Route::Operation(Operation::ChatCompletions)),
        "/v1/completions" => ("POST", Route::Operation(Operation::Completions)),
        "/v1/embeddings" => ("POST", Route::Operation(Operation::Embeddings)),
        "/v1/responses" => ("POST", Route::Operation(Operation::Responses)),
        "/v1/messages" => ("POST", Route::Operation(Operation::Messages)),
        "/v1/messages/count_tokens" => ("POST", Route::Operation(Operation::CountTokens)),
        "/v1/models" => ("GET", Route::Models),
        "/api/chat" => ("POST", Route::Operation(Operation::OllamaChat)),
        "/api/generate" => ("POST", Route::Operation(Operation::OllamaGenerate)),
        "/api/embed" => ("POST", Route::Operation(Operation::OllamaEmbed)),
        "/api/embeddings" => ("POST", Route::Operation(Operation::OllamaEmbeddings)),
        "/api/show" => ("POST", Route::Operation(Operation::OllamaShow)),
        "/api/tags" => ("GET", Route::Tags),
        "/api/ps" => ("GET", Route::Ps),
        "/api/version" => ("GET", Route::Version),
        "/api/pull" | "/api/push" | "/api/create" | "/api/copy" | "/api/delete" => {
            return Route::Management;
        }
        "/usage/me" => ("GET", Route::Usage),
        "/generate" => ("POST", Route::Operation(Operation::Generate)),
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
pub fn protocol_of(path: &str) -> Protocol {
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
pub struct ParsedRequest<'a> {
    pub model: Cow<'a, str>,
    pub is_streaming: bool,
    /// Tokens that the client allows for each answer.
    pub max_tokens: Option<u64>,
    /// Answers wanted.
    pub answers: u64,
    /// Bytes of all that the model will read.
    pub prompt_bytes: usize,
    /// Whether the client asked for a stream's usage itself.
    pub wants_usage: bool,
    /// Only `/generate` says who asks in its body.
    pub user_id: Option<Cow<'a, str>>,
    pub project_id: Option<Cow<'a, str>>,
    /// A class or band lower than the caller's own.
    pub lowered: Lowered,
    /// Whether the answer is to be fetched later.
    pub in_background: bool,
    /// What the model reads first, as JSON: requests that begin alike are best served by the same server.
    pub prompt: Option<&'a str>,
    places: Places,
}

/// How a request lowers its own standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lowered {
    pub class: Option<Class>,
    pub priority: Option<Priority>,
}

/// What policy changed, to be spliced into the body.
#[derive(Debug)]
pub struct Changes<'a> {
    /// The model's name at the upstream.
    pub model: &'a str,
    /// The most tokens each answer may have.
    pub max_tokens: u64,
}

/// Reads what policy needs; anything else in the body stays unread.
pub fn parse(call: Operation, body: &[u8]) -> Result<ParsedRequest<'_>, RequestError> {
    match call.protocol() {
        Protocol::OpenAi => openai::parse(body),
        Protocol::Responses => responses::parse(body),
        Protocol::Anthropic => anthropic::parse(body),
        Protocol::Ollama => ollama::parse(call, body),
        Protocol::Generate => generate::parse(body),
    }
}

/// The model's name at the upstream, where it is another.
fn splice_model(parsed: &ParsedRequest<'_>, changes: &Changes<'_>, splices: &mut Splices) {
    if changes.model != parsed.model
        && let Some(place) = &parsed.places.model
    {
        splices.replace(place.clone(), scan::quoted(changes.model));
    }
}

/// The limit of an answer, where it is another, at its place or under a new key.
fn splice_limit(key: &str, body: &[u8], parsed: &ParsedRequest<'_>, changes: &Changes<'_>, splices: &mut Splices) {
    if parsed.max_tokens == Some(changes.max_tokens) {
        return;
    }
    let limit = changes.max_tokens.to_string();
    match &parsed.places.max_tokens {
        Some(place) => splices.replace(place.clone(), limit),
        None => splices.add_key(body, 0, key, &limit),
    }
}

/// The body for the upstream: the client's bytes but for what had to change. `None`: unchanged.
pub fn rewrite(call: Operation, body: &[u8], parsed: &ParsedRequest<'_>, changes: &Changes<'_>) -> Option<Vec<u8>> {
    let mut splices = Splices::default();
    match call.protocol() {
        Protocol::OpenAi => openai::changes(call, body, parsed, changes, &mut splices),
        Protocol::Responses => responses::changes(body, parsed, changes, &mut splices),
        Protocol::Anthropic if call == Operation::Messages => anthropic::changes(body, parsed, changes, &mut splices),
        Protocol::Ollama => ollama::changes(call, body, parsed, changes, &mut splices),
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
            Route::Operation(Operation::ChatCompletions)
        );
        assert_eq!(route("GET", "/v1/models/a/b"), Route::Model("a/b"));
        assert_eq!(route("POST", "/api/pull"), Route::Management);
        assert_eq!(route("DELETE", "/api/delete"), Route::Management);
        assert_eq!(route("GET", "/v1/chat/completions"), Route::WrongMethod("POST"));
        assert_eq!(route("HEAD", "/health"), Route::Health);
        assert_eq!(route("TRACE", "/nowhere"), Route::NotFound);
        assert_eq!(route("GET", "/v1/models/"), Route::NotFound);
        assert_eq!(route("POST", "/v1/messages"), Route::Operation(Operation::Messages));
        assert_eq!(route("GET", "/v1/responses/r"), Route::Response(Background::Show("r")));
        assert_eq!(
            route("POST", "/v1/responses/r/cancel"),
            Route::Response(Background::Cancel("r"))
        );
        assert_eq!(route("GET", "/v1/responses/"), Route::WrongMethod("GET, DELETE"));
        assert_eq!(
            route("GET", "/v1/files/a/content"),
            Route::FilesAndBatches(FilesAndBatches::Content("a"))
        );
        assert_eq!(
            route("POST", "/v1/batches/b/cancel"),
            Route::FilesAndBatches(FilesAndBatches::CancelBatch("b"))
        );
        assert_eq!(route("PUT", "/v1/files"), Route::WrongMethod("GET, POST"));
        assert_eq!(route("GET", "/v1/files/a/b/c"), Route::NotFound);
    }
}
