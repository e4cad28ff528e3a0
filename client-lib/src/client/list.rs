//! The list of conversations.

use std::fmt;

use rove_client_core::timeline::{self, Source};
use rove_protocol::ids::AccountId;
use rove_protocol::registry::ErrorCode;
use tokio::sync::watch;

use super::Client;
use crate::Error;
use crate::model::Conv;
use crate::types::{AccountInfo, ConnectionState, ConversationSummary, Version};

/// The list of conversations, as it changes.
#[derive(Clone)]
pub struct Conversations {
    pub(super) client: Client,
    pub(super) version: watch::Receiver<Version>,
}

impl fmt::Debug for Conversations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversations").field("version", &*self.version.borrow()).finish_non_exhaustive()
    }
}

impl Conversations {
    /// The list now, the conversation with the newest event first.
    pub fn list(&self) -> Vec<ConversationSummary> {
        let state = self.client.inner.state.lock();
        let me = state.account.account;
        let mut list: Vec<_> = state.conversations.values().collect();
        list.sort_by_key(|conv| std::cmp::Reverse((conv.row.last_message_id, conv.row.id)));
        let peer = |account: AccountId| {
            let nameless = || AccountInfo { account, handle: String::new(), name: String::new() };
            (account.0 > 0).then(|| state.names.get(&account).cloned().unwrap_or_else(nameless))
        };
        list.into_iter().map(|conv| summary(conv, me, peer(conv.row.peer))).collect()
    }

    /// Waits until the list may have changed since this was last called (or made).
    ///
    /// # Errors
    /// [`Error::Closed`] once the client is closed.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let mut connection = self.client.inner.connection.subscribe();
        let closed = async {
            match connection.wait_for(|state| matches!(state, ConnectionState::Closed { .. })).await.as_deref() {
                Ok(ConnectionState::Closed { code }) => *code,
                _ => ErrorCode::None,
            }
        };
        tokio::select! {
            biased;
            changed = self.version.changed() => changed.map_err(|_| Error::Closed(ErrorCode::None)),
            code = closed => Err(Error::Closed(code)),
        }
    }
}

fn summary(conv: &Conv, me: AccountId, peer: Option<AccountInfo>) -> ConversationSummary {
    let row = &conv.row;
    let last = conv.last.as_ref().and_then(|event| {
        let events = std::slice::from_ref(event);
        timeline::fold(&Source { me, events, references: &[], unavailable: &[], pending: &[] }).pop()
    });
    ConversationSummary {
        id: row.id,
        kind: row.kind,
        role: row.role,
        title: row.title.clone(),
        peer,
        head: row.held.head,
        read: row.read,
        unread: row.held.head.0.saturating_sub(row.read.0),
        last,
        queued: conv.outbox.queued(),
    }
}
