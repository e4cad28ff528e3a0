//! A path between clients and a server: everything takes its time on it, and some of it is lost.
//!
//! As a router that translates addresses: each address that something comes from has one of its own towards the server, so that a client
//! that changes its socket is seen to have moved. What is on its way keeps its order.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::error::{LoadError, io};
use crate::random::Random;

/// The largest datagram there can be.
const LARGEST: usize = 65_536;
/// Datagrams on their way at most: what a load of some thousand a second has there, many times over. More are lost.
const ON_THE_WAY: usize = 16_384;
/// Addresses that clients may come from.
const CLIENTS: usize = 4_096;
/// Timers of the runtime are late by up to a millisecond: by half of it on average.
const EARLIER: Duration = Duration::from_micros(500);

/// How the path is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// There and back.
    pub round_trip: Duration,
    /// The share that is lost, each way: 0 to 1.
    pub loss: f64,
}

/// A path to one server, until it is dropped.
#[derive(Debug)]
pub struct Path {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Path {
    /// To `server`. The same `seed` loses the same ones of the same traffic.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub async fn start(server: SocketAddr, weather: Weather, seed: u64) -> Result<Self, LoadError> {
        let front = Arc::new(socket().await?);
        let address = front.local_addr().map_err(io("looking at a socket"))?;
        let (way, on_the_way) = mpsc::channel(ON_THE_WAY);
        let mut tasks = JoinSet::new();
        tasks.spawn(travel(on_the_way));
        tasks.spawn(forwards(front, server, Entrance { way, weather, random: Random::of(seed, 0) }));
        Ok(Self { address, _tasks: tasks })
    }

    /// Where clients find the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Something on its way: when it is there, and where.
struct Datagram {
    at: Instant,
    bytes: Vec<u8>,
    from: Arc<UdpSocket>,
    to: SocketAddr,
}

/// One end of the path.
struct Entrance {
    way: mpsc::Sender<Datagram>,
    weather: Weather,
    random: Random,
}

impl Entrance {
    fn enter(&mut self, bytes: &[u8], from: &Arc<UdpSocket>, to: SocketAddr) {
        if self.random.share() <= self.weather.loss {
            return;
        }
        let at = (Instant::now() + self.weather.round_trip / 2).checked_sub(EARLIER).unwrap_or_else(Instant::now);
        // What does not fit is lost, as on any path.
        let _ = self.way.try_send(Datagram { at, bytes: bytes.to_vec(), from: from.clone(), to });
    }
}

async fn socket() -> Result<UdpSocket, LoadError> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(io("binding a socket"))
}

/// All take equally long: who enters first arrives first.
async fn travel(mut way: mpsc::Receiver<Datagram>) {
    while let Some(Datagram { at, bytes, from, to }) = way.recv().await {
        sleep_until(at).await;
        // An error is about an earlier one, to somebody who has gone.
        let _ = from.send_to(&bytes, to).await;
    }
}

/// From clients to the server; what comes back is read by a task for each client.
async fn forwards(front: Arc<UdpSocket>, server: SocketAddr, mut entrance: Entrance) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let (mut readers, mut bytes) = (JoinSet::new(), vec![0; LARGEST]);
    loop {
        let Ok((length, client)) = front.recv_from(&mut bytes).await else { continue };
        if !backs.contains_key(&client) {
            let Ok(back) = socket().await else { continue };
            if backs.len() >= CLIENTS {
                continue;
            }
            let back = Arc::new(back);
            backs.insert(client, back.clone());
            let random = Random::of(entrance.random.number(), backs.len() as u64);
            let entrance = Entrance { way: entrance.way.clone(), weather: entrance.weather, random };
            readers.spawn(backwards(back, front.clone(), client, entrance));
        }
        if let Some(back) = backs.get(&client) {
            entrance.enter(&bytes[..length], back, server);
        }
    }
}

async fn backwards(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, mut entrance: Entrance) {
    let mut bytes = vec![0; LARGEST];
    loop {
        let Ok((length, _)) = back.recv_from(&mut bytes).await else { continue };
        entrance.enter(&bytes[..length], &front, client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back what it gets, with where it came from.
    async fn server() -> (SocketAddr, JoinSet<()>) {
        let socket = socket().await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut bytes = vec![0; LARGEST];
            loop {
                let (length, client) = socket.recv_from(&mut bytes).await.unwrap();
                let seen = [&bytes[..length], client.to_string().as_bytes()].concat();
                socket.send_to(&seen, client).await.unwrap();
            }
        });
        (address, tasks)
    }

    async fn ask(client: &UdpSocket, path: &Path, what: &str) -> String {
        client.send_to(what.as_bytes(), path.address()).await.unwrap();
        let mut bytes = vec![0; LARGEST];
        let (length, from) = client.recv_from(&mut bytes).await.unwrap();
        assert_eq!(from, path.address(), "as if the server were there");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn each_address_of_a_client_is_one_towards_the_server() {
        let (address, _server) = server().await;
        let path = Path::start(address, Weather::default(), 1).await.unwrap();
        let (one, other) = (socket().await.unwrap(), socket().await.unwrap());
        let first = ask(&one, &path, "").await;
        assert_eq!(ask(&one, &path, "").await, first);
        assert_ne!(ask(&other, &path, "").await, first);
        assert_eq!(ask(&one, &path, "again ").await, format!("again {first}"));
    }

    #[tokio::test]
    async fn everything_takes_the_round_trip_at_least_but_for_the_timers_share() {
        let (address, _server) = server().await;
        let weather = Weather { round_trip: Duration::from_millis(20), loss: 0.0 };
        let path = Path::start(address, weather, 1).await.unwrap();
        let (client, begun) = (socket().await.unwrap(), Instant::now());
        ask(&client, &path, "").await;
        assert!(begun.elapsed() + 2 * EARLIER >= weather.round_trip);
    }

    #[tokio::test]
    async fn the_share_that_is_lost_is_lost_both_ways() {
        let (way, mut on_the_way) = mpsc::channel(ON_THE_WAY);
        let weather = Weather { round_trip: Duration::ZERO, loss: 0.25 };
        let mut entrance = Entrance { way, weather, random: Random::of(1, 0) };
        let socket = Arc::new(socket().await.unwrap());
        (0..4_000).for_each(|_| entrance.enter(b"x", &socket, socket.local_addr().unwrap()));
        let mut passed = 0;
        while on_the_way.try_recv().is_ok() {
            passed += 1;
        }
        assert!((2_850..=3_150).contains(&passed), "{passed}");
    }
}
