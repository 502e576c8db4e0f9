//! The console at `/`: pages rendered here, kept fresh over `/events` by a small script of our own. Access to it has
//! come in by a link that works once, or with the admin token.

mod actions;
mod allowances;
mod charts;
mod events;
mod frame;
mod gateways;
pub(crate) mod history;
mod pages;
mod plot;
mod provider;
mod range;
mod reasons;
mod roles;
pub(crate) mod session;
pub(crate) mod standalone;
mod state;
mod table;
mod tally;
mod text;
mod tiles;
mod view;

use super::Admin;
use super::access::{Denied, TOO_MANY, Visitor};
use crate::config::Role;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json};
use frame::Notice;
use serde::Deserialize;
use serde_json::json;
use session::{LINK_LASTS, Session};
use view::{Page, View};

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
        .route("/login/provider", get(provider::start))
        .route("/login/callback", get(provider::finish))
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
    let session = match session {
        Ok(session) => session,
        Err(denied) => return denied_page(&admin, &denied, None),
    };
    match View::of(request.uri()).map(|view| session.role.scoped(view)) {
        Some(Some(view)) => pages::respond(&admin, &view, &session, None).await,
        Some(None) => forbidden(&admin, &session).await,
        None => login_page(&admin, StatusCode::UNAUTHORIZED, None),
    }
}

/// What a role does not see: its first page, with a word about it.
async fn forbidden(admin: &Admin, session: &Session) -> Response {
    let notice = Notice::Wrong(format!("Your role ({}) does not include that.", session.role.word()));
    let home = session.role.scoped(View::plain(Page::Overview));
    let page = match home {
        Some(view) => pages::respond(admin, &view, session, Some(notice)).await,
        None => login_page(admin, StatusCode::FORBIDDEN, None),
    };
    (StatusCode::FORBIDDEN, page).into_response()
}

fn login_page(admin: &Admin, status: StatusCode, trouble: Option<&str>) -> Response {
    let has_provider = admin.services.current.get().config.gateway.oidc.is_some();
    (status, Html(frame::login(trouble, has_provider).into_string())).into_response()
}

/// The page for logging in, for a visitor who is not let in.
fn denied_page(admin: &Admin, denied: &Denied, trouble: Option<&str>) -> Response {
    let (status, headers) = denied.head();
    let trouble = match denied {
        Denied::TooMany(_) => Some(TOO_MANY),
        Denied::Unknown => trouble,
    };
    (headers, login_page(admin, status, trouble)).into_response()
}

#[derive(Deserialize)]
struct Link {
    code: Option<String>,
}

/// `GET /login?code=…`: once.
async fn by_link(State(admin): State<Admin>, method: Method, visitor: Visitor, Query(link): Query<Link>) -> Response {
    // Programs that look at links before a person follows them must not use them up.
    let Some(code) = link.code.filter(|_| method != Method::HEAD) else {
        return login_page(&admin, StatusCode::OK, None);
    };
    match admin.redeem(&code, visitor.address) {
        Ok(()) => let_in(&admin),
        Err(denied) => denied_page(
            &admin,
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
        Err(denied) => denied_page(&admin, &denied, Some("Invalid admin token.")),
    }
}

fn let_in(admin: &Admin) -> Response {
    match admin.console.begin(Role::Operator, String::new()) {
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
