//! The blocking HTTP client of the command line, of traces and of the identity provider's keys.

use reqwest_blocking::Error;
use reqwest_blocking::blocking::{Client, ClientBuilder};
use std::time::Duration;

/// A client that gives up after a time. On a machine without certificates of authorities (a container with nothing but
/// this program) it speaks plain HTTP.
///
/// # Errors
/// The TLS library cannot be set up.
pub(crate) fn client(timeout: Duration) -> Result<Client, Error> {
    let builder = || builder().timeout(timeout);
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}

/// A builder of clients, with the process's choice of cryptography.
pub(crate) fn builder() -> ClientBuilder {
    // An error means that it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}
