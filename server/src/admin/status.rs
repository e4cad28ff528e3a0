//! The cluster, as one node sees it, for people and programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::leaving::{DrainPhase, DrainProgress, Why};
use crate::membership::status::{MemberStatus, MembersStatus};
use crate::nodes::report::ReplicaReport;
use crate::nodes::{Nodes, Seen};

/// Entries that a replica may lack without being called behind: what is under way at any moment.
const UNDER_WAY: u64 = 1_000;

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who was asked.
    pub node: u64,
    /// The nodes, by id.
    pub nodes: Vec<NodeStatus>,
    /// The partitions, the directory's (0) first.
    pub partitions: Vec<PartitionStatus>,
    /// How far the drain of the node is that was asked.
    pub drain: DrainProgress,
    /// Who the nodes are, and how far a change of that is; nothing of a node that is alone.
    #[serde(default)]
    pub members: Option<MembersStatus>,
    /// The version of apply that is in force, as far as the node knows that was asked.
    pub apply_version: u16,
    /// What needs somebody's attention.
    pub warnings: Vec<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub node: u64,
    /// Where clients reach it; empty if it has not said.
    pub address: String,
    /// Where it stands.
    pub region: String,
    /// `ready`, `draining`, `not ready`, `silent` or `unreachable`.
    pub state: String,
    /// Of the program; empty if it has not said.
    pub version: String,
    /// How often it was started with its data directory.
    pub boot: u64,
    /// Sessions it has.
    pub sessions: u64,
    /// The same in thousandths of those it takes.
    pub load_permille: u16,
    /// Connections there have been with it since the node that was asked started; 0 for that one.
    pub links: u64,
    /// The round trip to it, in microseconds.
    pub rtt_us: Option<u64>,
    /// How old its report is, in milliseconds.
    pub age_ms: Option<u64>,
    /// Why there is no connection with it.
    pub last_error: Option<String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Which; 0 is the directory.
    pub partition: u16,
    /// Who leads it, if that is known.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// The highest index known to be committed.
    pub committed: u64,
    /// Its replicas, by node.
    pub replicas: Vec<ReplicaStatus>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// On which node.
    pub node: u64,
    /// `follower`, `candidate` or `leader`.
    pub role: String,
    /// Last index applied.
    pub applied: u64,
    /// Last index durable in its state.
    pub durable: u64,
    /// Committed entries that it has not applied.
    pub lag: u64,
}

impl Status {
    /// As `nodes` are seen now.
    pub(super) fn new(nodes: &Nodes, drain: DrainProgress, members: Option<MembersStatus>) -> Self {
        let seen = nodes.seen();
        let partitions = partitions(&seen);
        let mut warnings = warnings(&seen, &partitions);
        if nodes.leaving().why() == Some(Why::Minority) {
            warnings
                .insert(0, "this node reaches no majority: it serves history and hands its sessions over".to_owned());
        }
        if nodes.node().is_disk_low() {
            let free = nodes.node().stats().disk_free_bytes.load(Ordering::Relaxed) >> 20;
            warnings.insert(
                0,
                format!("this node's disk is almost full ({free} MiB free): it refuses posts and leads nothing"),
            );
        }
        if nodes.node().is_clock_far() {
            let ahead = nodes.node().stats().clock_ahead_ms.load(Ordering::Relaxed);
            warnings.insert(0, format!("this node's clock is {ahead} ms ahead of the others': it leads nothing"));
        }
        warnings.extend(members.iter().flat_map(MembersStatus::warnings));
        let (nodes_seen, apply_version) = (seen.iter().map(node).collect(), nodes.node().apply_version());
        Self { node: nodes.node().id().0, nodes: nodes_seen, partitions, drain, members, apply_version, warnings }
    }
}

fn state(seen: &Seen) -> &'static str {
    let connected = seen.link.as_ref().is_none_or(|link| link.connected);
    match &seen.report {
        _ if !connected => "unreachable",
        Some(report) if report.draining => "draining",
        Some(_) if seen.healthy => "ready",
        Some(report) if !report.ready => "not ready",
        _ => "silent",
    }
}

fn node(seen: &Seen) -> NodeStatus {
    let report = seen.report.as_ref();
    let link = seen.link.as_ref();
    let whole = |duration: Duration, unit: u128| u64::try_from(duration.as_micros() / unit).unwrap_or(u64::MAX);
    NodeStatus {
        node: seen.node.0,
        address: report.map(|report| report.address.clone()).unwrap_or_default(),
        region: report.map(|report| report.region.clone()).unwrap_or_default(),
        state: state(seen).to_owned(),
        version: report.map(|report| report.version.clone()).unwrap_or_default(),
        boot: report.map_or(0, |report| report.boot),
        sessions: report.map_or(0, |report| report.sessions),
        load_permille: report.map_or(0, |report| report.load_permille),
        links: link.map_or(0, |link| link.links),
        rtt_us: link.and_then(|link| link.rtt).map(|rtt| whole(rtt, 1)),
        age_ms: report.map(|_| whole(seen.age, 1_000)),
        last_error: link.filter(|link| !link.connected).and_then(|link| link.last_error.clone()),
    }
}

fn partitions(seen: &[Seen]) -> Vec<PartitionStatus> {
    let mut by_partition: BTreeMap<u16, Vec<(u64, ReplicaReport)>> = BTreeMap::new();
    for seen in seen {
        // What a node said before it was lost says nothing of now.
        let current = seen.link.as_ref().is_none_or(|link| link.connected);
        for replica in seen.report.iter().filter(|_| current).flat_map(|report| &report.partitions) {
            by_partition.entry(replica.partition.0).or_default().push((seen.node.0, *replica));
        }
    }
    by_partition.into_iter().map(|(partition, replicas)| one_partition(partition, &replicas)).collect()
}

fn one_partition(partition: u16, replicas: &[(u64, ReplicaReport)]) -> PartitionStatus {
    let newest = replicas.iter().max_by_key(|(_, replica)| (replica.term, replica.leader.is_some()));
    let committed = replicas.iter().map(|(_, replica)| replica.committed).max().unwrap_or(0);
    let replica = |(node, replica): &(u64, ReplicaReport)| ReplicaStatus {
        node: *node,
        role: replica.role_name().to_owned(),
        applied: replica.applied,
        durable: replica.durable,
        lag: committed.saturating_sub(replica.applied),
    };
    PartitionStatus {
        partition,
        leader: newest.and_then(|(_, replica)| replica.leader).map(|leader| leader.0),
        term: newest.map_or(0, |(_, replica)| replica.term),
        committed,
        replicas: replicas.iter().map(replica).collect(),
    }
}

fn warnings(seen: &[Seen], partitions: &[PartitionStatus]) -> Vec<String> {
    let mut warnings = Vec::new();
    for seen in seen {
        if state(seen) != "ready" && state(seen) != "draining" {
            warnings.push(format!("node {} is {}", seen.node, state(seen)));
        }
        if seen.link.is_some() && seen.report.as_ref().is_some_and(|report| !report.more.may_lead) {
            warnings.push(format!("node {} leads nothing, as its clock is wrong: see its log", seen.node));
        }
    }
    for partition in partitions {
        if partition.leader.is_none() {
            warnings.push(format!("partition {} has no leader: its posts wait", partition.partition));
        }
        for replica in partition.replicas.iter().filter(|replica| replica.lag > UNDER_WAY) {
            warnings.push(format!(
                "partition {} on node {} lacks {} entries",
                partition.partition, replica.node, replica.lag
            ));
        }
    }
    let mut versions: Vec<_> = seen.iter().filter_map(|seen| Some(seen.report.as_ref()?.version.as_str())).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        warnings.push(format!("the nodes run different versions: {}", versions.join(", ")));
    }
    let mut pins: Vec<_> = seen.iter().filter_map(|seen| seen.report.as_ref()?.pins.first()).collect();
    pins.sort_unstable();
    pins.dedup();
    if pins.len() > 1 {
        warnings.push(
            "the nodes have different certificates for clients: give all of them the same tls_cert and tls_key"
                .to_owned(),
        );
    }
    warnings
}

impl Status {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let dash = || "-".to_owned();
        let mut rows = vec![
            ["node", "address", "state", "version", "boot", "links", "rtt", "sessions", "load"].map(str::to_owned),
        ];
        for node in &self.nodes {
            let this = node.node == self.node;
            rows.push([
                if this { format!("{}*", node.node) } else { node.node.to_string() },
                if node.address.is_empty() { dash() } else { node.address.clone() },
                node.state.clone(),
                if node.version.is_empty() { dash() } else { node.version.clone() },
                if node.boot == 0 { dash() } else { node.boot.to_string() },
                if this { dash() } else { node.links.to_string() },
                node.rtt_us.map_or_else(dash, |micros| format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)),
                node.sessions.to_string(),
                format!("{}.{} %", node.load_permille / 10, node.load_permille % 10),
            ]);
        }
        table(&mut text, &rows);
        text.push('\n');
        let mut rows = vec![
            ["partition", "nodes", "leader", "term", "committed", "applied (node: index, lag)"].map(str::to_owned),
        ];
        for partition in &self.partitions {
            let replicas = partition.replicas.iter().map(|replica| match replica.lag {
                0 => format!("{}: {}", replica.node, replica.applied),
                lag => format!("{}: {}, -{lag}", replica.node, replica.applied),
            });
            rows.push([
                if partition.partition == 0 { "0 directory".to_owned() } else { partition.partition.to_string() },
                self.placed(partition),
                partition.leader.map_or_else(dash, |leader| leader.to_string()),
                partition.term.to_string(),
                partition.committed.to_string(),
                replicas.collect::<Vec<_>>().join("  "),
            ]);
        }
        table(&mut text, &rows);
        text.push('\n');
        if let Some(members) = &self.members {
            let _ = writeln!(text, "{}", members.line());
        }
        let _ = writeln!(text, "apply version {}{}", self.apply_version, self.raising());
        if self.drain.phase != DrainPhase::Serving {
            let _ = write!(text, "\n{}\n", progress(&self.drain));
        }
        for warning in &self.warnings {
            let _ = write!(text, "\nwarning: {warning}");
        }
        if !self.warnings.is_empty() {
            text.push('\n');
        }
        text
    }
}

impl Status {
    /// The nodes that are to vote in a partition; those that hold it, where no map says it.
    fn placed(&self, partition: &PartitionStatus) -> String {
        let group = self.members.as_ref().and_then(|members| members.groups.get(usize::from(partition.partition)));
        let nodes: Vec<_> = match group {
            Some(group) => group.nodes.iter().map(ToString::to_string).collect(),
            None => partition.replicas.iter().map(|replica| replica.node.to_string()).collect(),
        };
        nodes.join(" ")
    }

    /// Which version of apply is to come, and for whom that waits.
    fn raising(&self) -> String {
        let nodes = || self.members.iter().flat_map(|members| &members.nodes);
        let present = || nodes().filter(|node| node.standing != "removed");
        let next = present().filter_map(|node| node.applies).map(|(_, highest)| highest).max();
        let Some(next) = next.filter(|next| *next > self.apply_version) else { return String::new() };
        let lacks = |node: &&MemberStatus| node.applies.is_none_or(|(_, highest)| highest < next);
        let waits = present().filter(lacks).map(|node| match node.applies {
            Some((_, highest)) => format!("node {}, which has {highest}", node.node),
            None => format!("node {}, which was not heard since this one started", node.node),
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return format!(", {next} follows");
        }
        format!("; {next} waits for {}", waits.join("; "))
    }
}

/// How far a drain is, in words.
pub fn progress(drain: &DrainProgress) -> String {
    match drain.phase {
        DrainPhase::Serving => "not draining".to_owned(),
        DrainPhase::Leaders => format!("draining: {} partitions led, {} sessions", drain.leaders, drain.sessions),
        DrainPhase::Sessions => format!("draining: {} sessions left", drain.sessions),
        DrainPhase::Drained => "drained: leads nothing, has no sessions; it may be stopped".to_owned(),
    }
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::ids::{NodeId, PartitionId};

    use super::*;

    fn replica(role: u8, leader: Option<u64>, term: u64, applied: u64) -> ReplicaReport {
        let (committed, last, durable) = (applied, applied, 0);
        let leader = leader.map(NodeId);
        ReplicaReport { partition: PartitionId(1), role, leader, term, last, committed, applied, durable }
    }

    #[test]
    fn the_newest_term_says_who_leads_and_lag_is_what_is_committed_and_not_applied() {
        let replicas =
            [(1, replica(2, Some(1), 3, 90)), (2, replica(2, Some(2), 4, 100)), (3, replica(0, None, 4, 95))];
        let status = one_partition(1, &replicas);
        assert_eq!((status.leader, status.term, status.committed), (Some(2), 4, 100));
        assert_eq!(status.replicas.iter().map(|replica| replica.lag).collect::<Vec<_>>(), [10, 0, 5]);
    }

    #[test]
    fn a_partition_without_a_leader_and_a_replica_far_behind_are_warned_of() {
        let replicas = [(1, replica(1, None, 3, 5_000)), (2, replica(1, None, 3, 10))];
        let warnings = warnings(&[], &[one_partition(1, &replicas)]);
        assert_eq!(warnings, ["partition 1 has no leader: its posts wait", "partition 1 on node 2 lacks 4990 entries"]);
    }

    #[test]
    fn a_table_has_columns_as_wide_as_their_widest_cell() {
        let mut text = String::new();
        table(&mut text, &[["a", "b"].map(str::to_owned), ["long", "c"].map(str::to_owned)]);
        assert_eq!(text, "a     b\nlong  c\n");
    }
}
