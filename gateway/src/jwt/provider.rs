//! Requests to an OpenID Connect provider: its description of itself (OpenID Connect Discovery 1.0), its documents, and
//! the tokens of a login. All block.

use super::shown;
use crate::config::{Jwt, is_trustworthy};
use crate::web_client;
use reqwest_blocking::blocking::{Client, Response};
use reqwest_blocking::redirect::Policy;
use reqwest_blocking::{Certificate, Error};
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Time for a request.
const WITHIN: Duration = Duration::from_secs(5);

/// Largest document of a provider, in bytes.
const LARGEST: u64 = 1 << 20;

/// Where a provider is, and who vouches for its server.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(super) issuer: String,
    ca_file: Option<PathBuf>,
}

impl Provider {
    pub(crate) fn new(settings: &Jwt) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            ca_file: settings.ca_file.clone(),
        }
    }

    pub(crate) fn client(&self) -> Result<Client, String> {
        let failed = |error: Error| error.to_string();
        let mut builder = web_client::builder().timeout(WITHIN).redirect(Policy::none());
        if let Some(file) = &self.ca_file {
            let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            builder = builder.tls_certs_merge(Certificate::from_pem_bundle(&pem).map_err(failed)?);
        } else if !self.issuer.starts_with("https:") {
            builder = builder.tls_certs_only([]);
        }
        builder.build().map_err(failed)
    }

    /// An address from the provider's description of itself, such as its `jwks_uri`.
    pub(crate) fn endpoint(&self, client: &Client, name: &str) -> Result<String, String> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let about = get(client, &url)?;
        let issuer = about["issuer"].as_str().unwrap_or_default();
        if issuer != self.issuer {
            return Err(format!(
                "{url} names the issuer `{}`; write it so in gateway.yaml",
                shown(issuer)
            ));
        }
        let endpoint = about[name].as_str().unwrap_or_default();
        if !is_trustworthy(endpoint) {
            return Err(format!(
                "{url} names `{}` as its {name}, which is not https://",
                shown(endpoint)
            ));
        }
        Ok(endpoint.to_owned())
    }
}

pub(super) fn get(client: &Client, url: &str) -> Result<Value, String> {
    let answer = client.get(url).send().map_err(|error| cause(url, &error))?;
    if !answer.status().is_success() {
        return Err(format!("{url} returned status {}", answer.status().as_u16()));
    }
    read(url, answer)
}

/// Sends a form, as a client with a secret or without; the answer, of whatever status.
pub(crate) fn post(client: &Client, url: &str, form: String, secret: Option<(&str, &str)>) -> Result<Value, String> {
    let mut request = client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form);
    if let Some((id, secret)) = secret {
        request = request.basic_auth(id, Some(secret));
    }
    read(url, request.send().map_err(|error| cause(url, &error))?)
}

fn read(url: &str, answer: Response) -> Result<Value, String> {
    let mut body = Vec::new();
    let read = answer.take(LARGEST).read_to_end(&mut body);
    read.map_err(|error| format!("{url}: {error}"))?;
    serde_json::from_slice(&body).map_err(|error| format!("{url} did not return JSON: {error}"))
}

fn cause(url: &str, error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("{url}: {cause}")
}
