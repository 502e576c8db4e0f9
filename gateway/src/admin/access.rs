//! Access to the admin listener by the admin token. An address that has sent too many wrong ones has to wait, even with the
//! right one: else it could guess on, since the right one would tell itself apart.

use super::socket::Origin;
use super::{Admin, refused};
use crate::strangers::Credential;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

/// The address of a request's client, and the admin token that it gives.
pub(super) struct Visitor {
    pub(super) address: Option<IpAddr>,
    token: Option<String>,
}

/// The reason why a visitor is not let in.
pub(super) enum Denied {
    /// No token, or a wrong one.
    Unknown,
    /// Too many wrong ones came from its address; it may try again after this time.
    TooMany(Duration),
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers, &parts.extensions))
    }
}

impl Visitor {
    pub(super) fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let origin = extensions.get::<ConnectInfo<Origin>>();
        Self {
            address: origin.and_then(|ConnectInfo(origin)| origin.address()),
            token: bearer(headers).map(str::to_owned),
        }
    }
}

impl Admin {
    /// Checks the admin token that a visitor gives as `Authorization: Bearer`.
    pub(super) fn check(&self, visitor: &Visitor) -> Result<(), Denied> {
        let token = visitor.token.as_deref().ok_or(Denied::Unknown)?;
        self.check_token(token, visitor.address)
    }

    /// Checks a token; a wrong one counts against the address.
    pub(super) fn check_token(&self, token: &str, address: Option<IpAddr>) -> Result<(), Denied> {
        let kind = Credential::AdminToken;
        let per_minute = self.wrong_credentials_per_minute();
        if let Some(wait) = self.services.strangers.wait(kind, address, per_minute) {
            return Err(Denied::TooMany(wait));
        }
        if self.token.is(token) {
            return Ok(());
        }
        self.services.strangers.count_failure(kind, address, per_minute);
        Err(Denied::Unknown)
    }

    /// Redeems the code of a one-time link. A right one is let in from every address: nobody guesses 256 random bits.
    pub(super) fn redeem(&self, code: &str, address: Option<IpAddr>) -> Result<(), Denied> {
        if self.console.redeem(code) {
            return Ok(());
        }
        let kind = Credential::LoginLink;
        let per_minute = self.wrong_credentials_per_minute();
        if let Some(wait) = self.services.strangers.wait(kind, address, per_minute) {
            return Err(Denied::TooMany(wait));
        }
        self.services.strangers.count_failure(kind, address, per_minute);
        Err(Denied::Unknown)
    }

    fn wrong_credentials_per_minute(&self) -> u32 {
        self.services.current.get().config.gateway.wrong_credentials_per_minute
    }
}

impl Denied {
    /// The status, and the header that says when to come back.
    pub(super) fn head(&self) -> (StatusCode, HeaderMap) {
        let mut headers = HeaderMap::new();
        let status = match self {
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::TooMany(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(header::RETRY_AFTER, seconds.max(1).into());
                StatusCode::TOO_MANY_REQUESTS
            }
        };
        (status, headers)
    }
}

/// A sentence for an address that has to wait.
pub(super) const TOO_MANY: &str = "too many wrong admin tokens or login links came from your address; wait for the seconds in \
                                   `retry-after` and try again";

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, mut headers) = self.head();
        let detail = match self {
            Self::TooMany(_) => TOO_MANY,
            Self::Unknown => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                "send the admin token as `Authorization: Bearer …`; it is in SLUICE_ADMIN_TOKEN or data/admin.token"
            }
        };
        (headers, refused(status, detail)).into_response()
    }
}

/// The token of `Authorization: Bearer`; the scheme's name has no case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_of_the_token_may_be_written_in_any_case() {
        for (value, token) in [
            ("Bearer secret", Some("secret")),
            ("bearer secret", Some("secret")),
            ("BEARER  secret ", Some("secret")),
            ("Basic secret", None),
            ("secret", None),
            ("Bearersecret", None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }
}
