//! TLS on the proxy listener: a certificate, h2 and HTTP/1.1, and if wanted only clients with a certificate of their own.

use crate::config::Tls;
use pingora_core::listeners::tls::TlsSettings;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::path::Path;
use std::sync::Arc;

/// Reads and checks everything that a listener needs; what is wrong is said in words.
pub(crate) fn settings(tls: &Tls) -> Result<TlsSettings, String> {
    let provider = ring::default_provider();
    let certificates = certificates("tls.cert_file", &tls.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|error| format!("tls.key_file: `{}` has no key in it: {error}", tls.key_file))?;
    let pair = CertifiedKey::from_der(certificates, key, &provider)
        .map_err(|error| format!("tls.key_file does not belong to tls.cert_file: {error}"))?;
    let mut settings = TlsSettings::intermediate(&tls.cert_file, &tls.key_file).map_err(|error| error.to_string())?;
    settings.set_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    settings.enable_h2();
    if let Some(file) = &tls.client_ca_file {
        let mut roots = RootCertStore::empty();
        for certificate in self::certificates("tls.client_ca_file", file)? {
            roots
                .add(certificate)
                .map_err(|error| format!("tls.client_ca_file: {error}"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider)).build();
        settings.set_client_cert_verifier(verifier.map_err(|error| format!("tls.client_ca_file: {error}"))?);
    }
    Ok(settings)
}

fn certificates(key: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{key}: `{file}` has no certificates in it: {why}");
    let read = CertificateDer::pem_file_iter(Path::new(file)).map_err(|error| wrong(&error))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if all.is_empty() {
        return Err(wrong(&"it is empty"));
    }
    Ok(all)
}
