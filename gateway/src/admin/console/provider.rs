//! Login at an OpenID Connect provider: the authorization code flow with PKCE (OpenID Connect Core 1.0, section 3.1; RFC
//! 7636). What a browser has to bring back lies in a cookie of its own: nobody can be made to use another's login, and
//! strangers fill no table here.

use super::super::access::Visitor;
use super::session::cookie;
use super::{Admin, login_page};
use crate::api_key::{hash, random_text};
use crate::clock::now_ms;
use crate::config::{Oidc, Role};
use crate::jwt::provider::{self, Provider};
use crate::jwt::{Issuer, Verified};
use crate::percent::push_encoded;
use crate::strangers::Credential;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::sync::Arc;
use subtle::ConstantTimeEq;

const COOKIE: &str = "sluice_login";

/// The time that a login at the provider may take, in seconds.
const LASTS: u32 = 600;

/// Takes the cookie away.
const GONE: &str = "sluice_login=; HttpOnly; SameSite=Lax; Path=/login; Max-Age=0";

/// What a browser brings back from the provider, and what only it and the gateway know.
struct Pending {
    state: String,
    nonce: String,
    /// Its hash goes to the provider with the browser; it itself proves later who asked.
    verifier: String,
}

impl Pending {
    fn random() -> std::io::Result<Self> {
        Ok(Self {
            state: random_text()?,
            nonce: random_text()?,
            verifier: random_text()?,
        })
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parts = cookie(headers, COOKIE)?.split('.').map(str::to_owned);
        Some(Self {
            state: parts.next()?,
            nonce: parts.next()?,
            verifier: parts.next()?,
        })
    }

    fn cookie(&self) -> String {
        let Self { state, nonce, verifier } = self;
        format!("{COOKIE}={state}.{nonce}.{verifier}; HttpOnly; SameSite=Lax; Path=/login; Max-Age={LASTS}")
    }
}

/// What the provider sends a browser back with.
#[derive(Deserialize)]
pub(super) struct Returned {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

/// `GET /login/provider`: sends the browser to the provider.
pub(super) async fn start(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let snapshot = admin.services.current.get();
    let Some(oidc) = snapshot.config.gateway.oidc.clone() else {
        let trouble = "No identity provider is configured (`oidc` in gateway.yaml).";
        return login_page(&admin, StatusCode::NOT_FOUND, Some(trouble));
    };
    let (pending, back) = match Pending::random() {
        Ok(pending) => (pending, redirect_url(&oidc, &headers)),
        Err(error) => return super::super::internal(&error),
    };
    let cookie = pending.cookie();
    match blocking(move || login_url(&oidc, &pending, &back)).await {
        Ok(url) => ([(header::SET_COOKIE, cookie)], Redirect::to(&url)).into_response(),
        Err(why) => unreachable(&admin, &why),
    }
}

/// `GET /login/callback`: the browser is back.
pub(super) async fn finish(
    State(admin): State<Admin>,
    method: Method,
    visitor: Visitor,
    headers: HeaderMap,
    Query(returned): Query<Returned>,
) -> Response {
    if method == Method::HEAD {
        return login_page(&admin, StatusCode::OK, None);
    }
    let snapshot = admin.services.current.get();
    let (Some(oidc), Some(issuer)) = (&snapshot.config.gateway.oidc, &snapshot.console_issuer) else {
        return login_page(&admin, StatusCode::NOT_FOUND, None);
    };
    let state = returned.state.as_deref().unwrap_or_default();
    let pending = Pending::of(&headers).filter(|pending| is_same(&pending.state, state));
    let Some(pending) = pending else {
        let trouble = "This login was begun in another browser, or more than ten minutes ago; log in again.";
        return login_page(&admin, StatusCode::BAD_REQUEST, Some(trouble));
    };
    let Some(code) = returned.code else {
        let error: String = returned.error.unwrap_or_default().chars().take(100).collect();
        let trouble = format!("The identity provider refused the login ({error}).");
        return login_page(&admin, StatusCode::FORBIDDEN, Some(&trouble));
    };
    let per_minute = snapshot.config.gateway.wrong_credentials_per_minute;
    let (strangers, kind) = (&admin.services.strangers, Credential::LoginLink);
    if let Some(wait) = strangers.wait(kind, visitor.address, per_minute) {
        return super::denied_page(&admin, &super::Denied::TooMany(wait), None);
    }
    let back = redirect_url(oidc, &headers);
    let wanted = oidc.clone();
    let verifier = pending.verifier.clone();
    let token = match blocking(move || exchange(&wanted, &code, &verifier, &back)).await {
        Ok(token) => token,
        Err(why) => {
            strangers.count_failure(kind, visitor.address, per_minute);
            return unreachable(&admin, &why);
        }
    };
    match person(oidc, issuer, &token, &pending.nonce).await {
        Ok((role, name)) => let_in(&admin, role, name),
        Err(trouble) => login_page(&admin, StatusCode::FORBIDDEN, Some(&trouble)),
    }
}

fn let_in(admin: &Admin, role: Role, name: String) -> Response {
    tracing::info!(name, role = role.word(), "logged in to the console");
    match admin.console.begin(role, name) {
        Ok(cookie) => (
            AppendHeaders([(header::SET_COOKIE, cookie.as_str()), (header::SET_COOKIE, GONE)]),
            Redirect::to("/"),
        )
            .into_response(),
        Err(error) => super::super::internal(&error),
    }
}

/// Who a checked ID token is of, and the role; or why nobody is let in.
async fn person(oidc: &Oidc, issuer: &Arc<Issuer>, token: &str, nonce: &str) -> Result<(Role, String), String> {
    issuer.prepare(token).await;
    let verified = issuer.verify(token, now_ms()).map_err(|error| {
        tracing::warn!(error = error.message, "an identity provider's token was refused");
        "The identity provider's answer could not be verified; see the gateway's log.".to_owned()
    })?;
    if !verified.nonce.as_deref().is_some_and(|known| is_same(known, nonce)) {
        return Err("The identity provider's answer belongs to another login; log in again.".to_owned());
    }
    let role = role(oidc, &verified).ok_or_else(|| {
        let groups = verified.groups.join(", ");
        tracing::warn!(name = verified.user, groups, "a login without a role was refused");
        format!("Your account has no role in this console. Its groups are: {groups}.")
    })?;
    Ok((role, verified.user.clone().unwrap_or_default()))
}

/// The first role, in the order of the configuration, whose group somebody has.
fn role(oidc: &Oidc, verified: &Verified) -> Option<Role> {
    let found = oidc.roles.iter().find(|(group, _)| verified.groups.contains(group));
    found.map(|(_, role)| role.clone())
}

/// Where the provider is to send the browser back to.
fn redirect_url(oidc: &Oidc, headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    oidc.redirect_url.clone().unwrap_or_else(|| {
        let scheme = text("x-forwarded-proto")
            .filter(|scheme| *scheme == "https")
            .unwrap_or("http");
        format!("{scheme}://{}/login/callback", text("host").unwrap_or_default())
    })
}

/// Blocks.
fn login_url(oidc: &Oidc, pending: &Pending, back: &str) -> Result<String, String> {
    let provider = Provider::new(&oidc.tokens);
    let mut url = provider.endpoint(&provider.client()?, "authorization_endpoint")?;
    let scope = std::iter::once("openid")
        .chain(
            oidc.scopes
                .iter()
                .map(String::as_str)
                .filter(|scope| *scope != "openid"),
        )
        .collect::<Vec<_>>()
        .join(" ");
    url.push(if url.contains('?') { '&' } else { '?' });
    url.push_str(&form(&[
        ("response_type", "code"),
        ("client_id", &oidc.client_id),
        ("redirect_uri", back),
        ("scope", &scope),
        ("state", &pending.state),
        ("nonce", &pending.nonce),
        (
            "code_challenge",
            &BASE64_URL_SAFE_NO_PAD.encode(hash(&pending.verifier)),
        ),
        ("code_challenge_method", "S256"),
    ]));
    Ok(url)
}

/// Exchanges a code for an ID token. Blocks.
fn exchange(oidc: &Oidc, code: &str, verifier: &str, back: &str) -> Result<String, String> {
    let provider = Provider::new(&oidc.tokens);
    let client = provider.client()?;
    let url = provider.endpoint(&client, "token_endpoint")?;
    let secret = oidc
        .client_secret_env
        .as_deref()
        .map(|name| std::env::var(name).map_err(|_| format!("{name} (oidc.client_secret_env) is not set")));
    let secret = secret.transpose()?;
    let form = form(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", back),
        ("client_id", &oidc.client_id),
        ("code_verifier", verifier),
    ]);
    // RFC 6749, section 2.3.1: both are encoded as in a form before they become HTTP Basic.
    let (mut id, mut encoded) = (String::new(), String::new());
    push_encoded(&mut id, &oidc.client_id);
    push_encoded(&mut encoded, secret.as_deref().unwrap_or_default());
    let answer = provider::post(
        &client,
        &url,
        form,
        secret.is_some().then_some((id.as_str(), encoded.as_str())),
    )?;
    let token = answer["id_token"].as_str();
    token.map(str::to_owned).ok_or_else(|| {
        let error = answer["error"].as_str().unwrap_or("no id_token in its answer");
        let why = answer["error_description"].as_str().unwrap_or_default();
        format!("{url}: {error} {why}").chars().take(300).collect()
    })
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        push_encoded(&mut form, value);
    }
    form
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("the task that asks it failed".to_owned()))
}

fn unreachable(admin: &Admin, why: &str) -> Response {
    tracing::warn!(why, "the identity provider did not complete a login");
    let trouble = "The identity provider did not complete the login; see the gateway's log.";
    login_page(admin, StatusCode::BAD_GATEWAY, Some(trouble))
}

fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}
