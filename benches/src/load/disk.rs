//! The floor of the disk: one synced write after the other, with nothing else.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Histogram;

/// Bytes of a write: a page, which is what the disk writes for a small entry of a log.
const PAGE: usize = 4_096;

/// Appends pages to a file in `dir` and syncs each, for so long. Blocks.
///
/// # Errors
/// Those of the file.
pub fn syncs(dir: &Path, time: Duration) -> io::Result<Histogram> {
    let file: File = tempfile::tempfile_in(dir)?;
    let (started, mut times) = (Instant::now(), Histogram::new());
    while started.elapsed() < time {
        let before = Instant::now();
        (&file).write_all(&[7; PAGE])?;
        file.sync_data()?;
        times.record(before.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_take_time_and_need_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let times = syncs(dir.path(), Duration::from_millis(20)).unwrap();
        assert!(!times.is_empty() && !times.max().is_zero());
        assert!(syncs(&dir.path().join("none"), Duration::from_millis(1)).is_err());
    }
}
