//! How much room there is on the disk of the data directory.

use std::io;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

/// What a file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes altogether.
    pub total: u64,
    /// Whether nothing may be written at all.
    pub read_only: bool,
}

/// The space of the file system that `path` is on.
///
/// # Errors
/// The system's.
pub fn space_of(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Ok(Space {
        free: bytes(found.blocks_available()),
        total: bytes(found.blocks()),
        read_only: found.flags().contains(FsFlags::ST_RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_space_and_one_that_is_not_there_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let space = space_of(dir.path()).unwrap();
        assert!(space.free > 0 && space.free <= space.total && !space.read_only, "{space:?}");
        assert!(space_of(&dir.path().join("nothing")).is_err());
    }
}
