//! The mark of a data directory that was found out while the node ran.
//!
//! Most of what a disk has lost shows at start, when log, state and watermark are compared. What was lost of the last second does not:
//! only a leader still knows that this node had it. When one says so the node ends, and leaves this file behind. Without it the next start
//! would find nothing wrong, end again, or, once another node leads, vote with a log that has forgotten what it acknowledged.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Its name in the data directory.
const NAME: &str = "quarantined";

/// Bytes of a reason that are read at most: it is a sentence.
const MAX_BYTES: u64 = 4 * 1024;

/// The file, which is there or not.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
}

impl Quarantine {
    /// That of a data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(NAME) }
    }

    /// Why the data directory is not to be trusted, if it is not.
    ///
    /// # Errors
    /// Nobody can tell.
    pub fn reason(&self) -> io::Result<Option<String>> {
        match File::open(&self.path) {
            Ok(file) => {
                io::read_to_string(io::Read::take(file, MAX_BYTES)).map(|reason| Some(reason.trim().to_owned()))
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says so from here on, durably. Blocks on the disk.
    ///
    /// # Errors
    /// It is not known what the next start finds.
    pub fn mark(&self, reason: &str) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        writeln!(file, "{reason}")?;
        file.sync_all()?;
        // The name is part of the directory, which is synced on its own.
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays_with_its_reason_and_an_empty_one_counts_too() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::of(dir.path());
        assert_eq!(quarantine.reason().unwrap(), None);
        quarantine.mark("the log ends at 1, but 7 is known to be committed").unwrap();
        let found = Quarantine::of(dir.path()).reason().unwrap();
        assert_eq!(found.as_deref(), Some("the log ends at 1, but 7 is known to be committed"));
        std::fs::write(dir.path().join(NAME), b"").unwrap();
        assert_eq!(quarantine.reason().unwrap().as_deref(), Some(""), "a crash may have left the name alone");
    }
}
