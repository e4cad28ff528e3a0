//! Spreading leaders over the nodes: who gives which partition's leadership to whom, and when.
//!
//! Each node asks itself now and then. Only the one that leads most gives, one at a time, to the one that leads least, and only when it
//! leads at least two more: so each step brings the two closer, no step calls for its reverse, and when nobody leads two more than
//! another nothing moves. Nothing happens either until everything has been calm for a while: elections and drains come first, and nodes
//! whose views differ for a moment agree again before the next step.

use std::collections::BTreeMap;

use rove_protocol::ids::{NodeId, PartitionId};

/// How long nothing may have changed, in milliseconds: a few elections, and several reports of every node. A node that comes back leads its
/// part of a cluster's seven partitions within half a minute.
pub const CALM_MS: u64 = 5_000;
/// Entries that an heir may lack: what a partition does in a moment under load.
pub const MAX_LAG: u64 = 1_024;

/// The cluster as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Who leads each partition, the directory among them; `None` if nobody is known to.
    pub leaders: BTreeMap<PartitionId, Option<NodeId>>,
    /// The nodes that may lead, this one among them: they are ready and stay. Each with what its replicas lack of the log.
    pub nodes: BTreeMap<NodeId, BTreeMap<PartitionId, u64>>,
}

/// Decides when this node gives away what.
#[derive(Debug)]
pub struct Spreader {
    me: NodeId,
    /// What was seen last: the leaders, and the nodes that may lead.
    seen: (BTreeMap<PartitionId, Option<NodeId>>, Vec<NodeId>),
    calm_since: u64,
}

impl Spreader {
    /// For this node.
    pub fn new(me: NodeId, now: u64) -> Self {
        Self { me, seen: Default::default(), calm_since: now }
    }

    /// Which leadership this node gives away now, and to whom.
    pub fn decide(&mut self, view: &View, now: u64) -> Option<(PartitionId, NodeId)> {
        let seen = (view.leaders.clone(), view.nodes.keys().copied().collect());
        if seen != self.seen {
            self.seen = seen;
            self.calm_since = now;
        }
        let known = view.leaders.values().all(Option::is_some);
        if !known || now.saturating_sub(self.calm_since) < CALM_MS {
            return None;
        }
        let gift = gift(view, self.me);
        if gift.is_some() {
            // Whatever becomes of it, what follows is looked at anew.
            self.calm_since = now;
        }
        gift
    }
}

fn gift(view: &View, me: NodeId) -> Option<(PartitionId, NodeId)> {
    let leads = |node: NodeId| view.leaders.values().filter(|leader| **leader == Some(node)).count();
    let mine = view.leaders.iter().filter(|(_, leader)| **leader == Some(me)).map(|(partition, _)| *partition);
    let mine: Vec<PartitionId> = mine.collect();
    // Of several that lead as many, the first.
    let most = view.nodes.keys().copied().max_by_key(|node| (leads(*node), std::cmp::Reverse(*node)))?;
    if most != me {
        return None;
    }
    let mut heirs: Vec<_> = view.nodes.iter().filter(|(node, _)| leads(**node) + 2 <= mine.len()).collect();
    heirs.sort_by_key(|(node, _)| (leads(**node), **node));
    heirs.into_iter().find_map(|(heir, lacks)| {
        let lag = |partition: &PartitionId| lacks.get(partition).copied().unwrap_or(u64::MAX);
        let partition = mine.iter().copied().min_by_key(|partition| (lag(partition), *partition))?;
        (lag(&partition) <= MAX_LAG).then_some((partition, *heir))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A cluster whose nodes all lack nothing; each leads as many partitions as is said.
    fn view(leads: &[usize]) -> View {
        let mut view = View::default();
        let mut next = 0;
        for (node, count) in (1..).map(NodeId).zip(leads) {
            for _ in 0..*count {
                view.leaders.insert(PartitionId(next), Some(node));
                next += 1;
            }
        }
        let lacks: BTreeMap<_, _> = view.leaders.keys().map(|partition| (*partition, 0)).collect();
        view.nodes = (1..=leads.len() as u64).map(|node| (NodeId(node), lacks.clone())).collect();
        view
    }

    fn counts(view: &View) -> Vec<usize> {
        let leads = |node| view.leaders.values().filter(|leader| **leader == Some(node)).count();
        view.nodes.keys().map(|node| leads(*node)).collect()
    }

    /// What each node decides from the start until the last leadership has moved, and for long after that.
    fn run(view: &mut View) -> usize {
        let mut spreaders: Vec<_> = view.nodes.keys().map(|node| Spreader::new(*node, 0)).collect();
        let (mut moves, mut moved) = (0, 0);
        for now in (0..).step_by(1_000) {
            if now - moved > 10 * CALM_MS {
                return moves;
            }
            let gifts: Vec<_> = spreaders.iter_mut().filter_map(|spreader| spreader.decide(view, now)).collect();
            assert!(gifts.len() <= 1, "one at a time");
            for (partition, heir) in gifts {
                view.leaders.insert(partition, Some(heir));
                (moves, moved) = (moves + 1, now);
            }
        }
        moves
    }

    #[test]
    fn a_node_that_comes_back_gets_its_part_and_then_nothing_moves() {
        let mut view = view(&[0, 4, 3]);
        assert_eq!(run(&mut view), 2);
        assert_eq!(counts(&view), [2, 2, 3]);
        assert_eq!(run(&mut view), 0, "it stays as it is");
    }

    #[test]
    fn nothing_moves_until_everything_has_been_calm() {
        let mut spreader = Spreader::new(NodeId(1), 0);
        let mut view = view(&[3, 0]);
        assert_eq!(spreader.decide(&view, 0), None);
        assert_eq!(spreader.decide(&view, CALM_MS - 1), None);
        view.leaders.insert(PartitionId(0), None);
        assert_eq!(spreader.decide(&view, CALM_MS), None, "an election");
        assert_eq!(spreader.decide(&view, 9 * CALM_MS), None, "that does not end");
        view.leaders.insert(PartitionId(0), Some(NodeId(1)));
        assert_eq!(spreader.decide(&view, 10 * CALM_MS), None);
        assert_eq!(spreader.decide(&view, 11 * CALM_MS), Some((PartitionId(0), NodeId(2))));
        // It was not taken: not again at once.
        assert_eq!(spreader.decide(&view, 12 * CALM_MS - 1), None);
        assert!(spreader.decide(&view, 12 * CALM_MS).is_some());
    }

    #[test]
    fn who_leaves_or_lags_gets_nothing() {
        let mut lagging = view(&[3, 0, 0]);
        for lag in lagging.nodes.get_mut(&NodeId(2)).unwrap().values_mut() {
            *lag = MAX_LAG + 1;
        }
        assert_eq!(gift(&lagging, NodeId(1)), Some((PartitionId(0), NodeId(3))));
        lagging.nodes.remove(&NodeId(3));
        assert_eq!(gift(&lagging, NodeId(1)), None);
        lagging.nodes.get_mut(&NodeId(2)).unwrap().insert(PartitionId(2), 1);
        assert_eq!(gift(&lagging, NodeId(1)), Some((PartitionId(2), NodeId(2))), "what it has");
    }

    proptest! {
        #[test]
        fn any_cluster_comes_to_rest_with_nobody_leading_two_more_than_another(
            leads in prop::collection::vec(0_usize..12, 1..8),
        ) {
            let mut view = view(&leads);
            let moves = run(&mut view);
            let counts = counts(&view);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", counts);
            prop_assert!(moves <= leads.iter().sum());
            prop_assert_eq!(run(&mut view), 0);
        }
    }
}
