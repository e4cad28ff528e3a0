//! Certificates of nodes that `rove-server pki` does not make: that have expired or do so in a moment, and with another cluster's name.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// The name of the cluster whose authority [`crate::Cluster`] makes.
pub const CLUSTER: &str = "test";
/// Certificates are good from so long before now.
const AGE: Duration = Duration::from_secs(3_600);

/// Writes `node-N.pem` and `node-N.key` in `home`, over what is there: of the authority in `ca`, for node `node` of `cluster`, good until
/// `until`.
pub fn write(ca: &Path, cluster: &str, node: u64, until: SystemTime, home: &Path) {
    let key = std::fs::read_to_string(ca.join("ca.key")).expect("there is an authority");
    let issuer = Issuer::new(authority(), KeyPair::from_pem(&key).expect("a key"));
    let name = format!("node-{node}.{cluster}.rove");
    let mut params = CertificateParams::new(vec![name.clone()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = ((until.min(SystemTime::now()) - AGE).into(), until.into());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    put(home, &format!("node-{node}.key"), &key.serialize_pem());
    put(home, &format!("node-{node}.pem"), &certificate.pem());
}

/// What `rove-server pki ca` makes, as far as signing goes.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, format!("Rove cluster {CLUSTER}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Puts a file in place in one step, as whoever renews a certificate should: a running node reads it.
fn put(home: &Path, name: &str, text: &str) {
    let new = home.join(name).with_extension("new");
    std::fs::write(&new, text).expect("the directory is there");
    std::fs::rename(&new, home.join(name)).expect("the same directory");
}
