//! What a run is told, and what its seed decides.

use rove_protocol::ids::PartitionId;

use crate::bugs::Bug;
use crate::faults::{Fault, Faults};
use crate::rng::Rng;

/// Events of a run before the faults heal: some ten seconds of virtual time, a few hundred posts and dozens of faults.
pub const DEFAULT_STEPS: u64 = 12_000;

/// Kinds of faults that came later have chances of their own: without them, a seed that once failed still gives the same run.
const LATER: u64 = 0x6c61_7465_7273;

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

    /// Sets one option by its name on the command line. An empty value leaves it as it is, as make passes what it was not given.
    /// Whether there is such an option.
    ///
    /// # Errors
    /// The value is none that it may have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let number = || value.parse::<u64>().map_err(|_| format!("{name}={value} is not a number"));
        match name {
            _ if value.is_empty() => {}
            "SEED" => self.seed = number()?,
            "STEPS" => self.steps = number()?,
            "FAULTS" => self.faults = Faults::parse(value)?,
            "BUG" => self.bug = Some(Bug::parse(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the options that [`Options::command`] ends with.
    ///
    /// # Errors
    /// One of the words is none of them.
    pub fn parse(words: &str) -> Result<Self, String> {
        let mut options = Self::new(1);
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is not NAME=value"))?;
            if !options.set(name, value)? {
                return Err(format!("there is no option {name}"));
            }
        }
        Ok(options)
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
    pub election_ticks: [usize; 4],
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
    /// Entries that a log keeps for peers that are behind, although the state has them: more than a node misses while it is away, or
    /// so few that it then needs a snapshot.
    pub keep_for_peers: u64,
}

impl Plan {
    /// The partitions that there are, the directory among them if this run has one.
    pub fn all_partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (u16::from(!self.has_directory())..=self.partitions).map(PartitionId)
    }

    /// Whether this run has a directory: the first seeds that failed had none.
    pub fn has_directory(&self) -> bool {
        self.faults.has(Fault::Gate)
    }

    /// The plan of a run.
    pub fn of(options: &Options, rng: &mut Rng) -> Self {
        // Decided for every kind, allowed or not, so that switching one off leaves the others as they were.
        let mut chosen = Faults::NONE;
        let mut later = Rng::new(options.seed ^ LATER);
        for fault in Fault::ALL {
            let chance = if fault.is_later() { &mut later } else { &mut *rng };
            if chance.chance(600) {
                chosen = chosen.with(*fault);
            }
        }
        let (first, apart) = (rng.below(3), rng.between(1, 4));
        // Different for each, without chance, so that elections end; sometimes so close that two stand at once.
        let ticks = |node: u64| usize::try_from(10 + apart * ((node + first) % 3)).unwrap_or(10);
        let clients = rng.between(3, 6);
        let faults = chosen.and(options.faults);
        let (short, few) = (later.chance(600), later.between(2, 24));
        let short = (short && faults.iter().any(Fault::is_later)).then_some(few);
        Self {
            faults,
            partitions: if rng.chance(400) { 2 } else { 1 },
            conversations: rng.between(1, 2),
            clients,
            // The fourth node has most patience of all.
            election_ticks: [ticks(0), ticks(1), ticks(2), usize::try_from(10 + apart * 3).unwrap_or(10)],
            fault_every_us: rng.between(80, 700) * 1_000,
            post_every_us: rng.between(20, 150) * 1_000,
            latency_us: rng.between(100, 5_000),
            sync_us: rng.between(200, 5_000),
            flush_every_us: rng.between(300, 3_000) * 1_000,
            keep_for_peers: short.unwrap_or(rng.between(400, 1_200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_run_reads_back() {
        let faults = Faults::all().without(Fault::Loss);
        let options = Options { seed: 7, steps: 99, faults, bug: Some(Bug::StaleRead) };
        let command = options.command();
        assert_eq!(Options::parse(command.strip_prefix("make sim ").unwrap()), Ok(options));
        assert!(
            Options::parse("SEED=x").is_err() && Options::parse("SPEED=1").is_err() && Options::parse("SEED").is_err()
        );
    }
}
