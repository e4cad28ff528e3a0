//! The kinds of faults, and how often each has done something.

use std::collections::BTreeMap;

macro_rules! kinds {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// One kind of fault. Each can be switched off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($(#[$meta])* $variant),* }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant),*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name),* }
            }
        }
    };
}

kinds! {
    /// Raft messages are lost.
    Loss = "loss",
    /// The network is slow, by up to half a second.
    Delay = "delay",
    /// Raft messages overtake each other.
    Reorder = "reorder",
    /// Raft messages arrive twice, the second time late.
    Duplicate = "duplicate",
    /// Forwarded commands arrive again, much later.
    StaleForward = "stale-forward",
    /// One node is cut off from the two others.
    Partition = "partition",
    /// One node does not hear another.
    OneWay = "one-way",
    /// Two nodes do not hear each other; the third hears both.
    Bridge = "bridge",
    /// A connection between two nodes is gone with what was on it, and comes again.
    LinkCut = "link-cut",
    /// A process is killed; what it wrote is there, synced or not.
    Kill = "kill",
    /// A machine loses power, and with it what was not synced.
    PowerLoss = "power-loss",
    /// All machines lose power at the same moment.
    PowerLossAll = "power-loss-all",
    /// The last thing that was being written when the power went is there in part.
    TornTail = "torn-tail",
    /// A sync fails: the node stops at once.
    SyncFailure = "sync-failure",
    /// Data that was synced long ago rots, and is found out when the node starts again.
    BitRot = "bit-rot",
    /// A process stands still for a while, and goes on.
    Pause = "pause",
    /// Writes to a disk take very long.
    SlowDisk = "slow-disk",
    /// A node's wall clock jumps, by up to a day, either way.
    Clock = "clock",
    /// Leadership is handed over.
    Transfer = "transfer",
    /// A client loses its connection, and with it answers that were on their way.
    ClientCut = "client-cut",
    /// A node is away for longer than the others' logs reach back, and needs a snapshot.
    Absence = "absence",
    /// A snapshot is cut off half-way.
    SnapshotCut = "snapshot-cut",
    /// A node crashes when the state of a snapshot is staged and not current.
    CrashBeforeInstall = "crash-before-install",
    /// A node crashes when the state of a snapshot is current, and the log is that of before.
    CrashBeforeReset = "crash-before-reset",
    /// A node crashes when the log has just begun anew after a snapshot.
    CrashAfterReset = "crash-after-reset",
    /// A node loses its disk and comes back empty, under a new number: its replicas are taken in again. Counted when they vote.
    Replace = "replace",
    /// A node is taken into the cluster, with an empty disk. Counted when it votes and follows wherever it is to.
    Add = "add",
    /// A node is taken out of a cluster of four, one that does not trust its disk if there is one. Counted when no group has it any more.
    Remove = "remove",
    /// An account is suspended, or let back in: all partitions are told. With it, changes of nodes go through the directory's log too.
    Gate = "gate",
}

impl Fault {
    /// Whether it came later than the first seeds that failed.
    pub const fn is_later(self) -> bool {
        self as u32 >= Fault::Absence as u32
    }

    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

/// Kinds of faults that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub const fn all() -> Self {
        Self((1 << Fault::ALL.len()) - 1)
    }

    /// Whether this kind is among them.
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    /// Without this kind.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u32))
    }

    /// With this kind.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | (1 << fault as u32))
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.has(*fault))
    }

    /// Reads `all`, `none`, or names with commas between; a name after a minus is taken away from all.
    ///
    /// # Errors
    /// A name that is no fault's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut faults = if text.starts_with('-') { Self::all() } else { Self::NONE };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (minus, name) = part.strip_prefix('-').map_or((false, part), |name| (true, name));
            faults = match name {
                "all" => Self::all(),
                "none" => Self::NONE,
                name => {
                    let fault = Fault::named(name).ok_or_else(|| {
                        let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
                        format!("no fault is called {name}; there are all, none, {}", names.join(", "))
                    })?;
                    if minus { faults.without(fault) } else { faults.with(fault) }
                }
            };
        }
        Ok(faults)
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let names: Vec<&str> = self.iter().map(Fault::name).collect();
        f.write_str(&names.join(","))
    }
}

/// How often each kind has done something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fired(BTreeMap<Fault, u64>);

impl Fired {
    /// A fault has done something.
    pub fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// How often this kind has.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or_default()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (fault, times) in &other.0 {
            *self.0.entry(*fault).or_default() += times;
        }
    }

    /// Kinds among `faults` that never have.
    pub fn missing(&self, faults: Faults) -> Vec<Fault> {
        faults.iter().filter(|fault| self.of(*fault) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_a_minus_takes_away_from_all() {
        assert_eq!(Faults::parse("all"), Ok(Faults::all()));
        assert_eq!(Faults::parse("none"), Ok(Faults::NONE));
        assert_eq!(Faults::parse("loss,kill").unwrap().to_string(), "loss,kill");
        assert_eq!(Faults::parse("-loss"), Ok(Faults::all().without(Fault::Loss)));
        assert!(Faults::parse("flood").unwrap_err().contains("flood"));
    }

    #[test]
    fn a_kind_that_did_nothing_is_missing() {
        let mut fired = Fired::default();
        fired.count(Fault::Loss);
        assert_eq!(fired.missing(Faults::NONE.with(Fault::Loss).with(Fault::Kill)), [Fault::Kill]);
    }
}
