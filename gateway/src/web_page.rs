//! Signs of web pages in a request's headers: the names by which it calls this machine, and the origin of its page.
//! Both listeners judge by them, so that no page acts through its visitor's browser.

use http::uri::Authority;
use http::{HeaderMap, Uri, header};
use std::net::IpAddr;

/// The first host name of a request that may mean another machine than this one (DNS rebinding), by its `host` headers
/// and, in HTTP/2 and in absolute URIs, its authority. Addresses are not decided by name servers and pass.
pub(crate) fn foreign_host(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Option<String> {
    let named = headers.get_all(header::HOST).iter();
    let named = named.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut named = named.chain(uri.authority().map(|authority| authority.as_str().into()));
    let found = named.find(|host| !is_local(host) && !is_one_of(host, allowed));
    found.map(|host| host.chars().take(256).collect())
}

/// The `origin` header of a request, if it can be read.
pub(crate) fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN)?.to_str().ok()
}

/// Returns whether an origin is that of a page of the web. Desktop programs send origins of their own (`vscode-file://…`).
pub(crate) fn is_web_page(origin: &str) -> bool {
    origin == "null" || authority(origin).is_some()
}

/// Returns whether an origin is a page that this machine serves, such as that of a program under development.
pub(crate) fn is_page_of_this_machine(origin: &str) -> bool {
    let host = authority(origin).and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = bare(&host);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Returns whether an origin is a page of the host that a request is sent to, or of one of the names in a list.
pub(crate) fn is_own_page(origin: &str, headers: &HeaderMap, uri: &Uri, allowed: &[String]) -> bool {
    let Some(page) = authority(origin) else {
        return false;
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str));
    host.is_some_and(|host| host.eq_ignore_ascii_case(page)) || is_one_of(page, allowed)
}

/// Host and port of an origin of the web.
fn authority(origin: &str) -> Option<&str> {
    ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme))
}

/// Returns whether a `host` header can only mean this machine: an address, or a name that resolves here by convention.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = bare(&authority).trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || name == "host.docker.internal"
}

/// Returns whether a host, with or without a port, is one of the names in a list.
fn is_one_of(host: &str, names: &[String]) -> bool {
    host.parse::<Authority>()
        .is_ok_and(|host| names.iter().any(|name| name.eq_ignore_ascii_case(bare(&host))))
}

/// The host without a port and an address's brackets.
fn bare(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}
