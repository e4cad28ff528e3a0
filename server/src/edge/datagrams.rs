//! What may be lost: heartbeats, presence, typing.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rove_core::conversation::read;
use rove_protocol::error::Violation;
use rove_protocol::frame::datagram_frames;
use rove_protocol::ids::AccountId;
use rove_protocol::limits;
use rove_protocol::message::{DatagramUp, Heartbeat, HeartbeatAck, Message as _, Presence, PresenceItem, Typing};
use rove_protocol::transport::Connection as _;
use rove_protocol::wire::{List, Wire as _};
use tokio::time::Instant;

use super::hub::Members;
use super::session::Session;
use super::stats::EdgeStats;

/// Datagrams a second a session may send for long (S16): a heartbeat every 20 s, and typing in one conversation once a
/// second, are far below.
const RATE: f64 = 10.0;
/// And at once, after being quiet.
const BURST: f64 = 40.0;
/// Look-ups for typing that may be under way; more of them is typing nobody can follow.
const LOOKUPS: usize = 8;
/// What surrounds the items of a presence datagram: length, type, count, version.
const PRESENCE_OVERHEAD: usize = 24;

/// A bucket of tokens.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// Typing in a conversation whose members have to be looked up first.
pub(super) type Lookup = BoxFuture<'static, ()>;

/// The datagrams of one session.
pub(super) struct Datagrams {
    session: Arc<Session>,
    bucket: Bucket,
    lookups: FuturesUnordered<Lookup>,
    /// The version of the watch set that was sent last.
    presence_sent: u64,
}

impl Datagrams {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, bucket: Bucket::new(Instant::now()), lookups: FuturesUnordered::new(), presence_sent: 0 }
    }

    /// A datagram has come. What is left to do may take a while.
    pub(super) fn received(&mut self, datagram: Bytes) -> Result<Option<Lookup>, Violation> {
        let stats = self.session.edge.stats();
        if !self.bucket.take(Instant::now()) {
            EdgeStats::add(&stats.datagrams_dropped, 1);
            return Ok(None);
        }
        EdgeStats::add(&stats.datagrams, 1);
        let mut later = None;
        for frame in datagram_frames(datagram)? {
            match DatagramUp::decode(frame)? {
                Some(DatagramUp::Heartbeat(heartbeat)) => self.heartbeat(&heartbeat),
                Some(DatagramUp::Typing(typing)) => later = self.typing(&typing).or(later),
                None => {}
            }
        }
        Ok(later)
    }

    /// Keeps a look-up going.
    pub(super) fn later(&mut self, lookup: Lookup) {
        if self.lookups.len() < LOOKUPS {
            self.lookups.push(lookup);
        }
    }

    /// Drives the look-ups; never ends while there are none.
    pub(super) async fn work(&mut self) {
        if self.lookups.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) {
        let (hub, subscriber) = (&self.session.edge.hub, &self.session.subscriber);
        hub.beat(subscriber.account, subscriber.session);
        let ack = HeartbeatAck {
            number: heartbeat.number,
            inbox_version: subscriber.inbox_version(),
            presence_version: hub.presence_version(subscriber.session),
        };
        self.session.connection.send_datagram(ack.to_frame().into());
        if heartbeat.presence_version < self.presence_sent {
            // A datagram was lost: everything since the one that was not.
            self.presence_sent = heartbeat.presence_version;
            self.presence();
        }
    }

    /// Tells what has changed of the watched accounts.
    pub(super) fn presence(&mut self) {
        let (items, version) =
            self.session.edge.hub.presence_since(self.session.subscriber.session, self.presence_sent);
        let room = self.session.connection.max_datagram().min(limits::DATAGRAM);
        for datagram in presence_datagrams(items, self.presence_sent, version, room) {
            self.session.connection.send_datagram(datagram);
        }
        self.presence_sent = version;
    }

    fn typing(&self, typing: &Typing) -> Option<Lookup> {
        let session = self.session.clone();
        let conversation = typing.conversation;
        let typing = Typing { account: session.account(), ..typing.clone() };
        if let Some(members) = session.edge.hub.cached_members(conversation) {
            forward(&session, &members, &typing);
            return None;
        }
        let partition = session.edge.node.partition_of(conversation);
        Some(Box::pin(async move {
            let found = session.edge.node.read(move |state| {
                read::members(state, partition, conversation, AccountId(0), limits::TYPING_MEMBERS as usize + 1)
            });
            if let Ok(Ok(members)) = found.await {
                let members = members.into_iter().map(|(account, row)| (account, row.role)).collect();
                forward(&session, &Members::new(members), &typing);
            }
        }))
    }
}

/// Sends typing to the other members, if the one who types is one and they are few.
fn forward(session: &Session, members: &Members, typing: &Typing) {
    let may = members.get(&typing.account).is_some_and(|role| role.may_post());
    if may && members.len() <= limits::TYPING_MEMBERS as usize {
        session.edge.hub.typing(members, typing);
    }
}

/// Items in datagrams of at most `room` bytes. Only the last names the new version, so that the loss of it, or of all, is
/// noticed.
fn presence_datagrams(items: Vec<PresenceItem>, before: u64, version: u64, room: usize) -> Vec<Bytes> {
    let mut datagrams: Vec<Vec<PresenceItem>> = Vec::new();
    let mut bytes = usize::MAX;
    for item in items {
        let mut encoded = Vec::new();
        item.put(&mut encoded);
        let length = encoded.len() + 1;
        if bytes.saturating_add(length) > room {
            datagrams.push(Vec::new());
            bytes = PRESENCE_OVERHEAD;
        }
        bytes += length;
        if let Some(last) = datagrams.last_mut() {
            last.push(item);
        }
    }
    let count = datagrams.len();
    let frame = |(index, items): (usize, Vec<PresenceItem>)| {
        let version = if index + 1 == count { version } else { before };
        Presence { items: List::from(items), version }.to_frame().into()
    };
    datagrams.into_iter().enumerate().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rove_protocol::message::DatagramDown;
    use rove_protocol::registry::PresenceStatus;

    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_after_a_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let at_once = (0..1_000).filter(|_| bucket.take(start)).count();
        assert_eq!(at_once, 40);
        let in_a_second = (1..=1_000).filter(|ms| bucket.take(start + Duration::from_millis(*ms))).count();
        assert!((9..=11).contains(&in_a_second), "{in_a_second}");
    }

    #[test]
    fn the_presence_of_a_full_watch_set_fits_datagrams_and_only_the_last_names_the_version() {
        let item = |id: usize| PresenceItem {
            account: AccountId(u64::MAX - id as u64),
            status: PresenceStatus::Online,
            incarnation: u64::MAX,
            version: u64::MAX,
            last_seen_ms: u64::MAX,
        };
        let items: Vec<_> = (0..limits::WATCHED_ACCOUNTS).map(item).collect();
        let datagrams = presence_datagrams(items, 3, 9, limits::DATAGRAM);
        assert!(datagrams.len() > 1 && datagrams.iter().all(|datagram| datagram.len() <= limits::DATAGRAM));
        let mut seen = Vec::new();
        for datagram in datagrams {
            for frame in datagram_frames(datagram).unwrap() {
                let Some(DatagramDown::Presence(presence)) = DatagramDown::decode(frame).unwrap() else { panic!() };
                seen.push((presence.items.len(), presence.version));
            }
        }
        assert_eq!(seen.iter().map(|(items, _)| items).sum::<usize>(), limits::WATCHED_ACCOUNTS);
        let (last, others) = seen.split_last().unwrap();
        assert!(last.1 == 9 && others.iter().all(|(_, version)| *version == 3));
        assert!(presence_datagrams(Vec::new(), 3, 9, limits::DATAGRAM).is_empty());
    }
}
