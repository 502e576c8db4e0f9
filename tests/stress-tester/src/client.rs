//! HTTP to the gateway, on connections that are kept.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// Clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
}

/// What is sent with a request, beside its body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    pub(crate) key: Option<String>,
    pub(crate) pairs: Vec<(&'static str, String)>,
}

impl Http {
    /// `base` is `http(s)://host:port`.
    pub(crate) fn new(base: &str) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("the system's certificates cannot be read: {error}"))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(tls);
        let base = base.trim_end_matches('/').to_owned();
        base.parse::<hyper::Uri>()
            .ok()
            .filter(|uri| uri.scheme().is_some())
            .ok_or_else(|| format!("`{base}` is no address such as http://127.0.0.1:8000"))?;
        Ok(Self { client, base })
    }

    /// Sends a request; its head, and a body to be read.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &Headers,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = &headers.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        for (name, value) in &headers.pairs {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            format!("{error}{cause}")
        })
    }

    /// Asks for JSON.
    pub(crate) async fn get(&self, path: &str, headers: &Headers) -> Result<(u16, serde_json::Value), String> {
        let response = self.send(Method::GET, path, headers, Bytes::new()).await?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
    }
}

/// When an answer says that one should come back.
pub(crate) fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A header as a number.
pub(crate) fn number(response: &Response<Incoming>, name: &str) -> Option<f64> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}
