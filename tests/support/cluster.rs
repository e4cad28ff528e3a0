//! Several real nodes as one cluster, on this machine: directories, certificates and processes of their own.
//!
//! Each cluster has a loopback address of its own (Linux has all of 127.0.0.0/8), made from the id of the process that tests, and
//! ports below those that the system gives away: so its ports are known before anything runs, stay the same over restarts, and are
//! nobody else's.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rove_client::ServerAddress;

use crate::server::{configure, run};
use crate::{PATIENCE, Server, Starting};

/// The first port of node 0; node `n` has those from `10 n` above it. Below 32768, where the system takes ports from.
const FIRST_PORT: u16 = 20_000;
/// Clusters that one process may have, for each its own address.
const CLUSTERS: u32 = 4;

/// The nodes of a cluster, 1 to n. Killed, each by its own process id, when dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    address: Ipv4Addr,
    nodes: Vec<Server>,
}

/// The address of this process's next cluster.
fn address() -> Ipv4Addr {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    assert!(number < CLUSTERS, "a process may make {CLUSTERS} clusters");
    // Linux has less than 2²² processes: all fits into three bytes, and 127.0.x.y stays everybody's.
    let [_, a, b, c] = (std::process::id() * CLUSTERS + number).to_be_bytes();
    Ipv4Addr::new(127, a | 0x80, b, c)
}

/// Where node `node` has what: clients, and the other nodes.
fn ports(address: Ipv4Addr, node: u16) -> (SocketAddr, SocketAddr) {
    let port = FIRST_PORT + 10 * node;
    (SocketAddr::from((address, port)), SocketAddr::from((address, port + 1)))
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of a test is text").to_owned()
}

/// Makes what node `node` needs, who knows of nodes 1 to `nodes`.
fn prepare(dir: &Path, address: Ipv4Addr, node: u16, nodes: u16, keys: &str) {
    let mut peers = String::new();
    for node in 1..=nodes {
        let (_, listen) = ports(address, node);
        writeln!(peers, "[[cluster.peers]]\nnode = {node}\naddress = \"{listen}\"").expect("a string takes all");
    }
    let home = dir.join(format!("node-{node}"));
    std::fs::create_dir_all(&home).expect("a directory");
    if node > 1 {
        // Clients pin one key for the whole cluster.
        for file in ["cert.pem", "key.pem"] {
            std::fs::copy(dir.join("node-1").join(file), home.join(file)).expect("node 1 has a certificate");
        }
    }
    run(&["pki", "node", "--ca", &text(&dir.join("ca")), "--node", &node.to_string(), "--out", &text(&home)]);
    let (clients, listen) = ports(address, node);
    let section = format!(
        "[cluster]\nname = \"test\"\nlisten = \"{listen}\"\nca = \"ca.pem\"\ncertificate = \"node-{node}.pem\"\n\
         key = \"node-{node}.key\"\n{peers}"
    );
    configure(&home, node, &clients.to_string(), keys, &section);
}

impl Cluster {
    /// Makes three nodes in `dir` and starts them; returns when all of them serve.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, 3, "")
    }

    /// The same, with another number of nodes, and `keys` (lines of TOML, outside of any table) added to their configurations.
    pub fn start_with(dir: &Path, nodes: u16, keys: &str) -> Self {
        let address = address();
        run(&["pki", "ca", "--cluster", "test", "--out", &text(&dir.join("ca"))]);
        (1..=nodes).for_each(|node| prepare(dir, address, node, nodes, keys));
        let starting: Vec<_> =
            (1..=nodes).map(|node| Starting::spawn(dir.join(format!("node-{node}")), None)).collect();
        let nodes = starting.into_iter().map(Starting::listening).collect();
        Self { dir: dir.to_owned(), address, nodes }
    }

    /// The ids of the nodes.
    pub fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.nodes.len() as u64
    }

    /// Node `node`, counted from 1.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&self, node: u64) -> &Server {
        &self.nodes[index(node)]
    }

    /// Node `node`, to kill, terminate and restart it.
    ///
    /// # Panics
    /// If there is none.
    pub fn node_mut(&mut self, node: u64) -> &mut Server {
        &mut self.nodes[index(node)]
    }

    /// Kills node `node` and starts it with an empty data directory. The old one is left beside it, and returned.
    ///
    /// # Panics
    /// If there is none.
    pub fn lose_disk(&mut self, node: u64) -> (Starting, PathBuf) {
        let server = self.node_mut(node);
        server.kill();
        let (data, old) = (server.dir().join("data"), server.dir().join("data.old"));
        std::fs::rename(&data, &old).expect("it has a data directory");
        (server.begin(), old)
    }

    /// Node `node` listens again, after [`Cluster::lose_disk`].
    pub fn back(&mut self, node: u64, starting: Starting) {
        *self.node_mut(node) = starting.listening();
    }

    /// Makes one more node, that knows of all the others, and starts it.
    pub fn one_more(&mut self) -> Starting {
        let node = u16::try_from(self.nodes.len() + 1).expect("a small number");
        prepare(&self.dir, self.address, node, node, "");
        Starting::spawn(self.dir.join(format!("node-{node}")), None)
    }

    /// The same, of a node that listens elsewhere than its configuration tells the others; returns where.
    pub fn one_more_elsewhere(&mut self) -> (Starting, String) {
        let node = u16::try_from(self.nodes.len() + 1).expect("a small number");
        prepare(&self.dir, self.address, node, node, "");
        let listens = self.move_to_another_port(node.into());
        (self.start_in(self.home(node.into())), listens)
    }

    /// Has node `node` listen for the others at another port, from its next start on; returns where. No configuration tells of it.
    pub fn move_to_another_port(&self, node: u64) -> String {
        let (_, was) = ports(self.address, u16::try_from(node).expect("a small number"));
        let is = SocketAddr::new(was.ip(), was.port() + 1).to_string();
        edit(&self.home(node), |text| text.replace(&format!("\nlisten = \"{was}\""), &format!("\nlisten = \"{is}\"")));
        is
    }

    /// Takes from node `node` where the others are, from its next start on: only they can find it.
    pub fn forget_the_others(&self, node: u64) {
        edit(&self.home(node), |text| {
            let others = self.ids().filter(|other| *other != node);
            others.fold(text, |text, other| text.replace(&format!("\"{}\"", self.peer_address(other)), &nowhere(other)))
        });
    }

    /// Takes [`Cluster::forget_the_others`] back.
    pub fn remember_the_others(&self, node: u64) {
        edit(&self.home(node), |text| {
            let others = self.ids().filter(|other| *other != node);
            others.fold(text, |text, other| text.replace(&nowhere(other), &format!("\"{}\"", self.peer_address(other))))
        });
    }

    /// Makes what a node `node` needs that nobody knows of, for a test to make it wrong. Returns its directory.
    pub fn stranger(&self, node: u16) -> PathBuf {
        prepare(&self.dir, self.address, node, node, "");
        self.home(node.into())
    }

    /// Starts a node on what is in `dir`.
    pub fn start_in(&self, dir: PathBuf) -> Starting {
        Starting::spawn(dir, None)
    }

    fn home(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// It listens, and is the last of the nodes.
    pub fn joined(&mut self, starting: Starting) {
        self.nodes.push(starting.listening());
    }

    /// What clients are given that begin at `node`.
    pub fn address(&self, node: u64) -> ServerAddress {
        self.node(node).address()
    }

    /// `host:port` at which the other nodes reach node `node`.
    pub fn peer_address(&self, node: u64) -> String {
        ports(self.address, u16::try_from(node).expect("a small number")).1.to_string()
    }

    /// The directory with one for each node and the authority's.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// SIGKILL to all of them at once.
    pub fn kill_all(&mut self) {
        self.nodes.iter_mut().for_each(Server::kill);
    }

    /// Starts all of them again, at once, on the same data and ports; returns when all of them serve.
    pub fn restart_all(&mut self) {
        let starting: Vec<_> = self.nodes.iter().map(|node| Starting::spawn(node.dir().to_owned(), None)).collect();
        self.nodes = starting.into_iter().map(Starting::listening).collect();
    }

    /// Runs `rove-server cluster …` against `node`; the exit code, standard output and standard error.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn command(&self, node: u64, arguments: &[&str]) -> (Option<i32>, String, String) {
        command(&self.node(node).dir().join("rove.toml"), arguments)
    }

    /// `cluster status --json` of `node`.
    ///
    /// # Panics
    /// If it fails.
    pub fn status(&self, node: u64) -> serde_json::Value {
        let (code, out, error) = self.command(node, &["status", "--json"]);
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Waits until `cluster status --json` of `node` is as wanted, and returns it.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn status_until(
        &self,
        node: u64,
        what: &str,
        mut wanted: impl FnMut(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = tokio::task::block_in_place(|| self.status(node));
            if wanted(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}:\n{status:#}");
            // Other processes: there is nothing to be told by, so they are asked now and then.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// An address, in TOML, at which nobody listens.
fn nowhere(node: u64) -> String {
    format!("\"127.0.0.1:{node}\"")
}

/// Changes the configuration in `home`.
///
/// # Panics
/// If that changes nothing.
pub fn edit(home: &Path, change: impl FnOnce(String) -> String) {
    let config = home.join("rove.toml");
    let before = std::fs::read_to_string(&config).expect("there is a configuration");
    let after = change(before.clone());
    assert!(before != after, "nothing was changed in\n{before}");
    std::fs::write(&config, after).expect("the configuration can be changed");
}

fn index(node: u64) -> usize {
    usize::try_from(node).expect("a small number").checked_sub(1).expect("nodes are counted from 1")
}

/// Runs `rove-server cluster …` against the node of a configuration; the exit code, standard output and standard error.
///
/// # Panics
/// If it cannot be run.
pub fn command(config: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(crate::server::binary("rove-server"));
    let output = command.arg("cluster").args(arguments).arg("--config").arg(config).output().expect("rove-server runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
