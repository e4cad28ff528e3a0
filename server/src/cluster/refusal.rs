//! Why two nodes do not talk, in words that say what to do, and each said once.

use std::collections::HashSet;
use std::net::IpAddr;

use parking_lot::Mutex;
use quinn::ConnectionError;
use rove_protocol::ids::NodeId;

use super::NotAllowed;
use super::io::LinkError;
use super::pki::node_name;
use super::registry::{CloseCode, REASON_BYTES};

/// Reasons remembered as said. Beyond it, all are forgotten and may be said again: a scanner must not fill memory.
const REMEMBERED: usize = 256;

/// Why a `Hello` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is of cluster {theirs:?}, not {ours:?}; check cluster.name and the addresses in cluster.peers on both")]
    OtherCluster { theirs: String, ours: String },
    #[error(
        "its certificate is not that of node {claimed}, which it claims to be (it would name {}); check node_id and \
         cluster.certificate there, or make one with `rove-server pki node --node {claimed}`",
        node_name(cluster, *claimed)
    )]
    OtherNode { claimed: NodeId, cluster: String },
    #[error("node {0} is not among this node's cluster.peers; add it there, or take this node out of its peers")]
    UnknownNode(NodeId),
    #[error("two nodes have the id {0}; give each a node_id and a certificate of its own")]
    OwnId(NodeId),
    #[error(
        "no common version of the protocol: it speaks {} to {}, this node {} to {}; upgrade the older of the two by one \
         release at a time", theirs.0, theirs.1, ours.0, ours.1
    )]
    Versions { theirs: (u32, u32), ours: (u32, u32) },
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("it broke the rules a moment ago; its log and this node's say how")]
    Resting,
    #[error("another connection of these two nodes is kept")]
    Duplicate,
}

impl Refusal {
    pub(super) fn code(&self) -> CloseCode {
        match self {
            Self::OtherCluster { .. } => CloseCode::OTHER_CLUSTER,
            Self::OtherNode { .. } => CloseCode::OTHER_NODE,
            Self::UnknownNode(_) => CloseCode::UNKNOWN_NODE,
            Self::OwnId(_) => CloseCode::OWN_ID,
            Self::Versions { .. } => CloseCode::VERSIONS,
            Self::NotAllowed(refused) if refused.removed => CloseCode::REMOVED,
            Self::NotAllowed(_) => CloseCode::NOT_ALLOWED,
            Self::Resting => CloseCode::RESTING,
            Self::Duplicate => CloseCode::DUPLICATE,
        }
    }
}

/// Why a connection was not made or not kept.
#[derive(Debug)]
pub(super) struct Failure {
    /// Tells this reason from others.
    pub(super) kind: u64,
    /// In words.
    pub(super) text: String,
    /// Whether somebody has to do something about it.
    pub(super) alarming: bool,
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        Self {
            kind: u64::from(refusal.code().0),
            text: refusal.to_string(),
            alarming: !matches!(refusal, Refusal::Duplicate | Refusal::Resting),
        }
    }
}

impl From<&LinkError> for Failure {
    fn from(error: &LinkError) -> Self {
        match error {
            LinkError::Lost(error) => Self::from(error),
            error => {
                let kind = 0x1_0000 + u64::from(error.close_code().0);
                Self { kind, text: error.to_string(), alarming: error.is_violation() }
            }
        }
    }
}

impl From<&ConnectionError> for Failure {
    fn from(error: &ConnectionError) -> Self {
        let quiet = |kind, text: String| Self { kind, text, alarming: false };
        let (code, ours, text) = match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = CloseCode(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX));
                let reason = printable(&close.reason);
                let said = if reason.is_empty() { code.to_string() } else { reason };
                let alarming =
                    !matches!(code, CloseCode::LEAVING | CloseCode::DUPLICATE | CloseCode::RESTING | CloseCode::BROKEN);
                return Self { kind: 0x2_0000 + u64::from(code.0), text: format!("it says: {said}"), alarming };
            }
            // We found it ...
            ConnectionError::TransportError(error) => (u64::from(error.code), false, error.to_string()),
            // ... or the other end did.
            ConnectionError::ConnectionClosed(close) => (u64::from(close.error_code), true, close.to_string()),
            ConnectionError::TimedOut => return quiet(0x3_0000, "nothing was heard from it in time".to_owned()),
            error => return quiet(0x3_0001, error.to_string()),
        };
        let whose = if ours { "this node's certificate" } else { "its certificate" };
        // TLS's alerts, RFC 8446, section 6.2, as QUIC carries them (RFC 9001, section 4.8).
        let explained = match code.wrapping_sub(0x100) {
            42 | 43 | 46 => format!(
                "{whose} is not that of the node which was dialled, or not for this use ({text}); check \
                 cluster.name, the node ids and addresses in cluster.peers, or make one with `rove-server pki node`"
            ),
            45 => format!(
                "{whose} has expired or is not valid yet ({text}); check the clocks, or make a new one with \
                 `rove-server pki node` and put it in place: a running node reads it"
            ),
            48 | 51 => format!(
                "{whose} is not of the cluster's authority ({text}); all nodes need the same cluster.ca and certificates \
                 made with it by `rove-server pki node`"
            ),
            116 => "it has no certificate, as a node must; is it a client at the wrong port?".to_owned(),
            120 => "it does not speak rove-cluster/1; is its cluster port meant, not that of clients?".to_owned(),
            _ => text,
        };
        Self { kind: 0x4_0000 + code + if ours { 0x1_0000 } else { 0 }, text: explained, alarming: true }
    }
}

/// What another node wrote, fit for a log line.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(REASON_BYTES)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Of whom something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whom {
    /// A peer, whose certificate was seen or which was dialled.
    Peer(NodeId),
    /// Somebody at this address.
    Address(IpAddr),
}

/// What has been said already.
#[derive(Debug, Default)]
pub(super) struct Grievances {
    said: Mutex<HashSet<(Whom, u64)>>,
}

impl Grievances {
    /// Whether this is said for the first time since [`Grievances::settled`].
    pub(super) fn is_news(&self, whom: Whom, kind: u64) -> bool {
        let mut said = self.said.lock();
        if said.len() >= REMEMBERED {
            said.clear();
        }
        said.insert((whom, kind))
    }

    /// There is a connection: what is wrong later is news.
    pub(super) fn settled(&self, whom: Whom) {
        self.said.lock().retain(|(of, _)| *of != whom);
    }

    /// Says it, once: loud if somebody has to do something.
    pub(super) fn say(&self, whom: Whom, failure: &Failure) {
        if !self.is_news(whom, failure.kind) {
            return;
        }
        let reason = &failure.text;
        match (whom, failure.alarming) {
            (Whom::Peer(node), true) => tracing::warn!(%node, "no connection with node {node}: {reason}"),
            (Whom::Address(from), true) => tracing::warn!(%from, "a connection from {from} was refused: {reason}"),
            (Whom::Peer(node), false) => tracing::info!(%node, "no connection with node {node}: {reason}"),
            (Whom::Address(from), false) => {
                tracing::debug!(%from, "a connection from {from} came to nothing: {reason}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once_for_each_peer_until_there_is_a_connection() {
        let grievances = Grievances::default();
        let (one, two) = (Whom::Peer(NodeId(1)), Whom::Peer(NodeId(2)));
        assert!(grievances.is_news(one, 5));
        assert!(!grievances.is_news(one, 5));
        assert!(grievances.is_news(one, 6) && grievances.is_news(two, 5));
        grievances.settled(one);
        assert!(grievances.is_news(one, 5) && !grievances.is_news(two, 5));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let grievances = Grievances::default();
        for kind in 0..10 * REMEMBERED as u64 {
            grievances.is_news(Whom::Address(IpAddr::from([10, 0, 0, 1])), kind);
        }
        assert!(grievances.said.lock().len() <= REMEMBERED);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let versions = Refusal::Versions { theirs: (1, 2), ours: (3, 4) }.to_string();
        assert!(versions.contains("1 to 2") && versions.contains("3 to 4") && versions.contains("upgrade"));
        let node = Refusal::OtherNode { claimed: NodeId(2), cluster: "chat".to_owned() }.to_string();
        assert!(node.contains("node-2.chat.rove") && node.contains("pki node --node 2"), "{node}");
    }

    #[test]
    fn what_another_node_says_cannot_break_a_log_line() {
        assert_eq!(printable(b"a\nb\x1b[31m"), "a b [31m");
    }
}
