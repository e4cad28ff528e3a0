//! The network between the nodes: a relay for each ordered pair, on loopback, that loses, repeats, delays and reorders what passes, or lets
//! nothing through one way.
//!
//! The configuration of node `a` has, as the address of node `b`, the front of the relay `a → b`. It carries the connection that `a`
//! makes to `b`, and what `b` answers on it. So what goes from `a` to `b` passes through two relays; a [`Rule`] is of a direction and
//! holds in both.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rove_sim::rng::Rng;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The largest datagram there can be.
const LARGEST: usize = 65_536;
/// What waits for a slow link at most: more is dropped at its tail, as a router does.
const QUEUE: Duration = Duration::from_secs(2);

/// What happens to datagrams of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// So many of a thousand are lost.
    pub(crate) loss: u64,
    /// So many of a thousand come twice.
    pub(crate) twice: u64,
    /// Each takes a random time up to this, so that they overtake each other.
    pub(crate) jitter_ms: u64,
    /// Bits a second; 0: as many as there are.
    pub(crate) rate: u64,
}

/// What has happened to datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) dropped: u64,
    pub(crate) repeated: u64,
    pub(crate) delayed: u64,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<(u64, u64), Rule>,
    /// When the link is free again.
    free_at: BTreeMap<(u64, u64), Instant>,
    counts: Counts,
}

/// The rules of all directions.
#[derive(Clone, Default)]
pub(crate) struct Links(Arc<Mutex<State>>);

impl Links {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this holds from `from` to `to`.
    pub(crate) fn set(&self, from: u64, to: u64, rule: Rule) {
        self.with(|state| state.rules.insert((from, to), rule));
    }

    /// The same in both directions.
    pub(crate) fn set_both(&self, one: u64, other: u64, rule: Rule) {
        self.set(one, other, rule);
        self.set(other, one, rule);
    }

    /// Everything passes.
    pub(crate) fn heal(&self) {
        self.with(|state| {
            state.rules.clear();
            state.free_at.clear();
        });
    }

    /// What has happened since the beginning.
    pub(crate) fn counts(&self) -> Counts {
        self.with(|state| state.counts)
    }

    /// When each copy of a datagram is to be delivered: none, one or two.
    fn fate(&self, from: u64, to: u64, bytes: usize, rng: &mut Rng) -> [Option<Instant>; 2] {
        self.with(|state| {
            let rule = state.rules.get(&(from, to)).copied().unwrap_or_default();
            let now = Instant::now();
            if rule.cut || rng.chance(rule.loss) {
                state.counts.dropped += 1;
                return [None, None];
            }
            let mut at = now;
            if let Some(micros) = (bytes as u64 * 8 * 1_000_000).checked_div(rule.rate) {
                let free_at = state.free_at.entry((from, to)).or_insert(now);
                let done = (*free_at).max(now) + Duration::from_micros(micros);
                if done > now + QUEUE {
                    state.counts.dropped += 1;
                    return [None, None];
                }
                *free_at = done;
                at = done;
            }
            at += Duration::from_millis(rng.below(rule.jitter_ms + 1));
            state.counts.passed += 1;
            state.counts.delayed += u64::from(at > now);
            let again = rng.chance(rule.twice);
            state.counts.repeated += u64::from(again);
            [Some(at), again.then(|| at + Duration::from_millis(rng.below(rule.jitter_ms + 2)))]
        })
    }
}

/// All relays. They end when this is dropped.
pub(crate) struct Mesh {
    pub(crate) links: Links,
    fronts: BTreeMap<(u64, u64), SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Mesh {
    /// Relays between nodes that listen at `nodes`.
    pub(crate) async fn start(nodes: &BTreeMap<u64, SocketAddr>, seed: u64) -> Self {
        let links = Links::default();
        let mut fronts = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for (from, to) in nodes.keys().flat_map(|from| nodes.keys().map(move |to| (*from, *to))) {
            if from == to {
                continue;
            }
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let front = UdpSocket::bind(any).await.expect("a port of the system's choice");
            let back = UdpSocket::bind(any).await.expect("a port of the system's choice");
            back.connect(nodes[&to]).await.expect("loopback");
            fronts.insert((from, to), front.local_addr().expect("it is bound"));
            let rng = Rng::new(seed ^ (from << 8) ^ to);
            tasks.spawn(Relay { from, to, front, back, links: links.clone(), rng, peer: None }.run());
        }
        Self { links, fronts, _tasks: tasks }
    }

    /// Where `from` finds `to`.
    pub(crate) fn front(&self, from: u64, to: u64) -> SocketAddr {
        self.fronts[&(from, to)]
    }
}

/// A datagram on its way: when, which one (so that equal times keep their order), forwards or back, and what.
type Due = Reverse<(Instant, u64, bool, Vec<u8>)>;

struct Relay {
    from: u64,
    to: u64,
    front: UdpSocket,
    back: UdpSocket,
    links: Links,
    rng: Rng,
    /// Whoever sent to the front last.
    peer: Option<SocketAddr>,
}

impl Relay {
    async fn run(mut self) {
        let mut due: BinaryHeap<Due> = BinaryHeap::new();
        let (mut number, mut there, mut back) = (0, vec![0; LARGEST], vec![0; LARGEST]);
        loop {
            let next = due.peek().map(|Reverse((at, ..))| *at);
            let wake = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // An error of a socket is about a datagram sent before, to a node that is down: it is lost, as on any network.
            tokio::select! {
                () = wake => {}
                received = self.front.recv_from(&mut there) => if let Ok((length, peer)) = received {
                    self.peer = Some(peer);
                    let fate = self.links.fate(self.from, self.to, length, &mut self.rng);
                    schedule(&mut due, &mut number, fate, true, &there[..length]);
                },
                received = self.back.recv(&mut back) => if let Ok(length) = received {
                    let fate = self.links.fate(self.to, self.from, length, &mut self.rng);
                    schedule(&mut due, &mut number, fate, false, &back[..length]);
                },
            }
            let now = Instant::now();
            while due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
                let Some(Reverse((_, _, forwards, datagram))) = due.pop() else { break };
                if forwards {
                    let _ = self.back.send(&datagram).await;
                } else if let Some(peer) = self.peer {
                    let _ = self.front.send_to(&datagram, peer).await;
                }
            }
        }
    }
}

fn schedule(due: &mut BinaryHeap<Due>, number: &mut u64, fate: [Option<Instant>; 2], forwards: bool, datagram: &[u8]) {
    for at in fate.into_iter().flatten() {
        *number += 1;
        due.push(Reverse((at, *number, forwards, datagram.to_vec())));
    }
}
