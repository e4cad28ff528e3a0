//! A node from its configuration to its end: wires everything, and drains it.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rove_core::formation::FormationError;
use rove_quic::SessionStore;
use rove_quic::config::TLS_SESSIONS;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::init::{authority, reachable};
use super::join::{Joined, join};
use crate::admin::{self, AdminServer};
use crate::cluster::{Cluster, ClusterError};
use crate::edge::{Edge, EdgeConfig, EndpointSecret, Hub};
use crate::expiry;
use crate::http::{self, Api, ApiConfig};
use crate::leaving::{Drainer, move_leaders, watch_clock, watch_disk, watch_minority};
use crate::membership::{Roster, raise};
use crate::node::{FatalError, Node, NodeRunner, StartError};
use crate::nodes::{About, Nodes, spread};
use crate::storage::formation::FormationFileError;
use crate::storage::space::space_of;
use crate::tls::{Identity, TlsError};

/// Bytes the system may hold of datagrams that were not read yet: 20 ms of a gigabit. It may give less.
const UDP_BUFFER: usize = 2 * 1024 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// After this long the address is announced although the node is still replaying: `/readyz` tells when it is done.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long leaders are given to go elsewhere when the node stops: whoever sent the signal has not much patience.
const LEADERS_AT_STOP: Duration = Duration::from_secs(3);
/// The file in the data directory with what a restarted node says of the connections it had.
const ENDPOINT_SECRET: &str = "quic.secret";
/// The exit code after a second signal: what a shell gives a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Why a node did not run, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{key} = {address}: {source}; is another server running there? choose another address")]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Formation(#[from] FormationFileError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("this node does not take part: {0}")]
    Out(FormationError),
    #[error("the node cannot go on: {0}; {advice}", advice = .0.advice())]
    Fatal(#[from] FatalError),
    #[error("the HTTP API cannot start: the system gives no randomness")]
    Randomness,
    #[error("QUIC: {0}")]
    Quic(String),
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("{path}: {source}")]
    EndpointSecret { path: PathBuf, source: io::Error },
    #[error("--ready-file {path}: {source}")]
    ReadyFile { path: PathBuf, source: io::Error },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// What is said once the node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    /// The line that programs read.
    Line,
    /// And the address for clients, for whoever sits there.
    LineAndAddress,
}

/// Runs a node until it is told to stop.
pub(super) fn run(config: &Config, ready_file: Option<&Path>, announce: Announce) -> Result<(), RunError> {
    let identity = Identity::load(&config.tls_cert, &config.tls_key)?;
    let sessions = Arc::new(SessionStore::new(TLS_SESSIONS));
    let quic = identity.quic(sessions.clone())?;
    let quic = rove_quic::server_config(quic).map_err(|error| RunError::Quic(error.to_string()))?;
    let tcp_tls = Arc::new(identity.tcp()?);
    let (udp, tcp) = bind(config.listen_quic, config.listen_https)?;
    let runtime = Runtime::new().map_err(system("the runtime cannot start"))?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new().map_err(system("signals cannot be heard"))?;
        let joined = tokio::select! {
            joined = join(config) => joined?,
            // Nothing runs yet that would have to be drained.
            () = signals.next() => return Ok(()),
        };
        let Joined { hub, node, runner, cluster } = joined;
        let (transport, connected) = match cluster {
            Some(cluster) => (Some(cluster.transport), Some((cluster.members, cluster.runner, cluster.replicas))),
            None => (None, None),
        };
        let roster = connected.as_ref().map(|(members, ..)| members.roster().clone());
        let parts = Parts { hub, node, transport, roster, quic, sessions, udp, tcp, tcp_tls, pin: identity.pin() };
        let running = Running::start(config, parts)?;
        if let Some((members, ..)) = &connected {
            members.running(running.nodes.clone());
        }
        let result = running.until_stopped(runner, signals, ready_file, announce).await;
        if let Some((_, cluster, _replicas)) = connected {
            cluster.stop().await;
        }
        result
    });
    // Nothing is left to wait for: hashes under way have nobody to tell.
    runtime.shutdown_background();
    result
}

/// What a running server is made of.
struct Parts {
    hub: Arc<Hub>,
    node: Node,
    transport: Option<Cluster>,
    roster: Option<Arc<Roster>>,
    quic: quinn::ServerConfig,
    sessions: Arc<SessionStore>,
    udp: UdpSocket,
    tcp: TcpListener,
    tcp_tls: Arc<rustls::ServerConfig>,
    pin: String,
}

/// A server that serves.
struct Running {
    node: Node,
    nodes: Arc<Nodes>,
    drainer: Arc<Drainer>,
    edge: Edge,
    http: JoinHandle<()>,
    /// Asks the other nodes, and looks whether they can be reached.
    watching: JoinHandle<()>,
    /// Who the nodes are, if there are others.
    roster: Option<Arc<Roster>>,
    admin: Option<AdminServer>,
    listening: Listening,
    /// No more connections, and an end to those there are.
    shutdown: CancellationToken,
}

/// Where it serves.
struct Listening {
    quic: SocketAddr,
    https: SocketAddr,
    advertised: String,
    pin: String,
}

impl Running {
    fn start(config: &Config, parts: Parts) -> Result<Self, RunError> {
        let Parts { hub, node, transport, roster, quic, sessions, udp, tcp, tcp_tls, pin } = parts;
        let shutdown = CancellationToken::new();
        let quic_address = udp.local_addr().map_err(system("the UDP socket has no address"))?;
        let https_address = tcp.local_addr().map_err(system("the TCP socket has no address"))?;
        let advertised = if config.advertise.is_empty() {
            authority(&reachable(quic_address), quic_address.port())
        } else {
            config.advertise.clone()
        };
        let about = About {
            address: advertised.clone(),
            region: config.region.clone(),
            pins: std::iter::once(pin.clone()).chain(config.next_pins.iter().cloned()).collect(),
            full_sessions: config.max_connections,
            version: config.release.version,
        };
        let drain = Duration::from_secs(config.drain_s);
        let nodes = Nodes::new(node.clone(), about, hub.stats().clone(), Arc::default(), transport);
        let api_config = ApiConfig {
            rate_limits: config.accounts.rate_limits,
            hashes: config.accounts.hashes(),
            lifetimes: config.accounts.lifetimes(),
        };
        let api = Api::new(nodes.clone(), api_config).map_err(|_| RunError::Randomness)?;
        let router = http::router(api);
        let secret = config.data_dir.join(ENDPOINT_SECRET);
        let secret = EndpointSecret::load_or_make(&secret)
            .map_err(|source| RunError::EndpointSecret { path: secret, source })?;
        let edge_config = EdgeConfig {
            secret: Some(secret),
            nodes: Some(nodes.clone()),
            sessions: Some(sessions),
            max_connections: config.max_connections,
            max_per_address: config.max_connections_per_address,
            drain,
            ..EdgeConfig::default()
        };
        let edge = Edge::start(edge_config, hub, node.clone(), quic, udp, router.clone(), shutdown.clone())
            .map_err(system("the UDP socket cannot be used"))?;
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(system("the TCP socket cannot be used"))?;
        let http = tokio::spawn(http::serve_tcp(tcp, tcp_tls, router, shutdown.clone()));
        let (asking, looking) =
            (nodes.clone().watch(shutdown.clone()), watch_minority(nodes.clone(), shutdown.clone()));
        let spreading = spread(nodes.clone(), shutdown.clone());
        let node_certificate = config.cluster.as_ref().map(|section| section.files().certificate);
        let expiring = expiry::watch(node.clone(), config.tls_cert.clone(), node_certificate, shutdown.clone());
        let data_dir = config.data_dir.clone();
        let space = move || space_of(&data_dir);
        let disk = watch_disk(nodes.clone(), config.disk_reserve << 20, space, shutdown.clone());
        let clock = watch_clock(nodes.clone(), shutdown.clone());
        let drainer = Arc::new(Drainer::new(nodes.clone(), drain));
        let raising = raise(node.clone(), roster.clone(), shutdown.clone());
        let members = roster.clone().map(|roster| roster.watch(node.clone(), drainer.clone(), shutdown.clone()));
        let watching = tokio::spawn(async {
            _ = tokio::join!(
                asking,
                looking,
                spreading,
                disk,
                clock,
                expiring,
                raising,
                futures::future::OptionFuture::from(members)
            );
        });
        let admin = admin(config, &nodes, &drainer, roster.clone());
        let listening = Listening { quic: quic_address, https: https_address, advertised, pin };
        Ok(Self { node, nodes, drainer, edge, http, watching, roster, admin, listening, shutdown })
    }

    /// Serves until a signal, then drains; or until the node cannot go on.
    async fn until_stopped(
        self,
        mut runner: NodeRunner,
        mut signals: Signals,
        ready_file: Option<&Path>,
        announce: Announce,
    ) -> Result<(), RunError> {
        tokio::select! {
            fatal = runner.failed() => return Err(fatal.into()),
            () = signals.next() => return self.drain(runner, signals).await,
            why = self.out() => return self.leave(why, runner, signals).await,
            () = self.ready() => {}
        }
        self.listening.announce(ready_file, announce)?;
        tokio::select! {
            fatal = runner.failed() => Err(fatal.into()),
            () = signals.next() => self.drain(runner, signals).await,
            why = self.out() => self.leave(why, runner, signals).await,
        }
    }

    /// Waits until there is no place for this node in the cluster any more.
    async fn out(&self) -> FormationError {
        match &self.roster {
            Some(roster) => roster.out().await,
            None => std::future::pending().await,
        }
    }

    /// Ends as after a signal, so that clients are told to go elsewhere, and says why.
    async fn leave(self, why: FormationError, runner: NodeRunner, signals: Signals) -> Result<(), RunError> {
        self.drain(runner, signals).await?;
        Err(RunError::Out(why))
    }

    async fn ready(&self) {
        // A node that stops instead says so itself.
        if tokio::time::timeout(PATIENCE, self.node.ready()).await.is_err() {
            tracing::warn!("the node is still catching up; /readyz tells when it is done");
        }
    }

    /// Not ready, leaders and then sessions go elsewhere, requests are answered, the node finishes and flushes.
    async fn drain(self, runner: NodeRunner, mut signals: Signals) -> Result<(), RunError> {
        tracing::info!("draining; a second signal ends at once");
        let drained = async {
            self.drainer.stop().await;
            self.nodes.leaving().set_draining(true);
            if self.nodes.has_heir() {
                move_leaders(&self.nodes, LEADERS_AT_STOP).await;
            }
            self.shutdown.cancel();
            let (http, watching, ()) = tokio::join!(self.http, self.watching, self.edge.drained());
            if let Err(error) = http.and(watching) {
                tracing::error!(%error, "a task ended badly");
            }
            if let Some(admin) = self.admin {
                admin.stop().await;
            }
            runner.stop().await
        };
        tokio::select! {
            stopped = drained => stopped?,
            () = signals.next() => {
                tracing::warn!("ending at once");
                // Whatever was acknowledged is in the log: the next start replays it.
                std::process::exit(INTERRUPTED);
            }
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Serves the operator of this machine. Without that the node is as good to everybody else.
fn admin(
    config: &Config,
    nodes: &Arc<Nodes>,
    drainer: &Arc<Drainer>,
    roster: Option<Arc<Roster>>,
) -> Option<AdminServer> {
    match admin::start(&config.data_dir, nodes.clone(), drainer.clone(), roster) {
        Ok(admin) => Some(admin),
        Err(error) => {
            let path = config.data_dir.join(admin::SOCKET);
            tracing::error!(
                path = %path.display(), %error,
                "the admin socket cannot be served, so `rove-server cluster` will not work here; a path of a socket may have 107 bytes"
            );
            None
        }
    }
}

impl Listening {
    fn announce(&self, ready_file: Option<&Path>, announce: Announce) -> Result<(), RunError> {
        let Self { quic, https, advertised, pin } = self;
        let line = format!("listening quic={quic} https={https} pin={pin}");
        if let Some(path) = ready_file {
            // Under another name first: whoever waits for the file must find it whole.
            let new = path.with_extension("new");
            std::fs::write(&new, format!("{line}\n"))
                .and_then(|()| std::fs::rename(&new, path))
                .map_err(|source| RunError::ReadyFile { path: path.to_owned(), source })?;
        }
        super::print(&line);
        tracing::info!(%quic, %https, "serving");
        if announce == Announce::LineAndAddress {
            super::say(&format!("\n  clients:  rove://{advertised}?pin={pin}"));
            super::say(&format!("  API:      https://{https}/openapi.json (curl --insecure)\n  stop:     Ctrl-C\n"));
        }
        Ok(())
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Opens both sockets: the same port number for both where the system chooses and can.
fn bind(quic: SocketAddr, https: SocketAddr) -> Result<(UdpSocket, TcpListener), RunError> {
    let udp = bind_udp(quic).map_err(|source| RunError::Listen { key: "listen_quic", address: quic, source })?;
    let chosen = udp.local_addr().map_err(system("the UDP socket has no address"))?.port();
    if quic.port() == 0
        && https.port() == 0
        && let Ok(tcp) = bind_tcp(SocketAddr::new(https.ip(), chosen))
    {
        return Ok((udp, tcp));
    }
    let tcp = bind_tcp(https).map_err(|source| RunError::Listen { key: "listen_https", address: https, source })?;
    Ok((udp, tcp))
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // The unspecified address of IPv6 means both.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    // Less is slower under bursts, not wrong.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // A restart finds its own closed connections on the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ports_have_one_number_when_the_system_chooses() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (udp, tcp) = bind(any, any).unwrap();
        assert_ne!(udp.local_addr().unwrap().port(), 0);
        assert_ne!(tcp.local_addr().unwrap().port(), 0);
    }

    #[test]
    fn a_port_in_use_names_the_key() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (udp, _tcp) = bind(any, any).unwrap();
        let taken = udp.local_addr().unwrap();
        let message = bind(taken, any).unwrap_err().to_string();
        assert!(message.starts_with("listen_quic = 127.0.0.1:"), "{message}");
    }
}
