//! What is measured: one node, or several as one cluster, in directories of their own on one disk.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use futures::future::try_join_all;
use tempfile::TempDir;
use tokio::process::Command;

use super::error::{LoadError, io};
use super::leaders;
use super::server::{CONFIG, Server, run};
use crate::{Meter, process};

/// The first port of node 0; node `n` has those from `10 n` above it. Below 32768, where the system takes ports from.
const FIRST_PORT: u16 = 21_000;

/// Running nodes. Each is killed, by its own process id, if this is dropped before [`Service::stop`].
#[derive(Debug)]
pub struct Service {
    nodes: Vec<Server>,
    binary: PathBuf,
    /// The directory of each.
    homes: Vec<PathBuf>,
    // Goes with it.
    dir: TempDir,
}

impl Service {
    /// Starts so many nodes under `parent` (the disk that is to be measured), with `keys` (lines of TOML, outside of any table) in their
    /// configurations; returns when all of them serve.
    ///
    /// # Errors
    /// [`LoadError::Server`] with what it says if one does not start.
    pub async fn start(binary: &Path, parent: &Path, nodes: u16, keys: &str) -> Result<Self, LoadError> {
        let dir = tempfile::Builder::new()
            .prefix("rove-bench-")
            .tempdir_in(parent)
            .map_err(io("making the server's directory"))?;
        let homes = if nodes == 1 {
            // The same after each start: who comes back looks for it where it was.
            Server::configure(binary, dir.path(), &address(1, 0).to_string(), keys, "").await?;
            vec![dir.path().to_owned()]
        } else {
            configure_cluster(binary, dir.path(), nodes, keys).await?;
            (1..=nodes).map(|node| dir.path().join(name(node))).collect()
        };
        // The first time a cluster starts when all of it is there.
        let nodes = try_join_all(homes.iter().map(|home| Server::start(binary, home))).await?;
        Ok(Self { nodes, binary: binary.to_owned(), homes, dir })
    }

    /// Stops all nodes and starts them again with the data they have, where they were.
    ///
    /// # Errors
    /// See [`Server::stop`] and [`Server::start`].
    pub async fn restart(&mut self) -> Result<(), LoadError> {
        try_join_all(self.nodes.drain(..).map(Server::stop)).await?;
        self.nodes = try_join_all(self.homes.iter().map(|home| Server::start(&self.binary, home))).await?;
        Ok(())
    }

    /// Ends a node at once, by its place among [`Service::nodes`].
    ///
    /// # Errors
    /// See [`Server::kill`].
    pub async fn kill(&mut self, node: usize) -> Result<(), LoadError> {
        self.nodes[node].kill().await
    }

    /// Starts a node that was killed again, with the data it has; returns when it listens.
    ///
    /// # Errors
    /// See [`Server::start`].
    pub async fn revive(&mut self, node: usize) -> Result<(), LoadError> {
        self.nodes[node] = Server::start(&self.binary, &self.homes[node]).await?;
        Ok(())
    }

    /// The place of the node that leads most partitions.
    ///
    /// # Errors
    /// [`LoadError::Server`] if nobody knows who leads.
    pub async fn busiest(&self) -> Result<usize, LoadError> {
        if self.nodes.len() == 1 {
            return Ok(0);
        }
        let config = self.homes[0].join(CONFIG);
        let said =
            run(Command::new(&self.binary).args(["cluster", "status", "--json", "--config"]).arg(config)).await?;
        let unknown = || LoadError::Server("nobody says who leads".to_owned());
        let id = serde_json::from_slice(&said).ok().and_then(|status| leaders::busiest(&status)).ok_or_else(unknown)?;
        usize::try_from(id)
            .ok()
            .and_then(|id| id.checked_sub(1))
            .filter(|node| *node < self.nodes.len())
            .ok_or_else(unknown)
    }

    /// The nodes; there is at least one.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// One of them, to sign up at.
    ///
    /// # Panics
    /// Never: there is at least one.
    pub fn first(&self) -> &Server {
        &self.nodes[0]
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Server::pid).collect()
    }

    /// Begins to measure what they use.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn meter(&self) -> Result<Meter, LoadError> {
        Meter::start(&self.pids()).map_err(io("looking at the servers"))
    }

    /// Resident memory of all of them, in bytes.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn resident(&self) -> Result<u64, LoadError> {
        process::resident_of(&self.pids()).map_err(io("looking at the servers"))
    }

    /// Where all of it is kept.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many there are, in words.
    pub fn words(&self) -> String {
        if self.nodes.len() == 1 { "one node".to_owned() } else { format!("{} nodes", self.nodes.len()) }
    }

    /// Lets them drain, all at once, and waits for their end.
    ///
    /// # Errors
    /// See [`Server::stop`].
    pub async fn stop(self) -> Result<(), LoadError> {
        try_join_all(self.nodes.into_iter().map(Server::stop)).await.map(drop)
    }
}

/// The directory of a node.
fn name(node: u16) -> String {
    format!("node-{node}")
}

/// Where a node listens, in the order of its ports.
fn address(node: u16, port: u16) -> SocketAddr {
    SocketAddr::from((host(), FIRST_PORT + 10 * node + port))
}

/// A loopback address of its own for the nodes of this process where there are many (Linux has all of 127.0.0.0/8), so that its ports
/// are nobody else's.
fn host() -> Ipv4Addr {
    if cfg!(not(target_os = "linux")) {
        return Ipv4Addr::LOCALHOST;
    }
    let [_, a, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, a | 0x40, b, c)
}

/// Configurations and certificates: one for clients, the same on every node, and one of each for its peers.
async fn configure_cluster(binary: &Path, dir: &Path, nodes: u16, keys: &str) -> Result<(), LoadError> {
    let ca = dir.join("ca");
    run(Command::new(binary).args(["pki", "ca", "--cluster", "load", "--out"]).arg(&ca)).await?;
    let mut peers = String::new();
    for node in 1..=nodes {
        // Writing to memory does not fail.
        let _ = writeln!(peers, "[[cluster.peers]]\nnode = {node}\naddress = \"{}\"", address(node, 1));
    }
    for node in 1..=nodes {
        let home = dir.join(name(node));
        std::fs::create_dir(&home).map_err(io("making a node's directory"))?;
        for file in ["cert.pem", "key.pem"].into_iter().filter(|_| node > 1) {
            std::fs::copy(dir.join(name(1)).join(file), home.join(file)).map_err(io("copying the certificate"))?;
        }
        run(Command::new(binary)
            .args(["pki", "node", "--node", &node.to_string(), "--ca"])
            .arg(&ca)
            .arg("--out")
            .arg(&home))
        .await?;
        let tables = format!(
            "[cluster]\nname = \"load\"\nlisten = \"{}\"\nca = \"ca.pem\"\ncertificate = \"node-{node}.pem\"\n\
             key = \"node-{node}.key\"\n{peers}",
            address(node, 1)
        );
        Server::configure(binary, &home, &address(node, 0).to_string(), keys, &tables).await?;
        let config = home.join(CONFIG);
        let text = std::fs::read_to_string(&config).map_err(io("reading the configuration"))?;
        let text = text.replace("\nnode_id = 1\n", &format!("\nnode_id = {node}\n"));
        std::fs::write(&config, text).map_err(io("writing the configuration"))?;
    }
    Ok(())
}
