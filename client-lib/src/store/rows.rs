//! What the store holds.

use std::fmt;

use bytes::Bytes;
use rove_client_core::outbox::Item;
use rove_client_core::sync::Held;
use rove_protocol::ids::{AccountId, ConversationId, DeviceId, MessageId, PartitionId, PostNo, Seq, WriterId};
use rove_protocol::registry::{ConversationKind, ErrorCode, Role};

use crate::types::AccountInfo;

/// Who the store belongs to. One row.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AccountRow {
    /// `rove://…`, as given when logging in.
    pub(crate) server: String,
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) handle: String,
    pub(crate) secret: Bytes,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

/// Without the secrets: they are not for logs.
impl fmt::Debug for AccountRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountRow")
            .field("server", &self.server)
            .field("account", &self.account)
            .field("device", &self.device)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

/// One conversation, without its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConversationRow {
    pub(crate) id: ConversationId,
    pub(crate) partition: PartitionId,
    pub(crate) kind: ConversationKind,
    pub(crate) role: Role,
    pub(crate) title: String,
    pub(crate) peer: AccountId,
    pub(crate) last_message_id: MessageId,
    pub(crate) read: Seq,
    pub(crate) member_count: u32,
    pub(crate) held: Held,
    /// The newest event known, held or not; empty: none.
    pub(crate) last_event: Bytes,
}

impl ConversationRow {
    pub(crate) fn new(id: ConversationId) -> Self {
        Self {
            id,
            partition: PartitionId(0),
            kind: ConversationKind::Group,
            role: Role::Member,
            title: String::new(),
            peer: AccountId(0),
            last_message_id: MessageId(0),
            read: Seq(0),
            member_count: 0,
            held: Held::default(),
            last_event: Bytes::new(),
        }
    }
}

/// One post of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxRow {
    pub(crate) conversation: ConversationId,
    pub(crate) item: Item,
    pub(crate) refused: Option<ErrorCode>,
}

/// Everything that is kept in memory while the client runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    pub(crate) account: Option<AccountRow>,
    pub(crate) writer: WriterId,
    /// A writer was minted since the store looked like a copy.
    pub(crate) was_copy: bool,
    pub(crate) conversations: Vec<ConversationRow>,
    /// In the order they were queued.
    pub(crate) outbox: Vec<OutboxRow>,
    pub(crate) numbers: Vec<(ConversationId, WriterId, PostNo)>,
    pub(crate) inbox: Vec<(PartitionId, MessageId)>,
    pub(crate) names: Vec<AccountInfo>,
    /// The nodes of the cluster, best first.
    pub(crate) nodes: Vec<String>,
    /// The highest local id ever given.
    pub(crate) last_local: u64,
}
