//! Protection of the admin listener on loopback from web pages: a page whose name was rebound to this machine could
//! read the metrics and try tokens, and a page of another origin could post the console's forms.

use super::{Admin, refused};
use crate::web_page::{foreign_host, is_own_page, is_web_page, origin};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

/// Refuses requests that call this machine by a foreign name or come from a page of another origin.
pub(super) async fn guarded(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let snapshot = admin.services.current.get();
    let gateway = &snapshot.config.gateway;
    // Another address is reached by names that only its operator knows, and a token protects it.
    if !gateway.startup.admin_listen.ip().is_loopback() {
        return next.run(request).await;
    }
    let (uri, headers, allowed) = (request.uri(), request.headers(), &gateway.admin_hosts);
    if let Some(host) = foreign_host(uri, headers, allowed) {
        let why = format!(
            "host `{host}` is not allowed on the admin listener: use 127.0.0.1 or localhost, or add it to admin_hosts \
             in gateway.yaml"
        );
        return refused(StatusCode::FORBIDDEN, why);
    }
    let foreign = origin(headers).filter(|origin| is_web_page(origin) && !is_own_page(origin, headers, uri, allowed));
    if let Some(origin) = foreign {
        let why = format!("origin `{origin}` is not allowed on the admin listener: only its own pages may call it");
        return refused(StatusCode::FORBIDDEN, why);
    }
    next.run(request).await
}
