//! Who this node is and whom it trusts: its certificate, its key and the cluster's authority, read again when the files change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rove_protocol::ids::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::pki::node_name;
use super::registry;

/// The files of `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate of the cluster's authority, in PEM; several while it is being changed.
    pub ca: PathBuf,
    /// This node's certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

impl Files {
    /// Whether a node could use them.
    ///
    /// # Errors
    /// [`TrustError`], with the key and what to do.
    pub fn check(&self, cluster: &str, node: NodeId) -> Result<(), TrustError> {
        read(self, cluster, node).map(drop)
    }
}

/// A file of `[cluster]` that cannot be used. The message names the key, and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {path}: {what}")]
pub struct TrustError {
    /// The key in the configuration.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

/// The name of a node as TLS knows it.
pub(super) fn server_name(cluster: &str, node: NodeId) -> Result<ServerName<'static>, String> {
    ServerName::try_from(node_name(cluster, node)).map_err(|error| error.to_string())
}

/// Whether a certificate, whose chain TLS has checked, is that of `node`.
pub(super) fn is_of_node(certificate: &CertificateDer<'_>, cluster: &str, node: NodeId) -> bool {
    let Ok(name) = server_name(cluster, node) else { return false };
    ParsedCertificate::try_from(certificate)
        .and_then(|parsed| rustls::client::verify_server_name(&parsed, &name))
        .is_ok()
}

/// What connections are made with.
#[derive(Clone)]
pub(super) struct Configs {
    pub(super) client: ClientConfig,
    pub(super) server: Arc<ServerConfig>,
}

/// When a file was last changed, and what else tells it from another.
type Stamp = [Option<(SystemTime, u64)>; 3];

/// The files, and what was made of them.
pub(super) struct Trust {
    files: Files,
    cluster: String,
    node: NodeId,
    current: Mutex<Current>,
}

struct Current {
    configs: Configs,
    stamp: Stamp,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads and checks the files.
    pub(super) fn load(files: Files, cluster: &str, node: NodeId) -> Result<Self, TrustError> {
        let stamp = stamp(&files);
        let configs = read(&files, cluster, node)?;
        Ok(Self { files, cluster: cluster.to_owned(), node, current: Mutex::new(Current { configs, stamp }) })
    }

    /// What the next connection is made with. Files that have changed are read again; if they cannot be used, what there was
    /// stays in force.
    pub(super) fn configs(&self) -> Configs {
        let mut current = self.current.lock();
        let stamp = stamp(&self.files);
        if stamp != current.stamp {
            // Before they are read: what changes meanwhile is read the next time.
            current.stamp = stamp;
            match read(&self.files, &self.cluster, self.node) {
                Ok(configs) => {
                    current.configs = configs;
                    tracing::info!(certificate = %self.files.certificate.display(), "the node's certificate was read anew");
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's new certificate cannot be used; the one before stays in force");
                }
            }
        }
        current.configs.clone()
    }
}

fn stamp(files: &Files) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    [&files.ca, &files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.ino()))
    })
}

fn read(files: &Files, cluster: &str, node: NodeId) -> Result<Configs, TrustError> {
    let provider = rove_quic::provider();
    let roots = Arc::new(read_roots(&files.ca)?);
    let chain = read_chain("cluster.certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| wrong("cluster.key", &files.key, &format!("{error}; it must hold the private key in PEM")))?;
    check_own(&files.certificate, &chain, &roots, &provider, cluster, node)?;
    configs(&provider, &roots, &chain, &key).map_err(|error| {
        wrong(
            "cluster.key",
            &files.key,
            &format!("{error}; it must be the key of cluster.certificate, from the same `rove-server pki node`"),
        )
    })
}

/// What a node would use that does not look at its own files.
#[cfg(test)]
pub(super) fn unchecked(files: &Files) -> Configs {
    let provider = rove_quic::provider();
    let roots = Arc::new(read_roots(&files.ca).unwrap());
    let chain = read_chain("cluster.certificate", &files.certificate).unwrap();
    configs(&provider, &roots, &chain, &PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
}

fn wrong(key: &'static str, path: &Path, what: &str) -> TrustError {
    TrustError { key, path: path.to_owned(), what: what.to_owned() }
}

fn read_chain(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(key, path, &format!("{error}; `rove-server pki` makes one")))?;
    if chain.is_empty() {
        return Err(wrong(key, path, "there is no certificate in it; `rove-server pki` makes one"));
    }
    Ok(chain)
}

fn read_roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain("cluster.ca", path)? {
        roots.add(certificate).map_err(|error| wrong("cluster.ca", path, &error.to_string()))?;
    }
    Ok(roots)
}

/// Whether the other nodes will take this certificate.
fn check_own(
    path: &Path,
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    cluster: &str,
    node: NodeId,
) -> Result<(), TrustError> {
    let fail = |error: &dyn fmt::Display| wrong("cluster.certificate", path, &error.to_string());
    let (own, rest) = chain.split_first().ok_or_else(|| fail(&"there is no certificate in it"))?;
    let name = server_name(cluster, node).map_err(|error| fail(&error))?;
    let (now, again) = (UnixTime::now(), format!("`rove-server pki node --node {node}` makes a new one"));
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let server = server.build().map_err(|error| fail(&error))?;
    let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let client = client.build().map_err(|error| fail(&error))?;
    let checked = server
        .verify_server_cert(own, rest, &name, &[], now)
        .map(drop)
        .and_then(|()| client.verify_client_cert(own, rest, now).map(drop));
    checked.map_err(|error| match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            fail(&format!("it has expired; {again}"))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            fail(&format!("it is not valid yet; is this machine's clock right? else {again}"))
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            fail(&format!("it is not of the authority in cluster.ca; use the ca.pem it was made with, or {again}"))
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => fail(&format!(
            "it is not the certificate of node {node} of cluster {cluster} ({}); check node_id and cluster.name, or {again}",
            node_name(cluster, node)
        )),
        error => fail(&format!("{error}; {again}")),
    })
}

fn configs(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Configs, String> {
    let text = |error: rustls::Error| error.to_string();
    let versions = &[&rustls::version::TLS13];
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(text)?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
        .map_err(text)?;
    client.alpn_protocols = vec![registry::ALPN.to_vec()];
    // Every connection proves anew who it is with: a resumed one would outlive its certificate.
    client.resumption = rustls::client::Resumption::disabled();

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(text)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(text)?;
    server.alpn_protocols = vec![registry::ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let transport = Arc::new(transport());
    let crypto = QuicClientConfig::try_from(client).map_err(|error| error.to_string())?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport.clone());
    let crypto = QuicServerConfig::try_from(server).map_err(|error| error.to_string())?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(transport)
        // S9: nodes do not move. One that does gets a new connection.
        .migration(false)
        .max_incoming(registry::HANDSHAKES)
        // Nothing is sent before the handshake is complete.
        .incoming_buffer_size(16 * 1_024)
        .incoming_buffer_size_total(registry::HANDSHAKES as u64 * 16 * 1_024);
    Ok(Configs { client, server: Arc::new(server) })
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    #[allow(clippy::cast_possible_truncation, reason = "a few seconds")]
    let idle = VarInt::from_u32(registry::IDLE_TIMEOUT.as_millis() as u32);
    config
        .max_idle_timeout(Some(IdleTimeout::from(idle)))
        .keep_alive_interval(Some(registry::KEEP_ALIVE))
        .initial_rtt(registry::INITIAL_RTT)
        .max_concurrent_uni_streams(VarInt::from_u32(registry::UNI_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(registry::BIDI_STREAMS))
        .stream_receive_window(VarInt::from_u32(registry::STREAM_WINDOW))
        .receive_window(VarInt::from_u32(registry::CONNECTION_WINDOW))
        .send_window(u64::from(registry::CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None);
    config
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pki::{make_authority, make_node, make_node_between};
    use super::*;

    struct Made {
        dir: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            make_authority(&dir.path().join("ca"), "chat").unwrap();
            make_node(&dir.path().join("ca"), NodeId(1), &dir.path().join("one"), 10).unwrap();
            Self { dir }
        }

        fn files(&self) -> Files {
            let one = self.dir.path().join("one");
            Files { ca: one.join("ca.pem"), certificate: one.join("node-1.pem"), key: one.join("node-1.key") }
        }
    }

    fn message(files: Files, cluster: &str, node: u64) -> String {
        Trust::load(files, cluster, NodeId(node)).unwrap_err().to_string()
    }

    #[test]
    fn a_nodes_certificate_is_good_for_itself_alone() {
        let made = Made::new();
        Trust::load(made.files(), "chat", NodeId(1)).unwrap();
        for (cluster, node) in [("chat", 2), ("other", 1)] {
            let message = message(made.files(), cluster, node);
            assert!(message.starts_with("cluster.certificate = ") && message.contains("check node_id"), "{message}");
        }
        let certificate = read_chain("cluster.certificate", &made.files().certificate).unwrap().remove(0);
        assert!(is_of_node(&certificate, "chat", NodeId(1)));
        assert!(!is_of_node(&certificate, "chat", NodeId(2)));
        assert!(!is_of_node(&certificate, "other", NodeId(1)));
    }

    #[test]
    fn what_is_wrong_with_ones_own_files_is_said_with_the_key_and_what_to_do() {
        let (made, other) = (Made::new(), Made::new());
        let said = message(Files { ca: other.files().ca, ..made.files() }, "chat", 1);
        assert!(said.contains("authority in cluster.ca"), "{said}");
        let said = message(Files { key: other.files().key, ..made.files() }, "chat", 1);
        assert!(said.starts_with("cluster.key = ") && said.contains("pki node"), "{said}");
        let said = message(Files { ca: "none.pem".into(), ..made.files() }, "chat", 1);
        assert!(said.starts_with("cluster.ca = none.pem"), "{said}");

        let (ca, old) = (made.dir.path().join("ca"), made.dir.path().join("old"));
        let then = SystemTime::now() - Duration::from_secs(7_200);
        let written = make_node_between(&ca, NodeId(1), &old, then, then + Duration::from_secs(60)).unwrap();
        let files = Files { certificate: written.certificate, key: written.key, ..made.files() };
        let said = message(files, "chat", 1);
        assert!(said.contains("expired") && said.contains("pki node --node 1"), "{said}");
    }

    #[test]
    fn files_that_change_are_read_again_and_bad_ones_change_nothing() {
        let made = Made::new();
        let files = made.files();
        let trust = Trust::load(files.clone(), "chat", NodeId(1)).unwrap();
        let first = trust.configs().server;
        assert!(Arc::ptr_eq(&first, &trust.configs().server), "unchanged files are not read");
        let replace = |path: &Path, bytes: &[u8]| {
            let new = path.with_extension("new");
            std::fs::write(&new, bytes).unwrap();
            std::fs::rename(new, path).unwrap();
        };
        let good = std::fs::read(&files.certificate).unwrap();
        replace(&files.certificate, b"rubbish");
        assert!(Arc::ptr_eq(&first, &trust.configs().server));
        replace(&files.certificate, &good);
        assert!(!Arc::ptr_eq(&first, &trust.configs().server));
    }
}
