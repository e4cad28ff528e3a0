//! Who the nodes are and how far a change is, for people and programs.

use std::fmt::Write as _;

use rove_core::formation::Formation;
use rove_core::membership::{MemberMap, Standing, follows};
use rove_core::replica::{Group, node_of};
use rove_protocol::ids::PartitionId;
use serde::{Deserialize, Serialize};

use super::Roster;
use crate::node::Node;

/// Who the nodes of the cluster are, as the node knows that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersStatus {
    /// Rises with every change; 0 as the cluster was formed.
    pub version: u64,
    /// The nodes, those that were removed among them.
    pub nodes: Vec<MemberStatus>,
    /// Nodes that were heard, and are not let in because of their data directory.
    pub waiting: Vec<StrangerStatus>,
    /// The group of each partition, the directory's first.
    pub groups: Vec<GroupStatus>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub node: u64,
    /// `member`, `leaving` or `removed`.
    pub standing: String,
    /// How often it was rebuilt.
    pub rebuild: u32,
    /// The id of its data directory.
    pub store: String,
    /// Where the other nodes reach it; empty where the configuration says that.
    pub address: String,
    /// The lowest and the highest version of apply that its binary has; not known until it was heard.
    pub applies: Option<(u16, u16)>,
}

/// A node that is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrangerStatus {
    /// Its id.
    pub node: u64,
    /// The id of its data directory.
    pub store: String,
    /// Where it believes that it is reached.
    pub address: String,
    /// Whether the directory is empty, so that it can be let in.
    pub empty: bool,
    /// What to do about it.
    pub advice: String,
}

/// The group of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The nodes whose replicas are to vote.
    #[serde(default)]
    pub nodes: Vec<u64>,
    /// The nodes whose replicas vote now.
    pub voters: Vec<u64>,
    /// The nodes whose replicas are sent everything and do not vote: for good, or not yet.
    pub learners: Vec<u64>,
    /// Whether the group is what the map of members says.
    pub settled: bool,
}

impl MembersStatus {
    /// As `roster` knows it, and the groups as `node` has them.
    pub(super) fn new(roster: &Roster, node: &Node) -> Self {
        let formation = roster.formation.lock();
        let Some(map) = formation.map() else { return Self::default() };
        let waiting = formation.strangers().iter().map(|(node, stranger)| {
            let known = map.present(*node).is_some();
            StrangerStatus {
                node: node.0,
                store: stranger.store.to_string(),
                address: stranger.address.clone(),
                empty: stranger.empty,
                advice: advice(node.0, known, stranger.empty),
            }
        });
        Self {
            version: map.version,
            nodes: members(&formation, map),
            waiting: waiting.collect(),
            groups: (0..)
                .map(PartitionId)
                .zip(&node.groups())
                .map(|(partition, group)| of_group(map, partition, group))
                .collect(),
        }
    }

    /// Whether every group is what the map says, and nobody is on the way out.
    pub fn is_settled(&self) -> bool {
        // There are none until the node has looked.
        !self.groups.is_empty()
            && self.groups.iter().all(|group| group.settled)
            && self.nodes.iter().all(|node| node.standing != "leaving")
    }

    /// Who they are, in one line.
    pub fn line(&self) -> String {
        let present = self.nodes.iter().filter(|node| node.standing != "removed");
        let each = present.map(|node| match (node.rebuild, node.standing.as_str()) {
            (_, "leaving") => format!("{} leaving", node.node),
            (0, _) => node.node.to_string(),
            (rebuild, _) => format!("{} (replica {rebuild})", node.node),
        });
        format!("members after {} changes: {}", self.version, each.collect::<Vec<_>>().join(", "))
    }

    /// How far the last change is, in words.
    pub fn progress(&self) -> String {
        let settled = self.groups.iter().filter(|group| group.settled).count();
        let mut text = format!("{settled} of {} partitions done", self.groups.len());
        let under_way = self.groups.iter().filter(|group| !group.settled);
        let mut learning: Vec<_> = under_way.flat_map(|group| &group.learners).collect();
        learning.sort_unstable();
        for node in learning.chunk_by(|one, other| one == other) {
            let _ = write!(text, "; node {} catches up with {}", node[0], node.len());
        }
        text
    }

    /// What needs somebody's attention.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.waiting.iter().map(|stranger| stranger.advice.clone()).collect();
        if !self.is_settled() {
            warnings.push(format!("a change of the members is under way: {}", self.progress()));
        }
        warnings
    }
}

fn advice(node: u64, known: bool, empty: bool) -> String {
    match (known, empty) {
        (true, true) => format!(
            "node {node} has another data directory, an empty one; if its disk is lost: rove-server cluster replace {node}"
        ),
        (true, false) => format!(
            "node {node} has another data directory, with old data in it; put the one that it had last back, or start it with an empty one"
        ),
        (false, true) => format!("node {node} waits to be taken in: rove-server cluster add {node}"),
        (false, false) => format!("node {node} is not a member, and its data directory is not empty: stop it"),
    }
}

fn members(formation: &Formation, map: &MemberMap) -> Vec<MemberStatus> {
    let member = |(&node, member): (&rove_protocol::ids::NodeId, &rove_core::membership::Member)| MemberStatus {
        node: node.0,
        standing: match member.standing {
            Standing::Member => "member",
            Standing::Leaving => "leaving",
            Standing::Removed => "removed",
        }
        .to_owned(),
        rebuild: member.rebuild,
        store: member.store.to_string(),
        address: member.address.clone(),
        applies: formation.applies(node).map(|versions| (versions.lowest, versions.highest)),
    };
    map.nodes.iter().map(member).collect()
}

fn of_group(map: &MemberMap, partition: PartitionId, group: &Group) -> GroupStatus {
    let nodes = |replicas: &[u64]| replicas.iter().map(|replica| node_of(*replica).0).collect();
    GroupStatus {
        nodes: map.placement.of(partition).map(|node| node.0).collect(),
        voters: nodes(&group.voters),
        learners: nodes(&group.learners),
        settled: follows(map, partition, group),
    }
}

#[cfg(test)]
mod tests {
    use rove_core::apply_version::ApplyVersions;
    use rove_core::formation::{Boot, Identity, Record, StoreId};
    use rove_protocol::ids::NodeId;

    use super::*;

    fn group(learners: &[u64], settled: bool) -> GroupStatus {
        GroupStatus { nodes: vec![1, 2, 3], voters: vec![1, 2, 3], learners: learners.to_vec(), settled }
    }

    #[test]
    fn progress_counts_partitions_and_names_who_catches_up() {
        let groups = vec![group(&[], true), group(&[3], false), group(&[3, 4], false)];
        let status = MembersStatus { groups, ..MembersStatus::default() };
        assert!(!status.is_settled());
        assert_eq!(status.progress(), "1 of 3 partitions done; node 3 catches up with 2; node 4 catches up with 1");
        assert_eq!(status.warnings().len(), 1);
    }

    #[test]
    fn the_line_names_who_is_there_and_in_which_life() {
        let store = |node: u8| (NodeId(u64::from(node)), StoreId([node; 16]));
        let map = MemberMap::founded(&(1..=4).map(store).collect(), 2);
        let map = map.replace(NodeId(3), StoreId([9; 16]), None).unwrap().leave(NodeId(4)).unwrap();
        let boot = Boot { store: StoreId([1; 16]), number: 1, nonce: 1 };
        let me = Identity {
            node: NodeId(1),
            boot,
            address: String::new(),
            partitions: 1,
            applies: ApplyVersions { lowest: 1, highest: 2 },
        };
        let line = |map: &MemberMap| {
            let record = Record { map: Some(map.clone()), ..Record::default() };
            let nodes = members(&Formation::new(me.clone(), vec![NodeId(1)], record), map);
            assert_eq!((nodes[0].applies, nodes[1].applies), (Some((1, 2)), None), "the others were not heard");
            MembersStatus { version: map.version, nodes, ..MembersStatus::default() }.line()
        };
        assert_eq!(line(&map), "members after 2 changes: 1, 2, 3 (replica 1), 4 leaving");
        assert_eq!(line(&map.without_leaving().unwrap()), "members after 3 changes: 1, 2, 3 (replica 1)");
    }

    #[test]
    fn whoever_is_not_let_in_comes_with_what_to_do() {
        assert!(advice(3, true, true).contains("cluster replace 3"));
        assert!(advice(4, false, true).contains("cluster add 4"));
        assert!(advice(3, true, false).contains("empty one"));
        assert!(advice(4, false, false).contains("stop it"));
    }
}
