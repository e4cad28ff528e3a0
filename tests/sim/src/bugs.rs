//! Bugs to plant: what the checker must find, or it proves nothing.

macro_rules! bugs {
    ($($(#[$meta:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// One bug. Each is planted at a seam of the core, which itself stays as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug { $($(#[$meta])* $variant),* }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$variant),*];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$variant => $name),* }
            }
        }
    };
}

bugs! {
    /// The log says that it is synced when it is only written.
    AckBeforeSync = "ack-before-sync",
    /// A repeated post is taken for the writer's next one.
    DedupSkipped = "dedup-skipped",
    /// The row that holds a conversation's head is not in the batch of its events, and is old after a restart.
    SeqReused = "seq-reused",
    /// One node now and then applies the commands of an entry in another order.
    OrderSwapped = "order-swapped",
    /// Linearizable reads are answered from the local state without asking the leader.
    StaleRead = "stale-read",
    /// Commands forwarded to the leader of one term are taken by that of another.
    ForwardOfAnotherTerm = "forward-of-another-term",
    /// Posts are acknowledged when they are taken, before they are in the log of anybody.
    AckWhenTaken = "ack-when-taken",
    /// A snapshot is installed, and the log goes on after what it had before.
    InstallKeepsLog = "install-keeps-log",
    /// The log begins anew after a snapshot before the snapshot's state is current.
    ResetBeforeState = "reset-before-state",
    /// A node that has lost its disk comes back under the number that it had.
    RebuiltUnderOldNumber = "rebuilt-under-old-number",
    /// A gate is called done when one partition has it.
    GateInOnePartition = "gate-in-one-partition",
}

impl Bug {
    /// The bug of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|bug| bug.name()).collect();
            format!("no bug is called {name}; there are {}", names.join(", "))
        })
    }
}
