//! Pass-through: requests for paths that no operation has, which the configuration opens for a model. What is sent and
//! answered is the server's own affair; only a model's name in a body of JSON or a form is read and written.
//!
//! A path is compared after decoding and sent as it came, so a path that servers could decode into another one (`..`,
//! encoded slashes, double encoding) is refused.

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::{ErrorCode, RequestError};
use crate::form::{self, Form};
use crate::request::{ParsedRequest, Spans, model_named};
use crate::route::{Route, clean_path, route};
use crate::scan::{fields, top_level};
use policy::Units;
use std::borrow::Cow;

/// The prefix of a path that names its model.
pub const PREFIX: &str = crate::operation::PASSTHROUGH_PREFIX;

/// Paths by which servers are administered; a pattern with `/*` never opens them.
const ADMINISTRATION: &[&str] = &[
    // Ollama
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs",
    "/api/experimental",
    "/api/me",
    "/api/signout",
    // vLLM
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/collective_rpc",
    "/start_profile",
    "/stop_profile",
    "/scale_elastic_ep",
    "/server_info",
    // llama.cpp
    "/slots",
    "/props",
    "/lora-adapters",
    "/models",
    // SGLang
    "/flush_cache",
    "/clear_hicache_storage_backend",
    "/update_weights_from_disk",
    "/update_weights_from_tensor",
    "/update_weights_from_distributed",
    "/init_weights_update_group",
    "/get_weights_by_name",
    "/release_memory_occupation",
    "/resume_memory_occupation",
    "/load_lora_adapter",
    "/unload_lora_adapter",
    "/abort_request",
    "/set_internal_state",
    "/configure_logging",
    // LocalAI
    "/backend",
    "/backends",
    "/tts/backend",
    // any
    "/admin",
    "/shutdown",
    "/metrics",
];

/// A path that is passed through, or all paths below one (`/…/*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Why it cannot be one, as a part of a sentence that begins with the pattern.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let path = text.strip_suffix("/*").unwrap_or(text);
        if !path.starts_with('/') || path.len() < 2 {
            return Err("must be a path such as `/pooling`, or all paths below one, such as `/v1/voices/*`");
        }
        if path.contains(['*', '?', '#', '%', ' ']) || !is_plain(path) || path.ends_with('/') {
            return Err("must be a plain path: `*` only as its last segment, no `..`, no `//`, no query, no escapes");
        }
        if Operation::at(path).is_some() {
            return Err("is served by the gateway itself, with metering");
        }
        if path == PREFIX || path.starts_with("/passthrough/") {
            return Err("is the gateway's own prefix of pass-through paths");
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it opens a path, which is [plain](is_plain), cleaned and decoded. Paths that the gateway serves and
    /// those by which servers are administered are opened only by their own names.
    pub fn opens(&self, path: &str) -> bool {
        match self.0.strip_suffix("/*") {
            None => self.0 == path,
            Some(above) => {
                let below = path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
                below && !is_reserved(path)
            }
        }
    }
}

fn is_reserved(path: &str) -> bool {
    let is_at_or_below = |above: &&str| {
        let rest = path.get(..above.len()).filter(|head| head.eq_ignore_ascii_case(above));
        rest.is_some_and(|_| path.len() == above.len() || path[above.len()..].starts_with('/'))
    };
    route("GET", path) != Route::NotFound || ADMINISTRATION.iter().any(is_at_or_below)
}

/// The server's path of a request, without its query.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'p> {
    /// As it was sent.
    pub path: &'p str,
    /// Cleaned and decoded, for [`Pattern::opens`].
    pub decoded: Cow<'p, str>,
    /// The model that the path names: `/passthrough/{model}/…`.
    pub model: Option<String>,
}

/// Reads the path of a request; `None` where it cannot be passed on.
pub fn target(path: &str) -> Option<Target<'_>> {
    let (model, path) = match path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => {
            let (model, _) = rest.split_once('/')?;
            let decoded = clean_path(&path[..PREFIX.len() + 1 + model.len()]).path.into_owned();
            let name = decoded.strip_prefix(PREFIX)?.strip_prefix('/')?;
            (Some(name.to_owned()), &rest[model.len()..])
        }
        None => (None, path),
    };
    is_plain(path).then(|| Target {
        path,
        decoded: clean_path(path).path,
        model,
    })
}

/// Returns whether every server reads a path in the same way.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/%".contains(byte);
    if bytes.first() != Some(&b'/') || !bytes.iter().all(is_known) || path.contains("//") {
        return false;
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return false;
    }
    let mut escapes = path.split('%');
    escapes.next();
    escapes.all(|after| {
        let decoded = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.is_some_and(|byte| byte >= b' ' && byte != 0x7f && !b"./\\%;?#".contains(&byte))
    })
}

fields! {
    struct Head { model }
}

/// The dialect.
pub(crate) struct Passthrough;

impl Dialect for Passthrough {
    fn parse<'a>(
        &self,
        _: Operation,
        body: &'a [u8],
        content_type: Option<&str>,
    ) -> Result<ParsedRequest<'a>, RequestError> {
        let (model, spans) = if form::boundary(content_type)?.is_some() {
            let (model, spans) = Form::parse(content_type, body)?.model()?;
            (model.into(), spans)
        } else if body.trim_ascii_start().first() == Some(&b'{') {
            // Not JSON after all, the server may still read a model in it for which the caller has no permission.
            let head: Head<'_> = top_level(body)?;
            let spans = Spans {
                model: head.model.range(body),
                ..Spans::default()
            };
            (model_named(head.model)?, spans)
        } else {
            (Cow::default(), Spans::default())
        };
        Ok(ParsedRequest {
            model,
            units: Units {
                passthrough_requests: 1,
                ..Units::default()
            },
            spans: Spans {
                is_opaque: true,
                ..spans
            },
            ..ParsedRequest::default()
        })
    }
}

/// The refusal of a request whose parts name different models.
pub fn ambiguous(one: &str, other: &str) -> RequestError {
    let message = format!("the request names two models, `{one}` and `{other}`; name one");
    RequestError::param(ErrorCode::BadRequest, "model", message)
}

/// The refusal of a path that the model does not pass through.
pub fn not_opened(path: &str, model: &str) -> RequestError {
    let message = format!("`{path}` is not passed through for model `{model}`; see `passthrough` in models.yaml");
    RequestError::new(ErrorCode::UnknownPath, message)
}

#[cfg(test)]
#[path = "passthrough_tests.rs"]
mod tests;
