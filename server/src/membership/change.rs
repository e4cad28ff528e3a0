//! Changing who the nodes are, as an operator asks for it.

use rove_core::directory::{DirectoryCommand, DirectoryOutcome};
use rove_core::formation::Stranger;
use rove_core::membership::{ChangeError, MemberMap};
use rove_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::Roster;
use super::status::MembersStatus;
use crate::node::{CallError, Node};
use crate::nodes::{Nodes, Seen};

/// What is to change: the body of `POST /v1/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What to do.
    pub what: What,
    /// With which node.
    pub node: u64,
    /// `host:port` at which the other nodes reach it, if that is not what it says itself or the configuration has.
    #[serde(default)]
    pub address: Option<String>,
    /// Also if the cluster is not as well as it should be.
    #[serde(default)]
    pub force: bool,
}

/// Kinds of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A new node comes.
    Add,
    /// A node has lost its data directory, and gets its data from the others.
    Replace,
    /// A node goes.
    Remove,
}

/// Why nothing has changed. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ChangeRefused {
    /// This node has no cluster.
    #[error("this node is alone: give it a [cluster] in its configuration first")]
    Alone,
    /// See there.
    #[error(transparent)]
    Map(#[from] ChangeError),
    /// The node was not heard.
    #[error(
        "node {0} has not introduced itself here with another data directory: start it with an empty data_dir, with its certificate and \
         with all nodes in its cluster.peers, and wait until this node's log or `rove-server cluster status` names it"
    )]
    NotHeard(NodeId),
    /// Its directory has something in it.
    #[error("the data directory of node {0} is not empty: it belonged to a cluster. Start it with an empty one")]
    NotEmpty(NodeId),
    /// Somebody else is doing something.
    #[error("another change is under way ({0}); wait until it is done, or say --force")]
    UnderWay(String),
    /// The nodes run different versions.
    #[error("the nodes run different versions ({0}): end the upgrade first, or say --force")]
    Versions(String),
    /// Too few would be left that serve.
    #[error(
        "without node {node} {healthy} of {left} nodes would be ready, and {needed} are needed: start or mend the others first, or say \
         --force; see `rove-server cluster status`"
    )]
    NoMajority {
        /// Which goes.
        node: NodeId,
        /// How many of the others are ready.
        healthy: usize,
        /// How many others there are.
        left: usize,
        /// How many of them are a majority.
        needed: usize,
    },
    /// It cannot tell of its own going.
    #[error("this is node {0}: say it on another node, which is still there when it is done")]
    Itself(NodeId),
    /// Another change came first.
    #[error("the members were changed by somebody else just now: look at `rove-server cluster status` and try again")]
    Overtaken,
    /// The directory does not take it.
    #[error("the directory does not take the change: {0}; see `rove-server cluster status`")]
    Directory(CallError),
}

impl Roster {
    /// Who the nodes are, and how far a change is.
    pub fn status(&self, node: &Node) -> MembersStatus {
        MembersStatus::new(self, node)
    }

    /// Makes a change, and returns when it is decided. That the groups follow takes as long as it takes.
    ///
    /// # Errors
    /// [`ChangeRefused`].
    pub async fn change(&self, change: &Change, nodes: &Nodes) -> Result<MembersStatus, ChangeRefused> {
        let (map, stranger) = {
            let formation = self.formation.lock();
            let map = formation.map().cloned().ok_or(ChangeRefused::Alone)?;
            (map, formation.strangers().get(&NodeId(change.node)).cloned())
        };
        let next = self.next(change, &map, stranger)?;
        if !change.force {
            check(change, &map, &next, &self.status(nodes.node()), &nodes.seen())?;
        }
        self.propose(nodes.node(), next).await?;
        Ok(self.status(nodes.node()))
    }

    /// The map with the change.
    fn next(&self, change: &Change, map: &MemberMap, stranger: Option<Stranger>) -> Result<MemberMap, ChangeRefused> {
        let node = NodeId(change.node);
        let (there, address) = (map.present(node).is_some(), change.address.as_deref());
        let next = match change.what {
            What::Add if there => Err(ChangeError::Member(node)),
            What::Add => {
                let stranger = empty(node, stranger)?;
                map.add(node, stranger.store, address.unwrap_or(&stranger.address))
            }
            What::Replace if !there => Err(map.not_member(node)),
            What::Replace => map.replace(node, empty(node, stranger)?.store, address),
            What::Remove if node == self.me => return Err(ChangeRefused::Itself(node)),
            What::Remove => map.leave(node),
        };
        Ok(next?)
    }

    /// Has the directory decide on it.
    pub(super) async fn propose(&self, node: &Node, map: MemberMap) -> Result<(), ChangeRefused> {
        let command = DirectoryCommand::ChangeMembers { map: map.clone() };
        match node.propose_directory(&command).await.map_err(ChangeRefused::Directory)? {
            DirectoryOutcome::Done => {
                // It is on its way here too; whoever asked is to see it now.
                self.adopt(&map);
                Ok(())
            }
            _ => Err(ChangeRefused::Overtaken),
        }
    }
}

/// What an operator may override.
fn check(
    change: &Change,
    map: &MemberMap,
    next: &MemberMap,
    status: &MembersStatus,
    seen: &[Seen],
) -> Result<(), ChangeRefused> {
    let node = NodeId(change.node);
    // One whose new disk is lost as well is replaced again, whatever it waited for.
    if !status.is_settled() && change.what != What::Replace {
        return Err(ChangeRefused::UnderWay(status.progress()));
    }
    let mut versions: Vec<_> = seen.iter().filter_map(|seen| Some(&seen.report.as_ref()?.version)).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let versions: Vec<_> = versions.into_iter().map(String::as_str).collect();
        return Err(ChangeRefused::Versions(versions.join(", ")));
    }
    if change.what == What::Remove && map.present(node).is_some() {
        let left: Vec<_> = next.members().collect();
        let healthy = seen.iter().filter(|seen| seen.healthy && left.contains(&seen.node)).count();
        let (left, needed) = (left.len(), left.len() / 2 + 1);
        if healthy < needed {
            return Err(ChangeRefused::NoMajority { node, healthy, left, needed });
        }
    }
    Ok(())
}

/// The empty directory of a node that wants to come in.
fn empty(node: NodeId, stranger: Option<Stranger>) -> Result<Stranger, ChangeRefused> {
    match stranger {
        None => Err(ChangeRefused::NotHeard(node)),
        Some(stranger) if stranger.empty => Ok(stranger),
        Some(_) => Err(ChangeRefused::NotEmpty(node)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use rove_core::apply_version::ApplyVersions;
    use rove_core::formation::{Boot, Formation, Identity, Record, StoreId};

    use super::*;
    use crate::edge::EdgeStats;
    use crate::membership::status::GroupStatus;
    use crate::node::{NodeConfig, Sinks};
    use crate::nodes::About;
    use crate::nodes::report::Report;
    use crate::storage::formation::FormationFile;

    const ME: NodeId = NodeId(1);

    fn store(node: u8) -> StoreId {
        StoreId([node; 16])
    }

    /// Nodes 1 to 3.
    fn map() -> MemberMap {
        MemberMap::founded(&(1..=3).map(|node| (NodeId(u64::from(node)), store(node))).collect(), 2)
    }

    fn change(what: What, node: u64) -> Change {
        Change { what, node, address: None, force: false }
    }

    /// A node that says that it is of `version`, and is ready or not.
    fn seen(node: u64, version: &str, healthy: bool) -> Seen {
        let report = Report {
            address: String::new(),
            region: String::new(),
            pins: Vec::new(),
            sessions: 0,
            load_permille: 0,
            ready: healthy,
            draining: false,
            version: version.to_owned(),
            boot: 1,
            partitions: Vec::new(),
            more: crate::nodes::report::More::default(),
        };
        Seen { node: NodeId(node), report: Some(report), age: Duration::ZERO, healthy, link: None }
    }

    fn status(settled: bool) -> MembersStatus {
        let group = |settled| GroupStatus { nodes: Vec::new(), voters: Vec::new(), learners: vec![3], settled };
        MembersStatus { groups: vec![group(true), group(settled)], ..MembersStatus::default() }
    }

    /// What is said of `what` when the nodes are `seen`.
    fn said(what: &Change, settled: bool, seen: &[Seen]) -> Result<(), String> {
        let next = match what.what {
            What::Add => map().add(NodeId(what.node), store(9), "there:1"),
            What::Replace => map().replace(NodeId(what.node), store(9), None),
            What::Remove => map().leave(NodeId(what.node)),
        };
        check(what, &map(), &next.unwrap(), &status(settled), seen).map_err(|error| error.to_string())
    }

    #[test]
    fn one_change_waits_for_the_other_unless_a_new_disk_is_lost_as_well() {
        let all = [1, 2, 3].map(|node| seen(node, "1.0.0", true));
        for what in [change(What::Add, 4), change(What::Remove, 2)] {
            assert_eq!(said(&what, true, &all), Ok(()));
            let error = said(&what, false, &all).unwrap_err();
            let under_way = "another change is under way (1 of 2 partitions done; node 3 catches up with 1)";
            assert_eq!(error, format!("{under_way}; wait until it is done, or say --force"));
        }
        assert_eq!(said(&change(What::Replace, 3), false, &all), Ok(()));
    }

    #[test]
    fn no_change_begins_while_the_nodes_run_different_versions() {
        let two = [seen(1, "1.1.0", true), seen(2, "1.0.0", true), seen(3, "1.1.0", true)];
        for what in [change(What::Add, 4), change(What::Replace, 3), change(What::Remove, 2)] {
            let error = said(&what, true, &two).unwrap_err();
            let words = "the nodes run different versions (1.0.0, 1.1.0): end the upgrade first, or say --force";
            assert_eq!(error, words);
        }
        // Who has said nothing yet is of no version.
        let silent = Seen { report: None, healthy: false, ..seen(3, "", true) };
        assert_eq!(said(&change(What::Replace, 3), true, &[seen(1, "1", true), seen(2, "1", true), silent]), Ok(()));
    }

    #[test]
    fn nobody_goes_without_whom_there_would_be_no_majority_that_is_ready() {
        let (one, other) = (seen(1, "1", true), |healthy| seen(3, "1", healthy));
        let go = change(What::Remove, 2);
        assert_eq!(said(&go, true, &[one.clone(), seen(2, "1", true), other(true)]), Ok(()));
        assert_eq!(said(&go, true, &[one.clone(), seen(2, "1", false), other(true)]), Ok(()), "it is dead, not they");
        let error = said(&go, true, &[one, seen(2, "1", true), other(false)]).unwrap_err();
        assert!(error.starts_with("without node 2 1 of 2 nodes would be ready, and 2 are needed"), "{error}");
        assert!(error.contains("say --force"), "{error}");
    }

    fn roster(dir: &std::path::Path, map: Option<MemberMap>) -> Arc<Roster> {
        let (file, _) = FormationFile::open(dir).unwrap();
        let boot = Boot { store: store(1), number: 1, nonce: 1 };
        let applies = ApplyVersions::THIS;
        let me = Identity { node: ME, boot, address: String::new(), partitions: 2, applies };
        let formation = Formation::new(me, vec![ME, NodeId(2)], Record { map, ..Record::default() });
        Roster::new(ME, BTreeMap::new(), file, formation)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_that_follows_on_no_other_is_overtaken_also_with_force_and_one_of_no_cluster_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig { partitions: 2, ..NodeConfig::new(dir.path(), ME) };
        let (node, runner) = Node::start(config, Sinks::none()).unwrap();
        assert!(node.ready().await);
        let nodes = Nodes::new(node, About::default(), Arc::new(EdgeStats::default()), Arc::default(), None);
        let forced = Change { force: true, ..change(What::Remove, 3) };
        // The directory knows of no change; this node believes that there was one.
        let later = map().leave(NodeId(2)).unwrap();
        let error = roster(dir.path(), Some(later)).change(&forced, &nodes).await.unwrap_err();
        assert!(matches!(error, ChangeRefused::Overtaken), "{error}");
        assert!(error.to_string().contains("rove-server cluster status"), "{error}");

        let error = roster(dir.path(), None).change(&forced, &nodes).await.unwrap_err();
        assert!(matches!(error, ChangeRefused::Alone), "{error}");
        runner.stop().await.unwrap();
    }
}
