//! When certificates expire: said in the log and in metrics long before they do.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use crate::node::{Node, NodeStats};

/// How long before it is said: whoever reads it after a holiday still has time.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often it is said and the files are looked at: they may have been replaced.
const LOOK: Duration = Duration::from_secs(12 * 3_600);

/// Says until `stop` when the certificate for clients and that of the node expire.
pub(crate) async fn watch(node: Node, clients: PathBuf, nodes: Option<PathBuf>, stop: CancellationToken) {
    let NodeStats { certificate_expires, node_certificate_expires, .. } = node.stats();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return,
        }
        // Two small files, twice a day.
        say("tls_cert", &clients, certificate_expires);
        if let Some(path) = &nodes {
            say("cluster.certificate", path, node_certificate_expires);
        }
    }
}

fn say(key: &'static str, path: &Path, shown: &AtomicU64) {
    let Some(expires) = expires(path) else {
        tracing::warn!(key, path = %path.display(), "it cannot be told when the certificate expires");
        return;
    };
    shown.store(expires, Ordering::Relaxed);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    match soon(expires, now) {
        None => {}
        Some(0) => tracing::error!(
            key, path = %path.display(),
            "the certificate has expired: new connections are refused. Replace the file"
        ),
        Some(left) => tracing::warn!(
            key, path = %path.display(), days = left / (24 * 3_600),
            "the certificate expires soon: replace the file in time"
        ),
    }
}

/// Seconds that are left, if it is time to say so.
fn soon(expires: u64, now: u64) -> Option<u64> {
    let left = expires.saturating_sub(now);
    (left < WARN_BEFORE.as_secs()).then_some(left)
}

/// When the first certificate of the file expires, in seconds of the Unix epoch.
fn expires(path: &Path) -> Option<u64> {
    let own = CertificateDer::pem_file_iter(path).ok()?.next()?.ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&own).ok()?;
    // One from before the epoch has expired.
    Some(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600;

    #[test]
    fn it_is_said_thirty_days_before_and_when_it_is_too_late() {
        let now = 1_000 * DAY;
        assert_eq!(soon(now + 30 * DAY, now), None);
        assert_eq!(soon(now + 30 * DAY - 1, now), Some(30 * DAY - 1));
        assert_eq!((soon(now, now), soon(now - DAY, now)), (Some(0), Some(0)));
    }

    #[test]
    fn a_files_first_certificate_says_when_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 5, 17);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        // Midnight of that day.
        assert_eq!(expires(&path), Some(1_936_742_400));
        std::fs::write(&path, "no certificate").unwrap();
        assert_eq!(expires(&path), None);
    }
}
