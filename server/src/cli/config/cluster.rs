//! `[cluster]`: the other nodes, and how this one talks to them. Without it a node is alone.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rove_protocol::ids::NodeId;
use serde::Deserialize;

use super::{ConfigError, wrong};
use crate::cluster::{Files, pki, registry};
use crate::node::KEPT_FOR_PEERS;

/// The port between nodes: the one after the clients'.
pub const DEFAULT_CLUSTER_PORT: u16 = super::DEFAULT_PORT + 1;

/// The table `[cluster]`. The same on every node but for `listen`, `certificate` and `key`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// The cluster's name, which its certificates have too.
    pub name: String,
    /// UDP: the other nodes.
    #[serde(default = "any")]
    pub listen: SocketAddr,
    /// The certificate of the cluster's authority, in PEM.
    pub ca: PathBuf,
    /// This node's certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Entries of each log that are kept for a node that is behind (16 MiB of each at most). One that lacks more is sent a snapshot.
    #[serde(default = "keep_log")]
    pub keep_log: u64,
    /// All nodes of the cluster, this one too: so the list is the same everywhere.
    #[serde(default)]
    pub peers: Vec<PeerEntry>,
}

/// An entry of `[[cluster.peers]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerEntry {
    /// The node's id.
    pub node: u64,
    /// `host:port` at which the other nodes reach its `listen`.
    pub address: String,
}

fn any() -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_CLUSTER_PORT))
}

fn keep_log() -> u64 {
    KEPT_FOR_PEERS
}

impl ClusterSection {
    /// The files.
    pub fn files(&self) -> Files {
        Files { ca: self.ca.clone(), certificate: self.certificate.clone(), key: self.key.clone() }
    }

    /// What can be told without the files.
    pub(super) fn check(&self, node: NodeId) -> Result<(), ConfigError> {
        if !pki::is_cluster_name(&self.name) {
            let name = format!("{:?}", self.name);
            return Err(wrong("cluster.name", &name, "use 1 to 63 of a-z, 0-9 and -, no - at the ends"));
        }
        let files = [("cluster.ca", &self.ca), ("cluster.certificate", &self.certificate), ("cluster.key", &self.key)];
        for (key, path) in files {
            if path.as_os_str().is_empty() {
                return Err(wrong(key, &"\"\"", "give a path, absolute or relative to this file"));
            }
        }
        if self.keep_log == 0 {
            let advice = "use 1 or more: what is on its way to a node is behind as well";
            return Err(wrong("cluster.keep_log", &0, advice));
        }
        let (mut nodes, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for PeerEntry { node, address } in &self.peers {
            if *node == 0 || *node > registry::LARGEST_NODE {
                return Err(wrong("cluster.peers.node", node, "use 1 to 4294967295"));
            }
            if !nodes.insert(*node) {
                return Err(wrong("cluster.peers.node", node, "two entries have this id; give each node its own"));
            }
            if !super::is_authority(address) {
                let address = format!("{address:?}");
                return Err(wrong("cluster.peers.address", &address, "give host:port, such as 10.0.0.2:7684"));
            }
            if !addresses.insert(address) {
                let advice = "two nodes have this address; give each its own";
                return Err(wrong("cluster.peers.address", address, advice));
            }
        }
        if !nodes.contains(&node.0) {
            let known: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            let advice = format!(
                "this node (node_id = {node}) is not among them; list all nodes of the cluster, this one too, the same on \
                 each"
            );
            return Err(wrong("cluster.peers", &format!("nodes [{}]", known.join(", ")), advice));
        }
        Ok(())
    }

    /// Whether the files can be used.
    pub(super) fn check_files(&self, node: NodeId) -> Result<(), ConfigError> {
        Ok(self.files().check(&self.name, node)?)
    }

    /// Makes paths relative to the file's directory.
    pub(super) fn resolve(&mut self, dir: &Path) {
        for path in [&mut self.ca, &mut self.certificate, &mut self.key] {
            // Joining an absolute path leaves it as it is.
            *path = dir.join(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const PEERS: &str =
        "[[cluster.peers]]\nnode = 1\naddress = \"a:1\"\n[[cluster.peers]]\nnode = 2\naddress = \"b:1\"\n";

    fn section(head: &str, peers: &str) -> String {
        let mut keys: Vec<String> = head.lines().map(str::to_owned).collect();
        for (key, value) in [("name", "chat"), ("ca", "ca.pem"), ("certificate", "node-1.pem"), ("key", "node-1.key")] {
            if !head.contains(&format!("{key} =")) {
                keys.push(format!("{key} = \"{value}\""));
            }
        }
        format!("[cluster]\n{}\n{peers}", keys.join("\n"))
    }

    /// A directory with the certificates of node 1 of cluster `chat`, and this configuration.
    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        pki::make_authority(&dir.path().join("ca"), "chat").unwrap();
        pki::make_node(&dir.path().join("ca"), NodeId(1), dir.path(), 10).unwrap();
        let path = dir.path().join("rove.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn without_the_table_a_node_is_alone() {
        assert_eq!(load("").unwrap().cluster, None);
    }

    #[test]
    fn a_cluster_has_a_port_and_paths_of_its_own() {
        let cluster = load(&section("", PEERS)).unwrap().cluster.unwrap();
        assert_eq!(cluster.listen.port(), DEFAULT_CLUSTER_PORT);
        assert!(cluster.ca.is_absolute() && cluster.key.is_absolute());
    }

    #[test]
    fn every_error_names_its_key_and_says_what_to_do() {
        let twice = PEERS.replace("node = 2", "node = 1");
        let same = PEERS.replace("\"b:1\"", "\"a:1\"");
        for (text, words) in [
            (section("name = \"\"", PEERS), &["cluster.name", "a-z"][..]),
            (section("name = \"My Chat\"", PEERS), &["cluster.name"]),
            (section("nam = \"x\"", PEERS), &["nam"]),
            (section("listen = \"x\"", PEERS), &["listen"]),
            (section("ca = \"\"", PEERS), &["cluster.ca"]),
            (section("keep_log = 0", PEERS), &["cluster.keep_log", "1 or more"]),
            (section("", &twice), &["cluster.peers.node = 1", "two entries"]),
            (section("", &same), &["cluster.peers.address = a:1", "two nodes"]),
            (section("", &PEERS.replace("b:1", "b")), &["cluster.peers.address", "host:port"]),
            (section("", &PEERS.replace("node = 2", "node = 0")), &["cluster.peers.node = 0"]),
            (section("", ""), &["cluster.peers", "node_id = 1", "this one too"]),
            (format!("node_id = 3\n{}", section("", PEERS)), &["cluster.peers = nodes [1, 2]", "node_id = 3"]),
            (format!("node_id = 2\n{}", section("", PEERS)), &["cluster.certificate", "not the certificate of node 2"]),
            (section("name = \"other\"", PEERS), &["cluster.certificate", "cluster other"]),
            (section("ca = \"none.pem\"", PEERS), &["cluster.ca", "none.pem", "rove-server pki"]),
            (section("key = \"ca/ca.key\"", PEERS), &["cluster.key", "pki node"]),
            (section("ca = \"node-1.pem\"", PEERS), &["cluster.certificate", "pki node"]),
        ] {
            let message = load(&text).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{text}\n{message}");
        }
    }
}
