//! Rules for web pages: cross-origin requests (CORS) from the configured origins, and, while identity is open, from
//! pages of this machine itself and nothing else, so that no page can spend a user's budget through their browser (by a
//! foreign `Origin`, or by a name that has been rebound to this address).

use crate::config::{Config, Identity};
use crate::web_page::{foreign_host, is_page_of_this_machine, is_web_page, origin};
use http::{HeaderMap, Method, Uri, header};
use protocol::error::{ErrorCode, RequestError};

/// Methods that a page may use.
const METHODS: &str = "GET, POST, DELETE, PUT, PATCH, OPTIONS";

/// Response headers that a page may read.
const EXPOSED: &str = "x-request-id, x-sluice-request-id, x-sluice-model, x-sluice-queue-ms, x-sluice-degraded, \
    x-sluice-dropped, x-sluice-cost-eur, retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, \
    x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";

/// Seconds that a browser may remember a preflight's answer.
const MAX_AGE: &str = "600";

/// The decision on a request with regard to the page that it may come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is served; the response carries these headers.
    Granted(Vec<(&'static str, String)>),
    /// A preflight, answered with these headers.
    Preflight(Vec<(&'static str, String)>),
    Refused(RequestError),
}

/// Judges a request by its method, target and headers.
pub(super) fn access(config: &Config, method: &Method, uri: &Uri, headers: &HeaderMap) -> Access {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_open = matches!(config.gateway.identity, Identity::Open { .. });
    if is_open && let Some(host) = foreign_host(uri, headers, &[]) {
        return Access::Refused(refusal(format!(
            "host `{host}` is not allowed while identity is open: use 127.0.0.1 or localhost, or `identity: keys`"
        )));
    }
    let Some(origin) = origin(headers) else {
        return Access::Granted(Vec::new());
    };
    let is_preflight = method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let allowed = config.gateway.cors_origins.iter();
    // Pages of this machine itself are its user's own; every other one is configured.
    let is_own = is_open && is_page_of_this_machine(origin);
    let is_allowed = is_own
        || allowed
            .into_iter()
            .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin));
    if !is_allowed && (is_preflight || (is_open && is_web_page(origin))) {
        return Access::Refused(refusal(format!(
            "origin `{origin}` is not allowed: add it to cors_origins in gateway.yaml"
        )));
    }
    if !is_allowed {
        return Access::Granted(Vec::new());
    }
    let mut granted = vec![
        ("access-control-allow-origin", origin.to_owned()),
        ("vary", "origin".to_owned()),
    ];
    if !is_preflight {
        granted.push(("access-control-expose-headers", EXPOSED.to_owned()));
        return Access::Granted(granted);
    }
    let wanted = text(header::ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or("*");
    granted.push(("access-control-allow-methods", METHODS.to_owned()));
    granted.push(("access-control-allow-headers", wanted.to_owned()));
    granted.push(("access-control-max-age", MAX_AGE.to_owned()));
    if headers.contains_key("access-control-request-private-network") {
        // Browsers ask for it before a page of the public network may call loopback.
        granted.push(("access-control-allow-private-network", "true".to_owned()));
    }
    Access::Preflight(granted)
}

fn refusal(message: String) -> RequestError {
    RequestError::new(ErrorCode::OriginNotAllowed, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Found, load};
    use std::path::Path;

    fn config(origins: &[&str], identity: Identity) -> Config {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        let mut config = load(&dir, &Found::new()).expect("the shipped configuration");
        config.gateway.cors_origins = origins.iter().map(|&origin| origin.to_owned()).collect();
        config.gateway.identity = identity;
        config
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a value"));
        }
        headers
    }

    const OPEN: Identity = Identity::Open { default_user: None };

    #[test]
    fn no_foreign_web_page_is_served_under_open_identity_unless_its_origin_is_configured() {
        let config_none = config(&[], OPEN);
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "null",
        ] {
            let headers = headers(&[("host", "127.0.0.1:8000"), ("origin", origin)]);
            let access = access(&config_none, &Method::POST, &Uri::default(), &headers);
            assert!(matches!(access, Access::Refused(_)), "{origin}");
        }
        for origin in ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000"] {
            let headers = headers(&[("host", "127.0.0.1:8000"), ("origin", origin)]);
            assert!(
                matches!(
                    access(&config_none, &Method::POST, &Uri::default(), &headers),
                    Access::Granted(_)
                ),
                "{origin}"
            );
        }
        let chat = headers(&[("host", "localhost:8000"), ("origin", "https://chat.example.org")]);
        let configured = config(&["https://chat.example.org"], OPEN);
        let access = access(&configured, &Method::POST, &Uri::default(), &chat);
        let Access::Granted(granted) = access else {
            panic!("{access:?}")
        };
        assert!(granted.contains(&("access-control-allow-origin", "https://chat.example.org".to_owned())));
    }

    #[test]
    fn a_name_that_was_rebound_to_this_machine_is_refused_and_addresses_are_not() {
        let config = config(&[], OPEN);
        for (host, is_served) in [
            ("evil.example", false),
            ("evil.example:8000", false),
            ("localhost.evil.example", false),
            ("localhost:8000", true),
            ("app.localhost", true),
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("192.168.0.7:8000", true),
        ] {
            let access = access(&config, &Method::POST, &Uri::default(), &headers(&[("host", host)]));
            assert_eq!(access == Access::Granted(Vec::new()), is_served, "{host}");
        }
        // HTTP/2 and absolute URIs have the name in the request's target, and one header may hide behind another.
        let rebound: Uri = "http://evil.example:8000/v1/models".parse().expect("a URI");
        let mut twice = headers(&[("host", "127.0.0.1:8000")]);
        assert!(matches!(
            access(&config, &Method::GET, &rebound, &twice),
            Access::Refused(_)
        ));
        twice.append("host", "evil.example".parse().expect("a value"));
        assert!(matches!(
            access(&config, &Method::GET, &Uri::default(), &twice),
            Access::Refused(_)
        ));
    }

    #[test]
    fn with_keys_a_foreign_page_is_served_what_its_key_allows_and_cannot_read_it() {
        let config = config(&[], Identity::Keys);
        let page = headers(&[("host", "llm.example.org"), ("origin", "https://evil.example")]);
        assert_eq!(
            access(&config, &Method::POST, &Uri::default(), &page),
            Access::Granted(Vec::new())
        );
        let mut preflight = page;
        preflight.insert("access-control-request-method", "POST".parse().expect("a value"));
        assert!(matches!(
            access(&config, &Method::OPTIONS, &Uri::default(), &preflight),
            Access::Refused(_)
        ));
    }

    #[test]
    fn a_preflight_is_answered_with_the_headers_that_the_page_wants_to_send() {
        let preflight = headers(&[
            ("host", "127.0.0.1"),
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,x-stainless-os"),
            ("access-control-request-private-network", "true"),
        ]);
        let access = access(&config(&["*"], OPEN), &Method::OPTIONS, &Uri::default(), &preflight);
        let Access::Preflight(granted) = access else {
            panic!("{access:?}")
        };
        assert!(granted.contains(&(
            "access-control-allow-headers",
            "authorization,x-stainless-os".to_owned()
        )));
        assert!(granted.contains(&("access-control-allow-private-network", "true".to_owned())));
        let methods = granted.iter().find(|(name, _)| *name == "access-control-allow-methods");
        let (_, methods) = methods.expect("the methods");
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
            assert!(methods.split(", ").any(|named| named == method), "{method}: {methods}");
        }
    }
}
