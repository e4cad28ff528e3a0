//! One certificate for all servers, P-256 as Rove's own, and clients that trust it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A connection. In a box: a thousand bytes would be moved about with every future.
pub(crate) type Stream = Box<TlsStream<TcpStream>>;

/// The files of a certificate for `localhost`, and what trusts it.
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as ejabberd wants it.
    pub(crate) both: PathBuf,
    connector: TlsConnector,
}

impl Tls {
    /// Makes one in `dir`.
    pub(crate) fn make(dir: &Path) -> Result<Self> {
        let key_pair = KeyPair::generate()?;
        let mut params = CertificateParams::new(["localhost".to_owned()])?;
        // A year of four digits that OpenSSL's and Erlang's calendars have.
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1));
        let made = params.self_signed(&key_pair)?;
        let (certificate, key, both) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("both.pem"));
        let (cert_pem, key_pem) = (made.pem(), key_pair.serialize_pem());
        std::fs::write(&certificate, &cert_pem)?;
        std::fs::write(&key, &key_pem)?;
        std::fs::write(&both, format!("{cert_pem}{key_pem}"))?;
        let mut roots = RootCertStore::empty();
        roots.add(made.der().clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // Every handshake is a full one.
        config.resumption = Resumption::disabled();
        Ok(Self { certificate, key, both, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects.
    pub(crate) async fn connect(&self, at: SocketAddr) -> Result<Stream> {
        let stream = TcpStream::connect(at).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from("localhost")?, stream).await;
        Ok(Box::new(stream.context("the TLS handshake")?))
    }
}

/// The other end, for a server of this program.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
