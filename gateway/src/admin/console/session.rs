//! Logins to the console: links that work once, and the sessions that they begin. In memory: a restart ends them all.

use super::history::History;
use crate::config::Role;
use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time that a link works.
pub(super) const LINK_LASTS: Duration = Duration::from_secs(600);
/// The time that a session lasts.
const SESSION_LASTS: Duration = Duration::from_secs(12 * 3600);
/// Links and sessions at once; the oldest go first.
const MOST: usize = 64;
const COOKIE: &str = "sluice_console";
/// Takes the cookie away.
pub(super) const GONE: &str = "sluice_console=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0";

/// The console's own state.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// By the SHA-256 of the secret, when it ends.
    links: Mutex<HashMap<[u8; 32], Instant>>,
    sessions: Mutex<HashMap<[u8; 32], (Instant, Session)>>,
    pub(crate) history: Arc<History>,
}

/// A session of an operator.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// The secret in every form, so that no other page can send one.
    pub(super) csrf: String,
    pub(super) role: Role,
    /// Who it is, as the identity provider says; empty with the admin token.
    pub(super) name: String,
}

impl Session {
    /// The stand-in where the console needs no session.
    pub(super) fn none() -> Self {
        Self {
            csrf: String::new(),
            role: Role::Operator,
            name: String::new(),
        }
    }
}

impl Console {
    /// A code that lets in once.
    pub(crate) fn link(&self) -> std::io::Result<String> {
        let code = crate::api_key::random_text()?;
        keep(&mut self.links.lock(), &code, LINK_LASTS, |until| until, |until| *until);
        Ok(code)
    }

    /// Redeems a code; returns false if it is unknown, expired or used.
    pub(crate) fn redeem(&self, code: &str) -> bool {
        let found = self.links.lock().remove(&crate::api_key::hash(code));
        found.is_some_and(|until| until > Instant::now())
    }

    /// Begins a session of somebody; the cookie that carries it.
    pub(super) fn begin(&self, role: Role, name: String) -> std::io::Result<String> {
        let (secret, csrf) = (crate::api_key::random_text()?, crate::api_key::random_text()?);
        let session = Session { csrf, role, name };
        keep(
            &mut self.sessions.lock(),
            &secret,
            SESSION_LASTS,
            |until| (until, session),
            |kept| kept.0,
        );
        let seconds = SESSION_LASTS.as_secs();
        Ok(format!(
            "{COOKIE}={secret}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}"
        ))
    }

    pub(super) fn session_of(&self, headers: &HeaderMap) -> Option<Session> {
        let hash = crate::api_key::hash(secret_of(headers)?);
        let sessions = self.sessions.lock();
        let (until, session) = sessions.get(&hash)?;
        (*until > Instant::now()).then(|| session.clone())
    }

    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(secret) = secret_of(headers) {
            self.sessions.lock().remove(&crate::api_key::hash(secret));
        }
    }
}

/// Keeps something under a secret's hash; what has ended goes, and the oldest where there are too many.
fn keep<T>(
    kept: &mut HashMap<[u8; 32], T>,
    secret: &str,
    lasts: Duration,
    make: impl FnOnce(Instant) -> T,
    until: impl Fn(&T) -> Instant,
) {
    let now = Instant::now();
    kept.retain(|_, one| until(one) > now);
    if kept.len() >= MOST
        && let Some(oldest) = kept.iter().min_by_key(|(_, one)| until(one)).map(|(hash, _)| *hash)
    {
        kept.remove(&oldest);
    }
    kept.insert(crate::api_key::hash(secret), make(now + lasts));
}

fn secret_of(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_link_works_once_and_a_session_until_it_is_ended() {
        let console = Console::default();
        let code = console.link().expect("random");
        assert!(!console.redeem("another"));
        assert!(console.redeem(&code) && !console.redeem(&code));
        let cookie = console.begin(Role::Operator, String::new()).expect("random");
        let mut headers = HeaderMap::new();
        assert!(console.session_of(&headers).is_none());
        let pair = cookie.split(';').next().expect("a pair");
        headers.insert(
            header::COOKIE,
            HeaderValue::from_str(&format!("a=b; {pair}")).expect("a header"),
        );
        assert!(console.session_of(&headers).is_some());
        console.end(&headers);
        assert!(console.session_of(&headers).is_none());
    }

    #[test]
    fn links_are_bounded() {
        let console = Console::default();
        let codes: Vec<String> = (0..=MOST).map(|_| console.link().expect("random")).collect();
        assert_eq!(console.links.lock().len(), MOST);
        assert!(!console.redeem(&codes[0]) && console.redeem(&codes[MOST]));
    }
}
