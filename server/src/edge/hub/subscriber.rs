//! What the fan-out knows of one session: what to wake it for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parking_lot::Mutex;
use rove_core::fanout::Held;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, SessionId};
use rove_protocol::registry::ErrorCode;
use tokio::sync::Notify;

/// Conversations that may wait to be told to one session. A session with more than this has been away for long: it looks
/// through all of its conversations instead.
const DIRTY: usize = 1_024;

/// What the fan-out needs of a connection.
pub(crate) trait Link: Send + Sync {
    /// Closes it at once.
    fn close(&self, code: ErrorCode, reason: &str);
    /// Sends a datagram, or drops it.
    fn datagram(&self, datagram: Bytes);
}

impl Link for rove_quic::Connection {
    fn close(&self, code: ErrorCode, reason: &str) {
        rove_protocol::transport::Connection::close(self, code, reason);
    }
    fn datagram(&self, datagram: Bytes) {
        rove_protocol::transport::Connection::send_datagram(self, datagram);
    }
}

/// What has changed in an inbox and has not been told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// Which conversations; latest wins, so each once.
    pub(crate) conversations: BTreeSet<ConversationId>,
    /// Too many to name: everything after the cursors.
    pub(crate) all: bool,
    /// Counts the changes.
    pub(crate) version: u64,
}

#[derive(Debug, Default)]
struct Inbox {
    listening: bool,
    dirty: Dirty,
}

/// One authenticated session.
pub(crate) struct Subscriber {
    pub(crate) session: SessionId,
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) link: Box<dyn Link>,
    /// The inbox has something to tell.
    pub(crate) inbox_wake: Notify,
    /// Somebody watched has come or gone.
    pub(crate) presence_wake: Notify,
    inbox: Mutex<Inbox>,
    open: Mutex<BTreeMap<ConversationId, (Held, usize)>>,
}

impl Subscriber {
    pub(crate) fn new(session: SessionId, account: AccountId, device: DeviceId, link: Box<dyn Link>) -> Self {
        Self {
            session,
            account,
            device,
            link,
            inbox_wake: Notify::new(),
            presence_wake: Notify::new(),
            inbox: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// From here on changes are kept for the inbox stream.
    pub(crate) fn listen(&self) {
        *self.inbox.lock() = Inbox { listening: true, dirty: Dirty::default() };
    }

    /// The inbox stream is gone.
    pub(crate) fn stop_listening(&self) {
        *self.inbox.lock() = Inbox::default();
    }

    /// A line has to be sent (anew). False if nobody listens.
    pub(crate) fn mark(&self, conversation: ConversationId) -> bool {
        let inbox = &mut *self.inbox.lock();
        if !inbox.listening {
            return false;
        }
        inbox.dirty.version += 1;
        if !inbox.dirty.all && inbox.dirty.conversations.insert(conversation) && inbox.dirty.conversations.len() > DIRTY
        {
            inbox.dirty.conversations = BTreeSet::new();
            inbox.dirty.all = true;
        }
        true
    }

    /// Every line has to be looked at. Does nothing if nobody listens.
    pub(crate) fn mark_all(&self) {
        let inbox = &mut *self.inbox.lock();
        if inbox.listening {
            inbox.dirty.version += 1;
            inbox.dirty.conversations = BTreeSet::new();
            inbox.dirty.all = true;
        }
    }

    /// Everything that has changed since the last call.
    pub(crate) fn take_dirty(&self) -> Dirty {
        let inbox = &mut *self.inbox.lock();
        let version = inbox.dirty.version;
        std::mem::replace(&mut inbox.dirty, Dirty { version, ..Dirty::default() })
    }

    /// Counts the changes of the inbox.
    pub(crate) fn inbox_version(&self) -> u64 {
        self.inbox.lock().dirty.version
    }

    /// A conversation stream is open.
    pub(crate) fn opened(&self, conversation: ConversationId, held: Held) {
        let mut open = self.open.lock();
        let (how, streams) = open.entry(conversation).or_insert((held, 0));
        *how = held;
        *streams += 1;
    }

    /// A conversation stream is gone.
    pub(crate) fn closed(&self, conversation: ConversationId) {
        let mut open = self.open.lock();
        if let Some((_, streams)) = open.get_mut(&conversation) {
            *streams -= 1;
            if *streams == 0 {
                open.remove(&conversation);
            }
        }
    }

    /// How the session has a conversation.
    pub(crate) fn held(&self, conversation: ConversationId) -> Held {
        self.open.lock().get(&conversation).map_or(Held::Closed, |(held, _)| *held)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// What was done to a connection.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) closed: Mutex<Option<ErrorCode>>,
        pub(crate) datagrams: Mutex<Vec<Bytes>>,
    }

    impl Link for Arc<Fake> {
        fn close(&self, code: ErrorCode, _reason: &str) {
            *self.closed.lock() = Some(code);
        }
        fn datagram(&self, datagram: Bytes) {
            self.datagrams.lock().push(datagram);
        }
    }

    pub(crate) fn subscriber(id: u64, account: u64, device: u64) -> (Arc<Subscriber>, Arc<Fake>) {
        let fake = Arc::new(Fake::default());
        let link = Box::new(fake.clone());
        (Arc::new(Subscriber::new(SessionId(id), AccountId(account), DeviceId(device), link)), fake)
    }

    fn conversation(id: u16) -> ConversationId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        ConversationId(bytes)
    }

    #[test]
    fn a_conversation_that_changes_often_is_told_once() {
        let (subscriber, _) = subscriber(1, 1, 1);
        assert!(!subscriber.mark(conversation(1)), "nobody listens");
        subscriber.listen();
        for _ in 0..5 {
            assert!(subscriber.mark(conversation(1)));
        }
        let dirty = subscriber.take_dirty();
        assert_eq!((dirty.conversations.len(), dirty.all, dirty.version), (1, false, 5));
        assert_eq!(subscriber.take_dirty(), Dirty { version: 5, ..Dirty::default() });
    }

    #[test]
    fn what_waits_is_bounded() {
        let (subscriber, _) = subscriber(1, 1, 1);
        subscriber.listen();
        for id in 0..5_000 {
            subscriber.mark(conversation(id));
        }
        let dirty = subscriber.take_dirty();
        assert!(dirty.all && dirty.conversations.len() <= DIRTY);
        assert!(!subscriber.take_dirty().all);
    }

    #[test]
    fn a_conversation_open_twice_is_open_until_both_streams_are_gone() {
        let (subscriber, _) = subscriber(1, 1, 1);
        subscriber.opened(conversation(1), Held::Live);
        subscriber.opened(conversation(1), Held::Live);
        subscriber.closed(conversation(1));
        assert_eq!(subscriber.held(conversation(1)), Held::Live);
        subscriber.closed(conversation(1));
        assert_eq!(subscriber.held(conversation(1)), Held::Closed);
    }
}
