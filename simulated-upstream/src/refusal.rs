//! Refusals of requests, independent of the API; each API and dialect writes them in a form of its own.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::Value;

/// A refused request.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// vLLM's name for the kind of error.
    pub(crate) kind: &'static str,
    /// The request's field that is wrong, where one is.
    pub(crate) param: Option<&'static str>,
    /// Seconds, for the header of that name.
    pub(crate) retry_after: Option<u64>,
    /// More fields of the error, which llama.cpp has.
    pub(crate) details: Vec<(&'static str, Value)>,
    /// The answer is no JSON at all.
    pub(crate) is_garbage: bool,
}

impl Refusal {
    /// A refusal whose kind is the usual one of its status.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::NOT_FOUND => "NotFoundError",
            StatusCode::TOO_MANY_REQUESTS => "Too Many Requests",
            StatusCode::SERVICE_UNAVAILABLE => "Service Unavailable",
            status if status.is_client_error() => "BadRequestError",
            _ => "InternalServerError",
        };
        Self {
            status,
            message: message.into(),
            kind,
            param: None,
            retry_after: None,
            details: Vec::new(),
            is_garbage: false,
        }
    }

    /// A value that a server cannot use.
    pub(crate) fn bad(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self {
            param,
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// A body that does not match the operation's schema, with FastAPI's name for the error.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: "Bad Request",
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// A model that is not served, in vLLM's words.
    pub(crate) fn no_model(name: &str) -> Self {
        Self {
            param: Some("model"),
            ..Self::new(StatusCode::NOT_FOUND, format!("The model `{name}` does not exist."))
        }
    }

    /// The error of a vLLM whose engine has died.
    pub(crate) fn engine_failure() -> Self {
        let message = "EngineCore encountered an issue. See stack trace (above) for the root cause.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The response, with a body in an API's shape.
    pub(crate) fn respond(&self, body: Value) -> Response {
        if self.is_garbage {
            return ([(header::CONTENT_TYPE, "application/json")], self.message.clone()).into_response();
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.into());
        }
        response
    }
}
