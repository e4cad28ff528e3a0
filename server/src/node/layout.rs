//! How many threads of each kind a node has, by the cores of its machine.
//!
//! The tokio runtime of edge and HTTP has one for each core, and shares the cores with the rest; the replica thread, the log writer and the
//! directory writer are one each whatever the machine, as their work is bound by disks and packets and grows with rounds, not with posts.

/// Cores for each thread that applies: of a node's work at full load a third is applying (docs/performance.md).
const CORES_PER_APPLIER: usize = 3;

/// Threads of the read pool: enough that reads which wait for the disk do not hold up those that need not, and not so many that they
/// only fight for it.
const READERS: std::ops::RangeInclusive<usize> = 4..=16;

/// Cores for each thread that flushes or compacts the state: 7 % of the work at full load. Two at least, as a flush must not wait
/// for a compaction.
const CORES_PER_BACKGROUND_JOB: usize = 8;

/// Threads by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// That apply: each has some of the partitions, which share nothing.
    pub(super) appliers: usize,
    /// Of the read pool.
    pub(super) readers: usize,
    /// That RocksDB may use to flush and to compact.
    pub(super) background_jobs: usize,
}

impl Layout {
    /// Of a node with so many cores, and so many conversation partitions.
    pub(super) fn of(cores: usize, partitions: u16) -> Self {
        Self {
            appliers: (cores / CORES_PER_APPLIER).clamp(1, usize::from(partitions.max(1))),
            readers: cores.clamp(*READERS.start(), *READERS.end()),
            background_jobs: (cores / CORES_PER_BACKGROUND_JOB).max(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_grow_with_cores_as_far_as_there_is_work_for_them() {
        let of = |cores| {
            let layout = Layout::of(cores, 6);
            (layout.appliers, layout.readers, layout.background_jobs)
        };
        assert_eq!(
            [1, 2, 4, 8, 16, 32, 64].map(of),
            [(1, 4, 2), (1, 4, 2), (1, 4, 2), (2, 8, 2), (5, 16, 2), (6, 16, 4), (6, 16, 8)]
        );
        assert_eq!(Layout::of(64, 1).appliers, 1, "a partition is applied by one");
    }
}
