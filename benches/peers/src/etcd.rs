//! etcd: three servers, a Raft log that is synced before a put is answered.
//!
//! The four messages of its API (<https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/>) that are needed are written out here, so
//! that nothing has to be generated.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::link::{Event, Link, message};
use crate::process::{LOOK_EVERY, START_TIMEOUT, Server, free_ports, output, pids, stop};
use crate::results::{Results, Row};
use crate::syncs;
use crate::work::{self, Done, Plan};

const CLIENTS_64: Row = Row { id: "etcd-64", name: "etcd, three servers, 64 clients" };
const CLIENTS_256: Row = Row { id: "etcd-256", name: "etcd, three servers, 256 clients" };

/// Clients that share a connection, as in etcd's own published measurements (1,000 on 100).
const CLIENTS_EACH: usize = 10;

/// One round.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    let version = output("etcd", &["--version"])?.lines().next().unwrap_or_default().to_owned();
    results.version("etcd", &version);
    let dir = work::fresh_dir(&plan.dir, "etcd")?;
    let mut cluster = Cluster::start(dir.path()).await?;
    let servers = pids(&cluster.servers);
    let everywhere = [0, 1, 2];
    for (row, clients) in [(CLIENTS_64, 64), (CLIENTS_256, 256)] {
        let link = cluster.clients(&everywhere, clients).await?;
        // Every client has one put under way.
        let report = work::throughput(plan, row.name, vec![link], clients, Done::Acknowledged, &servers).await?;
        results.add(plan, row, &report);
    }
    let leader = cluster.leader().await?;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let row = CLIENTS_256;
    let link = cluster.clients(&others, CLIENTS_EACH).await?;
    results.add(plan, row, &work::acknowledgements(plan, row.name, link, &servers).await?);
    if plan.round == 1 {
        let link = cluster.clients(&others, CLIENTS_EACH).await?;
        results.fsync(row, syncs::count(link, Done::Acknowledged, &servers, dir.path()).await?);
        results.fsync(CLIENTS_64, Some("as below".to_owned()));
    }
    let link = cluster.clients(&others, CLIENTS_EACH).await?;
    results.add(plan, row, &work::silence(row.name, link, || cluster.servers[leader].kill()).await?);
    stop(cluster.servers).await;
    Ok(())
}

struct Cluster {
    servers: Vec<Server>,
    clients: [SocketAddr; 3],
}

impl Cluster {
    async fn start(dir: &Path) -> Result<Self> {
        let ports = free_ports::<6>()?;
        let peers: Vec<_> = (0..3).map(|node| format!("n{node}=http://127.0.0.1:{}", ports[3 + node])).collect();
        let mut servers = Vec::new();
        for node in 0..3 {
            let (client, peer) =
                (format!("http://127.0.0.1:{}", ports[node]), format!("http://127.0.0.1:{}", ports[3 + node]));
            let args = [
                ("--name", format!("n{node}")),
                ("--data-dir", dir.join(format!("n{node}")).display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", peers.join(",")),
                ("--logger", "zap".to_owned()),
            ];
            let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
            servers.push(Server::start(&format!("n{node}"), "etcd", &args, &[], dir)?);
        }
        let clients = [0, 1, 2].map(|node| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[node])));
        let mut this = Self { servers, clients };
        for (server, at) in this.servers.iter_mut().zip(clients) {
            server.listens(at).await?;
        }
        this.ready().await?;
        Ok(this)
    }

    /// Waits until a put succeeds.
    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut link = self.clients(&[0], 1).await?;
        while Instant::now() < deadline {
            link.send(0)?;
            if let Event::Acknowledged(_) = link.next().await? {
                return Ok(());
            }
            self.servers.iter_mut().try_for_each(Server::alive)?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("etcd takes no puts")
    }

    /// So many clients, spread over these servers.
    async fn clients(&self, nodes: &[usize], clients: usize) -> Result<Etcd> {
        let mut channels = Vec::new();
        for number in 0..clients.div_ceil(CLIENTS_EACH) {
            channels.push(connect(self.clients[nodes[number % nodes.len()]]).await?);
        }
        Ok(Etcd { channels, puts: FuturesUnordered::new() })
    }

    async fn leader(&self) -> Result<usize> {
        for (node, at) in self.clients.into_iter().enumerate() {
            let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
            let status: StatusResponse = call(connect(at).await?, path, StatusRequest {}).await?;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(node);
            }
        }
        bail!("no server says that it leads")
    }
}

async fn connect(at: SocketAddr) -> Result<Channel> {
    Endpoint::from_shared(format!("http://{at}"))?.tcp_nodelay(true).connect().await.context("connecting to etcd")
}

async fn call<A, B>(channel: Channel, path: PathAndQuery, request: A) -> Result<B>
where
    A: prost::Message + Send + Sync + 'static,
    B: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    Ok(grpc.unary(tonic::Request::new(request), path, ProstCodec::default()).await?.into_inner())
}

/// Clients that put messages, the number being the key.
struct Etcd {
    channels: Vec<Channel>,
    puts: FuturesUnordered<BoxFuture<'static, Event>>,
}

impl Link for Etcd {
    fn send(&mut self, number: u64) -> Result<()> {
        let place = usize::try_from(number)? % self.channels.len();
        let channel = self.channels[place].clone();
        let request = PutRequest { key: format!("{number:016x}").into(), value: message(number).to_vec() };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let put = call::<_, PutResponse>(channel, path, request);
        self.puts.push(
            put.map(move |put| if put.is_ok() { Event::Acknowledged(number) } else { Event::Refused(number) }).boxed(),
        );
        Ok(())
    }

    async fn next(&mut self) -> Result<Event> {
        match self.puts.next().await {
            Some(event) => Ok(event),
            None => pending().await,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}
