//! From a method and a path to what is asked for. Paths are read as liberally as servers read them.

use crate::{Operation, Protocol};
use std::borrow::Cow;

/// A request's path, cleaned: see [`clean_path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanPath<'a> {
    /// The path as [`route`] expects it.
    pub path: Cow<'a, str>,
    /// The model that an Azure client names in its path.
    pub model: Option<String>,
}

/// Cleans a path (without query): percent-escapes are decoded, so that `org%2Fname` is a model's name; repeated
/// slashes, a trailing slash and a repeated `/v1` (a base URL that had one already) are one; Azure's
/// `/openai/deployments/{model}/…` and the prefixes of other services (`/openai/…`, `/api/v1/…`, `/anthropic/v1/…`) become
/// OpenAI's and Anthropic's own.
pub fn clean_path(path: &str) -> CleanPath<'_> {
    if is_clean(path) {
        return CleanPath {
            path: Cow::Borrowed(path),
            model: None,
        };
    }
    let mut clean = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        clean.push('/');
        clean.push_str(&decoded(segment));
    }
    let mut model = None;
    if let Some(rest) = path.strip_prefix("/openai/deployments/") {
        // The model's own slashes are escaped, so it is cut from the path as it came.
        let mut parts = rest.splitn(2, '/');
        model = parts
            .next()
            .filter(|model| !model.is_empty())
            .map(|model| decoded(model).into_owned());
        clean = format!("/v1/{}", parts.next().unwrap_or_default().trim_end_matches('/'));
    }
    for before in BASES {
        if let Some(rest) = clean.strip_prefix(before).filter(|_| model.is_none()) {
            clean = format!("/v1/{rest}");
        }
    }
    if BARE.contains(&clean.as_str()) {
        clean.insert_str(0, "/v1");
    }
    while let Some(rest) = clean.strip_prefix("/v1/v1/") {
        clean = format!("/v1/{rest}");
    }
    if clean.is_empty() {
        clean.push('/');
    }
    CleanPath {
        path: Cow::Owned(clean),
        model,
    }
}

/// Prefixes of OpenAI's and Anthropic's paths in clients that were set up for another service: Azure, OpenRouter and Open
/// WebUI, and gateways that have a path for each service.
const BASES: [&str; 4] = ["/openai/v1/", "/openai/", "/api/v1/", "/anthropic/v1/"];

/// Paths of clients whose base URL lacks `/v1`, beside those of the table of operations.
const BARE: [&str; 4] = ["/completions", "/embeddings", "/responses", "/messages"];

fn is_clean(path: &str) -> bool {
    let is_odd = path.contains('%') || path.contains("//") || (path.len() > 1 && path.ends_with('/'));
    let has_base = BASES.iter().any(|base| path.starts_with(base)) || path.starts_with("/v1/v1/");
    !is_odd && path.starts_with('/') && !has_base && !BARE.contains(&path)
}

/// A segment without percent-escapes; as it is where it would not be UTF-8, or would have control characters.
fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Cow::Owned(text),
        _ => Cow::Borrowed(segment),
    }
}

/// The target of a method and a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// A model's work.
    Operation(Operation),
    /// OpenAI's or Anthropic's list of models.
    Models,
    /// One of them.
    Model(&'a str),
    /// Ollama's list of models.
    Tags,
    /// Ollama's list of loaded models.
    Ps,
    /// Ollama's version.
    Version,
    /// Liveness of the gateway.
    Health,
    /// `/usage/me`: the caller's own usage.
    Usage,
    /// OpenAI's files and batches.
    FilesAndBatches(FilesAndBatches<'a>),
    /// A response that is made in the background, or stored.
    Response(Background<'a>),
    /// `GET /requests/{id}`: the state of a request.
    Status(&'a str),
    /// `DELETE /requests/{id}`: its cancellation.
    Cancel(&'a str),
    /// Ollama's model management, which no client may do through a gateway.
    Management,
    /// The path exists, with this method.
    WrongMethod(&'static str),
    /// Nothing is served at the path.
    NotFound,
}

/// An operation on files and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesAndBatches<'a> {
    /// Stores a file.
    Upload,
    /// Lists files.
    Files,
    /// Describes a file.
    File(&'a str),
    /// Reads a file.
    Content(&'a str),
    /// Deletes a file.
    DeleteFile(&'a str),
    /// Starts a batch.
    CreateBatch,
    /// Lists batches.
    Batches,
    /// Describes a batch.
    Batch(&'a str),
    /// Cancels a batch.
    CancelBatch(&'a str),
}

/// An operation on a response that is made in the background, or stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background<'a> {
    /// Returns it, or its state.
    Show(&'a str),
    /// Cancels it.
    Cancel(&'a str),
    /// Deletes it.
    Delete(&'a str),
    /// Lists what it answers.
    InputItems(&'a str),
}

/// Routes a request; `path` is [cleaned](clean_path).
pub fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    if let Some(operation) = Operation::at(path) {
        return with_method("POST", method, Route::Operation(operation));
    }
    match path {
        "/v1/models" | "/models" => with_method("GET", method, Route::Models),
        "/api/tags" => with_method("GET", method, Route::Tags),
        "/api/ps" => with_method("GET", method, Route::Ps),
        "/api/version" => with_method("GET", method, Route::Version),
        "/usage/me" => with_method("GET", method, Route::Usage),
        "/health" | "/" => with_method("GET", method, Route::Health),
        "/api/pull" | "/api/push" | "/api/create" | "/api/copy" | "/api/delete" => Route::Management,
        _ => with_id(method, path).unwrap_or(Route::NotFound),
    }
}

fn with_method<'a>(wanted: &'static str, method: &str, route: Route<'a>) -> Route<'a> {
    if method == wanted || (method == "HEAD" && wanted == "GET") {
        route
    } else {
        Route::WrongMethod(wanted)
    }
}

/// A path with an id in it.
fn with_id<'a>(method: &str, path: &'a str) -> Option<Route<'a>> {
    if path.starts_with("/api/blobs/") {
        return Some(Route::Management);
    }
    if let Some(id) = path.strip_prefix("/v1/models/").filter(|id| !id.is_empty()) {
        return Some(with_method("GET", method, Route::Model(id)));
    }
    if let Some(id) = path.strip_prefix("/requests/") {
        return Some(match method {
            "DELETE" => Route::Cancel(id),
            _ => with_method("GET", method, Route::Status(id)),
        });
    }
    let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    match parts.as_slice() {
        ["responses", rest @ ..] => response(method, rest),
        ["files" | "batches", ..] => files_and_batches(method, &parts),
        _ => None,
    }
}

fn response<'a>(method: &str, parts: &[&'a str]) -> Option<Route<'a>> {
    Some(Route::Response(match (parts, method) {
        ([id], "GET") if !id.is_empty() => Background::Show(id),
        ([id], "DELETE") if !id.is_empty() => Background::Delete(id),
        ([id, "cancel"], "POST") if !id.is_empty() => Background::Cancel(id),
        ([id, "input_items"], "GET") if !id.is_empty() => Background::InputItems(id),
        ([_], _) => return Some(Route::WrongMethod("GET, DELETE")),
        ([_, "cancel"], _) => return Some(Route::WrongMethod("POST")),
        ([_, "input_items"], _) => return Some(Route::WrongMethod("GET")),
        _ => return None,
    }))
}

fn files_and_batches<'a>(method: &str, parts: &[&'a str]) -> Option<Route<'a>> {
    let wrong = |wanted| Some(Route::WrongMethod(wanted));
    Some(Route::FilesAndBatches(match (parts, method) {
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

/// The protocol of whatever lies below a path that is no operation's.
const PREFIXES: &[(&str, Protocol)] = &[
    ("/api/", Protocol::Ollama),
    ("/v1/messages", Protocol::Anthropic),
    ("/generate", Protocol::Generate),
    ("/requests", Protocol::Generate),
];

/// The protocol that a path belongs to, for the shape of a list or an error. OpenAI and Anthropic have `/v1/models` both;
/// a client of Anthropic's names the API's version in a header.
pub fn protocol_of(path: &str, has_anthropic_version: bool) -> Protocol {
    if has_anthropic_version && path.starts_with("/v1/models") {
        return Protocol::Anthropic;
    }
    let below = || {
        let prefix = PREFIXES.iter().find(|(prefix, _)| path.starts_with(prefix));
        prefix.map_or(Protocol::OpenAi, |(_, protocol)| *protocol)
    };
    Operation::at(path).map_or_else(below, Operation::protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_contract_is_routed() {
        let cases = [
            (
                "POST",
                "/v1/chat/completions",
                Route::Operation(Operation::ChatCompletions),
            ),
            ("POST", "/v1/messages", Route::Operation(Operation::Messages)),
            ("GET", "/v1/models/a/b", Route::Model("a/b")),
            ("POST", "/api/pull", Route::Management),
            ("DELETE", "/api/delete", Route::Management),
            ("GET", "/v1/chat/completions", Route::WrongMethod("POST")),
            ("HEAD", "/health", Route::Health),
            ("TRACE", "/nowhere", Route::NotFound),
            ("GET", "/v1/models/", Route::NotFound),
            ("GET", "/v1/responses/r", Route::Response(Background::Show("r"))),
            (
                "POST",
                "/v1/responses/r/cancel",
                Route::Response(Background::Cancel("r")),
            ),
            (
                "GET",
                "/v1/responses/r/input_items",
                Route::Response(Background::InputItems("r")),
            ),
            ("POST", "/v1/responses/r/input_items", Route::WrongMethod("GET")),
            ("GET", "/v1/responses/", Route::WrongMethod("GET, DELETE")),
            (
                "GET",
                "/v1/files/a/content",
                Route::FilesAndBatches(FilesAndBatches::Content("a")),
            ),
            (
                "POST",
                "/v1/batches/b/cancel",
                Route::FilesAndBatches(FilesAndBatches::CancelBatch("b")),
            ),
            ("PUT", "/v1/files", Route::WrongMethod("GET, POST")),
            ("GET", "/v1/files/a/b/c", Route::NotFound),
        ];
        for (method, path, wanted) in cases {
            assert_eq!(route(method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn every_operation_is_found_at_each_of_its_paths() {
        for operation in Operation::ALL.iter().filter(|one| **one != Operation::Passthrough) {
            let path = operation.client_path();
            assert_eq!(route("POST", path), Route::Operation(*operation));
            assert_eq!(route("GET", path), Route::WrongMethod("POST"));
            assert_eq!(protocol_of(path, false), operation.protocol());
        }
    }

    #[test]
    fn errors_have_the_shape_of_whoever_asks() {
        assert_eq!(protocol_of("/v1/models", false), Protocol::OpenAi);
        assert_eq!(protocol_of("/v1/models/x", true), Protocol::Anthropic);
        assert_eq!(protocol_of("/v1/messages/batches", false), Protocol::Anthropic);
        assert_eq!(protocol_of("/api/pull", false), Protocol::Ollama);
        assert_eq!(protocol_of("/requests/1", false), Protocol::Generate);
        assert_eq!(protocol_of("/nowhere", false), Protocol::OpenAi);
    }

    #[test]
    fn paths_are_read_as_liberally_as_servers_read_them() {
        let cases = [
            ("/v1/chat/completions", "/v1/chat/completions", None),
            ("//v1//chat/completions/", "/v1/chat/completions", None),
            ("/v1/v1/messages", "/v1/messages", None),
            ("/v1/models/org%2Fname", "/v1/models/org/name", None),
            ("/v1/models/a%20b%C3%A4", "/v1/models/a bä", None),
            ("/v1/models/a%00b", "/v1/models/a%00b", None),
            ("/v1/models/50%", "/v1/models/50%", None),
            ("/v1/models/%ff", "/v1/models/%ff", None),
            ("/openai/v1/responses", "/v1/responses", None),
            ("/openai/responses", "/v1/responses", None),
            ("/openai/models", "/v1/models", None),
            ("/api/v1/chat/completions", "/v1/chat/completions", None),
            ("/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens", None),
            ("/messages", "/v1/messages", None),
            ("/embeddings/", "/v1/embeddings", None),
            ("/api/version", "/api/version", None),
            (
                "/openai/deployments/m/chat/completions",
                "/v1/chat/completions",
                Some("m"),
            ),
            (
                "/openai/deployments/org%2Fm/embeddings/",
                "/v1/embeddings",
                Some("org/m"),
            ),
            ("/", "/", None),
            ("//", "/", None),
        ];
        for (path, wanted, model) in cases {
            let clean = clean_path(path);
            assert_eq!((clean.path.as_ref(), clean.model.as_deref()), (wanted, model), "{path}");
        }
    }
}
