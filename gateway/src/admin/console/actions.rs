//! Actions of the console: cancelling, keys and reloading. Every form carries its session's own secret, so no other page
//! can send it.

use super::frame::Notice;
use super::session::{self, Session};
use super::view::{Page, View};
use super::{Admin, forbidden, login_page, pages};
use crate::exchange::stored;
use crate::keys::{self, Wanted};
use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use subtle::ConstantTimeEq;

#[derive(Deserialize)]
pub(super) struct Make {
    csrf: String,
    user: String,
    #[serde(default)]
    expires: String,
    #[serde(default)]
    label: String,
    /// With commas between; empty: all.
    #[serde(default)]
    models: String,
}

/// A form about one key or request.
#[derive(Deserialize)]
pub(super) struct About {
    csrf: String,
    id: String,
}

#[derive(Deserialize)]
pub(super) struct Plain {
    csrf: String,
}

/// The session whose form was sent, or the answer to a form of no session or of another one.
#[allow(clippy::result_large_err, reason = "the error is the answer")]
fn session_of(admin: &Admin, headers: &HeaderMap, csrf: &str) -> Result<Session, Response> {
    let Some(session) = admin.console.session_of(headers) else {
        return Err(login_page(
            admin,
            StatusCode::UNAUTHORIZED,
            Some("Your session has ended."),
        ));
    };
    if !bool::from(session.csrf.as_bytes().ct_eq(csrf.as_bytes())) {
        let trouble = "This form belongs to another session; reload the console.";
        return Err(login_page(admin, StatusCode::FORBIDDEN, Some(trouble)));
    }
    Ok(session)
}

/// Does what a form of one's own session asks for; its page then tells the result.
async fn act(
    admin: &Admin,
    headers: &HeaderMap,
    csrf: &str,
    page: Page,
    act: impl AsyncFnOnce(&Session) -> Result<Notice, NotIncluded>,
) -> Response {
    let session = match session_of(admin, headers, csrf) {
        Ok(session) => session,
        Err(refused) => return refused,
    };
    match (act(&session).await, session.role.scoped(View::plain(page))) {
        (Ok(notice), Some(view)) => pages::respond(admin, &view, &session, Some(notice)).await,
        // The page of a request that was cancelled is not everybody's.
        (Ok(_), None) => Redirect::to("/").into_response(),
        (Err(NotIncluded), _) => forbidden(admin, &session).await,
    }
}

/// The role of whoever sent a form does not include what it asks for.
struct NotIncluded;

fn when(may: bool) -> Result<(), NotIncluded> {
    may.then_some(()).ok_or(NotIncluded)
}

/// The project of a user or of a key; empty where there is none such.
fn project_of_user(admin: &Admin, user: &str) -> String {
    let config = &admin.services.current.get().config;
    let found = config.users.iter().find(|known| known.id == user);
    found.map_or_else(String::new, |user| config.project(user.project).id.clone())
}

async fn project_of_key(admin: &Admin, id: &str) -> String {
    let keys = keys::list(&admin.pool).await.unwrap_or_default();
    let found = keys.iter().find(|key| key["id"] == id);
    found
        .and_then(|key| key["project_id"].as_str())
        .unwrap_or_default()
        .to_owned()
}

pub(super) async fn logout(State(admin): State<Admin>, headers: HeaderMap, Form(form): Form<Plain>) -> Response {
    if let Err(refused) = session_of(&admin, &headers, &form.csrf) {
        return refused;
    }
    admin.console.end(&headers);
    ([(header::SET_COOKIE, session::GONE)], Redirect::to("/")).into_response()
}

pub(super) async fn make_key(State(admin): State<Admin>, headers: HeaderMap, Form(form): Form<Make>) -> Response {
    act(&admin, &headers, &form.csrf, Page::Keys, async |session| {
        when(session.role.may_change(&project_of_user(&admin, form.user.trim())))?;
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let models = form.models.split(',').filter_map(given).collect::<Vec<_>>();
        let wanted = Wanted {
            user: form.user.trim().to_owned(),
            project: None,
            expires: given(&form.expires),
            models: (!models.is_empty()).then_some(models),
            label: given(&form.label),
        };
        let snapshot = admin.services.current.get();
        Ok(match keys::make(&snapshot.config, &admin.pool, &wanted).await {
            Ok(key) => {
                admin.reload_keys().await;
                tracing::info!(
                    key = key["id"].as_str(),
                    user = form.user,
                    "API key created from the console"
                );
                Notice::Secret(key["secret"].as_str().unwrap_or_default().to_owned())
            }
            Err(error) => Notice::Wrong(words(error)),
        })
    })
    .await
}

pub(super) async fn revoke_key(State(admin): State<Admin>, headers: HeaderMap, Form(form): Form<About>) -> Response {
    act(&admin, &headers, &form.csrf, Page::Keys, async |session| {
        when(session.role.may_change(&project_of_key(&admin, &form.id).await))?;
        Ok(match keys::revoke(&admin.pool, &form.id).await {
            Ok(()) => {
                admin.reload_keys().await;
                tracing::info!(key = form.id, "API key revoked from the console");
                Notice::Done(format!("Key {} revoked.", form.id))
            }
            Err(error) => Notice::Wrong(words(error)),
        })
    })
    .await
}

/// Gives a key another secret; the old one works for another hour.
pub(super) async fn rotate_key(State(admin): State<Admin>, headers: HeaderMap, Form(form): Form<About>) -> Response {
    act(&admin, &headers, &form.csrf, Page::Keys, async |session| {
        when(session.role.may_change(&project_of_key(&admin, &form.id).await))?;
        Ok(match keys::rotate(&admin.pool, &form.id, None).await {
            Ok(key) => {
                admin.reload_keys().await;
                tracing::info!(key = form.id, "API key rotated from the console");
                Notice::Secret(key["secret"].as_str().unwrap_or_default().to_owned())
            }
            Err(error) => Notice::Wrong(words(error)),
        })
    })
    .await
}

/// Cancels a request that waits or runs.
pub(super) async fn cancel(State(admin): State<Admin>, headers: HeaderMap, Form(form): Form<About>) -> Response {
    act(&admin, &headers, &form.csrf, Page::Queue, async |session| {
        let scope = session.role.scope(&admin.services.current.get().config);
        let scope = scope.map_err(|()| NotIncluded)?;
        when(scope.is_some() || session.role.may_change_all())?;
        Ok(match stored::cancel(&admin.services, &form.id, scope).await {
            Ok(true) => {
                tracing::info!(request_id = form.id, "request cancelled from the console");
                Notice::Done(format!("Request {} is being cancelled.", form.id))
            }
            Ok(false) => Notice::Wrong(format!("Request {} has ended already.", form.id)),
            Err(error) => Notice::Wrong(format!("Request {} cannot be cancelled: {error}.", form.id)),
        })
    })
    .await
}

pub(super) async fn reload(State(admin): State<Admin>, headers: HeaderMap, Form(form): Form<Plain>) -> Response {
    act(&admin, &headers, &form.csrf, Page::Configuration, async |session| {
        when(session.role.may_change_all())?;
        Ok(match admin.reloader.reload().await.result {
            Ok(changes) if changes.is_empty() => Notice::Done("Reloaded: no changes.".to_owned()),
            Ok(changes) => Notice::Done(format!("Reloaded: {}", changes.join("; "))),
            Err(problems) => Notice::Wrong(format!(
                "Invalid configuration, the previous one stays in force: {}",
                problems.join("; ")
            )),
        })
    })
    .await
}

fn words(error: keys::Error) -> String {
    match error {
        keys::Error::Wrong(words) | keys::Error::Unknown(words) => words,
        keys::Error::Failed(error) => {
            tracing::error!(error, "cannot change the API keys");
            "Internal error; see the gateway's log.".to_owned()
        }
    }
}
