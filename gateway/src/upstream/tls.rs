//! TLS to servers.

use crate::config::EndpointTls;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::WrappedX509;
use protocol::error::{ErrorCode, RequestError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A peer at an address. With TLS its certificate is always verified.
pub(super) fn peer(address: SocketAddr, tls: Option<&EndpointTls>) -> Result<HttpPeer, RequestError> {
    let Some(tls) = tls else {
        return Ok(HttpPeer::new(address, false, String::new()));
    };
    let mut peer = HttpPeer::new(address, true, tls.server_name.clone());
    if let Some(file) = &tls.ca_file {
        let unreadable = |why: &str| {
            tracing::error!(file, why, "certificates for an upstream cannot be read");
            RequestError::new(
                ErrorCode::NoHealthyUpstream,
                "the gateway cannot verify the model's server",
            )
        };
        let pem = std::fs::read(file).map_err(|error| unreadable(&error.to_string()))?;
        let parsed = CertificateDer::pem_slice_iter(&pem).map(|certificate| {
            let certificate = certificate.map_err(|error| unreadable(&error.to_string()))?;
            WrappedX509::try_new(certificate.to_vec(), |der| match X509Certificate::from_der(der) {
                Ok((_, parsed)) => Ok(parsed),
                Err(error) => Err(unreadable(&error.to_string())),
            })
        });
        let parsed = parsed.collect::<Result<Vec<_>, RequestError>>()?;
        if parsed.is_empty() {
            return Err(unreadable("there is no certificate in it"));
        }
        peer.options.ca = Some(Arc::from(parsed));
        // Connections made under other certificates are not shared.
        peer.group_key = BuildHasherDefault::<DefaultHasher>::default().hash_one(&pem);
    }
    Ok(peer)
}
