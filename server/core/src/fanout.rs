//! Who is told of an event, and how (D14). Decisions only; the edge carries them out.
//!
//! An event reaches the sessions that have its conversation open through their streams, and every session of an online
//! member through one latest-wins line of its inbox. Who that is, is worked out when it happens, from the members
//! and from who is online, by walking the smaller of the two: a group of ten thousand with five online costs five
//! look-ups, and so does a direct conversation on a node with a hundred thousand users.

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::AccountId;
use rove_protocol::limits;
use rove_protocol::registry::StreamMode;

/// A set of accounts that knows its size.
pub trait Accounts {
    /// How many.
    fn count(&self) -> usize;
    /// Whether it is one of them.
    fn has(&self, account: AccountId) -> bool;
    /// Each of them, ascending.
    fn each(&self, visit: &mut dyn FnMut(AccountId));
}

impl Accounts for BTreeSet<AccountId> {
    fn count(&self) -> usize {
        self.len()
    }
    fn has(&self, account: AccountId) -> bool {
        self.contains(&account)
    }
    fn each(&self, visit: &mut dyn FnMut(AccountId)) {
        for account in self {
            visit(*account);
        }
    }
}

impl<V> Accounts for BTreeMap<AccountId, V> {
    fn count(&self) -> usize {
        self.len()
    }
    fn has(&self, account: AccountId) -> bool {
        self.contains_key(&account)
    }
    fn each(&self, visit: &mut dyn FnMut(AccountId)) {
        for account in self.keys() {
            visit(*account);
        }
    }
}

/// Visits members ∩ online, ascending, by walking the smaller side.
pub fn audience(members: &dyn Accounts, online: &dyn Accounts, visit: &mut dyn FnMut(AccountId)) {
    let (walked, asked) = if members.count() <= online.count() { (members, online) } else { (online, members) };
    walked.each(&mut |account| {
        if asked.has(account) {
            visit(account);
        }
    });
}

/// From when on a conversation is too busy to send every event to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullThreshold {
    /// More members than this, and
    pub members: u32,
    /// more of them active (online on this node) than this.
    pub active: u32,
}

impl Default for PullThreshold {
    /// 500 and 500: up to there an event costs at most 500 small writes.
    fn default() -> Self {
        Self { members: 500, active: 500 }
    }
}

impl PullThreshold {
    /// How a conversation that is opened now has its events sent.
    pub fn mode(self, members: u32, active: u32) -> StreamMode {
        if members > self.members && active > self.active { StreamMode::Pull } else { StreamMode::Live }
    }
}

/// How a session of an online member has the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Not open.
    Closed,
    /// A stream is open and gets every event.
    Live,
    /// A stream is open and is told nothing; the inbox says where the head is.
    Pull,
}

/// Whether an event travels inside the inbox line.
///
/// The line itself is always sent, also to a session whose stream carries the event: a device counts what it has by the
/// ids of its lines, and one left out would be lost to a device that does not open the conversation again.
pub fn inline(event_bytes: usize, held: Held) -> bool {
    event_bytes <= limits::INLINE_EVENT && held == Held::Closed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replays `testdata/fanout.txt`: a command and its arguments, `----`, and the decision.
    #[test]
    fn decisions_are_those_of_the_golden_table() {
        let mut cases = 0;
        for case in include_str!("../testdata/fanout.txt").split("\n\n").filter(|case| case.contains("----")) {
            let lines: Vec<&str> = case.lines().filter(|line| !line.starts_with('#')).collect();
            let at = lines.iter().position(|line| *line == "----").unwrap();
            let expected = lines[at + 1..].join("\n");
            assert_eq!(decide(lines[0]), expected.trim(), "{}", lines[0]);
            cases += 1;
        }
        assert!(cases >= 13, "{cases} cases");
    }

    fn decide(command: &str) -> String {
        let mut words = command.split_whitespace();
        let name = words.next().unwrap();
        let arguments: BTreeMap<&str, &str> = words.map(|word| word.split_once('=').unwrap()).collect();
        let number = |key: &str| arguments[key].parse::<u32>().unwrap();
        match name {
            "audience" => {
                let set = |key: &str| -> BTreeSet<AccountId> {
                    arguments[key].split(',').filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
                };
                let (members, online) = (set("members"), set("online"));
                let (members, online) = (Counted::new(&members), Counted::new(&online));
                let mut told = Vec::new();
                audience(&members, &online, &mut |account| told.push(account.to_string()));
                let walked = members.walked.get() + online.walked.get();
                format!("told={} walked={walked}", told.join(","))
            }
            "mode" => PullThreshold::default().mode(number("members"), number("active")).to_string(),
            "inline" => {
                let held = match arguments["held"] {
                    "closed" => Held::Closed,
                    "live" => Held::Live,
                    "pull" => Held::Pull,
                    other => panic!("{other}"),
                };
                inline(number("bytes") as usize, held).to_string()
            }
            other => panic!("{other}"),
        }
    }

    struct Counted<'a> {
        set: &'a BTreeSet<AccountId>,
        walked: std::cell::Cell<usize>,
    }

    impl<'a> Counted<'a> {
        fn new(set: &'a BTreeSet<AccountId>) -> Self {
            Self { set, walked: std::cell::Cell::new(0) }
        }
    }

    impl Accounts for Counted<'_> {
        fn count(&self) -> usize {
            self.set.len()
        }
        fn has(&self, account: AccountId) -> bool {
            self.set.contains(&account)
        }
        fn each(&self, visit: &mut dyn FnMut(AccountId)) {
            for account in self.set {
                self.walked.set(self.walked.get() + 1);
                visit(*account);
            }
        }
    }
}
