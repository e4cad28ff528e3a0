//! Three real nodes: configurations, certificates and processes, and every way to end one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rove_client::{ServerAddress, Trust};
use rove_tests::server::{binary, run};
use tokio::time::Instant;

use crate::relay::Mesh;

/// The nodes' ids.
pub(crate) const NODES: [u64; 3] = [1, 2, 3];
/// The first port of node 0; node `n` has those from `10 n` above it. Below 32768, where the system takes ports from.
const FIRST_PORT: u16 = 22_000;
/// How often another process is asked: there is nothing to be told by.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long a node may take to start. Debug builds on a busy machine are slow.
const START_WITHIN: Duration = Duration::from_secs(60);

/// What a node is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binary {
    /// The server.
    This,
    /// The server of a later day, which applies by one version more.
    Next,
}

impl Binary {
    fn path(self) -> PathBuf {
        binary(match self {
            Self::This => "rove-server",
            Self::Next => "examples/rove-server-next",
        })
    }
}

/// One node's place, whether it runs or not.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    pub(crate) clients: SocketAddr,
    binary: Binary,
    child: Option<Child>,
}

/// The nodes. Each is killed, by its own process id, when this is dropped.
pub(crate) struct Nodes {
    homes: BTreeMap<u64, Home>,
    pub(crate) trust: Trust,
    /// Whether data directories are file systems of their own.
    pub(crate) mounted: bool,
}

/// A loopback address of its own for each cluster (Linux has all of 127.0.0.0/8), so that its ports are its own and stay the same.
fn address() -> Ipv4Addr {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = (std::process::id().wrapping_mul(16).wrapping_add(number)).to_be_bytes();
    // Below 127.128, which other tests have, and never 127.0, which is everybody's.
    Ipv4Addr::new(127, (a & 0x3f) | 0x40, b, c)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of a test is text").to_owned()
}

impl Nodes {
    /// Makes what they need in `dir`; the nodes reach each other through the relays of the mesh. Starts none.
    pub(crate) async fn prepare(dir: &Path, seed: u64) -> (Self, Mesh) {
        let address = address();
        let port = |node: u64, offset: u16| {
            let node = u16::try_from(node).expect("a small number");
            SocketAddr::from((address, FIRST_PORT + 10 * node + offset))
        };
        let mesh = Mesh::start(&NODES.map(|node| (node, port(node, 1))).into(), seed).await;
        let ca = text(&dir.join("ca"));
        run(&["pki", "ca", "--cluster", "faults", "--out", &ca]);
        let mut homes = BTreeMap::new();
        let mut trust = None;
        for node in NODES {
            let home = dir.join(format!("node-{node}"));
            fs::create_dir_all(&home).expect("a directory");
            if node > 1 {
                // Clients pin one key for the whole cluster.
                for file in ["cert.pem", "key.pem"] {
                    fs::copy(dir.join("node-1").join(file), home.join(file)).expect("node 1 has a certificate");
                }
            }
            let said = run(&["init", "--listen", &port(node, 0).to_string(), "--dir", &text(&home)]);
            trust = trust.or_else(|| said.trim().parse::<ServerAddress>().ok().map(|address| address.trust));
            run(&["pki", "node", "--ca", &ca, "--node", &node.to_string(), "--out", &text(&home)]);
            configure(&home, node, port(node, 1), &mesh);
            homes.insert(node, Home { dir: home, clients: port(node, 0), binary: Binary::This, child: None });
        }
        (Self { homes, trust: trust.expect("init says how clients are to trust it"), mounted: false }, mesh)
    }

    /// Where the node is.
    pub(crate) fn home(&self, node: u64) -> &Home {
        &self.homes[&node]
    }

    /// Its data directory.
    pub(crate) fn data(&self, node: u64) -> PathBuf {
        self.home(node).dir.join("data")
    }

    /// What it has logged, over all its lives.
    pub(crate) fn log(&self, node: u64) -> String {
        fs::read_to_string(self.home(node).dir.join("log")).unwrap_or_default()
    }

    /// The last lines of that, for reports.
    pub(crate) fn last_words(&self, node: u64) -> String {
        let log = self.log(node);
        let lines: Vec<&str> = log.lines().rev().take(6).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn home_mut(&mut self, node: u64) -> &mut Home {
        self.homes.get_mut(&node).expect("one of the three")
    }

    /// It is started with this from now on.
    pub(crate) fn install(&mut self, node: u64, binary: Binary) {
        self.home_mut(node).binary = binary;
    }

    /// Starts it; returns at once.
    pub(crate) fn start(&mut self, node: u64) {
        self.start_with(node, None);
    }

    /// The same, with a variable in its environment.
    pub(crate) fn start_with(&mut self, node: u64, variable: Option<(&str, String)>) {
        let home = self.home_mut(node);
        let ready = home.dir.join("ready");
        let _ = fs::remove_file(&ready);
        let log = File::options().create(true).append(true).open(home.dir.join("log")).expect("a log file");
        let mut command = Command::new(home.binary.path());
        command.envs(variable);
        command.arg("serve").arg("--config").arg(home.dir.join("rove.toml")).arg("--ready-file").arg(ready);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        home.child = Some(child.expect("rove-server starts"));
    }

    /// Waits until it serves, or says why it does not.
    pub(crate) async fn serves(&mut self, node: u64) -> Result<(), String> {
        let deadline = Instant::now() + START_WITHIN;
        while !self.home(node).dir.join("ready").exists() {
            if let Some(status) = self.ended(node) {
                return Err(format!("node {node} ended ({status}): {}", self.last_words(node)));
            }
            if Instant::now() > deadline {
                return Err(format!("node {node} does not serve: {}", self.last_words(node)));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Whether it has ended by itself, and how.
    pub(crate) fn ended(&mut self, node: u64) -> Option<ExitStatus> {
        let home = self.home_mut(node);
        let status = home.child.as_mut()?.try_wait().ok()??;
        home.child = None;
        Some(status)
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ends_within(&mut self, node: u64, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            let status = self.ended(node);
            if status.is_some() || Instant::now() > deadline {
                return status;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Whether its process is there.
    pub(crate) fn runs(&mut self, node: u64) -> bool {
        let _ = self.ended(node);
        self.home(node).child.is_some()
    }

    /// Its process id.
    pub(crate) fn pid(&self, node: u64) -> Option<u32> {
        self.home(node).child.as_ref().map(Child::id)
    }

    /// SIGKILL. Whether it ran.
    pub(crate) fn kill(&mut self, node: u64) -> bool {
        let Some(mut child) = self.home_mut(node).child.take() else { return false };
        let killed = child.kill().is_ok();
        let _ = child.wait();
        killed
    }

    /// Sends it a signal. Whether it was there to get it.
    pub(crate) fn signal(&self, node: u64, signal: Signal) -> bool {
        self.pid(node).is_some_and(|pid| kill(Pid::from_raw(pid.cast_signed()), signal).is_ok())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in NODES {
            // One that is stopped dies of SIGKILL as well.
            self.kill(node);
            // Where a fault has mounted a file system of its own, it goes with the node; elsewhere there is nothing to let go of.
            if self.mounted {
                let _ = Command::new("umount").arg(self.data(node)).stderr(Stdio::null()).status();
            }
        }
    }
}

fn configure(home: &Path, node: u64, listen: SocketAddr, mesh: &Mesh) {
    let path = home.join("rove.toml");
    let mut config = fs::read_to_string(&path).expect("init wrote the configuration");
    config = config.replace("\nnode_id = 1\n", &format!("\nnode_id = {node}\n"));
    // Some file systems here are small.
    config = config.replacen("# disk_reserve = 512", "disk_reserve = 128", 1);
    // Many accounts sign up from one address.
    config.push_str("\n[accounts]\nrate_limits = false\n");
    write!(
        config,
        "[cluster]\nname = \"faults\"\nlisten = \"{listen}\"\nca = \"ca.pem\"\ncertificate = \"node-{node}.pem\"\nkey = \
         \"node-{node}.key\"\n"
    )
    .expect("a string takes all");
    for peer in NODES {
        let address = if peer == node { listen } else { mesh.front(node, peer) };
        writeln!(config, "[[cluster.peers]]\nnode = {peer}\naddress = \"{address}\"").expect("a string takes all");
    }
    fs::write(&path, config).expect("the configuration can be changed");
}
