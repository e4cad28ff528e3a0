//! Changing who the nodes are, as an operator asks for it.

use rove_core::directory::{DirectoryCommand, DirectoryOutcome};
use rove_core::formation::Stranger;
use rove_core::membership::{ChangeError, MemberMap};
use rove_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::Roster;
use super::status::MembersStatus;
use crate::node::{CallError, Node};
use crate::nodes::Nodes;

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
            self.check(change, &map, &next, nodes)?;
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

    /// What an operator may override.
    fn check(&self, change: &Change, map: &MemberMap, next: &MemberMap, nodes: &Nodes) -> Result<(), ChangeRefused> {
        let node = NodeId(change.node);
        let status = self.status(nodes.node());
        // One whose new disk is lost as well is replaced again, whatever it waited for.
        if !status.is_settled() && change.what != What::Replace {
            return Err(ChangeRefused::UnderWay(status.progress()));
        }
        let seen = nodes.seen();
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

/// The empty directory of a node that wants to come in.
fn empty(node: NodeId, stranger: Option<Stranger>) -> Result<Stranger, ChangeRefused> {
    match stranger {
        None => Err(ChangeRefused::NotHeard(node)),
        Some(stranger) if stranger.empty => Ok(stranger),
        Some(_) => Err(ChangeRefused::NotEmpty(node)),
    }
}
