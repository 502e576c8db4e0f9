//! A certificate authority of the test's own.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An authority, and what it has signed, as PEM files.
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = TempDir::new().expect("a temporary directory");
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("writable");
        Self { dir, issuer }
    }

    /// Signs a certificate for a name; both files' paths, and certificate and key as one text.
    pub fn sign(&self, name: &str) -> (String, String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |ending: &str| {
            self.dir
                .path()
                .join(format!("{name}.{ending}"))
                .to_string_lossy()
                .into_owned()
        };
        std::fs::write(path("crt"), certificate.pem()).expect("writable");
        std::fs::write(path("key"), key.serialize_pem()).expect("writable");
        (path("crt"), path("key"), certificate.pem() + &key.serialize_pem())
    }

    /// The path of its own certificate.
    pub fn ca(&self) -> String {
        self.dir.path().join("ca.pem").to_string_lossy().into_owned()
    }

    /// A client that trusts it, with a certificate and key of its own if given.
    pub fn client(&self, identity: Option<&str>) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes()).expect("a certificate");
        let mut builder = reqwest::Client::builder().add_root_certificate(ca).use_rustls_tls();
        if let Some(identity) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(identity.as_bytes()).expect("an identity"));
        }
        builder.build().expect("a client")
    }

    /// TLS over a connection to a server that it has signed a certificate for, which chooses the first of the protocols
    /// (ALPN) that it knows.
    pub async fn connect(
        &self,
        name: &'static str,
        protocols: &[&[u8]],
        connection: TcpStream,
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        let secured = connector.connect(name.try_into().expect("a name"), connection);
        secured.await.expect("TLS")
    }
}
