//! What a restarted node still knows of the connections it had: enough to say that they are gone.
//!
//! Without it a client whose server was killed waits for its heartbeats to fail. With it the first packet it sends to the
//! node's next life is answered with a stateless reset (RFC 9000, section 10.3), and it reconnects at once. The secret is
//! this node's alone (S6): who has it can end its connections.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use quinn_proto::HashedConnectionIdGenerator;

/// Bytes of the key that marks connection ids as ours.
const CID_KEY: usize = 8;
/// Bytes of the key that makes reset tokens: as many as its hash has.
const RESET_KEY: usize = 32;

/// The secret behind a node's connection ids and reset tokens.
#[derive(Clone)]
pub struct EndpointSecret {
    cid_key: [u8; CID_KEY],
    reset_key: [u8; RESET_KEY],
}

impl std::fmt::Debug for EndpointSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndpointSecret")
    }
}

impl EndpointSecret {
    /// The secret in `file`, which is made, readable by its owner only, if it is not there.
    ///
    /// # Errors
    /// The file cannot be read or made, or has another length.
    pub fn load_or_make(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(bytes) => Self::from_bytes(&bytes).ok_or_else(|| {
                let advice = format!("not {} bytes long; remove it, and a new one is made", CID_KEY + RESET_KEY);
                io::Error::new(io::ErrorKind::InvalidData, advice)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes: [u8; CID_KEY + RESET_KEY] = rand::random();
                // Under another name first: a node killed here must not find half a secret.
                let fresh = file.with_extension("new");
                let mut options = OpenOptions::new();
                let mut made = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
                made.write_all(&bytes)?;
                made.sync_all()?;
                fs::rename(&fresh, file)?;
                Self::from_bytes(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
            Err(error) => Err(error),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (cid_key, reset_key) = bytes.split_first_chunk::<CID_KEY>()?;
        Some(Self { cid_key: *cid_key, reset_key: reset_key.try_into().ok()? })
    }

    /// The endpoint's configuration.
    pub(super) fn endpoint_config(&self) -> quinn::EndpointConfig {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.reset_key);
        let mut config = quinn::EndpointConfig::new(Arc::new(key));
        let cid_key = u64::from_be_bytes(self.cid_key);
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_secret_is_kept_for_its_owner_alone_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("quic.secret");
        let first = EndpointSecret::load_or_make(&file).unwrap();
        let again = EndpointSecret::load_or_make(&file).unwrap();
        assert_eq!((first.cid_key, first.reset_key), (again.cid_key, again.reset_key));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_secret_of_another_length_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("quic.secret");
        fs::write(&file, b"short").unwrap();
        assert!(EndpointSecret::load_or_make(&file).unwrap_err().to_string().contains("remove it"));
    }
}
