//! HTTP to the server under test, on connections that are kept.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, Uri, body::Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

use crate::protocol::answer::Failure;

/// A client of one server. Clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
}

impl Http {
    /// `base` is `http(s)://host:port`, with or without a path before those of the API.
    pub(crate) fn new(base: &str) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("cannot read the system's certificates: {error}"))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(tls);
        let base = base.trim_end_matches('/').to_owned();
        base.parse::<Uri>()
            .ok()
            .filter(|uri| uri.scheme().is_some() && uri.host().is_some())
            .ok_or_else(|| format!("invalid address `{base}`; give one such as http://127.0.0.1:8000"))?;
        Ok(Self { client, base })
    }

    /// The address of a path. A base that ends in `/v1` is the API's own, as OpenAI's clients have it.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, String> {
        let base = self
            .base
            .strip_suffix("/v1")
            .filter(|_| path.starts_with("/v1/"))
            .unwrap_or(&self.base);
        format!("{base}{path}")
            .parse()
            .map_err(|error| format!("invalid address {base}{path}: {error}"))
    }

    /// Sends a request; the response's body is yet to be read.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        self.client
            .request(request)
            .await
            .map_err(|error| transport_failure(&error))
    }

    /// Gets JSON. A body that is no JSON is an error, whatever its status.
    pub(crate) async fn get(&self, path: &str, headers: &HeaderMap) -> Result<(u16, serde_json::Value), Failure> {
        let uri = self.uri(path).map_err(|why| Failure::new("invalid_address", &why))?;
        let response = self.send(Method::GET, uri, headers.clone(), Bytes::new()).await?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| transport_failure(&error))?
            .to_bytes();
        serde_json::from_slice(&body).map(|value| (status, value)).map_err(|_| {
            let text = String::from_utf8_lossy(&body);
            let begins: String = text.chars().take(80).collect();
            Failure::new("malformed_answer", &format!("HTTP {status} without JSON: {begins}"))
        })
    }
}

/// Headers of requests with a JSON body.
pub(crate) fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// The reason why there is no answer, or only part of one; reasons of the client's own limits begin with `client_`.
pub(crate) fn transport_failure(error: &(dyn std::error::Error + 'static)) -> Failure {
    use std::io::ErrorKind;
    let mut causes = Vec::new();
    let mut reason = "connection_failed";
    let mut next = Some(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            reason = match (io.kind(), io.raw_os_error()) {
                // EMFILE and ENFILE.
                (_, Some(23 | 24)) => "client_out_of_files",
                (ErrorKind::AddrNotAvailable, _) => "client_out_of_ports",
                (ErrorKind::ConnectionRefused, _) => "connection_refused",
                (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => "connection_reset",
                (ErrorKind::UnexpectedEof, _) => "connection_closed",
                _ => reason,
            };
        } else if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() {
                reason = "connection_closed";
            } else if http.is_parse() {
                reason = "invalid_http";
            }
        }
        next = cause.source();
    }
    causes.dedup();
    Failure::new(reason, &causes.join(": "))
}

/// When a refused request may come back.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The text of a header; empty if there is none.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_with_and_without_v1_reaches_the_same_endpoint() {
        for base in ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1"] {
            let http = Http::new(base).expect("an address");
            assert_eq!(
                http.uri("/v1/models").expect("a URI").to_string(),
                "http://127.0.0.1:1/v1/models"
            );
        }
        assert!(Http::new("127.0.0.1:8000/x").is_err());
    }
}
