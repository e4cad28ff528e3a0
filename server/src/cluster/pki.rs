//! Makes the cluster's own authority, and certificates of its nodes.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rove_protocol::ids::NodeId;

use super::registry;

/// The authority's certificate, which every node has.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// The authority's key, which no node has.
pub const CA_KEY: &str = "ca.key";
/// Which cluster the authority is of.
const CA_CLUSTER: &str = "ca.cluster";
/// The authority outlives the machines: its certificate is in every node's trust, and changing it takes two rolling restarts.
const CA_DAYS: u32 = 3_650;
/// A node's certificate unless told otherwise: one renewal in two years.
pub const NODE_DAYS: u32 = 730;
/// Certificates are good from a little before they are made: clocks of other nodes may be behind.
const CLOCKS: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The name cannot be part of a DNS name.
    #[error("{0:?} cannot be a cluster's name: use 1 to 63 of a-z, 0-9 and -, no - at the ends")]
    Name(String),
    /// Not a node's id.
    #[error("{0} cannot be a node's id: use 1 to 4294967295")]
    Node(NodeId),
    /// Nothing is written over.
    #[error("{0} is there already and is left as it is; remove it first, or choose another --out")]
    Exists(PathBuf),
    /// A file or directory.
    #[error("{path}: {source}; check that it exists and may be used by this user")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no authority, or its files are not what they should be.
    #[error("{path}: {what}; `rove-server pki ca` makes an authority")]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// The certificate itself.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Whether a cluster may have this name: it is a label of its nodes' DNS names.
pub fn is_cluster_name(name: &str) -> bool {
    (1..=registry::NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The name in a node's certificate, by which it is dialled.
pub fn node_name(cluster: &str, node: NodeId) -> String {
    format!("node-{node}.{cluster}.rove")
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes an authority for `cluster` in `dir`: `ca.pem`, `ca.key` (for this user alone) and `ca.cluster`.
///
/// # Errors
/// [`PkiError`]; nothing that is there is written over.
pub fn make_authority(dir: &Path, cluster: &str) -> Result<Written, PkiError> {
    if !is_cluster_name(cluster) {
        return Err(PkiError::Name(cluster.to_owned()));
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = authority(cluster, SystemTime::now())?.self_signed(&key)?;
    let written = Written { certificate: dir.join(CA_CERTIFICATE), key: dir.join(CA_KEY) };
    make_dir(dir)?;
    write_all(&[
        (&written.key, 0o600, &key.serialize_pem()),
        (&dir.join(CA_CLUSTER), 0o644, &format!("{cluster}\n")),
        (&written.certificate, 0o644, &certificate.pem()),
    ])?;
    Ok(written)
}

/// Makes a certificate for `node` with the authority in `ca`, good for `days`, in `dir`: `node-N.pem` and `node-N.key` (for this
/// user alone). The authority's certificate is put beside them if it is not there.
///
/// # Errors
/// [`PkiError`]; nothing that is there is written over.
pub fn make_node(ca: &Path, node: NodeId, dir: &Path, days: u32) -> Result<Written, PkiError> {
    let from = SystemTime::now();
    make_node_between(ca, node, dir, from, from + DAY * days)
}

/// As [`make_node`], good between two times.
pub(super) fn make_node_between(
    ca: &Path,
    node: NodeId,
    dir: &Path,
    from: SystemTime,
    until: SystemTime,
) -> Result<Written, PkiError> {
    if node.0 == 0 || node.0 > registry::LARGEST_NODE {
        return Err(PkiError::Node(node));
    }
    let of_authority = |path: &Path| {
        let failed = |what: String| PkiError::Authority { path: path.to_owned(), what };
        fs::read_to_string(path).map_err(|error| failed(error.to_string()))
    };
    let (cluster_file, key_file) = (ca.join(CA_CLUSTER), ca.join(CA_KEY));
    let cluster = of_authority(&cluster_file)?.trim().to_owned();
    if !is_cluster_name(&cluster) {
        return Err(PkiError::Authority { path: cluster_file, what: "it does not hold a cluster's name".to_owned() });
    }
    let ca_key = KeyPair::from_pem(&of_authority(&key_file)?)
        .map_err(|error| PkiError::Authority { path: key_file, what: error.to_string() })?;
    let ca_pem = of_authority(&ca.join(CA_CERTIFICATE))?;
    let issuer = Issuer::new(authority(&cluster, from)?, ca_key);

    let name = node_name(&cluster, node);
    let mut params = CertificateParams::new(vec![name.clone()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node dials and is dialled.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = ((from - CLOCKS).into(), until.into());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?;

    let file = |end: &str| dir.join(format!("node-{node}.{end}"));
    let written = Written { certificate: file("pem"), key: file("key") };
    make_dir(dir)?;
    write_all(&[(&written.key, 0o600, &key.serialize_pem()), (&written.certificate, 0o644, &certificate.pem())])?;
    let trust = dir.join(CA_CERTIFICATE);
    match fs::read_to_string(&trust) {
        Ok(there) if there == ca_pem => {}
        Ok(_) => return Err(PkiError::Exists(trust)),
        Err(_) => write_all(&[(&trust, 0o644, &ca_pem)])?,
    }
    Ok(written)
}

/// What the authority of a cluster is, beside its key.
fn authority(cluster: &str, from: SystemTime) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("Rove cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = ((from - CLOCKS).into(), (from + DAY * CA_DAYS).into());
    Ok(params)
}

fn make_dir(dir: &Path) -> Result<(), PkiError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| PkiError::File { path: dir.to_owned(), source })
}

/// Writes files that must not exist yet, none of them if one does.
fn write_all(files: &[(&PathBuf, u32, &str)]) -> Result<(), PkiError> {
    if let Some((path, ..)) = files.iter().find(|(path, ..)| path.exists()) {
        return Err(PkiError::Exists((*path).clone()));
    }
    for (path, mode, text) in files {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => PkiError::Exists((*path).clone()),
            _ => PkiError::File { path: (*path).clone(), source },
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let authority = make_authority(&dir.path().join("ca"), "chat").unwrap();
        let node = make_node(&dir.path().join("ca"), NodeId(1), &dir.path().join("one"), NODE_DAYS).unwrap();
        for key in [authority.key, node.key] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(dir.path().join("one").join(CA_CERTIFICATE).exists());
    }

    #[test]
    fn nothing_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        make_authority(dir, "chat").unwrap();
        assert!(matches!(make_authority(dir, "chat"), Err(PkiError::Exists(_))));
        let first = make_node(dir, NodeId(1), dir, NODE_DAYS).unwrap();
        let before = fs::read(&first.certificate).unwrap();
        assert!(matches!(make_node(dir, NodeId(1), dir, NODE_DAYS), Err(PkiError::Exists(_))));
        assert_eq!(fs::read(&first.certificate).unwrap(), before);
        fs::remove_file(&first.certificate).unwrap();
        assert!(matches!(make_node(dir, NodeId(1), dir, NODE_DAYS), Err(PkiError::Exists(_))));
        assert!(!first.certificate.exists(), "a certificate without its key is of no use");
    }

    #[test]
    fn names_that_are_no_label_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "Chat", "a.b", "-a", "a-", "ä", &"a".repeat(64)] {
            assert!(matches!(make_authority(dir.path(), name), Err(PkiError::Name(_))), "{name}");
        }
        assert!(is_cluster_name("chat-1"));
    }

    #[test]
    fn without_an_authority_it_is_said_how_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let message = make_node(dir.path(), NodeId(1), dir.path(), 1).unwrap_err().to_string();
        assert!(message.contains("rove-server pki ca"), "{message}");
        assert!(matches!(make_node(dir.path(), NodeId(0), dir.path(), 1), Err(PkiError::Node(_))));
    }
}
