//! The server's certificate and the TLS configurations made from it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rove_protocol::registry::ALPN;
use rove_quic::{SessionStore, accept_early_data, spki_pin};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The ALPN name of HTTP/3.
pub const ALPN_H3: &[u8] = b"h3";

/// Names a development certificate is good for beside the machine's own.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file.
    #[error("tls_cert: {path}: {what}; it must hold the certificate chain in PEM, the server's own first")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// The key's file.
    #[error("tls_key: {path}: {what}; it must hold the certificate's private key in PEM (PKCS#8, SEC1 or PKCS#1)")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// The two do not go together, or rustls cannot use them.
    #[error("tls_cert and tls_key: {0}; are they of the same certificate?")]
    Pair(rustls::Error),
    /// A development certificate could not be made.
    #[error("a development certificate could not be made: {0}")]
    Make(String),
}

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: [u8; 32],
}

impl Identity {
    /// Reads the two PEM files.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] or [`TlsError::Key`].
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let bad_cert = |what: String| TlsError::Certificate { path: cert.to_owned(), what };
        let bad_key = |what: String| TlsError::Key { path: key.to_owned(), what };
        let pem = fs::read(cert).map_err(|error| bad_cert(error.to_string()))?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad_cert(error.to_string()))?;
        let own = chain.first().ok_or_else(|| bad_cert("there is no certificate in it".to_owned()))?;
        let pin = spki_pin(own).map_err(|error| bad_cert(error.to_string()))?;
        let pem = fs::read(key).map_err(|error| bad_key(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| bad_key(error.to_string()))?;
        Ok(Self { chain, key, pin })
    }

    /// What clients pin: base64url of the SHA-256 of the SubjectPublicKeyInfo.
    pub fn pin(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pin)
    }

    /// The chain, the server's own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// For the QUIC port: TLS 1.3, `rove/1` and HTTP/3. Clients resume, and send early data, with what is in `sessions`.
    ///
    /// # Errors
    /// [`TlsError::Pair`].
    pub fn quic(&self, sessions: Arc<SessionStore>) -> Result<ServerConfig, TlsError> {
        let mut config = self.config(&[&rustls::version::TLS13])?;
        config.alpn_protocols = vec![ALPN.to_vec(), ALPN_H3.to_vec()];
        accept_early_data(&mut config, sessions);
        Ok(config)
    }

    /// For the TCP port: HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// [`TlsError::Pair`].
    pub fn tcp(&self) -> Result<ServerConfig, TlsError> {
        let mut config = self.config(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Result<ServerConfig, TlsError> {
        ServerConfig::builder_with_provider(rove_quic::provider())
            .with_protocol_versions(versions)
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(TlsError::Pair)
    }
}

/// Makes a self-signed P-256 certificate for this machine under its local names, its host name and `host`, and writes
/// the two files, the key for this user alone. Files that are there are left as they are.
///
/// # Errors
/// [`TlsError::Make`].
pub fn make_development_certificate(cert: &Path, key: &Path, host: Option<&str>) -> Result<(), TlsError> {
    let failed = |error: &dyn std::fmt::Display| TlsError::Make(error.to_string());
    let mut names: Vec<String> = LOCAL_NAMES.iter().map(ToString::to_string).collect();
    names.extend(host_name());
    names.extend(host.map(str::to_owned));
    names.dedup();
    let key_pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| failed(&error))?;
    let mut params = rcgen::CertificateParams::new(names).map_err(|error| failed(&error))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Rove development certificate");
    let certificate = params.self_signed(&key_pair).map_err(|error| failed(&error))?;
    // The key first: a certificate without a key is noticed at the next start, a key without one is made good here.
    write_new(key, 0o600, &key_pair.serialize_pem()).map_err(|error| failed(&format!("{}: {error}", key.display())))?;
    write_new(cert, 0o644, &certificate.pem()).map_err(|error| failed(&format!("{}: {error}", cert.display())))
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The machine's own name, if it has one that can be in a certificate.
pub fn host_name() -> Option<String> {
    let name = fs::read_to_string("/etc/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok())?;
    let name = name.trim();
    let fits =
        !name.is_empty() && name.len() <= 253 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    fits.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made(dir: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        make_development_certificate(&cert, &key, Some("chat.example")).unwrap();
        (cert, key)
    }

    #[test]
    fn a_development_certificate_serves_both_ports_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = made(dir.path());
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let identity = Identity::load(&cert, &key).unwrap();
        assert_eq!(identity.quic(sessions()).unwrap().alpn_protocols, [b"rove/1".to_vec(), b"h3".to_vec()]);
        assert_eq!(identity.tcp().unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(URL_SAFE_NO_PAD.decode(identity.pin()).unwrap().len(), 32);
    }

    fn sessions() -> Arc<SessionStore> {
        Arc::new(SessionStore::new(1))
    }

    #[test]
    fn a_certificate_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = made(dir.path());
        let before = fs::read(&cert).unwrap();
        assert!(make_development_certificate(&cert, &key, None).is_err());
        assert_eq!(fs::read(&cert).unwrap(), before);
    }

    #[test]
    fn errors_name_the_key_and_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = made(dir.path());
        let none = dir.path().join("none.pem");
        let message = Identity::load(&none, &key).unwrap_err().to_string();
        assert!(message.starts_with("tls_cert: ") && message.contains("none.pem"), "{message}");
        let message = Identity::load(&cert, &cert).unwrap_err().to_string();
        assert!(message.starts_with("tls_key: "), "{message}");
        let other = tempfile::tempdir().unwrap();
        let (_, other_key) = made(other.path());
        let message = Identity::load(&cert, &other_key).unwrap().quic(sessions()).unwrap_err().to_string();
        assert!(message.contains("same certificate"), "{message}");
    }
}
