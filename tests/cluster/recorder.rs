//! The history, as it is written, and what is read off it meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rove_core::placement::ShardMap;
use rove_protocol::ids::{ConversationId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::registry::ErrorCode;
use rove_sim::checker::{Checker, Violation};
use rove_sim::history::{PostEnd, Record};
use tokio::time::Instant;

/// Conversation partitions of a cluster, as configured.
pub(crate) const PARTITIONS: u16 = 6;
/// What a post may be answered with here, where everybody may post what they post: it is taken, or to be tried again.
const ANSWERS: [ErrorCode; 5] =
    [ErrorCode::None, ErrorCode::Busy, ErrorCode::Unavailable, ErrorCode::GoingAway, ErrorCode::Gap];

/// What was counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    /// Posts that ended without being in the log, by what they were refused with.
    pub(crate) given_up: BTreeMap<ErrorCode, u64>,
    /// Answers to posts, by the node that gave them and by code. Most of what is refused is taken later.
    pub(crate) answers: BTreeMap<(u64, ErrorCode), u64>,
    pub(crate) arrived: u64,
    pub(crate) reads: u64,
    /// The longest time in which nothing was acknowledged on some partition, after its first post and before the end of the load.
    pub(crate) longest_silence: Duration,
}

impl Counts {
    /// Refusals after which nobody tries again, or should not have to: in words, with how often.
    pub(crate) fn wrong_refusals(&self) -> Vec<String> {
        let refused = self.answers.iter().filter(|((_, code), _)| !ANSWERS.contains(code));
        let refused = refused.map(|((node, code), count)| format!("node {node} refused {count} posts with {code}"));
        let given_up = self.given_up.iter().map(|(code, count)| format!("{count} posts were refused for good: {code}"));
        refused.chain(given_up).collect()
    }
}

/// A partition that was waited for takes posts again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// Since when: the same for all that one fault took the leader from.
    pub(crate) since: Instant,
    /// How long until a post that was sent after that was acknowledged.
    pub(crate) took: Duration,
}

struct Inner {
    checker: Option<Checker>,
    counts: Counts,
    /// The highest seq that anybody knows of.
    known: BTreeMap<ConversationId, Seq>,
    sent_at: HashMap<(ConversationId, WriterId, PostNo), Instant>,
    last_acknowledged: BTreeMap<PartitionId, Instant>,
    /// Since when a post is waited for that is sent and acknowledged after that.
    waiting: Vec<(PartitionId, Instant)>,
    recovered: Vec<Recovery>,
    quiet: bool,
    calls: u64,
}

/// Writes down what happens, in the order in which it is told.
pub(crate) struct Recorder {
    begun: Instant,
    inner: Mutex<Inner>,
}

/// Where a conversation lives.
pub(crate) fn partition(conversation: ConversationId) -> PartitionId {
    ShardMap::even(PARTITIONS).of_conversation(conversation)
}

impl Default for Recorder {
    fn default() -> Self {
        let inner = Inner {
            checker: Some(Checker::default()),
            counts: Counts::default(),
            known: BTreeMap::new(),
            sent_at: HashMap::new(),
            last_acknowledged: BTreeMap::new(),
            waiting: Vec::new(),
            recovered: Vec::new(),
            quiet: false,
            calls: 0,
        };
        Self { begun: Instant::now(), inner: Mutex::new(inner) }
    }
}

impl Recorder {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// This happened, now.
    pub(crate) fn record(&self, record: &Record) {
        self.with(|inner| {
            let at = Instant::now();
            inner.note(record, at);
            let at_us = u64::try_from((at - self.begun).as_micros()).unwrap_or(u64::MAX);
            if let Some(checker) = &mut inner.checker {
                checker.observe(at_us, record);
            }
        });
    }

    /// A node has answered a post.
    pub(crate) fn answered(&self, node: u64, code: ErrorCode) {
        self.with(|inner| *inner.counts.answers.entry((node, code)).or_default() += 1);
    }

    /// How often a node has answered a post with this.
    pub(crate) fn answers(&self, node: u64, code: ErrorCode) -> u64 {
        self.with(|inner| inner.counts.answers.get(&(node, code)).copied().unwrap_or_default())
    }

    /// A post will never be in the log.
    pub(crate) fn given_up(&self, code: ErrorCode) {
        self.with(|inner| *inner.counts.given_up.entry(code).or_default() += 1);
    }

    /// Begins a linearizable read: its number, and what it must at least return.
    pub(crate) fn begin_read(&self, conversation: ConversationId) -> (u64, Seq) {
        let (call, floor) = self.with(|inner| {
            inner.calls += 1;
            (inner.calls, inner.known.get(&conversation).copied().unwrap_or_default())
        });
        self.record(&Record::ReadSent { call, conversation });
        (call, floor)
    }

    /// The highest seq of a conversation that anybody was told of.
    pub(crate) fn known(&self, conversation: ConversationId) -> Seq {
        self.with(|inner| inner.known.get(&conversation).copied().unwrap_or_default())
    }

    /// From now on a post of each of these partitions is waited for.
    pub(crate) fn wait_for(&self, partitions: &[PartitionId]) {
        let now = Instant::now();
        self.with(|inner| inner.waiting.extend(partitions.iter().map(|partition| (*partition, now))));
    }

    /// Whether every partition that was waited for has taken a post.
    pub(crate) fn nothing_waits(&self) -> bool {
        self.with(|inner| inner.waiting.is_empty())
    }

    /// Stops measuring silence: the load ends.
    pub(crate) fn be_quiet(&self) {
        self.with(|inner| {
            inner.close_silences(Instant::now());
            inner.quiet = true;
        });
    }

    pub(crate) fn counts(&self) -> Counts {
        self.with(|inner| inner.counts.clone())
    }

    /// The partitions that were waited for and take posts again.
    pub(crate) fn recovered(&self) -> Vec<Recovery> {
        self.with(|inner| inner.recovered.clone())
    }

    /// Forgets what was measured after the first `keep`: it was no recovery.
    pub(crate) fn forget_recovered(&self, keep: usize) {
        self.with(|inner| inner.recovered.truncate(keep));
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing more will happen: what must not have been.
    pub(crate) fn judge(&self) -> Vec<Violation> {
        self.with(|inner| inner.checker.take().map(Checker::finish).unwrap_or_default())
    }
}

impl Inner {
    fn note(&mut self, record: &Record, at: Instant) {
        match record {
            Record::PostSent { conversation, writer, post_no, .. } => {
                self.sent_at.insert((*conversation, *writer, *post_no), at);
            }
            Record::PostEnded { conversation, writer, post_no, end, .. } => {
                let sent = self.sent_at.remove(&(*conversation, *writer, *post_no));
                if let PostEnd::Posted(seq) = end {
                    self.know(*conversation, *seq);
                    self.acknowledged(partition(*conversation), sent, at);
                }
            }
            Record::Arrived { .. } => self.counts.arrived += 1,
            Record::ReadEnded { head: Some(_), .. } => self.counts.reads += 1,
            _ => {}
        }
    }

    fn know(&mut self, conversation: ConversationId, seq: Seq) {
        let known = self.known.entry(conversation).or_default();
        *known = (*known).max(seq);
    }

    fn acknowledged(&mut self, partition: PartitionId, sent: Option<Instant>, at: Instant) {
        self.counts.acknowledged += 1;
        if let Some(before) = self.last_acknowledged.insert(partition, at).filter(|_| !self.quiet) {
            self.counts.longest_silence = self.counts.longest_silence.max(at - before);
        }
        let recovered = &mut self.recovered;
        self.waiting.retain(|(waited_for, since)| {
            let answered = *waited_for == partition && sent.is_some_and(|sent| sent >= *since);
            if answered {
                recovered.push(Recovery { since: *since, took: at - *since });
            }
            !answered
        });
    }

    fn close_silences(&mut self, now: Instant) {
        let longest = self.last_acknowledged.values().map(|last| now - *last).max().unwrap_or_default();
        self.counts.longest_silence = self.counts.longest_silence.max(longest);
    }
}
