//! The console at `/`: pages rendered here, kept fresh over `/events` by a small script of our own. Access to it has
//! come in by a link that works once, or with the admin token.

mod actions;
mod allowances;
mod charts;
mod events;
mod frame;
pub(crate) mod history;
mod pages;
mod plot;
mod range;
mod reasons;
pub(crate) mod session;
mod state;
mod table;
mod tally;
mod text;
mod tiles;
mod view;

use super::Admin;
use super::access::{Denied, TOO_MANY, Visitor};
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json};
use serde::Deserialize;
use serde_json::json;
use session::{LINK_LASTS, Session};
use view::View;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const ICON: &str = include_str!("icon.svg");

/// Content security policy: this listener's own resources alone, and no framing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All of the console's routes.
pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/", get(page))
        .route("/console/queue", get(page))
        .route("/console/projects", get(page))
        .route("/console/project", get(page))
        .route("/console/models", get(page))
        .route("/console/requests", get(page))
        .route("/console/request", get(page))
        .route("/console/batches", get(page))
        .route("/console/requests/cancel", post(actions::cancel))
        .route("/console/configuration", get(page))
        .route("/login", get(by_link).post(by_token))
        .route("/login/links", post(new_link))
        .route("/logout", post(actions::logout))
        .route("/events", get(events::stream))
        .route("/console/keys", get(page).post(actions::make_key))
        .route("/console/keys/rotate", post(actions::rotate_key))
        .route("/console/keys/revoke", post(actions::revoke_key))
        .route("/console/reload", post(actions::reload))
        .route(
            "/console.css",
            get(|| async { asset("text/css; charset=utf-8", STYLE) }),
        )
        .route("/console.svg", get(|| async { asset("image/svg+xml", ICON) }))
        .route(
            "/console.js",
            get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }),
        )
        .layer(middleware::from_fn(guarded))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Adds the headers that restrict what a browser does with a page.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Browsers send `origin: null` with the forms of a page that sends no referrer at all.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(State(admin): State<Admin>, visitor: Visitor, request: Request) -> Response {
    // With the token one may look; its forms belong to no session and do nothing.
    let session = match admin.console.session_of(request.headers()) {
        Some(session) => Ok(session),
        None => admin.check(&visitor).map(|()| Session::none()),
    };
    match (session, View::of(request.uri())) {
        (Ok(session), Some(view)) => pages::respond(&admin, &view, &session, None).await,
        (Ok(_), None) => login_page(StatusCode::UNAUTHORIZED, None),
        (Err(denied), _) => denied_page(&denied, None),
    }
}

fn login_page(status: StatusCode, trouble: Option<&str>) -> Response {
    (status, Html(frame::login(trouble).into_string())).into_response()
}

/// The page for logging in, for a visitor who is not let in.
fn denied_page(denied: &Denied, trouble: Option<&str>) -> Response {
    let (status, headers) = denied.head();
    let trouble = match denied {
        Denied::TooMany(_) => Some(TOO_MANY),
        Denied::Unknown => trouble,
    };
    (headers, login_page(status, trouble)).into_response()
}

#[derive(Deserialize)]
struct Link {
    code: Option<String>,
}

/// `GET /login?code=…`: once.
async fn by_link(State(admin): State<Admin>, method: Method, visitor: Visitor, Query(link): Query<Link>) -> Response {
    // Programs that look at links before a person follows them must not use them up.
    let Some(code) = link.code.filter(|_| method != Method::HEAD) else {
        return login_page(StatusCode::OK, None);
    };
    match admin.redeem(&code, visitor.address) {
        Ok(()) => let_in(&admin),
        Err(denied) => denied_page(
            &denied,
            Some("This link was already used or has expired; create a new one with `sluice console`."),
        ),
    }
}

#[derive(Deserialize)]
struct Given {
    token: String,
}

async fn by_token(State(admin): State<Admin>, visitor: Visitor, Form(given): Form<Given>) -> Response {
    match admin.check_token(given.token.trim(), visitor.address) {
        Ok(()) => let_in(&admin),
        Err(denied) => denied_page(&denied, Some("Invalid admin token.")),
    }
}

fn let_in(admin: &Admin) -> Response {
    match admin.console.begin() {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        Err(error) => super::internal(&error),
    }
}

/// `POST /login/links`, with the admin token: another link.
async fn new_link(State(admin): State<Admin>, visitor: Visitor) -> Response {
    if let Err(denied) = admin.check(&visitor) {
        return denied.into_response();
    }
    match admin.console.link() {
        Ok(code) => Json(json!({"path": format!("/login?code={code}"), "expires_in_seconds": LINK_LASTS.as_secs()}))
            .into_response(),
        Err(error) => super::internal(&error),
    }
}
