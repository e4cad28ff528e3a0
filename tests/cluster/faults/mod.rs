//! What goes wrong, each under its number in the list of faults to survive.
//!
//! A fault counts how often it did something, and if it has variants, how often each did: it takes them in turn. One that needs what this
//! machine does not have or allow says so and is skipped; one that never did anything although it could have fails the run, and so does a
//! variant for which there was time enough.

mod damage;
mod full;
mod kills;
mod links;
mod old;
mod panics;
mod power;
mod read_only;
mod rebuild;
mod snapshots;
mod stale;
mod syncs;
mod transfers;
mod upgrade;

use std::future::Future;
use std::pin::Pin;

use tokio::time::Instant;

use crate::arena::{Arena, Before};

pub(crate) use kills::TWO_ELECTIONS;
pub(crate) use panics::CRASH_AT;

/// What came of injecting a fault until the time was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fired {
    /// So often.
    Times(u64),
    /// The same of a fault with variants.
    Each(Tally),
    /// It cannot be injected here, and why.
    Skipped(String),
}

impl Fired {
    /// How often, in all.
    pub(crate) fn times(&self) -> Option<u64> {
        match self {
            Self::Times(times) => Some(*times),
            Self::Each(tally) => Some(tally.total()),
            Self::Skipped(_) => None,
        }
    }
}

/// The variants of a fault, and how often each of them did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally(Vec<(&'static str, u64)>);

impl Tally {
    fn of(variants: impl IntoIterator<Item = &'static str>) -> Self {
        Self(variants.into_iter().map(|variant| (variant, 0)).collect())
    }

    /// The place of the variant whose turn it is in this round.
    fn turn(&self, round: u64) -> usize {
        usize::try_from(round % self.0.len().max(1) as u64).unwrap_or(0)
    }

    /// The variant at this place has done something, if `fired`.
    fn count(&mut self, place: usize, fired: bool) {
        self.0[place].1 += u64::from(fired);
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(_, times)| times).sum()
    }

    /// Each with how often.
    pub(crate) fn each(&self) -> &[(&'static str, u64)] {
        &self.0
    }
}

/// Injecting, which ends soon after the instant it is given; an error is something that must not be.
type Injecting<'a> = Pin<Box<dyn Future<Output = Result<Fired, String>> + Send + 'a>>;

/// A fault.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// Its number.
    pub(crate) id: &'static str,
    /// What it is.
    pub(crate) what: &'static str,
    /// How much of the time it gets, against others: those with variants so much that each has its turn in a run of ten minutes.
    pub(crate) weight: u32,
    /// Done to the nodes' places before they start.
    pub(crate) before: Option<Before>,
    /// Injects it again and again, at least once.
    pub(crate) inject: for<'a> fn(&'a mut Arena, Instant) -> Injecting<'a>,
}

macro_rules! fault {
    ($id:literal, $what:literal, $weight:literal, $inject:path) => {
        fault!($id, $what, $weight, $inject, None)
    };
    ($id:literal, $what:literal, $weight:literal, $inject:path, $before:expr) => {
        Fault {
            id: $id,
            what: $what,
            weight: $weight,
            before: $before,
            inject: |arena, until| Box::pin($inject(arena, until)),
        }
    };
}

/// All of them.
pub(crate) const ALL: &[Fault] = &[
    fault!("F1", "SIGKILL of the node that leads most", 6, kills::leader),
    fault!("F2", "SIGKILL at the n-th sync of the disk", 2, syncs::kill_at_sync),
    fault!("F3", "SIGKILL of all nodes at once", 2, kills::all),
    fault!("F4", "SIGSTOP of a leader for two election time-outs", 1, kills::pause),
    fault!("F4s", "SIGSTOP until it needs a snapshot", 1, snapshots::paused, Some(snapshots::keep_little)),
    fault!("F8", "panic between two steps", 2, panics::between_steps),
    fault!("F8s", "panic after a snapshot's install", 1, panics::after_install, Some(snapshots::keep_little)),
    fault!("F10", "power loss on one node", 1, power::one, Some(power::mount)),
    fault!("F11", "power loss on all nodes at once", 2, power::all, Some(power::mount)),
    fault!("F13", "a sync of the disk fails once", 1, syncs::fail_once),
    fault!("F16", "a bit flips in the middle of the raft log", 1, damage::flipped_bit),
    fault!("F17", "files of the log or the state are cut off or gone", 3, damage::lost_files),
    fault!("F18", "the disk is full", 2, full::fill, Some(full::mount)),
    fault!("F18r", "the file system turns read-only", 1, read_only::turn, Some(power::mount)),
    fault!("F20", "an old data directory is put back", 1, old::copy_back),
    fault!("F21", "an empty disk", 1, old::empty),
    fault!("F22", "partition 1|2", 2, links::partition),
    fault!("F23", "one direction is cut", 2, links::one_way),
    fault!("F24", "a bridge: two nodes hear only the third", 1, links::bridge),
    fault!("F25", "loss, repeats, reordering, jitter", 2, links::noise),
    fault!("F26", "256 kbit/s to a follower", 1, links::slow),
    fault!("F26s", "a snapshot at 256 kbit/s", 1, snapshots::slow, Some(snapshots::keep_little)),
    fault!("F29", "a link flaps every second", 1, links::flap),
    fault!("F30", "a leader dies at each step of a node's rebuild", 2, rebuild::under_kills),
    fault!("F31", "storm of leadership transfers", 1, transfers::storm),
    fault!("F32", "a snapshot's install is killed", 2, snapshots::killed_installs, Some(snapshots::keep_little)),
    fault!("F33", "a rolling upgrade, with two versions of apply for a while", 1, upgrade::rolling),
];

/// The fault with this number.
pub(crate) fn named(id: &str) -> Option<Fault> {
    ALL.iter().find(|fault| fault.id.eq_ignore_ascii_case(id)).copied()
}
