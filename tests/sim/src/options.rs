//! What a run is told, and what its seed decides.

use crate::bugs::Bug;
use crate::faults::{Fault, Faults};
use crate::rng::Rng;

/// Events of a run before the faults heal: some ten seconds of virtual time, a few hundred posts and dozens of faults.
pub const DEFAULT_STEPS: u64 = 12_000;

/// What a run is told. The same options give the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Decides everything else.
    pub seed: u64,
    /// Events before the faults heal.
    pub steps: u64,
    /// Kinds of faults that may happen.
    pub faults: Faults,
    /// A bug to plant, to see whether the checker finds it.
    pub bug: Option<Bug>,
}

impl Options {
    /// A run of `seed` with all faults.
    pub fn new(seed: u64) -> Self {
        Self { seed, steps: DEFAULT_STEPS, faults: Faults::all(), bug: None }
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        let bug = self.bug.map_or_else(String::new, |bug| format!(" BUG={}", bug.name()));
        format!("make sim SEED={} STEPS={} FAULTS={}{bug}", self.seed, self.steps, self.faults)
    }
}

/// What a seed decides about a run as a whole: runs are to differ, not to be average.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The faults of this run: some of those that may happen, so that each also meets a world without the others.
    pub faults: Faults,
    /// Conversation partitions.
    pub partitions: u16,
    /// Conversations.
    pub conversations: u64,
    /// Clients; each has one conversation open.
    pub clients: u64,
    /// Ticks without a leader before each node stands for election.
    pub election_ticks: [usize; 3],
    /// Microseconds between faults, on average.
    pub fault_every_us: u64,
    /// Microseconds between the posts of one client, on average.
    pub post_every_us: u64,
    /// Microseconds that a message takes at least.
    pub latency_us: u64,
    /// Microseconds that a write of the log takes, unless the disk is slow.
    pub sync_us: u64,
    /// Microseconds between flushes of the state.
    pub flush_every_us: u64,
}

impl Plan {
    /// The plan of a run.
    pub fn of(options: &Options, rng: &mut Rng) -> Self {
        // Decided for every kind, allowed or not, so that switching one off leaves the others as they were.
        let mut chosen = Faults::NONE;
        for fault in Fault::ALL {
            if rng.chance(600) {
                chosen = chosen.with(*fault);
            }
        }
        let first = rng.below(3);
        // Different for each, without chance: the first is clearly the fastest, so that elections end.
        let ticks = |node: u64| usize::try_from(10 + 3 * ((node + first) % 3)).unwrap_or(10);
        let clients = rng.between(3, 6);
        Self {
            faults: chosen.and(options.faults),
            partitions: if rng.chance(400) { 2 } else { 1 },
            conversations: rng.between(1, 2),
            clients,
            election_ticks: [ticks(0), ticks(1), ticks(2)],
            fault_every_us: rng.between(150, 900) * 1_000,
            post_every_us: rng.between(20, 150) * 1_000,
            latency_us: rng.between(100, 5_000),
            sync_us: rng.between(200, 5_000),
            flush_every_us: rng.between(300, 3_000) * 1_000,
        }
    }
}
