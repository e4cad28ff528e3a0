//! Fan-out: what the log says reaches the sessions (D14).
//!
//! The state writer calls [`EffectSink::publish`] with what one round did. An event is encoded once, into the ring of its
//! conversation if somebody has it open; the sessions of members that are online get a mark in their dirty sets. Nothing
//! is queued for anybody and nothing is written here: streams copy and read what they have room for. Each session is
//! woken once a round.
//!
//! **The order that inboxes rely on.** A device keeps one cursor a partition, the largest message id it has been told of
//! (D10), so a line may go out only when every event with a smaller id in that partition has left its mark. Therefore a
//! round first marks, then raises [`Hub::published`], then wakes; and an inbox first reads that, then takes its dirty set,
//! then reads the rows, and puts back what turns out to be newer.
//!
//! Members that are not in the cache are read from the store, here, on the state writer's thread: applying the event has
//! just read the rows beside them. It happens only while somebody is connected, and once a conversation until it leaves
//! the cache.

mod live;
mod members;
mod presence;
mod registry;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use rove_core::command::Effect;
use rove_core::fanout::{PullThreshold, audience};
use rove_core::placement::ShardMap;
use rove_core::presence::PresenceTable;
use rove_protocol::frame::put_frame;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, PartitionId, Seq, SessionId};
use rove_protocol::registry::{ErrorCode, FrameType, Role, StreamMode};
use tokio::sync::Notify;

use super::stats::EdgeStats;
use crate::node::{DirectorySink, EffectSink};
use members::MemberCache;
use registry::Registry;

pub use presence::PresencePeers;

pub(super) use live::Live;
pub(super) use members::Members;
pub(super) use subscriber::{Link, Subscriber};

/// Reads the present members of a conversation; `None` if that failed.
pub(super) type LoadMembers =
    Box<dyn Fn(PartitionId, ConversationId) -> Option<BTreeMap<AccountId, Role>> + Send + Sync>;

/// What the fan-out is told at start.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Conversation partitions of the cluster.
    pub partitions: u16,
    /// How often clients in the foreground send a heartbeat. A lease of presence lasts three of them.
    pub heartbeat: Duration,
    /// From when on a conversation's events are fetched instead of sent.
    pub pull: PullThreshold,
}

struct Slot {
    live: Arc<Live>,
    streams: usize,
}

/// Fan-out, presence and the registry of sessions. Made before the node, whose sink it is.
pub struct Hub {
    lives: Mutex<HashMap<ConversationId, Slot>>,
    members: Mutex<MemberCache>,
    registry: RwLock<Registry>,
    /// By partition: the largest message id whose round has left all its marks.
    published: Box<[AtomicU64]>,
    presence: Mutex<PresenceTable>,
    peers: OnceLock<Arc<dyn PresencePeers>>,
    /// The other nodes are to be told of something.
    presence_news: Notify,
    load_members: OnceLock<LoadMembers>,
    /// Which conversations are in a partition; nobody has one open before that is known.
    shards: OnceLock<ShardMap>,
    pull: PullThreshold,
    heartbeat: Duration,
    sessions: AtomicU64,
    stats: Arc<EdgeStats>,
    started: Instant,
    started_ms: u64,
}

impl Hub {
    /// A hub without sessions.
    pub fn new(config: &HubConfig) -> Arc<Self> {
        let started_ms =
            SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let heartbeat_ms = u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX);
        Arc::new(Self {
            lives: Mutex::default(),
            members: Mutex::new(MemberCache::new(members::CACHED_MEMBERSHIPS)),
            registry: RwLock::default(),
            published: (0..=config.partitions).map(|_| AtomicU64::new(0)).collect(),
            // The start of the process is what rises when the node starts.
            presence: Mutex::new(PresenceTable::new(started_ms, heartbeat_ms)),
            peers: OnceLock::new(),
            presence_news: Notify::new(),
            load_members: OnceLock::new(),
            shards: OnceLock::new(),
            pull: config.pull,
            heartbeat: config.heartbeat,
            sessions: AtomicU64::new(0),
            stats: Arc::default(),
            started: Instant::now(),
            started_ms,
        })
    }

    /// The counters of the edge.
    pub fn stats(&self) -> &Arc<EdgeStats> {
        &self.stats
    }

    /// Accounts that have a session in the foreground at this node.
    pub fn online(&self) -> usize {
        self.presence.lock().online()
    }

    /// Now, in milliseconds of the Unix epoch, but never going back.
    pub(super) fn now_ms(&self) -> u64 {
        self.started_ms.saturating_add(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How often clients send a heartbeat.
    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Where conversations are, and where members are read. Only the first call counts.
    pub(super) fn attach(&self, shards: ShardMap, load: LoadMembers) {
        let _ = self.shards.set(shards);
        let _ = self.load_members.set(load);
    }

    /// A number for a new session.
    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A session is authenticated. The device's older session is closed. The device may have been revoked since its secret
    /// was checked: whoever registers looks again afterwards.
    pub(super) fn register(&self, subscriber: &Arc<Subscriber>) {
        let older = self.registry.write().add(subscriber);
        if let Some(older) = older {
            older.link.close(ErrorCode::Replaced, "a newer session of this device");
            self.goodbye(older.account, older.session);
        }
    }

    /// A session is over.
    pub(super) fn unregister(&self, subscriber: &Subscriber) {
        self.registry.write().remove(subscriber);
        self.presence.lock().unwatch(subscriber.session);
    }

    /// The largest message id of the partition whose marks are all there.
    pub(super) fn published(&self, partition: PartitionId) -> MessageId {
        MessageId(self.published.get(usize::from(partition.0)).map_or(0, |id| id.load(Ordering::Acquire)))
    }

    /// At least this is published: what was in the store when nothing had been published yet.
    pub(super) fn raise(&self, partition: PartitionId, id: MessageId) {
        if let Some(published) = self.published.get(usize::from(partition.0)) {
            published.fetch_max(id.0, Ordering::AcqRel);
        }
    }

    /// The tail of a conversation, for as long as the guard lives.
    pub(super) fn open(self: &Arc<Self>, conversation: ConversationId) -> OpenLive {
        let mut lives = self.lives.lock();
        let slot = lives.entry(conversation).or_insert_with(|| Slot { live: Arc::new(Live::new()), streams: 0 });
        slot.streams += 1;
        OpenLive { hub: self.clone(), conversation, live: slot.live.clone() }
    }

    /// The members of a conversation, from the cache or the store.
    pub(super) fn members(&self, partition: PartitionId, conversation: ConversationId) -> Option<Members> {
        let mut cache = self.members.lock();
        if let Some(members) = cache.get(conversation) {
            return Some(members);
        }
        EdgeStats::add(&self.stats.member_loads, 1);
        let members = self.load_members.get()?(partition, conversation)?;
        Some(cache.insert(conversation, members))
    }

    /// The members of a conversation if they are in the cache.
    pub(super) fn cached_members(&self, conversation: ConversationId) -> Option<Members> {
        self.members.lock().get(conversation)
    }

    /// How a conversation that is opened now has its events sent.
    pub(super) fn mode(&self, partition: PartitionId, conversation: ConversationId, member_count: u32) -> StreamMode {
        if member_count <= self.pull.members {
            return StreamMode::Live;
        }
        let Some(members) = self.members(partition, conversation) else { return StreamMode::Live };
        let mut active = 0;
        audience(&*members, &self.registry.read().accounts, &mut |_| active += 1);
        self.pull.mode(member_count, active)
    }

    fn live(&self, conversation: ConversationId) -> Option<Arc<Live>> {
        self.lives.lock().get(&conversation).map(|slot| slot.live.clone())
    }
}

/// What one round touched.
#[derive(Default)]
struct Round {
    newest: u64,
    changed: BTreeSet<ConversationId>,
    lives: BTreeMap<ConversationId, Arc<Live>>,
    /// The seq of the last event of each conversation, for the change of members that follows it.
    seqs: BTreeMap<ConversationId, Seq>,
    woken: BTreeMap<SessionId, Arc<Subscriber>>,
}

impl Round {
    fn live(&mut self, hub: &Hub, conversation: ConversationId) -> Option<&Arc<Live>> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.lives.entry(conversation) {
            vacant.insert(hub.live(conversation)?);
        }
        self.lives.get(&conversation)
    }

    fn mark(&mut self, subscriber: &Arc<Subscriber>, conversation: ConversationId) {
        if subscriber.mark(conversation) {
            self.woken.entry(subscriber.session).or_insert_with(|| subscriber.clone());
        }
    }
}

impl EffectSink for Hub {
    fn publish(&self, partition: PartitionId, effects: &[Effect]) {
        let registry = self.registry.read();
        let mut round = Round::default();
        for effect in effects {
            match effect {
                Effect::Answer { .. } => {}
                Effect::Event { conversation, seq, message_id, body } => {
                    round.newest = round.newest.max(message_id.0);
                    round.changed.insert(*conversation);
                    round.seqs.insert(*conversation, *seq);
                    if let Some(live) = round.live(self, *conversation) {
                        let mut frame = Vec::with_capacity(body.len() + 8);
                        put_frame(FrameType::Event, body, &mut frame);
                        live.push(*seq, frame.into());
                    }
                }
                Effect::Members { conversation, changes } => {
                    self.members.lock().change(*conversation, changes);
                    let seq = round.seqs.get(conversation).copied().unwrap_or_default();
                    if let Some(live) = round.live(self, *conversation) {
                        live.members(seq, changes);
                    }
                    // Who was taken out is no member any more, and has to be told all the same.
                    for (account, _) in changes {
                        registry.of(*account).iter().for_each(|session| round.mark(session, *conversation));
                    }
                }
                Effect::Read { conversation, account, read } => {
                    if let Some(live) = round.live(self, *conversation) {
                        live.mark(*account, *read, *read);
                    }
                    registry.of(*account).iter().for_each(|session| round.mark(session, *conversation));
                }
            }
        }
        if !registry.is_empty() {
            for conversation in std::mem::take(&mut round.changed) {
                let Some(members) = self.members(partition, conversation) else { continue };
                audience(&*members, &registry.accounts, &mut |account| {
                    registry.of(account).iter().for_each(|session| round.mark(session, conversation));
                });
            }
        }
        drop(registry);
        // In this order: see the top of the file.
        self.raise(partition, MessageId(round.newest));
        round.lives.values().for_each(|live| live.wake());
        round.woken.values().for_each(|subscriber| subscriber.inbox_wake.notify_one());
    }

    fn reset(&self, partition: PartitionId, last_hi: u64) {
        // Who was let in or taken out meanwhile is not known: they are read again.
        *self.members.lock() = MemberCache::new(members::CACHED_MEMBERSHIPS);
        let lives: Vec<Arc<Live>> = {
            let mut lives = self.lives.lock();
            let jumped =
                |id: &ConversationId| self.shards.get().is_some_and(|shards| shards.of_conversation(*id) == partition);
            lives.extract_if(|id, _| jumped(id)).map(|(_, slot)| slot.live).collect()
        };
        // What is opened from here on is opened on the new state.
        for live in lives {
            live.end();
        }
        let registry = self.registry.read();
        for subscriber in registry.all() {
            subscriber.mark_all();
        }
        // In this order: see the top of the file.
        self.raise(partition, last_id(last_hi));
        registry.all().for_each(|subscriber| subscriber.inbox_wake.notify_one());
    }
}

/// The largest message id with this time part.
pub(super) fn last_id(last_hi: u64) -> MessageId {
    let shard_bits = MessageId::SHARD_BITS;
    MessageId((last_hi << shard_bits) | ((1 << shard_bits) - 1))
}

impl DirectorySink for Hub {
    fn device_revoked(&self, device: DeviceId) {
        let session = self.registry.read().of_device(device).cloned();
        if let Some(session) = session {
            session.link.close(ErrorCode::Revoked, "the device was revoked, or its account suspended");
            self.goodbye(session.account, session.session);
        }
    }

    fn devices(&self) -> Vec<DeviceId> {
        self.registry.read().all().map(|session| session.device).collect()
    }
}

/// A conversation that is open on a stream.
pub(super) struct OpenLive {
    hub: Arc<Hub>,
    conversation: ConversationId,
    live: Arc<Live>,
}

impl OpenLive {
    /// A member holds, or has read, more than before: the others are told.
    pub(crate) fn mark_and_wake(&self, account: AccountId, delivered: Seq, read: Seq) {
        if self.live.mark(account, delivered, read) {
            self.live.wake();
        }
    }
}

impl std::ops::Deref for OpenLive {
    type Target = Live;
    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for OpenLive {
    fn drop(&mut self) {
        let mut lives = self.hub.lives.lock();
        // There may be another one since the partition jumped.
        if let Some(slot) = lives.get_mut(&self.conversation).filter(|slot| Arc::ptr_eq(&slot.live, &self.live)) {
            slot.streams -= 1;
            if slot.streams == 0 {
                lives.remove(&self.conversation);
            }
        }
    }
}

#[cfg(test)]
mod tests;
